#include "actors/drive.hpp"

#include "actors/admin_gateway.hpp"
#include "actors/change_filter.hpp"
#include "actors/drive_table.hpp"
#include "actors/log.hpp"
#include "wire/assert.hpp"

#include <caf/actor_cast.hpp>
#include <caf/behavior.hpp>
#include <caf/send.hpp>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <thread>
#include <utility>

namespace memkv::actors {

using engine::errc;

namespace {
constexpr const char* target = "memkv::drive";
/// How long a raw drive that somebody else holds is waited for: the kernel takes the ring of a server that
/// was killed apart in its own time, which may be long where many others want the processor.
constexpr std::uint64_t claim_ns_max = 30'000'000'000;
/// A moment is nothing to tell of.
constexpr std::uint64_t claim_quietly_ns = 2'000'000'000;
/// A drive that has so many of these in one window is taken offline.
constexpr std::uint64_t health_window_ns = 10'000'000'000;
constexpr std::uint64_t slow_requests_max = 16;
constexpr std::uint64_t read_errors_max = 8;
/// A sweep looks at a 4096th of the ids at a time.
constexpr std::uint32_t sweep_slices = 4096;
constexpr std::uint64_t sweep_erasing_max = 4096;
constexpr std::uint64_t faulty_tick_ns = 5'000'000;
} // namespace

drive::drive(caf::actor_config& configuration, drive_settings settings)
    : ring_actor(configuration), settings_(std::move(settings)) {}

ring_actor::settings drive::ring_settings() const {
  settings wanted;
  // What is answered late is answered by the tick.
  if (settings_.faults != nullptr)
    wanted.tick_ns = faulty_tick_ns;
  return wanted;
}

void drive::on_no_ring(const std::string& problem) {
  report_failure(problem);
}

bool drive::on_start() {
  body_ = std::move(settings_.survivor);
  const auto begun_ns = steady_now_ns();
  if (body_ == nullptr) {
    body_ = std::make_shared<drive_body>();
    body_->index = settings_.index;
    body_->pool_keeper = settings_.pool_keeper;
    settings_.options.epoch_least = settings_.epoch_least;
    const auto open = [this] {
      return engine::open_drive(
          settings_.description, settings_.options, *settings_.time,
          {.host = this, .registered = settings_.pool, .faults = settings_.faults, .claim_ms = 0},
          body_->device, body_->store);
    };
    auto opened = open();
    // The kernel lets go of a raw drive a moment after the process that had it was killed.
    const auto refused_ns = steady_now_ns();
    for (bool told = false; opened.code == engine::errc::in_use && settings_.description.raw;
         opened = open()) {
      const auto waited_ns = steady_now_ns() - refused_ns;
      if (waited_ns > claim_ns_max || (settings_.unwanted && settings_.unwanted()))
        break;
      if (waited_ns > claim_quietly_ns && !std::exchange(told, true))
        log::warn(target, "drive is in use by somebody else: waiting for it, for 30 s at most",
                  {{"drive", std::to_string(settings_.index)}, {"path", settings_.description.path}});
      std::this_thread::sleep_for(std::chrono::milliseconds{50});
    }
    if (const auto epoch = opened.ok() ? body_->store->set_epoch() : 0; epoch > settings_.epoch_most) {
      body_->store.reset();
      body_->device.reset();
      opened = {errc::later_epoch, settings_.description.path + " is in epoch " + std::to_string(epoch) +
                                       " of its set, and could not be read when the start judged the set by "
                                       "epoch " +
                                       std::to_string(settings_.epoch_most) +
                                       ": what the other drives hold may be old; start the server again"};
    }
    if (opened.ok() && body_->store->set_epoch() < settings_.epoch_least) {
      if (const auto blocks = body_->store->counters().blocks; blocks > 0)
        log::warn(target,
                  "the drive was away while its set went on without it, and what it holds may have been "
                  "changed elsewhere: it starts empty",
                  {{"drive", std::to_string(settings_.index)}, {"blocks", std::to_string(blocks)}});
      if (!opened.text.empty())
        log::warn(target, opened.text);
      body_->store.reset();
      body_->device.reset();
      settings_.options.start_empty = true;
      opened = open();
    }
    if (!opened.ok()) {
      report_failure(opened.text, opened.code);
      body_.reset();
      settings_.pool_keeper.reset();
      return false;
    }
    body_->memory = !body_->device->writable_mapping().empty();
    body_->needs_buffers = body_->device->mapping().empty();
    if (!opened.text.empty())
      log::warn(target, opened.text);
    discarder_ = body_->device->make_discarder();
    if (discarder_ != nullptr)
      body_->store->begin_trimming();
    const auto counters = body_->store->counters();
    log::info(target, "drive opened",
              {{"drive", std::to_string(settings_.index)},
               {"media", body_->device->information().name},
               {"blocks", std::to_string(counters.blocks)},
               {"used_bytes", std::to_string(counters.used_bytes)},
               {"usable_bytes", std::to_string(counters.usable_bytes)},
               {"replayed_records", std::to_string(counters.replayed_records)},
               {"dropped_at_recovery", std::to_string(counters.dropped_at_recovery)}});
  }
  body_->ended = false; // memory outlives its actor
  damage_.begin_with(body_->store->counters().corrupt_blocks);
  opened_in_ns_ = steady_now_ns() - begun_ns;
  caf::anon_send(settings_.server,
                 drive_changed{settings_.index, caf::actor_cast<caf::actor>(this), body_,
                               std::make_shared<std::vector<engine::drive_store::recovered_part>>(
                                   body_->store->take_recovered_parts()),
                               body_->store->failures(), body_->store->set_epoch()});
  return true;
}

caf::behavior drive::make_handlers() {
  auto on_store = [this](const store_extent& message) {
    const std::lock_guard turn(body_->turn);
    body_->store_whole(message.put);
  };
  auto on_allocate = [this](const allocate_extent& message) {
    const std::lock_guard turn(body_->turn);
    body_->allocate(message.put);
  };
  auto on_write = [this](const write_extent& message) {
    const std::lock_guard turn(body_->turn);
    body_->write(message.put, message.piece);
  };
  auto on_commit = [this](const commit_extent& message) {
    const std::lock_guard turn(body_->turn);
    body_->commit(message.put);
  };
  auto on_abandon = [this](const abandon_extent& message) {
    const std::lock_guard turn(body_->turn);
    body_->abandon(message.token);
  };
  auto on_read = [this](const read_extent& message) {
    const std::lock_guard turn(body_->turn);
    body_->read(message.read);
  };
  auto on_erase = [this](const erase_block& message) {
    const std::lock_guard turn(body_->turn);
    body_->erase(message.erase);
  };
  auto on_evict = [this](const evict_blocks& message) {
    const std::lock_guard turn(body_->turn);
    body_->store->evict(message.bytes);
  };
  auto on_discarded = [this](const ranges_discarded& message) {
    const std::lock_guard turn(body_->turn);
    trimming_ = false;
    if (message.done)
      trimmed_bytes_ += submitted_bytes_;
    submitted_bytes_ = 0;
    body_->store->trimmed(message.done);
  };
  auto on_batcher = [this](const trim_batcher_changed& message) {
    const std::lock_guard turn(body_->turn);
    settings_.trim_batcher = message.batcher;
    // What the one before had is not answered; its last call to the device has ended before it did.
    submitted_bytes_ = 0;
    if (std::exchange(trimming_, false))
      body_->store->trimmed(false);
  };
  auto on_sweep = [this](const sweep_blocks& message) { begin_sweep(message); };
  auto on_epoch = [this](const enter_epoch& message) {
    const std::lock_guard turn(body_->turn);
    // An error shows as the failure of the drive.
    body_->store->enter_epoch(
        message.epoch, message.members,
        [server = settings_.server, index = settings_.index, serial = message.serial](errc) {
          caf::anon_send(server, drive_did{index, serial});
        });
  };
  auto on_close = [this](const close_drive&) {
    closing_ = true;
    stop(caf::exit_reason::normal);
  };
  auto on_describe = [this](const describe_yourself& question) {
    answer(question, id(), mailbox_size(*this), {.drive = facts()});
  };
  [[maybe_unused]] drive_actor::behavior_type conforms{
      on_store, on_allocate,  on_write, on_commit, on_abandon, on_read,  on_erase,
      on_evict, on_discarded, on_sweep, on_epoch,  on_batcher, on_close, on_describe};
  return {on_store, on_allocate,  on_write, on_commit, on_abandon, on_read,  on_erase,
          on_evict, on_discarded, on_sweep, on_epoch,  on_batcher, on_close, on_describe};
}

drive_facts drive::facts() {
  drive_facts out;
  out.index = settings_.index;
  if (body_ == nullptr)
    return out;
  const std::lock_guard turn(body_->turn);
  const auto& device = *body_->device;
  out.device = device.information().name;
  out.raw_bytes = device.information().size_bytes;
  out.store = body_->store->counters();
  out.io = device.statistics();
  out.in_flight = device.in_flight();
  out.oldest_request_ns = device.oldest_request_ns();
  out.discards = discarder_ != nullptr;
  out.journal_bytes = out.store.journal_bytes;
  out.trim_waiting_bytes =
      body_->store->untrimmed_bytes() - std::min(submitted_bytes_, body_->store->untrimmed_bytes());
  out.trim_submitted_bytes = submitted_bytes_;
  out.trimmed_bytes = trimmed_bytes_;
  if (settings_.past != nullptr)
    settings_.past->add_to(out);
  out.evicted_age_ns = out.store.evicted_age_ns;
  out.opened_in_ns = opened_in_ns_;
  out.leased_bytes = body_->leases.bytes();
  // It takes time in proportion to what there is.
  if (const auto now = round_ns(); memory_looked_ns_ == 0 || now - memory_looked_ns_ >= 60'000'000'000) {
    memory_looked_ns_ = now;
    memory_bytes_ = body_->store->memory_bytes();
  }
  out.memory_bytes = memory_bytes_;
  return out;
}

void drive::report_failure(std::string reason, errc code) {
  failure_reported_ = true;
  if (body_ != nullptr)
    body_->ended = true;
  caf::anon_send(settings_.server, drive_failed{settings_.index, std::move(reason), code});
}

void drive::look_for_failure() {
  if (hung_) {
    // What the kernel still works on must not lose its memory, so this incarnation stays until it has it
    // back.
    if (body_->device->in_flight() == 0)
      stop(caf::exit_reason::user_shutdown);
    return;
  }
  if (failure_reported_)
    return;
  const auto& name = body_->device->information().name;
  const auto counters = body_->store->counters();
  if (counters.offline) {
    report_failure("a write or flush failed on " + name);
    stop(caf::exit_reason::user_shutdown);
    return;
  }
  if (const auto oldest = body_->device->oldest_request_ns(); oldest > settings_.io_timeout_ns) {
    report_failure(name + " has not answered a request for " + std::to_string(oldest / 1'000'000'000) + " s");
    log::error(target, "drive hangs: it is offline and will be opened again when it has answered",
               {{"drive", std::to_string(settings_.index)},
                {"media", name},
                {"silent_s", std::to_string(oldest / 1'000'000'000)}});
    hung_ = true;
    return;
  }
  const auto now = round_ns();
  if (now - slow_since_ns_ < health_window_ns)
    return;
  const auto slow = body_->device->statistics().slow;
  if (slow - slow_before_ >= slow_requests_max)
    report_failure(name + " was slow: " + std::to_string(slow - slow_before_) +
                   " requests took longer than a second");
  else if (counters.io_errors - read_errors_before_ >= read_errors_max)
    report_failure(name + " failed " + std::to_string(counters.io_errors - read_errors_before_) + " reads");
  slow_since_ns_ = now;
  slow_before_ = slow;
  read_errors_before_ = counters.io_errors;
  if (failure_reported_)
    stop(caf::exit_reason::user_shutdown);
}

void drive::tell_of_damage(const drive_body& of, bool last) {
  const auto found = damage_.due(of.store->counters().corrupt_blocks, steady_now_ns(), last);
  if (found == 0)
    return;
  log::warn(target,
            of.memory ? "damaged blocks were found and dropped, each is a miss: the memory of this machine "
                        "may be failing, look into the kernel's log"
                      : "damaged blocks were found and dropped, each is a miss: the drive may be failing, "
                        "stop the server and run memkv drive verify on it",
            {{"drive", std::to_string(settings_.index)},
             {"media", of.device->information().name},
             {"blocks", found}});
}

void drive::trim_if_due() {
  if (trimming_ || discarder_ == nullptr || settings_.trim_batcher == nullptr)
    return;
  if (!discarder_->supported()) {
    discarder_.reset();
    log::info(target, "the drive takes no TRIM", {{"drive", std::to_string(settings_.index)}});
    return;
  }
  auto ranges = body_->store->take_trim();
  if (ranges.empty())
    return;
  trimming_ = true;
  for (const auto& range : ranges)
    submitted_bytes_ += range.length;
  send(caf::actor_cast<trim_batcher_actor>(settings_.trim_batcher),
       discard_ranges{settings_.index, discarder_, std::move(ranges), caf::actor_cast<caf::actor>(this)});
}

void drive::begin_sweep(const sweep_blocks& message) {
  sweep_.emplace();
  sweep_->order = message;
}

bool drive::sweep_on() {
  if (!sweep_)
    return false;
  if (sweep_->next_slice == sweep_slices) {
    end_of_sweep();
    return false;
  }
  // A bounded number of removals under way: the rest of the walk waits for them.
  if (sweep_->erasing >= sweep_erasing_max)
    return false;
  wire::key_id first;
  wire::key_id last;
  last.bytes.fill(std::byte{0xFF});
  first.bytes[0] = last.bytes[0] = static_cast<std::byte>(sweep_->next_slice / 16);
  first.bytes[1] = static_cast<std::byte>(sweep_->next_slice % 16 * 16);
  last.bytes[1] = static_cast<std::byte>(sweep_->next_slice % 16 * 16 + 15);
  ++sweep_->next_slice;
  const auto drives = body_->store->identity().drive_count;
  const auto& order = sweep_->order;
  auto& index = body_->store->index();
  std::vector<std::pair<wire::key_id, std::uint64_t>> going;
  index.visit(first, last, [&](engine::entry_handle handle) {
    const auto& entry = index.at(handle);
    if (home_drive(entry.id, drives, order.before) != settings_.index ||
        home_drive(entry.id, drives, order.after) != settings_.index ||
        (order.changed != nullptr && order.changed->may_hold(entry.id)))
      going.emplace_back(entry.id, entry.generation);
  });
  for (const auto& [id, generation] : going) {
    ++sweep_->erasing;
    ++sweep_->erased;
    body_->store->erase(id, generation, [this, serial = order.serial](errc) {
      if (sweep_ && sweep_->order.serial == serial)
        --sweep_->erasing;
    });
  }
  return true;
}

void drive::end_of_sweep() {
  if (sweep_->erasing > 0 || body_->store->counters().offline)
    return;
  if (sweep_->erased > 0)
    log::info(target, "blocks that now belong to another drive, or were changed elsewhere, are gone",
              {{"drive", std::to_string(settings_.index)}, {"blocks", std::to_string(sweep_->erased)}});
  caf::anon_send(settings_.server, drive_did{settings_.index, sweep_->order.serial});
  sweep_.reset();
}

bool drive::on_turn() {
  if (body_ == nullptr)
    return false;
  const std::lock_guard turn(body_->turn);
  auto& store = *body_->store;
  store.reclaim();
  bool moved = false;
  // What is done without waiting is done now; a bound keeps messages from starving.
  for (int step = 0; step < 64 && store.poll(false); ++step)
    moved = true;
  body_->send_reads();
  if (auto orphans = store.take_orphans(); !orphans.empty())
    caf::anon_send(settings_.server, parts_orphaned{std::move(orphans)});
  moved = sweep_on() || moved;
  return moved || body_->device->needs_poll() || (!body_->needs_buffers && !store.idle());
}

void drive::on_tick(std::uint64_t) {
  const std::lock_guard turn(body_->turn);
  tell_of_damage(*body_, false);
  look_for_failure();
  if (hung_ || failure_reported_)
    return;
  body_->sweep();
  body_->store->tick();
  body_->send_reads();
  trim_if_due();
}

void drive::on_stop() {
  if (body_ == nullptr)
    return;
  const auto body = std::exchange(body_, nullptr);
  body->ended = true;
  const std::lock_guard turn(body->turn);
  // Also when closing the store throws: what was counted goes on, and the ring ends with this actor; whoever
  // still holds the body finds a closed device.
  struct last_things {
    ~last_things() {
      if (own.settings_.past != nullptr && !held.memory)
        own.settings_.past->add(held.store->counters(), held.device->statistics(), own.trimmed_bytes_);
      if (held.needs_buffers) {
        held.device->close();
        // What waited behind the device's depth holds this object, by what it would answer: nobody waits for
        // that any more, and while it is there the drive is not opened again.
        held.store->drop_waiting();
        held.reading.clear();
      }
      held.send_reads();
    }
    drive& own;
    drive_body& held;
  } const last{*this, *body};
  tell_of_damage(*body, true);
  sweep_.reset();
  discarder_.reset();
  if (closing_) {
    if (const auto closed = body->store->close(); closed.ok())
      log::info(target, "drive closed", {{"drive", std::to_string(settings_.index)}});
    else {
      log::error(target, closed.text);
      report_failure(closed.text, closed.code);
    }
  } else if (body->memory) {
    // The store lives on in the next incarnation: let what it began end while its callbacks are still valid.
    for (int step = 0; step < 100'000 && !body->store->idle(); ++step)
      body->store->poll(false);
  }
  if (closing_)
    body->reserved.clear();
}

} // namespace memkv::actors
