#include "actors/put_requests.hpp"

#include "actors/log.hpp"
#include "actors/reactor.hpp"
#include "actors/tcp_connection.hpp"
#include "actors/value_writer.hpp"
#include "wire/assert.hpp"
#include "wire/messages.hpp"
#include "wire/payload_digest.hpp"

#include <algorithm>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

namespace memkv::actors {

using wire::digest_kind;
using wire::frame_header;
using wire::opcode;
using wire::status;

namespace {

constexpr const char* target = "memkv::write";

/// Where the time of a write went, for --log-write-timing.
class write_times {
public:
  void begun(const reactor& owner) { begun_ns_ = now(owner); }
  void received(const reactor& owner) { received_ns_ = now(owner); }
  void answered(reactor& owner, const frame_header& header, std::uint32_t blocks, status code) {
    if (begun_ns_ == 0)
      return;
    const auto end_ns = now(owner);
    if (!owner.shared().write_is_logged(end_ns))
      return;
    if (received_ns_ == 0)
      received_ns_ = end_ns;
    log::info(target, "write timing",
              {{"blocks", std::to_string(blocks)},
               {"bytes", std::to_string(header.payload_length)},
               {"status", wire::name(code)},
               {"receive_us", std::to_string((received_ns_ - begun_ns_) / 1000)},
               {"commit_us", std::to_string((end_ns - received_ns_) / 1000)},
               {"total_us", std::to_string((end_ns - begun_ns_) / 1000)}});
  }

private:
  /// 0 when nothing is to be logged: the clock is not asked for nothing.
  static std::uint64_t now(const reactor& owner) { return owner.times_writes() ? owner.exact_now_ns() : 0; }
  std::uint64_t begun_ns_ = 0, received_ns_ = 0;
};

// --- TcpPut ---

class put_request final : public tcp_request {
public:
  using tcp_request::tcp_request;

  void begin(wire::bytes_view variable) override {
    wire::key_request message;
    if (const auto decoded = wire::key_request::decode(variable, message); decoded != status::ok) {
      answer(decoded);
      return;
    }
    const auto& shared = owner_.shared();
    if (header_.payload_length > shared.options.limits.value_bytes_max) {
      answer(status::too_large);
      return;
    }
    times_.begun(owner_);
    writer_ = std::make_unique<value_writer>(owner_, serial(), 0);
    if (deadline_ns_ != 0)
      owner_.expire_at(serial(), deadline_ns_);
    if (header_.kind == digest_kind::keyed)
      digest_ = connection_.digest();
    if (digest_.has_value())
      digest_->begin(digest_kind::keyed, wire::direction::request, header_.request_id, 0, 0);
    if (const auto begun =
            writer_->begin(header_.ns.text(), message.key, header_.payload_length, header_.if_absent());
        begun != status::ok)
      look();
  }

  payload_step next_payload(std::uint64_t left) override {
    if (writer_->failed()) {
      look();
      return {{}, nullptr, left};
    }
    payload_step step;
    step.room = writer_->room();
    if (step.room.empty()) {
      if (writer_->failed()) {
        look();
      } else {
        now_in(request_stage::queue);
        owner_.wait_for_buffers(connection_);
      }
      return step;
    }
    now_in(request_stage::network);
    step.keep = writer_->keep();
    return step;
  }

  void payload_arrived(std::uint32_t bytes) override {
    if (writer_->failed())
      return;
    const auto arrived = writer_->arrived(bytes);
    if (digest_.has_value())
      digest_->update(arrived);
  }

  void payload_complete() override {
    if (over() || writer_ == nullptr)
      return;
    if (writer_->failed()) {
      look();
      return;
    }
    if (!digest_matches()) {
      owner_.counters().digest_mismatches.add();
      writer_->abort(status::digest_mismatch);
      look();
      return;
    }
    committing_ = true;
    now_in(request_stage::drive);
    times_.received(owner_);
    const auto latest =
        owner_.now_ns() + std::uint64_t{owner_.shared().options.limits.request_ms} * 1'000'000;
    writer_->commit(deadline_ns_ != 0 ? std::min(deadline_ns_, latest) : latest);
    look();
  }

  void allocated(const extent_put_ptr& put) override {
    writer_->allocated(put);
    look();
    if (!over())
      connection_.pump_input();
  }

  void stored(const extent_put_ptr& put) override {
    writer_->stored(put);
    look();
  }

  void drive_down(std::uint32_t drive) override {
    writer_->drive_down(drive);
    look();
  }

  void expire() override {
    if (committing_ || over())
      return; // the drive does not commit after the deadline either
    owner_.counters().deadlines_exceeded.add();
    writer_->abort(status::deadline_exceeded);
    look();
  }

  void abandon() override {
    if (committing_)
      return; // all of it had arrived: it may still take effect
    if (writer_ != nullptr)
      writer_->abort(status::internal);
    if (!over())
      end();
  }

private:
  [[nodiscard]] bool digest_matches() {
    if (header_.payload_length == 0)
      return wire::all_zero(header_.digest);
    if (digest_.has_value())
      return digest_->matches(header_.digest);
    return wire::equal_in_constant_time(wire::crc32c_digest(writer_->crc32c()), header_.digest);
  }

  void look() {
    if (over() || !writer_->finished())
      return;
    auto& counters = owner_.counters();
    times_.answered(owner_, header_, 1, writer_->result());
    if (writer_->result() == status::ok) {
      counters.writes.add();
      counters.write_bytes.add(header_.payload_length);
      send_reply(reply(status::ok), wire::generation_reply{writer_->generation()});
      end();
    } else {
      counters.write_failures.add();
      answer(writer_->result());
    }
  }

  void answer(status code) {
    send_status(code);
    end();
  }

  std::unique_ptr<value_writer> writer_;
  std::optional<wire::payload_digest> digest_;
  write_times times_;
  bool committing_ = false;
};

// --- TcpBatchPut ---

class batch_put_request final : public tcp_request {
public:
  using tcp_request::tcp_request;

  void begin(wire::bytes_view variable) override {
    wire::batch_put_view items;
    auto decoded = wire::batch_put_view::decode(variable, items);
    if (decoded == status::ok && items.payload_bytes() != header_.payload_length)
      decoded = status::bad_request;
    if (decoded != status::ok) {
      send_status(decoded);
      end();
      return;
    }
    if (header_.kind == digest_kind::keyed)
      digest_ = connection_.digest();
    if (deadline_ns_ != 0)
      owner_.expire_at(serial(), deadline_ns_);
    times_.begun(owner_);
    items_.reserve(items.size());
    open_ = items.size();
    for (const auto& given : items) {
      auto& added = items_.emplace_back();
      added.length = given.value_length;
      added.if_absent = given.if_absent;
      added.digest = given.digest;
      added.key.assign(given.key.begin(), given.key.end());
    }
    if (header_.payload_length == 0)
      take_empty_items();
  }

  payload_step next_payload(std::uint64_t) override {
    take_empty_items();
    if (over() || current_ == items_.size())
      return {};
    auto& item = items_[current_];
    if (item.writer == nullptr && !item.decided)
      start(item);
    payload_step step;
    if (item.decided || item.writer->failed()) {
      step.skip = item.length - item.arrived;
      return step;
    }
    step.room = item.writer->room();
    if (step.room.empty()) {
      now_in(request_stage::queue);
      owner_.wait_for_buffers(connection_);
    } else {
      now_in(request_stage::network);
      step.keep = item.writer->keep();
    }
    return step;
  }

  void payload_arrived(std::uint32_t bytes) override {
    auto& item = items_[current_];
    item.arrived += bytes;
    if (!item.decided && !item.writer->failed()) {
      const auto arrived = item.writer->arrived(bytes);
      if (digest_.has_value())
        digest_->update(arrived);
    }
    if (item.arrived == item.length)
      item_complete();
  }

  void payload_skipped(std::uint64_t bytes) override {
    auto& item = items_[current_];
    item.arrived += static_cast<std::uint32_t>(bytes);
    if (item.arrived == item.length)
      item_complete();
  }

  void payload_complete() override {
    times_.received(owner_);
    if (over())
      return;
    now_in(request_stage::drive);
    take_empty_items();
  }

  void allocated(const extent_put_ptr& put) override {
    auto& item = items_[put->item];
    if (item.writer != nullptr && !item.decided)
      item.writer->allocated(put);
    look(item);
    if (!over())
      connection_.pump_input();
  }

  void stored(const extent_put_ptr& put) override {
    auto& item = items_[put->item];
    if (item.writer != nullptr && !item.decided)
      item.writer->stored(put);
    look(item);
  }

  void drive_down(std::uint32_t drive) override {
    for (auto& item : items_) {
      if (item.writer != nullptr && !item.decided)
        item.writer->drive_down(drive);
      if (over())
        return;
      look(item);
    }
  }

  void expire() override {
    // Items that are being committed are decided by their drives.
    expired_ = true;
    give_up(status::deadline_exceeded);
  }

  void abandon() override {
    abandoned_ = true;
    // What has not arrived never will. Items that are being committed are decided by their drives; the last
    // decision ends this.
    give_up(status::internal);
    if (open_ == 0 && !over())
      end();
  }

private:
  struct item_state {
    std::vector<std::byte> key;
    std::uint32_t length = 0, arrived = 0;
    bool if_absent = false;
    bool committing = false;
    bool decided = false;
    wire::digest16 digest{};
    std::unique_ptr<value_writer> writer;
    wire::batch_put_result result;
  };

  /// Decides all items that are not being committed.
  void give_up(status why) {
    for (auto& item : items_)
      if (!item.decided && !item.committing) {
        if (item.writer != nullptr)
          item.writer->abort(why);
        decide(item, why, 0);
        if (over())
          return;
      }
  }

  void start(item_state& item) {
    const auto index = static_cast<std::uint32_t>(&item - items_.data());
    if (expired_ || item.length > owner_.shared().options.limits.value_bytes_max) {
      decide(item, expired_ ? status::deadline_exceeded : status::too_large, 0);
      return;
    }
    item.writer = std::make_unique<value_writer>(owner_, serial(), index);
    if (digest_.has_value())
      digest_->begin(digest_kind::keyed, wire::direction::request, header_.request_id, 0, index);
    if (const auto begun = item.writer->begin(header_.ns.text(), item.key, item.length, item.if_absent);
        begun != status::ok)
      decide(item, begun, 0);
  }

  /// Items without payload need no byte to be complete.
  void take_empty_items() {
    while (!over() && current_ < items_.size() && items_[current_].length == 0) {
      auto& item = items_[current_];
      if (item.writer == nullptr && !item.decided)
        start(item);
      item_complete();
    }
  }

  void item_complete() {
    auto& item = items_[current_];
    ++current_;
    if (item.decided)
      return;
    if (item.writer->failed()) {
      look(item);
      return;
    }
    bool matches = wire::all_zero(item.digest);
    if (item.length > 0)
      matches = digest_.has_value()
                    ? digest_->matches(item.digest)
                    : wire::equal_in_constant_time(wire::crc32c_digest(item.writer->crc32c()), item.digest);
    if (!matches) {
      owner_.counters().digest_mismatches.add();
      item.writer->abort(status::digest_mismatch);
    } else {
      item.committing = true;
      const auto latest =
          owner_.now_ns() + std::uint64_t{owner_.shared().options.limits.request_ms} * 1'000'000;
      item.writer->commit(deadline_ns_ != 0 ? std::min(deadline_ns_, latest) : latest);
    }
    look(item);
  }

  void look(item_state& item) {
    if (over() || item.decided || item.writer == nullptr || !item.writer->finished())
      return;
    decide(item, item.writer->result(), item.writer->generation());
  }

  void decide(item_state& item, status code, std::uint64_t generation) {
    item.decided = true;
    item.result = {code, generation};
    // Its bounce memory goes back now: a batch may be larger than the pool, and its later items need room.
    item.writer.reset();
    auto& counters = owner_.counters();
    if (code == status::ok) {
      counters.writes.add();
      counters.write_bytes.add(item.length);
    } else {
      counters.write_failures.add();
      if (code == status::busy)
        counters.busy.add();
    }
    if (--open_ > 0)
      return;
    times_.answered(owner_, header_, static_cast<std::uint32_t>(items_.size()), code);
    if (!abandoned_) {
      std::vector<wire::batch_put_result> results;
      results.reserve(items_.size());
      for (const auto& each : items_)
        results.push_back(each.result);
      send_reply(reply(status::ok), wire::batch_put_reply{results});
    }
    end();
  }

  std::vector<item_state> items_;
  std::optional<wire::payload_digest> digest_;
  std::size_t current_ = 0; // item whose payload is being received
  std::size_t open_ = 0;    // items without an outcome
  write_times times_;
  bool expired_ = false;
  bool abandoned_ = false;
};

} // namespace

std::unique_ptr<tcp_request> make_put_request(tcp_connection& connection, reactor& owner,
                                              const frame_header& header) {
  return std::make_unique<put_request>(connection, owner, header);
}

std::unique_ptr<tcp_request> make_batch_put_request(tcp_connection& connection, reactor& owner,
                                                    const frame_header& header) {
  return std::make_unique<batch_put_request>(connection, owner, header);
}

} // namespace memkv::actors
