// Memory that was given back stays as it is: calls of libmemkv over RDMA that end in the middle, by deadlines
// of 1 to 50 ms, by a client that is closed, by servers that die or stand still and by connections that are
// lost. Whoever runs it sees to the latter two (guest/rdma_guard.py).
//
// Gets: as soon as a call returned, whatever it returned, its targets are filled with a pattern, and are
// looked at for two seconds: no byte may change. Bytes of gets that succeeded must be those of the value.
// Puts: as soon as the call returned, the memory of the value is filled with a pattern. What the store has
// two seconds later, asked for over TCP, is the old value or the whole new one, the latter if the put
// succeeded.
//
//   rdma_guard VIA DIRECT DEVICE SECONDS SEED
//
// VIA: the server as the calls under test reach it; DIRECT: the same for TCP. MEMKV_AUTH_KEY is the key.
// Prints `ready` when the values are stored, and at the end one line of JSON; ends with 0 when all held.
#include "client/client.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <random>
#include <string>
#include <sys/mman.h>
#include <thread>
#include <unistd.h>
#include <vector>

using namespace memkv::client;

namespace {

using clock_type = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr std::size_t page_bytes = 4096;
constexpr std::size_t value_bytes_max = 256U << 10U;
constexpr std::size_t sizes[] = {32U << 10U, 64U << 10U, 128U << 10U, value_bytes_max};
constexpr std::uint32_t mtu_bytes = 256; // many packets: transfers take longer than all the rest of a call
constexpr std::size_t get_keys = 16;
constexpr std::size_t get_slots = 256;
constexpr std::size_t put_slots = 64;
constexpr std::size_t items_max = 8;
constexpr milliseconds rest{2000}; // for so long memory is looked at
constexpr std::uint32_t deadline_ms_short = 50;
constexpr std::uint32_t deadline_ms_warm = 5'000;
constexpr std::uint32_t deadline_ms_tcp = 10'000;
constexpr milliseconds patience{120'000}; // for a call over TCP, tried again and again
constexpr unsigned closed_one_in = 25;    // calls during which the client is destroyed
constexpr std::uint64_t untouched = 0x1111111111111111;

std::uint64_t seed = 0;

// At once, from any thread, past everything that runs.
[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "rdma_guard: %s (seed %llu)\n", what.c_str(), static_cast<unsigned long long>(seed));
  std::fflush(nullptr);
  std::_Exit(1);
}

/// Values by number: pieces of one random block, with the number in front. Made fast, and no two alike.
class value_maker {
public:
  explicit value_maker(std::uint64_t with) : words_(value_bytes_max / sizeof(std::uint64_t) + shifts) {
    std::mt19937_64 random(with);
    std::generate(words_.begin(), words_.end(), [&] { return random(); });
  }
  void make(std::uint64_t number, std::span<std::byte> target) const {
    std::memcpy(target.data(), &number, sizeof(number));
    std::memcpy(target.data() + sizeof(number), from(number), target.size() - sizeof(number));
  }
  [[nodiscard]] bool is(std::uint64_t number, std::span<const std::byte> found) const {
    return std::memcmp(found.data(), &number, sizeof(number)) == 0 &&
           std::memcmp(found.data() + sizeof(number), from(number), found.size() - sizeof(number)) == 0;
  }

private:
  static constexpr std::size_t shifts = 4096;
  [[nodiscard]] const std::uint64_t* from(std::uint64_t number) const {
    return words_.data() + number % shifts;
  }
  std::vector<std::uint64_t> words_;
};

/// Memory that is lent to calls and, when it came back, filled with a pattern and looked at.
class guarded_memory {
public:
  guarded_memory(std::size_t slots, std::uint64_t with) : slots_(slots), random_(with) {
    void* const made = ::mmap(nullptr, slots * value_bytes_max, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (made == MAP_FAILED) {
      fail("no memory");
    }
    all_ = {static_cast<std::byte*>(made), slots * value_bytes_max};
  }
  [[nodiscard]] std::span<std::byte> all() const { return all_; }

  /// Waits until the rest of some memory is over.
  std::span<std::byte> take(std::size_t bytes) {
    for (;;) {
      for (std::size_t index = 0; index < slots_.size(); ++index) {
        slot& it = slots_[index];
        if (!it.lent && it.resting && clock_type::now() - it.since >= rest) {
          check(index);
          it.resting = false;
        }
        if (!it.lent && !it.resting) {
          it.lent = true;
          return all_.subspan(index * value_bytes_max, bytes);
        }
      }
      check_all();
      std::this_thread::sleep_for(milliseconds(5));
    }
  }

  void give_back(std::span<std::byte> memory) {
    const auto index = static_cast<std::size_t>(memory.data() - all_.data()) / value_bytes_max;
    slot& it = slots_[index];
    it.pattern = std::byte(0x80U | (random_() & 0x7FU));
    it.bytes = memory.size();
    std::memset(memory.data(), static_cast<int>(it.pattern), memory.size());
    it.since = clock_type::now();
    it.lent = false;
    it.resting = true;
  }

  void check_all() const {
    for (std::size_t index = 0; index < slots_.size(); ++index) {
      check(index);
    }
  }

private:
  struct slot {
    std::byte pattern{};
    std::size_t bytes = 0;
    clock_type::time_point since;
    bool lent = false;
    bool resting = false;
  };

  void check(std::size_t index) const {
    const slot& it = slots_[index];
    if (it.lent || !it.resting) {
      return;
    }
    const std::byte* const begin = all_.data() + index * value_bytes_max;
    if (begin[0] == it.pattern && std::memcmp(begin, begin + 1, it.bytes - 1) == 0) {
      return;
    }
    const auto changed = std::find_if(begin, begin + it.bytes, [&](std::byte b) { return b != it.pattern; });
    fail("byte " + std::to_string(changed - begin) + " of " + std::to_string(it.bytes) +
         " changed after its call had returned");
  }

  std::vector<slot> slots_;
  std::mt19937_64 random_;
  std::span<std::byte> all_;
};

struct tally {
  std::uint64_t calls = 0;
  std::map<std::string, std::uint64_t> codes;
  std::uint64_t midway = 0;          // a part of the bytes was in the target when the call returned
  std::uint64_t midway_deadline = 0; // of them, because of the deadline
  std::uint64_t calls_begun = 0;     // by a deadline, with bytes of items that did not succeed in place
  std::uint64_t clients_closed = 0;
  std::uint64_t closed_midway = 0;
  std::uint64_t closed_by_deadline = 0; // connections, with something on its way
  std::uint64_t lost = 0;               // connections
  std::uint64_t rdma_bytes = 0;
  std::uint64_t old_values = 0;
  std::uint64_t new_values = 0;
  std::uint64_t new_unsaid = 0; // of them, of puts that did not say so
  std::uint64_t forgotten = 0;
};

std::unique_ptr<client> make_client(const std::string& server, transport_choice transport,
                                    const std::string& device) {
  options wanted;
  if (const status loaded = load_options([](const char* name) { return std::getenv(name); }, wanted);
      !loaded.ok()) {
    fail(loaded.text);
  }
  wanted.servers = {server};
  wanted.transport = transport;
  wanted.num_connections = 1;
  wanted.log = [](std::string_view) {};
  if (transport == transport_choice::rdma) {
    wanted.rdma_devices = {device};
    wanted.mtu = mtu_bytes;
  }
  status problem;
  std::unique_ptr<client> made = client::make(std::move(wanted), problem);
  if (made == nullptr) {
    fail(problem.text);
  }
  return made;
}

/// Over TCP, tried again until the server is there and has answered.
class other_way {
public:
  other_way(const std::string& server, const value_maker& values)
      : kv_(make_client(server, transport_choice::tcp, {})), values_(values), buffer_(value_bytes_max) {}

  void put(const std::string& key, std::uint64_t number, std::size_t bytes) {
    const std::span<std::byte> value(buffer_.data(), bytes);
    values_.make(number, value);
    retry([&] { return kv_->put(key, value, false, {deadline_ms_tcp}).code == errc::ok; }, "put");
  }
  /// Nothing: the store has no such block.
  std::span<const std::byte> get(const std::string& key) {
    item_result found;
    retry(
        [&] {
          found = kv_->get(key, buffer_, {deadline_ms_tcp});
          return found.code == errc::ok || (found.code == errc::not_found && found.cause == errc::ok);
        },
        "get");
    return {buffer_.data(), found.code == errc::ok ? static_cast<std::size_t>(found.length) : 0};
  }
  void remove(const std::string& key) { static_cast<void>(kv_->remove(key, {deadline_ms_tcp})); }

private:
  template <class Try>
  void retry(Try done, const char* what) {
    const clock_type::time_point end = clock_type::now() + patience;
    while (!done()) {
      if (clock_type::now() > end) {
        fail(std::string("a ") + what + " over TCP did not succeed in two minutes");
      }
      std::this_thread::sleep_for(milliseconds(100));
    }
  }

  std::unique_ptr<client> kv_;
  const value_maker& values_;
  std::vector<std::byte> buffer_;
};

/// What both kinds of threads have: a client that is made anew from time to time, and its memory.
class worker {
public:
  worker(char** words, const value_maker& values, std::size_t slots, std::uint64_t with)
      : via_(words[1]), device_(words[3]), values(values), memory(slots, with), direct(words[2], values),
        random(with) {
    renew();
  }

  /// Another client. The memory of the one before stays registered until the next time.
  void renew() {
    close();
    if (const status released = before_.release(); !released.ok()) {
      fail("memory of a client that is gone is in use: " + released.text);
    }
    before_ = std::move(registered_);
    kv = make_client(via_, transport_choice::rdma, device_);
    if (const status done = kv->register_memory(memory.all(), registered_); !done.ok()) {
      fail(done.text);
    }
  }

  /// Ends the client, and what is open.
  void close() {
    if (kv != nullptr) {
      const counters seen = kv->count();
      told.closed_by_deadline += seen.connections_closed_by_deadline;
      told.lost += seen.connections_lost;
      told.rdma_bytes += seen.rdma_value_bytes;
    }
    kv.reset();
  }

  [[nodiscard]] std::uint64_t one_of(std::uint64_t count) { return random() % count; }
  [[nodiscard]] call_options deadline() {
    return {static_cast<std::uint32_t>(1 + one_of(deadline_ms_short))};
  }
  void saw(const item_result& result) {
    ++told.codes[std::string(name(result.code)) +
                 (result.cause == errc::ok ? "" : "/" + std::string(name(result.cause)))];
  }

private:
  std::string via_;
  std::string device_;
  registered_memory before_;
  registered_memory registered_;

public:
  const value_maker& values;
  guarded_memory memory;
  std::unique_ptr<client> kv;
  other_way direct;
  std::mt19937_64 random;
  tally told;
};

std::string get_key(std::uint64_t number) {
  return "guard/get/" + std::to_string(number);
}

std::size_t get_bytes(std::uint64_t number) {
  return sizes[number % std::size(sizes)];
}

/// One call of gets, and what became of its targets.
class get_call {
public:
  get_call(worker& with, std::size_t items, bool smallest) : with_(with), results(items) {
    for (std::size_t index = 0; index < items; ++index) {
      numbers_.push_back(smallest ? 0 : (first_ + index) % get_keys);
      keys_.push_back(get_key(numbers_.back()));
      targets_.push_back(with.memory.take(get_bytes(numbers_.back())));
      std::memset(targets_.back().data(), static_cast<int>(untouched & 0xFFU), targets_.back().size());
    }
    for (std::size_t index = 0; index < items; ++index) {
      gets.push_back({keys_[index], targets_[index]});
    }
  }

  /// Only a word of each page of what did not succeed is looked at before it is filled: no time is lost.
  void over(bool closed) {
    std::size_t begun = 0;
    bool late = false; // because of the deadline
    for (std::size_t index = 0; index < gets.size(); ++index) {
      const std::span<std::byte> target = targets_[index];
      const item_result& result = results[index];
      if (result.code == errc::pending) {
        fail("a call returned and an item is pending");
      }
      late = late || result.code == errc::deadline_exceeded;
      if (result.code == errc::ok) {
        if (result.length != target.size() || !with_.values.is(numbers_[index], target)) {
          fail("a get succeeded with wrong bytes");
        }
      } else {
        std::size_t written = 0; // pages
        for (std::size_t at = 0; at < target.size(); at += page_bytes) {
          written += std::memcmp(target.data() + at, &untouched, sizeof(untouched)) != 0 ? 1 : 0;
        }
        begun += written;
        if (written != 0 && written != target.size() / page_bytes) {
          ++with_.told.midway;
          with_.told.midway_deadline += result.code == errc::deadline_exceeded ? 1 : 0;
          with_.told.closed_midway += closed ? 1 : 0;
        }
      }
      with_.memory.give_back(target);
      with_.saw(result);
    }
    ++with_.told.calls;
    with_.told.calls_begun += begun != 0 && late ? 1 : 0;
  }

  [[nodiscard]] bool succeeded() const {
    return std::all_of(results.begin(), results.end(), [](const auto& it) { return it.code == errc::ok; });
  }

private:
  worker& with_;
  std::vector<std::uint64_t> numbers_;
  std::vector<std::string> keys_;
  std::vector<std::span<std::byte>> targets_;
  std::uint64_t first_ = with_.random();

public:
  std::vector<get_item> gets;
  std::vector<item_result> results;
};

void get_until(worker& with, clock_type::time_point end) {
  bool warm = false; // whether there should be a session
  while (clock_type::now() < end) {
    if (!warm) {
      get_call call(with, 1, true);
      with.kv->get(call.gets, call.results, {deadline_ms_warm});
      call.over(false);
      warm = call.succeeded();
      if (!warm) {
        std::this_thread::sleep_for(milliseconds(50));
        const item_result& result = call.results.front();
        if (result.code == errc::not_found && result.cause == errc::ok) {
          fail("the store forgot a value that nobody changed");
        }
        continue;
      }
    }
    get_call call(with, 1 + with.one_of(items_max), false);
    if (with.one_of(closed_one_in) == 0) {
      if (!with.kv->submit_get(call.gets, call.results, completion::call([] {}), {deadline_ms_warm}).ok()) {
        fail("a get was refused");
      }
      std::this_thread::sleep_for(milliseconds(with.one_of(deadline_ms_short)));
      with.close(); // ends the call
      call.over(true);
      ++with.told.clients_closed;
      with.renew();
      warm = false;
    } else {
      with.kv->get(call.gets, call.results, with.deadline());
      call.over(false);
      warm = call.succeeded();
    }
  }
}

/// A put of which the store is asked later.
struct open_put {
  std::uint64_t number; // of the old value; the new one is the next
  std::size_t bytes;
  errc code;
  clock_type::time_point since;
};

std::string put_key(std::uint64_t number) {
  return "guard/put/" + std::to_string(number);
}

void look_at(worker& with, const open_put& it) {
  const std::string key = put_key(it.number);
  const std::span<const std::byte> found = with.direct.get(key);
  if (found.empty()) {
    ++with.told.forgotten;
  } else if (found.size() != it.bytes) {
    fail("the store has a value of another length");
  } else if (with.values.is(it.number + 1, found)) {
    ++with.told.new_values;
    with.told.new_unsaid += it.code == errc::ok ? 0 : 1;
  } else if (!with.values.is(it.number, found)) {
    fail("the store has a value that nobody put, after a put that ended with " + std::string(name(it.code)));
  } else if (it.code == errc::ok) {
    fail("a put succeeded and the store has the old value");
  } else {
    ++with.told.old_values;
  }
  with.direct.remove(key);
}

void put_until(worker& with, clock_type::time_point end) {
  std::deque<open_put> open;
  bool warm = false;
  for (std::uint64_t number = 1'000'000; clock_type::now() < end; number += 2) {
    const std::size_t bytes = sizes[with.one_of(std::size(sizes))];
    const std::string key = put_key(number);
    with.direct.put(key, number, bytes);
    while (!warm && clock_type::now() < end) {
      const std::span<std::byte> small = with.memory.take(sizes[0]);
      with.values.make(number, small);
      warm = with.kv->put("guard/warm", small, false, {deadline_ms_warm}).code == errc::ok;
      with.memory.give_back(small);
      if (!warm) {
        std::this_thread::sleep_for(milliseconds(50));
      }
    }
    const std::span<std::byte> value = with.memory.take(bytes);
    with.values.make(number + 1, value);
    const item_result result = with.kv->put(key, value, false, with.deadline());
    with.memory.give_back(value);
    with.saw(result);
    ++with.told.calls;
    warm = result.code == errc::ok;
    open.push_back({number, bytes, result.code, clock_type::now()});
    while (!open.empty() && clock_type::now() - open.front().since >= rest) {
      look_at(with, open.front());
      open.pop_front();
    }
  }
  std::this_thread::sleep_for(rest);
  for (const open_put& it : open) {
    look_at(with, it);
  }
}

void print(const char* what, const tally& told) {
  std::printf("\"%s\": {\"calls\": %llu, \"codes\": {", what, static_cast<unsigned long long>(told.calls));
  const char* between = "";
  for (const auto& [code, count] : told.codes) {
    std::printf("%s\"%s\": %llu", between, code.c_str(), static_cast<unsigned long long>(count));
    between = ", ";
  }
  std::printf("}");
  const std::pair<const char*, std::uint64_t> counts[] = {
      {"midway", told.midway},
      {"midway_deadline", told.midway_deadline},
      {"calls_begun", told.calls_begun},
      {"clients_closed", told.clients_closed},
      {"closed_midway", told.closed_midway},
      {"connections_closed_by_deadline", told.closed_by_deadline},
      {"connections_lost", told.lost},
      {"rdma_bytes", told.rdma_bytes},
      {"old_values", told.old_values},
      {"new_values", told.new_values},
      {"new_unsaid", told.new_unsaid},
      {"forgotten", told.forgotten},
  };
  for (const auto& [label, count] : counts) {
    std::printf(", \"%s\": %llu", label, static_cast<unsigned long long>(count));
  }
  std::printf("}");
}

} // namespace

int main(int count, char** words) {
  if (count != 6) {
    fail("usage: rdma_guard VIA DIRECT DEVICE SECONDS SEED");
  }
  seed = std::strtoull(words[5], nullptr, 10);
  const value_maker values(seed);
  {
    other_way direct(words[2], values);
    for (std::uint64_t number = 0; number < get_keys; ++number) {
      direct.put(get_key(number), number, get_bytes(number));
    }
  }
  worker getter(words, values, get_slots, seed + 1);
  worker putter(words, values, put_slots, seed + 2);
  std::printf("ready\n");
  std::fflush(stdout);

  const clock_type::time_point end = clock_type::now() + std::chrono::seconds(std::atoi(words[4]));
  std::thread putting([&] { put_until(putter, end); });
  get_until(getter, end);
  putting.join();
  std::this_thread::sleep_for(rest);
  getter.memory.check_all();
  putter.memory.check_all();
  getter.renew(); // counts
  putter.renew();
  std::printf("{");
  print("gets", getter.told);
  std::printf(", ");
  print("puts", putter.told);
  std::printf("}\n");
  return 0;
}
