#include "test/crash/store_run.hpp"

#include "wire/bytes.hpp"
#include "wire/crc32c.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace memkv::crash {

using engine::errc;

namespace {
constexpr const char* tenant = "tenant";
constexpr int polls_max = 200'000;
} // namespace

std::vector<std::byte> bytes_of(content what) {
  const std::uint32_t length = length_of(what);
  std::vector<std::byte> bytes((length + 4095) / 4096 * 4096);
  sim::random noise(what);
  for (std::uint32_t at = 0; at + 8 <= length; at += 8)
    wire::store_le(bytes.data() + at, at == 0 ? what : noise.next());
  return bytes;
}

std::vector<std::uint32_t> sums_of(std::span<const std::byte> value) {
  std::vector<std::uint32_t> sums;
  for (std::size_t at = 0; at < value.size(); at += engine::chunk_bytes)
    sums.push_back(
        wire::crc32c(value.subspan(at, std::min<std::size_t>(engine::chunk_bytes, value.size() - at))));
  return sums;
}

std::vector<std::uint64_t> seeds(std::uint64_t usual) {
  if (const char* one = std::getenv("MEMKV_TEST_SEED"); one != nullptr)
    return {std::strtoull(one, nullptr, 10)};
  if (const char* many = std::getenv("MEMKV_TEST_SEEDS"); many != nullptr)
    usual = std::strtoull(many, nullptr, 10);
  std::vector<std::uint64_t> all;
  for (std::uint64_t seed = 1; seed <= usual; ++seed)
    all.push_back(seed);
  return all;
}

engine::key_id id_of(const std::string& key) {
  return wire::make_key_id(tenant, wire::as_bytes_view(key));
}

std::string problem_of(const store_run& run) {
  if (run.problems.empty())
    return {};
  return run.problems.front() + " [MEMKV_TEST_SEED=" + std::to_string(run.options.seed) + "]";
}

store_run::store_run(const run_options& given) : store_run(given, sim::image(given.size_bytes), {}) {}

store_run::store_run(const run_options& given, sim::image start, sim::model model)
    : options(given), world(given.seed), expected(std::move(model)) {
  sim::sim_options drive;
  drive.size_bytes = given.size_bytes;
  drive.delay_ticks_max = given.delay_ticks_max;
  drive.after_discard = given.after_discard;
  device = std::make_unique<sim::sim_device>(world, drive, std::move(start));
  store_options.identity.set_id.fill(std::byte{7});
  store_options.unit_bytes = given.unit_bytes;
  store_options.extent_bytes_max = given.extent_bytes_max;
  store_options.sync = given.sync;
  store_options.eviction = given.eviction;
  store_options.verify_on_read = given.verify;
  store_options.boot_id.fill(given.boot);
}

store_run::~store_run() {
  store.reset();
  device->close();
}

engine::status store_run::open() {
  evicted_seen_ = 0;
  return engine::drive_store::open(*device, store_options, time, store);
}

bool store_run::drive_until(const std::function<bool()>& done) {
  for (int i = 0; i < polls_max && !done(); ++i)
    store->poll(true);
  if (!done())
    problems.push_back("an operation was never answered");
  return done();
}

void store_run::note_evictions() {
  const std::uint64_t now = store->counters().evicted_blocks;
  expected.evicted_some(now - evicted_seen_);
  evicted_seen_ = now;
}

namespace {

struct running_put {
  std::vector<std::byte> value;
  std::vector<std::uint32_t> sums;
  std::function<void(errc)> done;
};

void begin(engine::drive_store& store, const std::string& key, content what, bool if_absent,
           std::function<void(errc)> done) {
  auto put = std::make_shared<running_put>();
  put->value = bytes_of(what);
  put->sums = sums_of(std::span(put->value).first(length_of(what)));
  put->done = std::move(done);
  engine::put_description description;
  description.id = id_of(key);
  description.name_space = tenant;
  description.key = wire::as_bytes_view(key);
  description.length = length_of(what);
  description.value_length = length_of(what);
  store.allocate(description, [&store, put, what, if_absent](errc result, const engine::reservation& space) {
    if (result != errc::ok) {
      put->done(result);
      return;
    }
    const std::uint64_t token = space.token;
    const auto commit = [&store, put, token, if_absent] {
      store.commit(token, put->sums, if_absent, 0, [put](errc ended, std::uint64_t) { put->done(ended); });
    };
    if ((what >> 24) % 2 != 0) {
      // Every other one is committed while its payload is still being written.
      store.write(token, 0, {put->value.data(), length_of(what)}, [put](errc) {});
      commit();
      return;
    }
    store.write(token, 0, {put->value.data(), length_of(what)}, [&store, put, token, commit](errc written) {
      if (written != errc::ok) {
        store.abandon(token);
        put->done(written);
        return;
      }
      commit();
    });
  });
}

/// Refusals after which nothing can have happened.
sim::model::outcome outcome_of(errc result) {
  switch (result) {
  case errc::ok:
    return sim::model::outcome::done;
  case errc::already_exists:
  case errc::no_space:
  case errc::busy:
  case errc::deadline_exceeded:
  case errc::cancelled:
    return sim::model::outcome::refused;
  default:
    return sim::model::outcome::unknown;
  }
}

} // namespace

void store_run::start_put(const std::string& key, content what) {
  const auto ticket = expected.begin_put(key, what);
  ++unanswered_;
  begin(*store, key, what, false, [this, ticket](errc result) {
    --unanswered_;
    expected.end(ticket, outcome_of(result));
  });
}

void store_run::start_erase(const std::string& key) {
  const auto ticket = expected.begin_delete(key);
  ++unanswered_;
  store->erase(id_of(key), 0, [this, ticket](errc result) {
    --unanswered_;
    // Not there is as good as removed.
    expected.end(ticket, result == errc::not_found ? sim::model::outcome::done : outcome_of(result));
  });
}

void store_run::poll_all() {
  (void)drive_until([this] { return unanswered_ == 0; });
}

errc store_run::put(const std::string& key, content what, bool if_absent) {
  const auto ticket = expected.begin_put(key, what);
  bool answered = false;
  errc answer = errc::cancelled;
  begin(*store, key, what, if_absent, [&](errc result) {
    answered = true;
    answer = result;
  });
  if (!drive_until([&] { return answered; }))
    return errc::cancelled;
  expected.end(ticket, outcome_of(answer));
  note_evictions();
  return answer;
}

errc store_run::erase(const std::string& key) {
  const auto ticket = expected.begin_delete(key);
  bool answered = false;
  errc answer = errc::cancelled;
  store->erase(id_of(key), 0, [&](errc result) {
    answered = true;
    answer = result;
  });
  if (!drive_until([&] { return answered; }))
    return errc::cancelled;
  expected.end(ticket, answer == errc::not_found ? sim::model::outcome::done : outcome_of(answer));
  return answer;
}

std::optional<content> store_run::get(const std::string& key) {
  note_evictions();
  if (damaged)
    expected.lost([](const std::string&) { return true; });
  const auto ticket = expected.begin_get(key);
  const auto answer = [&](std::optional<content> seen) {
    note_evictions();
    if (const std::string wrong = expected.end_get(ticket, seen); !wrong.empty())
      problems.push_back("get of " + key + ": " + wrong);
    return seen;
  };
  const auto pin = store->index().find_and_pin(id_of(key));
  if (!pin)
    return answer({});
  const std::uint32_t length = pin->value_length;
  std::vector<std::byte> into((length + 4095) / 4096 * 4096);
  std::vector<std::byte> got;
  bool answered = false;
  errc result = errc::cancelled;
  store->read(pin, tenant, wire::as_bytes_view(key), 0, length, into,
              [&](errc code, const engine::extent_view& view) {
                answered = true;
                result = code;
                for (const auto& piece : view.pieces)
                  got.insert(got.end(), piece.begin(), piece.end());
              });
  if (!drive_until([&] { return answered; }))
    return {};
  if (result == errc::corrupt || result == errc::not_found) {
    ++corrupt_reads;
    return answer({});
  }
  if (result != errc::ok) {
    expected.abandon_get(ticket);
    return {};
  }
  if (length == 0)
    return answer(content{0});
  const content seen = got.size() < 8 ? 0 : wire::load_le<std::uint64_t>(got.data());
  std::vector<std::byte> meant = bytes_of(seen);
  meant.resize(length_of(seen));
  if (meant != got) {
    problems.push_back("get of " + key + ": bytes that nobody put");
    expected.abandon_get(ticket);
    return {};
  }
  return answer(seen);
}

void store_run::get_all() {
  for (const std::string& key : expected.keys())
    (void)get(key);
}

engine::status store_run::close() {
  checkpoints = store->counters().checkpoints;
  return store->close();
}

void store_run::die(bool lossy) {
  store.reset();
  device->close();
  unanswered_ = 0;
  expected.crash(lossy);
}

} // namespace memkv::crash
