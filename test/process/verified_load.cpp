#include "test/process/verified_load.hpp"

#include "test/process/server_process.hpp"
#include "wire/auth.hpp"

#include <algorithm>
#include <array>
#include <deque>
#include <random>

namespace memkv::test {

using client::errc;

std::unique_ptr<client::client> connect_to(std::uint16_t port, std::uint32_t deadline_ms) {
  client::options wanted;
  wanted.servers = {"127.0.0.1:" + std::to_string(port)};
  wanted.auth_key = wire::shared_key::parse(process_key_hex);
  wanted.transport = client::transport_choice::tcp;
  wanted.connect_timeout_ms = 10'000;
  if (deadline_ms != 0) {
    wanted.deadline_ms = deadline_ms;
    wanted.connect_timeout_ms = std::min(wanted.connect_timeout_ms, deadline_ms);
  }
  wanted.log = [](std::string_view) {};
  client::status problem;
  return client::client::make(std::move(wanted), problem);
}

/// One thread's part of the load: it alone changes the keys that are its number modulo the workers.
class verified_load::worker {
public:
  worker(verified_load& load, std::uint32_t number)
      : load_(load), log_(load.log_), number_(number), chance_(load.settings_.seed * 1'000 + number),
        wanted_(value_bytes_max), found_(value_bytes_max + 1) {}

  void run() {
    while (!load_.stop_ && going_ && step()) {
      ++load_.operations_;
      if (const auto pause = load_.settings_.pause; pause.count() > 0)
        pause_for(pause);
    }
    load_.add(counts_);
  }

private:
  using time_point = miss_judge::time_point;

  std::uint64_t below(std::uint64_t end) { return chance_() % end; }

  void begin() { begun_ = std::chrono::steady_clock::now(); }

  /// After each request, whatever came of it.
  void end() {
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun_;
    counts_.longest_seconds = std::max(counts_.longest_seconds, took.count());
  }

  /// Whether a miss of a block that should be there is in order.
  bool forgives(std::uint32_t key) {
    if (log_.may_forget())
      return true;
    if (load_.settings_.judge == nullptr ||
        !load_.settings_.judge->may_miss(key, load_.acknowledged_at(key), begun_))
      return false;
    ++counts_.forgiven;
    return true;
  }

  void acknowledge(std::uint32_t key, const version& which) {
    log_.acknowledge(key, which);
    ++counts_.judged;
    load_.acknowledged_[key] = std::chrono::steady_clock::now().time_since_epoch().count();
  }

  /// Reads a key whose change had no answer long ago: what is seen now is what counts from here on.
  bool settle_one() {
    if (unsettled_.empty() ||
        std::chrono::steady_clock::now() - unsettled_.front().second < load_.settings_.unsettled)
      return false;
    const auto key = unsettled_.front().first;
    unsettled_.pop_front();
    begin();
    const auto result = load_.client_->get(outside_log::name(key), found_);
    end();
    const bool missed = result.code == errc::not_found && result.cause == errc::ok;
    if (result.code != errc::ok && !missed) {
      note_failure(result.code == errc::not_found ? result.cause : result.code);
      unsettled_.emplace_back(key, std::chrono::steady_clock::now());
      return true;
    }
    ++counts_.judged;
    if (missed && forgives(key)) {
      // It may be away for a moment only: nothing is known before it was deleted.
      const auto removed = log_.begin_remove(key);
      const auto gone = load_.client_->remove(outside_log::name(key));
      if (gone.code == errc::ok || (gone.code == errc::not_found && gone.cause == errc::ok)) {
        acknowledge(key, removed);
        static_cast<void>(log_.settle(key, false, {}));
        ++counts_.settled;
      } else {
        unsettled_.emplace_back(key, std::chrono::steady_clock::now());
      }
      return true;
    }
    if (auto problem = log_.settle(key, !missed, {found_.data(), missed ? 0 : result.length});
        !problem.empty())
      load_.report("a change without an answer, read afterwards: " + problem);
    ++counts_.settled;
    load_.acknowledged_[key] = std::chrono::steady_clock::now().time_since_epoch().count();
    return true;
  }

  void note_failure(errc code) {
    ++counts_.failures[std::string{client::name(code)}];
    // An answer that no server may give, whatever is done to it.
    if (code == errc::bad_reply || code == errc::bad_request)
      load_.report("a request failed with " + std::string{client::name(code)});
  }

  std::uint32_t own_key() {
    const auto workers = load_.settings_.workers;
    return static_cast<std::uint32_t>(below(log_.keys() / workers)) * workers + number_;
  }

  /// An own key that is not lost; the number of keys when there is none.
  std::uint32_t usable_key() {
    for (int tries = 0; tries < 64; ++tries)
      if (const auto key = own_key(); !log_.is_lost(key))
        return key;
    return log_.keys();
  }

  /// A key keeps its class, so that the space that all keys need has a bound.
  std::size_t some_size(std::uint32_t key) {
    constexpr std::array<std::size_t, 6> edges{4'194'304, 4'194'305, 8'388'608,
                                               1'048'577, 4'128'768, 9'000'000};
    switch (key / load_.settings_.workers % 20) {
    case 0:
    case 1:
      return below(3) == 0 ? edges[below(edges.size())] : 1'000'000 + below(8'000'001);
    case 2:
    case 3:
    case 4:
    case 5:
      return 65'536 + below(983'041);
    case 6:
    case 7:
    case 8:
    case 9:
    case 10:
      return 4'096 + below(61'441);
    default:
      return below(4) == 0 ? 1 + below(16) : 1 + below(4'096);
    }
  }

  bool step() {
    if (settle_one())
      return true;
    const auto reads = load_.settings_.read_percent;
    if (below(100) < reads)
      return below(6) == 0 ? ask() : read(static_cast<std::uint32_t>(below(log_.keys())));
    switch (below(10)) {
    case 0:
      return remove(1);
    case 1:
      return remove(2 + below(8));
    case 2:
    case 3:
      return put_batch();
    case 4:
      return put_one(true);
    default:
      return put_one(false);
    }
  }

  /// A request failed without an answer that says what happened to the key.
  void lost(std::uint32_t key, errc code, const char* what) {
    log_.lose(key);
    unsettled_.emplace_back(key, std::chrono::steady_clock::now());
    failed(key, code, what);
  }

  void failed(std::uint32_t key, errc code, const char* what) {
    if (load_.settings_.judge != nullptr) {
      note_failure(code);
      return;
    }
    going_ = false;
    if (!load_.trouble_)
      load_.report(outside_log::name(key) + ": " + what +
                   " failed although nothing was done to the server: " + std::string{client::name(code)});
  }

  void note_put(std::uint32_t key, const version& put, const version& before, errc code, bool if_absent) {
    if (code == errc::ok) {
      if (if_absent && before.is_put && !forgives(key))
        load_.report(outside_log::name(key) + ": was there, and a put-if-absent replaced it");
      acknowledge(key, put);
    } else if (code == errc::already_exists && if_absent) {
      log_.withdraw(key, put);
      if (!before.is_put)
        load_.report(outside_log::name(key) + ": was deleted, and a put-if-absent found it");
    } else if (code == errc::no_space && load_.settings_.may_be_full) {
      log_.withdraw(key, put);
      ++load_.refused_;
    } else {
      lost(key, code, "a put");
    }
  }

  bool put_one(bool if_absent) {
    const auto key = usable_key();
    if (key == log_.keys())
      return false;
    const auto before = log_.acknowledged(key);
    const auto put = log_.begin_put(key, some_size(key));
    const std::span<std::byte> value{wanted_.data(), put.bytes};
    fill(key, put, value);
    begin();
    const auto result = load_.client_->put(outside_log::name(key), value, if_absent);
    end();
    note_put(key, put, before, result.code, if_absent);
    return true;
  }

  /// Different own keys that are not lost.
  std::vector<std::uint32_t> some_keys(std::size_t count) {
    std::vector<std::uint32_t> keys;
    for (std::size_t each = 0; each < count; ++each)
      if (const auto key = usable_key(); key < log_.keys() && std::count(keys.begin(), keys.end(), key) == 0)
        keys.push_back(key);
    return keys;
  }

  bool put_batch() {
    std::vector<std::string> names;
    std::vector<version> puts;
    std::vector<version> before;
    std::vector<client::put_item> items;
    auto keys = some_keys(4 + below(20));
    std::size_t at = 0;
    for (std::size_t each = 0; each < keys.size(); ++each) {
      const auto bytes = some_size(keys[each]);
      if (at + bytes > wanted_.size()) {
        keys.resize(each);
        break;
      }
      names.push_back(outside_log::name(keys[each]));
      before.push_back(log_.acknowledged(keys[each]));
      puts.push_back(log_.begin_put(keys[each], bytes));
      fill(keys[each], puts.back(), {wanted_.data() + at, bytes});
      at += bytes;
    }
    if (keys.empty())
      return true;
    at = 0;
    for (std::size_t each = 0; each < keys.size(); ++each) {
      client::put_item item;
      item.key = names[each];
      item.value = {wanted_.data() + at, puts[each].bytes};
      items.push_back(item);
      at += puts[each].bytes;
    }
    std::vector<client::item_result> results(items.size());
    begin();
    load_.client_->put(items, results);
    end();
    for (std::size_t each = 0; each < keys.size(); ++each)
      note_put(keys[each], puts[each], before[each], results[each].code, false);
    return true;
  }

  bool remove(std::size_t count) {
    const auto keys = some_keys(count);
    std::vector<std::string> names;
    std::vector<version> removes;
    std::vector<version> before;
    for (const auto key : keys) {
      names.push_back(outside_log::name(key));
      before.push_back(log_.acknowledged(key));
      removes.push_back(log_.begin_remove(key));
    }
    if (keys.empty())
      return false;
    const std::vector<std::string_view> views(names.begin(), names.end());
    std::vector<client::item_result> results(keys.size());
    begin();
    if (keys.size() == 1)
      results[0] = load_.client_->remove(views[0]);
    else
      load_.client_->remove(views, results);
    end();
    for (std::size_t each = 0; each < keys.size(); ++each) {
      const auto& result = results[each];
      const bool missed = result.code == errc::not_found && result.cause == errc::ok;
      if (result.code != errc::ok && !missed) {
        lost(keys[each], result.code == errc::not_found ? result.cause : result.code, "a delete");
        continue;
      }
      if (missed && before[each].is_put && !forgives(keys[each]))
        load_.report(names[each] + ": was there, and a delete did not find it");
      if (!missed && !before[each].is_put)
        load_.report(names[each] + ": was not there, and a delete found it");
      acknowledge(keys[each], removes[each]);
    }
    return true;
  }

  bool read(std::uint32_t key) {
    const auto since = log_.acknowledged(key);
    begin();
    const auto result = load_.client_->get(outside_log::name(key), found_);
    end();
    const bool missed = result.code == errc::not_found && result.cause == errc::ok;
    if (result.code != errc::ok && !missed) {
      failed(key, result.code == errc::not_found ? result.cause : result.code, "a get");
      return true;
    }
    ++counts_.judged;
    if (auto problem = log_.check_read(key, since, !missed, {found_.data(), result.length});
        !problem.empty() && !(missed && forgives(key)))
      load_.report("a get under load: " + problem);
    return true;
  }

  /// Are own keys there, as far as that is known?
  bool ask() {
    const auto keys = some_keys(8);
    if (keys.empty())
      return false;
    std::vector<std::string> names;
    for (const auto key : keys)
      names.push_back(outside_log::name(key));
    const std::vector<std::string_view> views(names.begin(), names.end());
    std::vector<client::item_result> results(keys.size());
    begin();
    load_.client_->exists(views, results);
    end();
    for (std::size_t each = 0; each < keys.size(); ++each) {
      const auto& result = results[each];
      const bool missed = result.code == errc::not_found && result.cause == errc::ok;
      if (result.code != errc::ok && !missed) {
        failed(keys[each], result.code == errc::not_found ? result.cause : result.code, "an exists");
        continue;
      }
      const auto right = log_.acknowledged(keys[each]);
      ++counts_.judged;
      if (missed && right.is_put && !forgives(keys[each]))
        load_.report(names[each] + ": is there, and exists says no");
      if (!missed && (!right.is_put || result.value_length != right.bytes))
        load_.report(names[each] + ": exists says " + std::to_string(result.value_length) +
                     " bytes instead of " + (right.is_put ? std::to_string(right.bytes) : std::string{"no"}));
    }
    return true;
  }

  verified_load& load_;
  outside_log& log_;
  std::uint32_t number_;
  std::mt19937_64 chance_;
  std::vector<std::byte> wanted_;
  std::vector<std::byte> found_;
  bool going_ = true;
  time_point begun_{};
  std::deque<std::pair<std::uint32_t, time_point>> unsettled_; // own keys that are lost, and since when
  trouble_counts counts_;
};

verified_load::verified_load(outside_log& log, std::uint16_t port, load_settings settings)
    : log_(log), settings_(settings), client_(connect_to(port, settings.deadline_ms)),
      acknowledged_(log.keys()) {
  for (std::uint32_t number = 0; number < settings_.workers; ++number)
    threads_.emplace_back([this, number] { worker{*this, number}.run(); });
}

verified_load::~verified_load() {
  stop();
}

void verified_load::stop() {
  stop_ = true;
  for (auto& each : threads_)
    each.join();
  threads_.clear();
}

void verified_load::report(std::string sentence) {
  std::lock_guard guard{problems_lock_};
  problems_.push_back(std::move(sentence));
}

std::string verified_load::first_problem() {
  std::lock_guard guard{problems_lock_};
  return problems_.empty() ? std::string{} : problems_.front();
}

void verified_load::add(const trouble_counts& counts) {
  std::lock_guard guard{problems_lock_};
  counts_.judged += counts.judged;
  counts_.forgiven += counts.forgiven;
  counts_.settled += counts.settled;
  for (const auto& [name, count] : counts.failures)
    counts_.failures[name] += count;
  counts_.longest_seconds = std::max(counts_.longest_seconds, counts.longest_seconds);
}

std::vector<std::string> verify_all(outside_log& log, std::uint16_t port) {
  constexpr std::uint32_t readers = 2;
  const auto client = connect_to(port);
  std::mutex lock;
  std::vector<std::string> problems;
  std::vector<std::thread> threads;
  for (std::uint32_t reader = 0; reader < readers; ++reader)
    threads.emplace_back([&, reader] {
      std::vector<std::byte> found(value_bytes_max + 1);
      for (std::uint32_t key = reader; key < log.keys(); key += readers) {
        const auto result = client->get(outside_log::name(key), found);
        const bool missed = result.code == errc::not_found && result.cause == errc::ok;
        std::string problem;
        if (result.code != errc::ok && !missed)
          problem = outside_log::name(key) + ": a get failed: " +
                    std::string{client::name(result.code == errc::not_found ? result.cause : result.code)};
        else
          problem = log.settle(key, !missed, {found.data(), missed ? 0 : result.length});
        if (!problem.empty()) {
          std::lock_guard guard{lock};
          problems.push_back(std::move(problem));
        }
      }
    });
  for (auto& each : threads)
    each.join();
  return problems;
}

std::string remove_all(outside_log& log, std::uint16_t port) {
  const auto client = connect_to(port);
  for (std::uint32_t key = 0; key < log.keys(); ++key) {
    const auto removed = log.begin_remove(key);
    const auto result = client->remove(outside_log::name(key));
    if (result.code != errc::ok && (result.code != errc::not_found || result.cause != errc::ok))
      return outside_log::name(key) + ": a delete failed: " + std::string{client::name(result.code)};
    log.acknowledge(key, removed);
  }
  // Parts of striped values go a moment after their heads.
  client::server_stat stat;
  for (int tries = 0; tries < 200; ++tries) {
    stat = client->stat().at(0);
    if (stat.code == errc::ok && stat.blocks == 0 && stat.used_bytes == 0)
      return {};
    pause_for(std::chrono::milliseconds{25});
  }
  return "everything was deleted, and the store still holds " + std::to_string(stat.blocks) + " blocks and " +
         std::to_string(stat.used_bytes) + " bytes";
}

} // namespace memkv::test
