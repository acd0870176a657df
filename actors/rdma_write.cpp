#include "actors/rdma_batch.hpp"
#include "actors/reactor.hpp"
#include "actors/tcp_connection.hpp"
#include "actors/value_writer.hpp"
#include "wire/payload_digest.hpp"
#include "wire/rdma_messages.hpp"

#include <algorithm>
#include <cstring>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

namespace memkv::actors {

using wire::digest_kind;
using wire::status;

namespace {

class batch_write_request final : public rdma_batch_request {
public:
  using rdma_batch_request::rdma_batch_request;

  void begin(wire::bytes_view variable) override {
    // The items' keys point into it.
    message_.assign(variable.begin(), variable.end());
    wire::batch_write_view given;
    if (const auto decoded = wire::batch_write_view::decode(message_, given); decoded != status::ok) {
      send_status(decoded);
      end();
      return;
    }
    if (!enter(given.session_id()))
      return;
    items_.reserve(given.size());
    for (const auto& each : given)
      items_.emplace_back().wanted = each;
    expect_items(items_.size());
    settle();
  }

  void allocated(const extent_put_ptr& put) override {
    if (auto* work = items_[put->item].work.get(); work != nullptr) {
      work->writer.allocated(put);
      feed(put->item);
      look(put->item);
    }
    settle();
  }

  void stored(const extent_put_ptr& put) override {
    if (auto* work = items_[put->item].work.get(); work != nullptr) {
      work->writer.stored(put);
      look(put->item);
    }
    settle();
  }

  void drive_down(std::uint32_t drive) override {
    for_open([this, drive](std::uint32_t index) {
      items_[index].work->writer.drive_down(drive);
      look(index);
    });
    settle();
  }

private:
  /// A place that the device does not reach, and where its bytes are fetched to instead.
  struct detour {
    std::uint32_t place = 0;
    payload_slice by;
  };
  struct work_state {
    work_state(drive_client& client, std::uint64_t request, std::uint32_t item)
        : writer(client, request, item) {}
    value_writer writer;
    std::optional<wire::payload_digest> digest; // keyed
    std::optional<value_writer::place> waiting; // for a buffer to take the detour by
    std::vector<detour> detours;
    std::uint32_t in_flight = 0;
    bool committing = false;
  };
  struct item_state {
    wire::batch_write_item wanted;
    std::unique_ptr<work_state> work; // while it is open
    wire::batch_put_result result;
  };

  void transfer_over(const memory_transfer& one) override {
    auto& work = *items_[one.item].work;
    auto& writer = work.writer;
    --work.in_flight;
    if (!writer.failed()) {
      if (one.result != status::ok) {
        writer.abort(one.result);
      } else {
        if (const auto place = writer.place_of(one.piece); place.data() != one.data) {
          std::memcpy(place.data(), one.data, place.size());
          std::erase_if(work.detours, [&](const detour& each) { return each.place == one.piece; });
        }
        writer.filled(one.piece);
        take(one.item);
      }
    }
    look(one.item);
  }

  /// Digests what is there, and commits when it is everything.
  void take(std::uint32_t index) {
    auto& item = items_[index];
    auto& work = *item.work;
    for (auto next = work.writer.take_filled(); !next.bytes.empty(); next = work.writer.take_filled())
      if (work.digest.has_value())
        work.digest->update(next.bytes);
    if (work.writer.failed() || work.writer.bytes_left() > 0 || work.committing)
      return;
    bool matches = wire::all_zero(item.wanted.digest);
    if (item.wanted.value_length > 0)
      matches =
          work.digest.has_value()
              ? work.digest->matches(item.wanted.digest)
              : wire::equal_in_constant_time(wire::crc32c_digest(work.writer.crc32c()), item.wanted.digest);
    if (!matches) {
      owner_.counters().digest_mismatches.add();
      work.writer.abort(status::digest_mismatch);
      return;
    }
    work.committing = true;
    const auto latest =
        owner_.now_ns() + std::uint64_t{owner_.shared().options.limits.request_ms} * 1'000'000;
    work.writer.commit(deadline_ns_ != 0 ? std::min(deadline_ns_, latest) : latest);
  }

  void start(std::uint32_t index) {
    auto& item = items_[index];
    if (item.wanted.value_length > owner_.shared().options.limits.value_bytes_max) {
      decide(index, status::too_large, 0);
      return;
    }
    item.work = std::make_unique<work_state>(owner_, serial(), index);
    open_.push_back(index);
    open_bytes_ += item.wanted.value_length;
    auto& work = *item.work;
    if (header_.kind == digest_kind::keyed) {
      work.digest = connection_.digest();
      work.digest->begin(digest_kind::keyed, wire::direction::request, digest_id(), 0, index);
    }
    if (const auto begun = work.writer.begin(header_.ns.text(), item.wanted.key, item.wanted.value_length,
                                             item.wanted.if_absent);
        begun != status::ok) {
      decide(index, begun, 0);
      return;
    }
    if (item.wanted.value_length == 0)
      take(index);
    else
      feed(index);
    look(index);
  }

  /// Asks for as much of the value as may be in flight.
  void feed(std::uint32_t index) {
    const auto& wanted = items_[index].wanted;
    auto& work = *items_[index].work;
    while (!given_up() && !work.writer.failed() && may_move()) {
      auto place = work.waiting.has_value() ? *std::exchange(work.waiting, std::nullopt)
                                            : work.writer.next_place(step_bytes_max());
      if (place.bytes.empty()) {
        if (work.writer.waits_for_buffer())
          wait_for_memory();
        return;
      }
      local_piece local{place.bytes.data(), static_cast<std::uint32_t>(place.bytes.size()), place.keep};
      if (!reaches(place.bytes)) {
        const auto by = bounce(place.bytes.size());
        if (by.data == nullptr) {
          work.waiting = std::move(place);
          wait_for_memory();
          return;
        }
        if (!reaches({by.data, by.bytes})) {
          work.writer.abort(status::unavailable);
          return;
        }
        work.detours.push_back({place.number, by});
        local.data = by.data;
        local.keep = by.keep;
      }
      ++work.in_flight;
      move(true, index, place.number, std::move(local), wanted.client_address + place.offset, wanted.rkey);
    }
  }

  void go_on() override {
    for_open([this](std::uint32_t index) {
      if (at_limit())
        return;
      feed(index);
      look(index);
    });
  }

  void open_more() override {
    if (!may_open_some(open_.size(), open_bytes_))
      return;
    while (!over() && next_ < items_.size() && may_open(open_.size(), open_bytes_))
      start(next_++);
  }

  void give_up(status why) override {
    for_open([this, why](std::uint32_t index) {
      if (!items_[index].work->committing)
        items_[index].work->writer.abort(why);
      look(index);
    });
    while (!over() && next_ < items_.size())
      decide(next_++, why, 0);
  }

  void forget_transfers() override {
    for (const auto index : open_)
      items_[index].work->in_flight = 0;
  }

  [[nodiscard]] bool at_drives() const override { return !open_.empty() && !waits_for_memory(); }

  /// What is done may close items, and end the request.
  template <class What>
  void for_open(const What& what) {
    const auto all = open_;
    for (const auto index : all) {
      if (over())
        return;
      if (items_[index].work != nullptr)
        what(index);
    }
  }

  void look(std::uint32_t index) {
    const auto& work = items_[index].work;
    if (!over() && work != nullptr && work->in_flight == 0 && work->writer.finished())
      decide(index, work->writer.result(), work->writer.generation());
  }

  void decide(std::uint32_t index, status code, std::uint64_t generation) {
    auto& item = items_[index];
    item.result = {code, generation};
    if (item.work != nullptr) {
      item.work.reset();
      std::erase(open_, index);
      open_bytes_ -= item.wanted.value_length;
    }
    auto& counters = owner_.counters();
    if (code == status::ok) {
      counters.writes.add();
      counters.write_bytes.add(item.wanted.value_length);
    } else if (!abandoned()) {
      counters.write_failures.add();
      if (code == status::busy)
        counters.busy.add();
    }
    item_decided();
  }

  void answer() override {
    std::vector<wire::batch_put_result> results;
    results.reserve(items_.size());
    for (const auto& each : items_)
      results.push_back(each.result);
    send_reply(reply(status::ok), wire::batch_put_reply{results});
  }

  std::vector<std::byte> message_;
  std::vector<item_state> items_;
  std::vector<std::uint32_t> open_; // in their order
  std::uint64_t open_bytes_ = 0;    // of their values
  std::uint32_t next_ = 0;          // that has not been begun
};

} // namespace

std::unique_ptr<tcp_request> make_batch_write_request(tcp_connection& connection, reactor& owner,
                                                      const wire::frame_header& header) {
  return std::make_unique<batch_write_request>(connection, owner, header);
}

} // namespace memkv::actors
