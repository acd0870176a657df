// The pool under everything at once: random transfers, clients that come, leave, die and withdraw their
// memory, requests that fail with any status, initiators that fall silent, deadlines that are too short.
//
// What must hold in each run: each transfer has one outcome; what is done moved the right bytes; a buffer is
// not touched after its outcome, nor a client's memory after the end of its session; everything ends.
// MEMKV_TEST_RUNS sets the number of runs (10,000 unless told otherwise; a million take some ten minutes, and
// the option -r 3600), MEMKV_TEST_SEED repeats one.
#include "machines.hpp"
#include "verbs/dci_scheduler.hpp"

#define CAF_SUITE dci_campaign
#include <caf/test/unit_test.hpp>

#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>

using namespace verbs_test;

namespace {

constexpr std::uint32_t cell_bytes = 96;
constexpr std::uint32_t cells = 4; // of a session, for placing; as many again are there to be fetched
constexpr std::uint32_t buffers = 12;
constexpr std::uint64_t ms = 1'000'000;

/// What happened at least once in the campaign.
struct probes {
  std::array<std::uint64_t, completion_status_last + 1> reports{};
  std::array<std::uint64_t, 5> results{};
  std::uint64_t transfers = 0;
  std::uint64_t broken = 0;
  std::uint64_t ended = 0;
  std::uint64_t ended_late = 0; // not at once
  std::uint64_t rebuilt = 0;
  std::uint64_t destroyed = 0;
  std::uint64_t late_effects = 0;
  std::uint64_t closed = 0;
};

struct session {
  machine* at = nullptr;
  std::unique_ptr<dc_target> target;
  client_id id = 0;
  std::uint8_t pattern = 0; // of what is fetched
  bool detached = false;
  bool ended = false;
  bool revoked = false;
  bool broken = false;
  std::array<bool, cells> cell_busy{};
  std::vector<std::byte> poison; // of the placing cells, once the session ended or the key was withdrawn
};

struct buffer {
  bool busy = false;
  std::uint64_t cookie = 0;
  std::size_t owner = 0; // session
  direction way = direction::place;
  std::uint32_t cell = 0;
  std::uint32_t length = 0;
  std::uint8_t value = 0; // all of it
};

class campaign {
public:
  campaign(std::uint64_t seed, probes& seen)
      : seen_(seen), state_(seed), network_(network_options(seed)), server_(network_, buffers * cell_bytes) {
    options_.initiators = 1 + chance(4);
    options_.sends_max = 1 + chance(8);
    options_.small_sends_max = chance(2) == 0 ? 0 : 1 + chance(16);
    options_.small_bytes_max = chance(600);
    options_.quota = 1 + chance(4);
    options_.signal_interval = 1 + chance(4);
    options_.quantum_bytes = 32 + chance(200);
    options_.cost_bytes_min = 1 + chance(64);
    options_.bytes_posted_max = 64 + chance(1000);
    options_.transfer_bytes_max = cell_bytes;
    options_.transfers_max = buffers;
    options_.transfers_client_max = 1 + chance(buffers);
    options_.clients_max = 16;
    options_.posted_ns_min = 20 * ms;
    options_.drain_ns_max = 15 * ms;
    options_.rebuild_ns_min = ms;
    must(dci_scheduler::create(*server_.device, options_, pool_));
    for (std::uint32_t number = 0; number < buffers; ++number) {
      refill(number);
    }
  }

  /// Empty when all held.
  std::string run() {
    for (int step = 0; step < 60 && wrong_.empty(); ++step) {
      act();
      advance();
    }
    finish();
    gather();
    return wrong_;
  }

private:
  static simulated_network_options network_options(std::uint64_t seed) {
    simulated_network_options options;
    options.seed = seed * 7 + 1;
    options.retry_ns = 3 * ms;
    options.faults_per_million = seed % 3 == 0 ? 0 : static_cast<std::uint32_t>(seed % 3) * 40'000;
    return options;
  }
  std::uint32_t chance(std::uint32_t bound) { // 0 to bound - 1
    std::uint64_t mixed = (state_ += 0x9E3779B97F4A7C15ULL);
    mixed = (mixed ^ (mixed >> 30U)) * 0xBF58476D1CE4E5B9ULL;
    mixed = (mixed ^ (mixed >> 27U)) * 0x94D049BB133111EBULL;
    return static_cast<std::uint32_t>((mixed ^ (mixed >> 31U)) % bound);
  }
  void wrong(const std::string& what) {
    if (wrong_.empty()) {
      wrong_ = what;
    }
  }
  void refill(std::uint32_t number) {
    buffers_[number].value = static_cast<std::uint8_t>(1 + chance(255));
    server_.fill(number * cell_bytes, cell_bytes, buffers_[number].value);
  }
  bool untouched(std::uint32_t number) const {
    return server_.holds(number * cell_bytes, cell_bytes, buffers_[number].value);
  }
  static std::byte* placing(session& one) { return one.at->memory.data() + cells * cell_bytes; }

  void act() {
    const std::uint32_t what = chance(100);
    if (sessions_.size() < 3 || (what < 5 && sessions_.size() < 10)) {
      attach();
    } else if (what < 80) {
      submit();
    } else if (what < 86) {
      detach(chance(static_cast<std::uint32_t>(sessions_.size())));
    } else if (what < 89) {
      revoke(sessions_[chance(static_cast<std::uint32_t>(sessions_.size()))]);
    } else if (what < 92) {
      network_.kill(*sessions_[chance(static_cast<std::uint32_t>(sessions_.size()))].at->device);
    } else if (what < 95) {
      network_.set_reachable(*sessions_[chance(static_cast<std::uint32_t>(sessions_.size()))].at->device,
                             chance(2) == 0);
    } else if (what < 99) {
      const auto numbers = pool_->queue_pair_numbers();
      if (!numbers.empty()) {
        network_.inject(numbers[chance(static_cast<std::uint32_t>(numbers.size()))], errors()[chance(15)],
                        chance(3));
      }
    } else {
      const auto numbers = pool_->queue_pair_numbers();
      if (!numbers.empty()) {
        network_.withhold_reports(numbers[chance(static_cast<std::uint32_t>(numbers.size()))]);
      }
    }
  }

  void attach() {
    session& made = sessions_.emplace_back();
    made.at = &hosts_.emplace_back(network_, 2 * cells * cell_bytes);
    made.pattern = static_cast<std::uint8_t>(1 + chance(255));
    made.at->fill(0, cells * cell_bytes, made.pattern);
    must(made.at->device->create_dc_target(sessions_.size(), made.target));
    must(pool_->attach(made.at->device->self(), made.target->number(), made.target->key(), made.id));
  }

  void submit() {
    for (std::uint32_t times = 1 + chance(4); times > 0; --times) {
      const std::size_t owner = chance(static_cast<std::uint32_t>(sessions_.size()));
      const std::uint32_t number = chance(buffers);
      const std::uint32_t cell = chance(cells);
      session& to = sessions_[owner];
      buffer& from = buffers_[number];
      if (from.busy || to.detached) {
        continue;
      }
      const direction way = chance(2) == 0 ? direction::fetch : direction::place;
      if (way == direction::place && to.cell_busy[cell]) {
        continue;
      }
      transfer one;
      one.cookie = ++cookie_last_ << 8U | number;
      one.way = way;
      const std::uint32_t length = 1 + chance(cell_bytes);
      one.local = server_.range(number * cell_bytes, length);
      one.remote_address =
          address_of(to.at->memory.data()) + (way == direction::place ? cells + cell : cell) * cell_bytes;
      one.rkey = rkeys_of(to);
      one.deadline_ns = network_.now_ns() + (chance(4) == 0 ? chance(40) * ms : 10'000 * ms);
      const status taken = pool_->submit(to.id, one);
      if (!taken.ok()) {
        if (taken.code != errc::queue_full && !(taken.code == errc::wrong_state && to.broken)) {
          wrong("a transfer was refused: " + taken.text);
        }
        continue;
      }
      from = {true, one.cookie, owner, way, cell, length, from.value};
      to.cell_busy[cell] = to.cell_busy[cell] || way == direction::place;
      ++seen_.transfers;
    }
  }
  std::uint32_t rkeys_of(session& one) {
    if (one.at->region != nullptr) {
      return one.at->region->rkey();
    }
    return 1 + chance(1000);
  }

  void detach(std::size_t index) {
    session& leaving = sessions_[index];
    if (leaving.detached) {
      return;
    }
    leaving.detached = true;
    must(pool_->detach(leaving.id, outcomes_));
    const bool at_once = !outcomes_.empty() && outcomes_.back().kind == outcome::what::session_ended;
    seen_.ended_late += at_once ? 0 : 1;
    take_outcomes();
  }

  void revoke(session& one) {
    if (one.at->region == nullptr) {
      return;
    }
    one.at->region.reset();
    one.revoked = true;
    poison(one);
  }
  void poison(session& one) {
    std::memset(placing(one), static_cast<int>(chance(256)), cells * cell_bytes);
    one.poison.assign(placing(one), placing(one) + cells * cell_bytes);
  }

  void advance() {
    switch (chance(6)) {
    case 0:
      network_.advance(1 + chance(20'000'000));
      break;
    case 1:
      network_.advance(chance(100'000));
      break;
    default:
      for (std::uint32_t steps = chance(8); steps > 0; --steps) {
        network_.step();
      }
    }
    pool_->run(network_.now_ns(), outcomes_);
    take_outcomes();
  }

  void take_outcomes() {
    for (const outcome& one : outcomes_) {
      const auto owner = std::find_if(sessions_.begin(), sessions_.end(),
                                      [&](const session& any) { return any.id == one.client; });
      if (owner == sessions_.end() || owner->ended) {
        wrong("an outcome for a session that is over");
        continue;
      }
      if (one.kind == outcome::what::session_broken) {
        if (owner->broken) {
          wrong("a session broke twice");
        }
        owner->broken = true;
        ++seen_.broken;
      } else if (one.kind == outcome::what::session_ended) {
        if (!owner->detached && !closing_) {
          wrong("a session ended that nobody ended");
        }
        owner->ended = true;
        ++seen_.ended;
        const auto index = static_cast<std::size_t>(owner - sessions_.begin());
        if (std::any_of(buffers_.begin(), buffers_.end(),
                        [&](const buffer& any) { return any.busy && any.owner == index; })) {
          wrong("a session ended before its transfers");
        }
        poison(*owner);
      } else {
        take_transfer(one, *owner);
      }
    }
    outcomes_.clear();
  }

  void take_transfer(const outcome& one, session& owner) {
    const auto number = static_cast<std::uint32_t>(one.cookie & 0xFFU);
    buffer& back = buffers_[number];
    if (!back.busy || back.cookie != one.cookie || &sessions_[back.owner] != &owner) {
      wrong("an outcome for a transfer that has none to come");
      return;
    }
    ++seen_.results[static_cast<std::size_t>(one.result)];
    const std::byte* const local = server_.memory.data() + number * cell_bytes;
    if (network_.in_use(local, cell_bytes)) {
      wrong("a buffer was given back that the device still has");
    }
    if (one.result == transfer_result::done) {
      if (back.way == direction::fetch) {
        if (!server_.holds(number * cell_bytes, back.length, owner.pattern)) {
          wrong("a fetch is done and its bytes are wrong");
        }
      } else if (!owner.revoked &&
                 std::memcmp(placing(owner) + back.cell * cell_bytes, local, back.length) != 0) {
        wrong("a placement is done and its bytes are wrong");
      }
    }
    if (back.way == direction::place && !untouched(number)) {
      wrong("a placement changed its own buffer");
    }
    if (back.way == direction::place) {
      owner.cell_busy[back.cell] = false;
    }
    back.busy = false;
    refill(number);
  }

  void finish() {
    if (chance(10) == 0) {
      closing_ = true;
      ++seen_.closed;
      pool_->close(outcomes_);
      take_outcomes();
    } else {
      for (std::size_t index = 0; index < sessions_.size(); ++index) {
        detach(index);
      }
      for (int round = 0; round < 2000 && pool_->statistics().clients != 0 && wrong_.empty(); ++round) {
        network_.advance(10 * ms);
        pool_->run(network_.now_ns(), outcomes_);
        take_outcomes();
      }
    }
    network_.settle();
    const dci_statistics left = pool_->statistics();
    if (left.clients != 0 || left.queued != 0 || left.posted != 0) {
      wrong("something did not end");
    }
    for (std::uint32_t number = 0; number < buffers; ++number) {
      if (buffers_[number].busy) {
        wrong("a transfer has no outcome");
      } else if (!untouched(number)) {
        wrong("a buffer was touched after its outcome");
      }
    }
    for (session& one : sessions_) {
      if (!one.poison.empty() && std::memcmp(placing(one), one.poison.data(), one.poison.size()) != 0) {
        wrong("a client's memory was touched after the end of its session, or of its key");
      }
      if (!one.at->holds(0, cells * cell_bytes, one.pattern)) {
        wrong("memory that is only fetched from was written");
      }
    }
    if (!network_.misuse().empty()) {
      wrong(network_.misuse().front());
    }
  }

  void gather() {
    const dci_statistics left = pool_->statistics();
    for (std::size_t code = 0; code < left.reports.size(); ++code) {
      seen_.reports[code] += left.reports[code];
    }
    seen_.rebuilt += left.rebuilt;
    seen_.destroyed += closing_ ? 0 : left.destroyed;
    seen_.late_effects += network_.statistics().late_effects;
  }

  probes& seen_;
  std::uint64_t state_;
  simulated_network network_;
  machine server_;
  std::deque<machine> hosts_;
  dci_scheduler_options options_;
  std::unique_ptr<dci_scheduler> pool_;
  std::vector<session> sessions_;
  std::array<buffer, buffers> buffers_;
  std::vector<outcome> outcomes_;
  std::uint64_t cookie_last_ = 0;
  bool closing_ = false;
  std::string wrong_;
};

std::uint64_t number_from(const char* variable, std::uint64_t otherwise) {
  const char* const given = std::getenv(variable);
  return given == nullptr ? otherwise : std::strtoull(given, nullptr, 0);
}

} // namespace

CAF_TEST(no transfer is lost or ends twice and no byte moves after its time whatever fails) {
  probes seen;
  const std::uint64_t first = number_from("MEMKV_TEST_SEED", 1);
  const std::uint64_t runs =
      number_from("MEMKV_TEST_RUNS", std::getenv("MEMKV_TEST_SEED") == nullptr ? 10'000 : 1);
  for (std::uint64_t seed = first; seed < first + runs; ++seed) {
    const std::string wrong = campaign(seed, seen).run();
    if (!wrong.empty()) {
      CAF_FAIL("MEMKV_TEST_SEED=" << seed << ": " << wrong);
    }
  }
  CAF_MESSAGE(seen.transfers << " transfers, " << seen.ended << " sessions, " << seen.rebuilt << " rebuilt, "
                             << seen.destroyed << " destroyed, " << seen.late_effects << " late effects");
  if (runs < 1000) {
    return;
  }
  for (std::uint8_t code = 0; code <= completion_status_last; ++code) {
    CAF_CHECK(seen.reports[code] > 0);
  }
  for (const std::uint64_t count : seen.results) {
    CAF_CHECK(count > 0);
  }
  CAF_CHECK(seen.broken > 0 && seen.ended_late > 0 && seen.rebuilt > 0 && seen.destroyed > 0);
  CAF_CHECK(seen.late_effects > 0 && seen.closed > 0);
}
