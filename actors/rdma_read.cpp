#include "actors/rdma_batch.hpp"
#include "actors/reactor.hpp"
#include "actors/tcp_connection.hpp"
#include "actors/value_reader.hpp"
#include "engine/guarded_read.hpp"
#include "wire/crc32c.hpp"
#include "wire/payload_digest.hpp"
#include "wire/rdma_messages.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace memkv::actors {

using wire::digest_kind;
using wire::status;

namespace {

constexpr std::uint32_t none = std::numeric_limits<std::uint32_t>::max();
constexpr std::size_t digest_step_bytes = 64 << 10;

class batch_read_request : public rdma_batch_request {
public:
  using rdma_batch_request::rdma_batch_request;

  void begin(wire::bytes_view variable) override {
    // The items' keys point into it.
    message_.assign(variable.begin(), variable.end());
    wire::batch_read_view given;
    if (const auto decoded = wire::batch_read_view::decode(message_, given); decoded != status::ok) {
      send_status(decoded);
      end();
      return;
    }
    if (!enter(given.session_id()))
      return;
    items_.reserve(given.size());
    for (const auto& each : given)
      items_.emplace_back().wanted = each;
    begin_items();
  }

  void was_read(const extent_read_ptr& read) final {
    if (auto* source = items_[read->item].source.get(); source != nullptr) {
      source->reader.was_read(read);
      feed(read->item);
    }
    settle();
  }

  void drive_down(std::uint32_t drive) final {
    for_open([this, drive](std::uint32_t first) {
      items_[first].source->reader.drive_down(drive);
      feed(first);
    });
    settle();
  }

protected:
  /// A range of a value that is being read, for the item it belongs to and those that want the same.
  struct source_state {
    source_state(drive_client& client, std::uint64_t request, std::uint32_t item)
        : reader(client, request, item) {}
    value_reader reader;
    std::uint64_t begin = 0; // in the value
    // The piece that is being placed, after it was copied and digested as necessary.
    std::optional<value_reader::piece> piece;
    bool prepared = false;
    std::uint32_t next = none; // item that gets it next
    std::uint32_t wanting = 0; // items that have not failed
    std::uint64_t room = 0;    // for the range
    std::uint32_t crc32c = 0;  // of the pieces so far
    std::uint64_t bytes = 0;
    struct keyed {
      std::uint32_t item = 0;
      wire::payload_digest digest;
    };
    std::vector<keyed> digests;
  };
  struct item_state {
    wire::batch_read_item wanted;
    std::unique_ptr<source_state> source; // of the first that wants it, while it is open
    std::uint32_t first = none;           // of those that want the same
    std::uint32_t next_same = none;
    bool decided = false;
    bool placed = false; // everything was given to the pool
    std::uint32_t in_flight = 0;
    status failed = status::ok;
    wire::batch_read_result result;
  };

  void begin_items() {
    expect_items(items_.size());
    join_equals();
    settle();
  }

  [[nodiscard]] virtual status open(value_reader& reader, const wire::batch_read_item& wanted,
                                    std::uint64_t room) {
    return reader.open(header_.ns.text(), wanted.key, wanted.range_offset, wanted.range_length, room,
                       piece_bytes_max());
  }

  /// Pieces end on multiples of 64 KiB; a transfer may be shorter.
  [[nodiscard]] std::uint32_t piece_bytes_max() const noexcept {
    return std::max<std::uint32_t>(step_bytes_max(), engine::chunk_bytes);
  }

  void answer() override {
    std::vector<wire::batch_read_result> results;
    results.reserve(items_.size());
    for (const auto& each : items_)
      results.push_back(each.result);
    send_reply(reply(status::ok), wire::batch_read_reply{results});
  }

  std::vector<item_state> items_;

private:
  /// What is wanted: a range of a block.
  struct range_of {
    std::string_view key;
    std::uint64_t offset = 0, length = 0;
    friend bool operator==(const range_of&, const range_of&) noexcept = default;
  };
  struct range_hash {
    std::size_t operator()(const range_of& of) const noexcept {
      return std::hash<std::string_view>{}(of.key) ^ (of.offset * 0x9E3779B97F4A7C15U) ^
             (of.length * 0xC2B2AE3D27D4EB4FU);
    }
  };

  /// What several items want is read once.
  void join_equals() {
    std::unordered_map<range_of, std::uint32_t, range_hash> last;
    last.reserve(items_.size());
    for (std::uint32_t index = 0; index < items_.size(); ++index) {
      auto& item = items_[index];
      const auto& wanted = item.wanted;
      const auto [found, fresh] =
          last.try_emplace({{reinterpret_cast<const char*>(wanted.key.data()), wanted.key.size()},
                            wanted.range_offset,
                            wanted.range_length},
                           index);
      item.first = fresh ? index : items_[found->second].first;
      if (!fresh)
        items_[std::exchange(found->second, index)].next_same = index;
    }
  }

  void start(std::uint32_t first) {
    auto& item = items_[first];
    item.source = std::make_unique<source_state>(owner_, serial(), first);
    open_.push_back(first);
    auto& source = *item.source;
    const auto& wanted = item.wanted;
    // The reader refuses what nobody has room for, before a drive is asked; 0 is no limit to it.
    std::uint64_t room = 0;
    for (auto at = first; at != none; at = items_[at].next_same) {
      room = std::max(room, items_[at].wanted.capacity);
      ++source.wanting;
    }
    const auto opened = open(source.reader, wanted, room);
    if (opened == status::ok)
      open_bytes_ += source.room = source.reader.bytes_left();
    for (auto at = first; at != none; at = items_[at].next_same) {
      auto& each = items_[at];
      if (opened == status::ok || opened == status::out_of_range || opened == status::buffer_too_small)
        each.result.value_length = source.reader.value_length();
      if (opened != status::ok)
        fail(at, opened);
      else if (source.reader.bytes_left() > each.wanted.capacity)
        fail(at, status::buffer_too_small);
      else if (header_.kind == digest_kind::keyed) {
        auto& added = source.digests.emplace_back(source_state::keyed{at, connection_.digest()});
        added.digest.begin(digest_kind::keyed, wire::direction::reply, digest_id(), 0, at);
      }
    }
    feed(first);
  }

  /// Places as much as may be in flight.
  void feed(std::uint32_t first) {
    auto& item = items_[first];
    while (item.source != nullptr) {
      auto& source = *item.source;
      if (source.wanting == 0) {
        close(first);
        return;
      }
      if (given_up())
        return;
      if (!source.piece.has_value()) {
        if (source.reader.waits_for_room()) {
          source.reader.buffers_there(); // perhaps
          if (source.reader.waits_for_room())
            wait_for_memory();
        }
        if (!source.reader.ready())
          return;
        if (!may_move())
          return;
        source.piece = source.reader.next();
        source.prepared = false;
        source.next = first;
      }
      auto& piece = *source.piece;
      if (piece.status == status::ok && !source.prepared && !prepare(source)) {
        wait_for_memory();
        return;
      }
      if (piece.status != status::ok) {
        fail_all(first, piece.status);
        continue;
      }
      while (source.next != none) {
        if (!may_move())
          return;
        place(source, std::exchange(source.next, items_[source.next].next_same));
      }
      source.crc32c = wire::crc32c_combine(source.crc32c, piece.crc32c, piece.bytes);
      source.bytes += piece.bytes;
      const bool last = piece.last;
      source.piece.reset();
      if (last)
        complete(first);
    }
  }

  /// Copies the piece where the device does not reach it, and digests it where that takes the bytes. Both go
  /// with a check against the stored checksum: a keyed digest would vouch for damage, and a copy is what is
  /// compared. False: no memory at the moment. The piece is replaced when it cannot be had, or is damaged.
  [[nodiscard]] bool prepare(source_state& source) {
    auto& piece = *source.piece;
    const bool copies = !std::ranges::all_of(piece.spans, [this](const auto& span) { return reaches(span); });
    payload_slice to;
    if (copies && piece.bytes > owner_.shared().pool->chunk_bytes()) {
      piece.status = status::unavailable;
      return true;
    }
    if (copies) {
      to = bounce(piece.bytes);
      if (to.data == nullptr)
        return false;
      if (!reaches({to.data, piece.bytes})) {
        piece.status = status::unavailable;
        return true;
      }
    }
    source.prepared = true;
    if (piece.bytes == 0 || (!copies && source.digests.empty()))
      return true;
    std::uint32_t sum = 0;
    std::byte* out = to.data;
    bool readable = true;
    for (auto span : piece.spans) {
      while (!span.empty() && readable) {
        // In steps that stay in the processor's cache between the passes.
        const auto step = span.first(std::min<std::size_t>(span.size(), digest_step_bytes));
        readable = engine::guarded_read(step, [&] {
          auto bytes = step;
          if (copies) {
            std::memcpy(out, step.data(), step.size());
            bytes = {out, step.size()};
          }
          sum = wire::crc32c(bytes, sum);
          for (auto& each : source.digests)
            each.digest.update(bytes);
        });
        if (copies)
          out += step.size();
        span = span.subspan(step.size());
      }
    }
    if (!readable || sum != piece.crc32c) {
      piece = source.reader.spoil();
      return true;
    }
    if (copies) {
      piece.spans.assign(1, std::span<const std::byte>{to.data, piece.bytes});
      piece.keep = to.keep;
    }
    return true;
  }

  void place(const source_state& source, std::uint32_t index) {
    auto& item = items_[index];
    if (item.decided || item.failed != status::ok)
      return;
    auto address = item.wanted.client_address + source.bytes;
    for (auto span : source.piece->spans) {
      while (!span.empty()) {
        const auto step = span.first(std::min<std::size_t>(span.size(), step_bytes_max()));
        ++item.in_flight;
        // The device only reads it.
        move(false, index, 0,
             {const_cast<std::byte*>(step.data()), static_cast<std::uint32_t>(step.size()),
              source.piece->keep},
             address, item.wanted.rkey);
        address += step.size();
        span = span.subspan(step.size());
      }
    }
  }

  /// All of it was given to the pool.
  void complete(std::uint32_t first) {
    auto& source = *items_[first].source;
    for (auto at = first; at != none; at = items_[at].next_same) {
      auto& item = items_[at];
      if (item.decided || item.failed != status::ok)
        continue;
      item.placed = true;
      item.result.length = source.bytes;
      if (source.bytes > 0 && header_.kind != digest_kind::keyed)
        item.result.digest = wire::crc32c_digest(source.crc32c);
    }
    for (auto& each : source.digests)
      items_[each.item].result.digest = each.digest.finish();
    close(first);
  }

  /// Nothing more is read of it.
  void close(std::uint32_t first) {
    open_bytes_ -= items_[first].source->room;
    items_[first].source.reset();
    std::erase(open_, first);
    for (auto at = first; at != none && !over();) {
      const auto next = items_[at].next_same;
      look(at);
      at = next;
    }
  }

  void fail(std::uint32_t index, status why) {
    auto& item = items_[index];
    if (item.failed != status::ok || item.decided)
      return;
    item.failed = why == status::corrupt ? status::not_found : why; // a bad block is a miss
    if (auto* source = items_[item.first].source.get(); source != nullptr)
      --source->wanting;
  }

  void fail_all(std::uint32_t first, status why) {
    for (auto at = first; at != none; at = items_[at].next_same)
      fail(at, why);
  }

  void transfer_over(const memory_transfer& one) override {
    auto& item = items_[one.item];
    --item.in_flight;
    if (one.result != status::ok)
      fail(one.item, one.result);
    look(one.item);
  }

  void forget_transfers() override {
    for (auto& each : items_)
      each.in_flight = 0;
  }

  void give_up(status why) override {
    const auto open = std::exchange(open_, {});
    open_bytes_ = 0;
    for (const auto first : open)
      items_[first].source.reset();
    next_ = static_cast<std::uint32_t>(items_.size());
    for (std::uint32_t index = 0; index < items_.size() && !over(); ++index) {
      // What was placed wholly, and only waits for its outcome, may still turn out well.
      if (!items_[index].placed || why == status::session_ended)
        fail(index, why);
      look(index);
    }
  }

  void go_on() override {
    for_open([this](std::uint32_t first) {
      if (!at_limit())
        feed(first);
    });
  }

  void open_more() override {
    if (!may_open_some(open_.size(), open_bytes_))
      return;
    while (!over() && next_ < items_.size() && may_open(open_.size(), open_bytes_)) {
      const auto index = next_++;
      if (items_[index].first == index)
        start(index);
    }
  }

  [[nodiscard]] bool at_drives() const override { return !open_.empty() && !waits_for_memory(); }

  /// What is done may close sources, and end the request.
  template <class What>
  void for_open(const What& what) {
    const auto all = open_;
    for (const auto first : all) {
      if (over())
        return;
      if (items_[first].source != nullptr)
        what(first);
    }
  }

  void look(std::uint32_t index) {
    auto& item = items_[index];
    if (over() || item.decided || item.in_flight > 0 || (item.failed == status::ok && !item.placed))
      return;
    item.decided = true;
    auto& result = item.result;
    result.status = item.failed;
    auto& counters = owner_.counters();
    if (item.failed == status::ok) {
      counters.reads.add();
      counters.read_bytes.add(result.length);
    } else {
      result.length = 0;
      result.digest = {};
      if (item.failed != status::out_of_range && item.failed != status::buffer_too_small)
        result.value_length = 0;
      if (item.failed == status::not_found)
        counters.read_misses.add();
    }
    item_decided();
  }

  std::vector<std::byte> message_;
  std::vector<std::uint32_t> open_; // whose sources are open, in their order
  std::uint64_t open_bytes_ = 0;    // of their ranges
  std::uint32_t next_ = 0;          // that has not been begun
};

/// Read: one range of a block that is pinned, whatever became of its key.
class read_request final : public batch_read_request {
public:
  using batch_read_request::batch_read_request;

  void begin(wire::bytes_view variable) override {
    wire::transfer_request wanted;
    if (const auto decoded = wire::transfer_request::decode(variable, wanted); decoded != status::ok) {
      refuse(decoded);
      return;
    }
    auto* tokens = connection_.tokens(carrier());
    auto* lease = tokens == nullptr ? nullptr : tokens->lease(wanted.token);
    if (lease == nullptr) {
      refuse(status::not_found);
      return;
    }
    // Nothing is placed behind the end of the lease.
    deadline_ns_ = deadline_ns_ != 0 ? std::min(deadline_ns_, lease->ends_at_ns()) : lease->ends_at_ns();
    block_ = lease->block();
    if (header_.release())
      lease->release();
    if (wanted.value_offset > block_->value_length() ||
        wanted.length > block_->value_length() - wanted.value_offset) {
      refuse(status::out_of_range);
      return;
    }
    if (wanted.length == 0) {
      send_reply(reply(status::ok), wire::read_reply{});
      end();
      return;
    }
    if (!enter(carrier()))
      return;
    auto& item = items_.emplace_back().wanted;
    item.rkey = wanted.rkey;
    item.client_address = wanted.client_address;
    item.range_offset = wanted.value_offset;
    item.range_length = item.capacity = wanted.length;
    begin_items();
  }

private:
  void refuse(status code) {
    send_status(code);
    end();
  }

  status open(value_reader& reader, const wire::batch_read_item& wanted, std::uint64_t) override {
    return reader.open_as(*block_, wanted.range_offset, wanted.range_length, piece_bytes_max());
  }

  void answer() override {
    const auto& result = items_.front().result;
    if (result.status == status::ok)
      send_reply(reply(status::ok), wire::read_reply{result.digest});
    else
      send_status(result.status);
  }

  std::shared_ptr<value_reader> block_;
};

} // namespace

std::unique_ptr<tcp_request> make_read_request(tcp_connection& connection, reactor& owner,
                                               const wire::frame_header& header) {
  return std::make_unique<read_request>(connection, owner, header);
}

std::unique_ptr<tcp_request> make_batch_read_request(tcp_connection& connection, reactor& owner,
                                                     const wire::frame_header& header) {
  return std::make_unique<batch_read_request>(connection, owner, header);
}

} // namespace memkv::actors
