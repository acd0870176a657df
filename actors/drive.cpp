#include "actors/drive.hpp"

#include "actors/log.hpp"
#include "wire/assert.hpp"

#include <caf/actor_cast.hpp>
#include <caf/behavior.hpp>
#include <caf/send.hpp>

#include <chrono>
#include <mutex>
#include <thread>
#include <utility>

namespace memkv::actors {

namespace {
constexpr const char* target = "memkv::drive";
/// How long a raw drive that somebody else holds is waited for.
constexpr std::uint64_t claim_ns_max = 10'000'000'000;
} // namespace

drive::drive(caf::actor_config& configuration, drive_settings settings)
    : ring_actor(configuration), settings_(std::move(settings)) {}

void drive::on_no_ring(const std::string& problem) {
  caf::anon_send(settings_.server, drive_failed{settings_.index, problem});
  failure_reported_ = true;
}

bool drive::on_start() {
  body_ = std::move(settings_.survivor);
  if (body_ == nullptr) {
    body_ = std::make_shared<drive_body>();
    body_->index = settings_.index;
    body_->pool_keeper = settings_.pool_keeper;
    const auto open = [this] {
      return engine::open_drive(settings_.description, settings_.options, *settings_.time,
                                {.host = this, .registered = settings_.pool}, body_->device, body_->store);
    };
    auto opened = open();
    // The kernel lets go of a raw drive a moment after the process that had it was killed.
    const auto patience_ends = steady_now_ns() + claim_ns_max;
    while (opened.code == engine::errc::in_use && settings_.description.raw &&
           steady_now_ns() < patience_ends) {
      std::this_thread::sleep_for(std::chrono::milliseconds{50});
      opened = open();
    }
    if (!opened.ok()) {
      caf::anon_send(settings_.server, drive_failed{settings_.index, opened.text});
      failure_reported_ = true;
      body_.reset();
      settings_.pool_keeper.reset();
      return false;
    }
    body_->memory = !body_->device->writable_mapping().empty();
    body_->needs_buffers = body_->device->mapping().empty();
    if (!opened.text.empty())
      log::warn(target, opened.text);
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
  caf::anon_send(settings_.server,
                 drive_changed{settings_.index, caf::actor_cast<caf::actor>(this), body_,
                               std::make_shared<std::vector<engine::drive_store::recovered_part>>(
                                   body_->store->take_recovered_parts())});
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
  auto on_close = [this](const close_drive&) {
    closing_ = true;
    stop(caf::exit_reason::normal);
  };
  [[maybe_unused]] drive_actor::behavior_type conforms{on_store, on_allocate, on_write, on_commit, on_abandon,
                                                       on_read,  on_erase,    on_evict, on_close};
  return {on_store, on_allocate, on_write, on_commit, on_abandon, on_read, on_erase, on_evict, on_close};
}

void drive::look_for_failure() {
  if (failure_reported_ || !body_->store->counters().offline)
    return;
  failure_reported_ = true;
  caf::anon_send(settings_.server, drive_failed{settings_.index, "a write or flush failed on " +
                                                                     body_->device->information().name});
  stop(caf::exit_reason::user_shutdown);
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
  if (auto orphans = store.take_orphans(); !orphans.empty())
    caf::anon_send(settings_.server, parts_orphaned{std::move(orphans)});
  return moved || (!body_->needs_buffers && !store.idle());
}

void drive::on_tick(std::uint64_t) {
  look_for_failure();
  const std::lock_guard turn(body_->turn);
  body_->sweep();
}

void drive::on_stop() {
  if (body_ == nullptr)
    return;
  const auto body = std::exchange(body_, nullptr);
  const std::lock_guard turn(body->turn);
  if (closing_) {
    if (const auto closed = body->store->close(); closed.ok())
      log::info(target, "drive closed", {{"drive", std::to_string(settings_.index)}});
    else
      log::error(target, closed.text);
  } else if (body->memory) {
    // The store lives on in the next incarnation: let what it began end while its callbacks are still valid.
    for (int step = 0; step < 100'000 && !body->store->idle(); ++step)
      body->store->poll(false);
  }
  if (closing_)
    body->reserved.clear();
  // The ring ends with this actor; whoever still holds the body finds a closed device.
  if (body->needs_buffers)
    body->device->close();
}

} // namespace memkv::actors
