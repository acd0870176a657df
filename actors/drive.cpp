#include "actors/drive.hpp"

#include "actors/log.hpp"
#include "wire/assert.hpp"

#include <caf/actor_cast.hpp>
#include <caf/behavior.hpp>
#include <caf/send.hpp>

#include <algorithm>
#include <cstring>

namespace memkv::actors {

using engine::errc;

namespace {
constexpr const char* target = "memkv::drive";

/// Copies the pieces of a small block to where it was given space.
void place(const extent_put& put) {
  std::size_t piece = 0;
  std::size_t begin = 0;
  for (const auto& span : put.place.place) {
    std::size_t filled = 0;
    while (filled < span.size() && piece < put.pieces.size()) {
      const auto& from = put.pieces[piece];
      const auto count = std::min<std::size_t>(from.bytes - begin, span.size() - filled);
      std::memcpy(span.data() + filled, from.data + begin, count);
      filled += count;
      begin += count;
      if (begin == from.bytes) {
        ++piece;
        begin = 0;
      }
    }
  }
}

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
    const auto opened = engine::open_drive(settings_.description, settings_.options, *settings_.time,
                                           body_->device, body_->store);
    if (!opened.ok()) {
      caf::anon_send(settings_.server, drive_failed{settings_.index, opened.text});
      failure_reported_ = true;
      body_.reset();
      return false;
    }
    body_->memory = !body_->device->writable_mapping().empty();
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
  auto on_store = [this](const store_extent& message) { store_whole(message.put); };
  auto on_allocate = [this](const allocate_extent& message) { allocate(message.put); };
  auto on_write = [this](const write_extent& message) { write(message.put, message.piece); };
  auto on_commit = [this](const commit_extent& message) { commit_when_written(message.put); };
  auto on_abandon = [this](const abandon_extent& message) {
    // Memory that a socket may still be writing to is swept up later, when nobody holds it any more.
    if (auto found = body_->reserved.find(message.token); found != body_->reserved.end() && !body_->memory) {
      body_->store->abandon(message.token);
      body_->reserved.erase(found);
      writing_.erase(message.token);
    }
  };
  auto on_read = [this](const read_extent& message) { read(message.read); };
  auto on_erase = [this](const erase_block& message) { erase(message.erase); };
  auto on_evict = [this](const evict_blocks& message) { body_->store->evict(message.bytes); };
  auto on_close = [this](const close_drive&) {
    closing_ = true;
    stop(caf::exit_reason::normal);
  };
  [[maybe_unused]] drive_actor::behavior_type conforms{on_store, on_allocate, on_write, on_commit, on_abandon,
                                                       on_read,  on_erase,    on_evict, on_close};
  return {on_store, on_allocate, on_write, on_commit, on_abandon, on_read, on_erase, on_evict, on_close};
}

engine::put_description drive::describe(const extent_put& put) const {
  engine::put_description what;
  what.id = put.id;
  what.name_space = put.name_space;
  what.key = put.key;
  what.length = put.length;
  what.value_length = put.value_length;
  what.part = put.part;
  what.parts = put.parts;
  what.put_id = put.put_id;
  return what;
}

void drive::store_whole(const extent_put_ptr& put) {
  body_->store->allocate(describe(*put), [this, put](errc result, engine::reservation space) {
    if (result != errc::ok) {
      stored(put, result, 0);
      return;
    }
    put->place = std::move(space);
    body_->reserved.emplace(put->place.token, put);
    if (!put->place.place.empty() || put->length == 0) {
      place(*put);
      commit(put);
      return;
    }
    for (const auto& piece : put->pieces)
      write(put, piece);
    commit_when_written(put);
  });
}

void drive::allocate(const extent_put_ptr& put) {
  body_->store->allocate(describe(*put), [this, put](errc result, engine::reservation space) {
    put->result = result;
    if (result == errc::ok) {
      put->place = std::move(space);
      if (body_->memory)
        put->body = body_;
      body_->reserved.emplace(put->place.token, put);
    }
    send(caf::actor_cast<reactor_actor>(put->reply_to), extent_allocated{put});
  });
}

void drive::write(const extent_put_ptr& put, const payload_slice& piece) {
  const auto token = put->place.token;
  auto& state = writing_[token];
  ++state.pending;
  state.held.push_back(piece);
  body_->store->write(
      token, piece.offset, {piece.data, piece.bytes}, [this, put, token, data = piece.data](errc result) {
        auto found = writing_.find(token);
        if (found == writing_.end())
          return; // abandoned meanwhile
        auto& now = found->second;
        if (result != errc::ok && now.failed == errc::ok)
          now.failed = result;
        std::erase_if(now.held, [data](const payload_slice& slice) { return slice.data == data; });
        if (--now.pending == 0 && now.commit_wanted)
          commit_when_written(put);
      });
}

void drive::commit_when_written(const extent_put_ptr& put) {
  const auto token = put->place.token;
  if (auto found = writing_.find(token); found != writing_.end()) {
    if (found->second.pending > 0) {
      found->second.commit_wanted = true;
      return;
    }
    const auto failed = found->second.failed;
    writing_.erase(found);
    if (failed != errc::ok) {
      body_->store->abandon(token);
      stored(put, failed, 0);
      return;
    }
  }
  commit(put);
}

void drive::commit(const extent_put_ptr& put) {
  if (put->ahead) {
    if (const auto assigned = body_->store->assign(put->place.token, describe(*put)); assigned != errc::ok) {
      body_->store->abandon(put->place.token);
      stored(put, assigned, 0);
      return;
    }
  }
  if (put->part > 0) {
    body_->store->prepare(put->place.token, put->chunk_crc32c,
                          [this, put](errc result) { stored(put, result, 0); });
    return;
  }
  body_->store->commit(
      put->place.token, put->chunk_crc32c, put->if_absent, put->deadline_ns,
      [this, put](errc result, std::uint64_t generation) { stored(put, result, generation); });
}

void drive::stored(const extent_put_ptr& put, errc result, std::uint64_t generation) {
  body_->reserved.erase(put->place.token);
  put->result = result;
  put->generation = generation;
  send(caf::actor_cast<reactor_actor>(put->reply_to), extent_stored{put});
}

void drive::read(const extent_read_ptr& read) {
  body_->store->read(*read->pin, read->name_space, read->key, read->offset, read->length, {},
                     [this, read](errc result, engine::extent_view view) {
                       read->result = result;
                       read->view = std::move(view);
                       send(caf::actor_cast<reactor_actor>(read->reply_to), extent_was_read{read});
                     });
}

void drive::erase(const block_erase_ptr& erase) {
  body_->store->erase(erase->id, erase->generation, [this, erase](errc result) {
    erase->result = result;
    if (erase->reply_to != nullptr)
      send(caf::actor_cast<reactor_actor>(erase->reply_to), block_erased{erase});
  });
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
  auto& store = *body_->store;
  store.reclaim();
  bool moved = false;
  // What is done without waiting is done now; a bound keeps messages from starving.
  for (int step = 0; step < 64 && store.poll(false); ++step)
    moved = true;
  if (auto orphans = store.take_orphans(); !orphans.empty())
    caf::anon_send(settings_.server, parts_orphaned{std::move(orphans)});
  return moved || !store.idle();
}

void drive::on_tick(std::uint64_t) {
  look_for_failure();
  // A reservation that nobody else holds can never be committed: its request ended or its reactor died.
  auto& reserved = body_->reserved;
  for (auto at = reserved.begin(); at != reserved.end();) {
    if (at->second.use_count() == 1) {
      body_->store->abandon(at->first);
      writing_.erase(at->first);
      at = reserved.erase(at);
    } else {
      ++at;
    }
  }
}

void drive::on_stop() {
  if (body_ == nullptr)
    return;
  if (closing_) {
    if (const auto closed = body_->store->close(); closed.ok())
      log::info(target, "drive closed", {{"drive", std::to_string(settings_.index)}});
    else
      log::error(target, closed.text);
  } else if (body_->memory) {
    // The store lives on in the next incarnation: let what it began end while its callbacks are still valid.
    for (int step = 0; step < 100'000 && !body_->store->idle(); ++step)
      body_->store->poll(false);
  }
  // The body must not keep itself, and through itself everything else, alive by its own reservations.
  for (auto& [token, put] : body_->reserved)
    put->body.reset();
  if (closing_)
    body_->reserved.clear();
  body_.reset();
}

} // namespace memkv::actors
