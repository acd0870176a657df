#include "actors/drive_body.hpp"

#include "actors/interfaces.hpp"
#include "engine/page.hpp"

#include <caf/actor_cast.hpp>
#include <caf/send.hpp>

#include <algorithm>
#include <cstring>
#include <utility>

namespace memkv::actors {

using engine::errc;

namespace {

engine::put_description describe(const extent_put& put) {
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

template <class Answer>
void answer(const caf::actor& to, Answer&& message) {
  if (to != nullptr)
    caf::anon_send(caf::actor_cast<reactor_actor>(to), std::forward<Answer>(message));
}

} // namespace

void drive_body::store_whole(const extent_put_ptr& put) {
  store->allocate(describe(*put), [this, put](errc result, engine::reservation space) {
    if (result != errc::ok) {
      finish(put, result, 0);
      return;
    }
    put->place = std::move(space);
    reserved.emplace(put->place.token, put);
    if (!put->place.place.empty() || put->length == 0) {
      place(*put);
      commit_now(put);
      return;
    }
    for (const auto& piece : put->pieces)
      write(put, piece);
    commit(put);
  });
}

void drive_body::allocate(const extent_put_ptr& put) {
  // A body that waits in its own store for space would keep itself alive: the store belongs to it.
  store->allocate(describe(*put), [this, put](errc result, engine::reservation space) {
    put->result = result;
    if (result == errc::ok) {
      put->place = std::move(space);
      reserved.emplace(put->place.token, put);
    }
    put->answered = true;
    answer(put->reply_to, extent_allocated{put});
  });
}

void drive_body::write(const extent_put_ptr& put, const payload_slice& piece) {
  const auto token = put->place.token;
  auto& state = writing[token];
  ++state.pending;
  state.held.push_back(piece);
  store->write(token, piece.offset, {piece.data, piece.bytes},
               [this, put, token, data = piece.data](errc result) {
                 auto found = writing.find(token);
                 if (found == writing.end())
                   return; // abandoned meanwhile
                 auto& now = found->second;
                 if (result != errc::ok && now.failed == errc::ok)
                   now.failed = result;
                 std::erase_if(now.held, [data](const payload_slice& slice) { return slice.data == data; });
                 if (--now.pending == 0 && now.committed)
                   writing.erase(found);
               });
}

void drive_body::commit(const extent_put_ptr& put) {
  const auto token = put->place.token;
  if (auto found = writing.find(token); found != writing.end()) {
    const auto failed = found->second.failed;
    // Payload stays until the device has it, and the store waits for that before the journal does.
    if (found->second.pending > 0)
      found->second.committed = true;
    else
      writing.erase(found);
    if (failed != errc::ok) {
      store->abandon(token);
      finish(put, failed, 0);
      return;
    }
  }
  commit_now(put);
}

void drive_body::commit_now(const extent_put_ptr& put) {
  if (put->part > 0) {
    store->prepare(put->place.token, put->chunk_crc32c, [this, put](errc result) { finish(put, result, 0); });
    return;
  }
  if (put->absent_generation != 0)
    store->erase(put->id, put->absent_generation, [](errc) {});
  store->commit(put->place.token, put->chunk_crc32c, put->if_absent, put->deadline_ns,
                [this, put](errc result, std::uint64_t generation) { finish(put, result, generation); });
}

void drive_body::finish(const extent_put_ptr& put, errc result, std::uint64_t generation) {
  reserved.erase(put->place.token);
  put->result = result;
  put->generation = generation;
  put->answered = true;
  answer(put->reply_to, extent_stored{put});
}

void drive_body::abandon(std::uint64_t token) {
  // Memory that a socket may still be writing to is swept up later, when nobody holds it any more.
  if (auto found = reserved.find(token); found != reserved.end() && !memory) {
    store->abandon(token);
    reserved.erase(found);
    writing.erase(token);
  }
}

void drive_body::sweep() {
  for (auto at = reserved.begin(); at != reserved.end();) {
    if (at->second.use_count() == 1) {
      store->abandon(at->first);
      writing.erase(at->first);
      at = reserved.erase(at);
    } else {
      ++at;
    }
  }
}

void drive_body::read(const extent_read_ptr& read) {
  if (needs_buffers) {
    auto& same = reading[{(*read->pin)->generation, read->offset, read->length}];
    if (same.first != nullptr && same.first->name_space == read->name_space && same.first->key == read->key) {
      // The drive is asked once; the buffer that came with this one goes back.
      read->into = {};
      same.others.push_back(read);
      return;
    }
    if (same.first == nullptr)
      same.first = read;
  }
  store->read(*read->pin, read->name_space, read->key, read->offset, read->length,
              {read->into.data, engine::align_up(read->into.bytes, engine::page_bytes)},
              [this, read](errc result, engine::extent_view view) {
                read->result = result;
                read->view = std::move(view);
                was_read(read);
              });
}

void drive_body::was_read(const extent_read_ptr& read) {
  std::vector<extent_read_ptr> others;
  if (const auto found = reading.find({(*read->pin)->generation, read->offset, read->length});
      found != reading.end() && found->second.first == read) {
    others = std::move(found->second.others);
    reading.erase(found);
  }
  tell_of(read);
  for (const auto& each : others) {
    each->result = read->result;
    each->view = read->view;
    each->into = read->into;
    tell_of(each);
  }
}

void drive_body::tell_of(const extent_read_ptr& read) {
  if (read->reply_to == nullptr)
    return;
  auto list = std::ranges::find(done, read->reply_to, &done_reads::to);
  if (list == done.end())
    list = done.insert(list, done_reads{read->reply_to, {}, 0});
  list->reads.push_back(read);
  list->bytes += read->length;
  if (list->bytes < done_reads::bytes_max)
    return;
  answer(list->to, extents_were_read{std::move(list->reads)});
  done.erase(list);
}

void drive_body::send_reads() {
  for (auto& each : std::exchange(done, {}))
    answer(each.to, extents_were_read{std::move(each.reads)});
}

void drive_body::erase(const block_erase_ptr& erase) {
  if (erase->damaged) { // nobody waits for that
    store->drop_damaged(erase->id, erase->generation);
    return;
  }
  store->erase(erase->id, erase->generation, [erase](errc result) {
    erase->result = result;
    answer(erase->reply_to, block_erased{erase});
  });
}

} // namespace memkv::actors
