// Allocate, Write and Commit: one value of a queue pair of messages, from its opening to its end.
#include "actors/rdma_batch.hpp"
#include "actors/reactor.hpp"
#include "actors/tcp_connection.hpp"
#include "actors/value_writer.hpp"
#include "wire/assert.hpp"
#include "wire/payload_digest.hpp"
#include "wire/rdma_messages.hpp"

#include <algorithm>
#include <cstring>
#include <deque>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

namespace memkv::actors {

using wire::digest_kind;
using wire::opcode;
using wire::status;

/// A Write or a Commit: what it asks for is done by its value, which answers it.
class value_step final : public tcp_request {
public:
  using tcp_request::tcp_request;

  void begin(wire::bytes_view variable) override {
    const auto decoded = is_commit() ? wire::commit_request::decode(variable, commit_)
                                     : wire::transfer_request::decode(variable, range_);
    if (decoded != status::ok) {
      answer(decoded);
      return;
    }
    auto* tokens = connection_.tokens(carrier());
    value_ = tokens == nullptr ? nullptr : tokens->value(is_commit() ? commit_.token : range_.token);
    if (value_ == nullptr) {
      answer(status::not_found);
      return;
    }
    if (deadline_ns_ != 0)
      owner_.expire_at(serial(), deadline_ns_);
    value_->take(*this);
  }

  void expire() override {
    if (!over())
      value_->expired(*this);
  }
  void abandon() override {
    if (over())
      return;
    value_->forget(*this);
    end();
  }

  [[nodiscard]] bool is_commit() const noexcept { return header_.opcode == opcode::commit; }
  [[nodiscard]] const wire::transfer_request& range() const noexcept { return range_; }
  [[nodiscard]] const wire::commit_request& commit() const noexcept { return commit_; }
  /// The latest moment at which it may take effect.
  [[nodiscard]] std::uint64_t latest_ns() const {
    const auto latest =
        owner_.now_ns() + std::uint64_t{owner_.shared().options.limits.request_ms} * 1'000'000;
    return deadline_ns_ != 0 ? std::min(deadline_ns_, latest) : latest;
  }

  void answer(status code) {
    if (over())
      return;
    send_status(code);
    end();
  }
  void answer_stored(std::uint64_t generation) {
    send_reply(reply(status::ok), wire::generation_reply{generation});
    end();
  }

private:
  wire::transfer_request range_;
  wire::commit_request commit_;
  open_value* value_ = nullptr; // it outlives what it has taken and not answered
};

namespace {

class allocate_request final : public rdma_batch_request, public open_value {
public:
  using rdma_batch_request::rdma_batch_request;

  void begin(wire::bytes_view variable) override {
    wire::allocate_request message;
    auto code = wire::allocate_request::decode(variable, message);
    const auto& limits = owner_.shared().options.limits;
    if (code == status::ok && message.lease_ms == 0)
      code = status::bad_request;
    else if (code == status::ok && message.value_length > limits.value_bytes_max)
      code = status::too_large;
    else if (code == status::ok && !take_share(message.value_length)) {
      owner_.counters().values_refused.add();
      code = status::busy;
    }
    if (code != status::ok) {
      send_status(code);
      end();
      return;
    }
    const auto life_ms = std::min(message.lease_ms, limits.request_ms);
    deadline_ns_ = owner_.now_ns() + std::uint64_t{life_ms} * 1'000'000;
    if (!enter(carrier()))
      return;
    expect_items(1);
    length_ = message.value_length;
    writer_.emplace(owner_, serial(), 0);
    if (refused_ = writer_->begin(header_.ns.text(), message.key, length_, false); refused_ != status::ok) {
      item_decided();
      return;
    }
    if (header_.kind == digest_kind::keyed) {
      digest_ = connection_.digest();
      digest_->begin(digest_kind::keyed, wire::direction::request, digest_id(), 0, 0);
    }
    token_ = connection_.tokens(carrier())->add(*this);
    send_reply(reply(status::ok), wire::allocate_reply{token_, life_ms});
    connection_.lives_on(*this);
  }

  // open_value

  void take(value_step& one) override {
    steps_.push_back(&one);
    work();
  }

  void expired(value_step& one) override {
    if (&one == active_ && committing_)
      return; // the drive does not commit after the deadline either
    owner_.counters().deadlines_exceeded.add();
    const bool ends = &one == active_ || one.is_commit();
    if (&one != active_) {
      std::erase(steps_, &one);
      one.answer(status::deadline_exceeded);
    }
    if (ends)
      end_early(status::deadline_exceeded);
  }

  void forget(value_step& one) override {
    if (active_ == &one)
      active_ = nullptr;
    std::erase(steps_, &one);
  }

  // tcp_request

  void allocated(const extent_put_ptr& put) override {
    if (!writer_.has_value())
      return;
    writer_->allocated(put);
    feed();
    look();
  }

  void stored(const extent_put_ptr& put) override {
    if (!writer_.has_value())
      return;
    writer_->stored(put);
    look();
  }

  void drive_down(std::uint32_t drive) override {
    if (!writer_.has_value())
      return;
    writer_->drive_down(drive);
    look();
  }

  /// Its time is over.
  void expire() override {
    if (over() || given_up() || committing_)
      return;
    owner_.counters().values_expired.add();
    end_early(status::deadline_exceeded);
  }

private:
  /// What a transfer in flight brings, and where that goes.
  struct part {
    std::uint32_t place = 0;
    std::span<std::byte> to;
    payload_slice detour; // where the device does not reach that
  };
  /// A place that has not all of its bytes.
  struct filling {
    std::uint32_t place = 0;
    std::size_t missing = 0;
  };

  [[nodiscard]] bool take_share(std::uint64_t length) {
    if (auto* tokens = connection_.tokens(carrier()); tokens == nullptr || tokens->full())
      return false;
    const std::uint64_t most = owner_.extent_bytes_max();
    share_ = owner_.tokens().take(token_budget::kind::value,
                                  std::max<std::uint64_t>(1, (length + most - 1) / most));
    return static_cast<bool>(share_);
  }

  /// Goes on with the steps, in their order.
  void work() {
    while (!over() && active_ == nullptr && !steps_.empty()) {
      active_ = steps_.front();
      steps_.pop_front();
      if (active_->is_commit())
        begin_commit(*active_);
      else
        begin_write(*active_);
    }
  }

  void answer_active(status code) {
    if (active_ != nullptr)
      std::exchange(active_, nullptr)->answer(code);
  }

  void begin_write(value_step& step) {
    const auto& range = step.range();
    if (!writer_.has_value()) {
      finish(refused_);
    } else if (range.value_offset > length_ || range.length > length_ - range.value_offset) {
      answer_active(status::out_of_range);
    } else if (range.value_offset != written_) {
      answer_active(status::bad_request);
    } else if (range.length > 0 && writer_->uses_buffers() && !share_.hold_buffer()) {
      answer_active(status::busy);
    } else {
      asked_ = written_;
      end_ = written_ + range.length;
      step.now_in(request_stage::network);
      feed();
      look();
    }
  }

  void begin_commit(value_step& step) {
    const auto& wanted = step.commit();
    forget_token();
    if (!writer_.has_value()) {
      finish(refused_);
      return;
    }
    if (step.header().kind != header_.kind || wanted.value_length != length_ || written_ != length_) {
      finish(status::bad_request);
      return;
    }
    if (!digest_matches(wanted.digest)) {
      owner_.counters().digest_mismatches.add();
      finish(status::digest_mismatch);
      return;
    }
    committing_ = true;
    step.now_in(request_stage::drive);
    if (wanted.if_absent)
      writer_->demand_absence();
    writer_->commit(step.latest_ns());
    look();
  }

  [[nodiscard]] bool digest_matches(const wire::digest16& given) {
    if (length_ == 0)
      return wire::all_zero(given);
    if (digest_.has_value())
      return digest_->matches(given);
    return wire::equal_in_constant_time(wire::crc32c_digest(writer_->crc32c()), given);
  }

  [[nodiscard]] bool writing() const noexcept {
    return active_ != nullptr && !committing_ && !given_up() && writer_.has_value() && !writer_->failed();
  }

  /// Asks for as much of the range as may be in flight. A place may take more than the range brings: the rest
  /// of it waits for the next one, since drives are not written in pieces of any length.
  void feed() {
    while (writing() && asked_ < end_ && may_move()) {
      if (!place_.has_value()) {
        auto next = writer_->next_place(step_bytes_max());
        if (next.bytes.empty()) {
          if (writer_->waits_for_buffer())
            wait_for_memory();
          return;
        }
        filling_.push_back({next.number, next.bytes.size()});
        place_ = std::move(next);
        place_asked_ = 0;
      }
      part one;
      one.place = place_->number;
      one.to = place_->bytes.subspan(place_asked_);
      one.to = one.to.first(std::min<std::uint64_t>(one.to.size(), end_ - asked_));
      local_piece local{one.to.data(), static_cast<std::uint32_t>(one.to.size()), place_->keep};
      if (!reaches(one.to)) {
        one.detour = bounce(one.to.size());
        if (one.detour.data == nullptr) {
          wait_for_memory();
          return;
        }
        if (!reaches({one.detour.data, one.to.size()})) {
          writer_->abort(status::unavailable);
          return;
        }
        local.data = one.detour.data;
        local.keep = one.detour.keep;
      }
      const auto& range = active_->range();
      move(true, 0, next_part_, std::move(local), range.client_address + (asked_ - written_), range.rkey);
      asked_ += one.to.size();
      place_asked_ += one.to.size();
      if (place_asked_ == place_->bytes.size())
        place_.reset();
      parts_.emplace(next_part_++, std::move(one));
    }
  }

  void transfer_over(const memory_transfer& one) override {
    const auto found = parts_.find(one.piece);
    MEMKV_ASSERT(found != parts_.end() && writer_.has_value(), "a value waits for its transfers");
    const auto arrived = std::move(found->second);
    parts_.erase(found);
    if (!writer_->failed()) {
      if (one.result != status::ok)
        writer_->abort(one.result);
      else
        take_part(arrived);
    }
    feed();
    look();
  }

  void take_part(const part& arrived) {
    if (arrived.detour.data != nullptr)
      std::memcpy(arrived.to.data(), arrived.detour.data, arrived.to.size());
    const auto at = std::ranges::find(filling_, arrived.place, &filling::place);
    at->missing -= arrived.to.size();
    if (at->missing > 0)
      return;
    filling_.erase(at);
    writer_->filled(arrived.place);
    for (auto next = writer_->take_filled(); !next.bytes.empty(); next = writer_->take_filled())
      if (digest_.has_value())
        digest_->update(next.bytes);
  }

  [[nodiscard]] std::uint64_t transfer_deadline_ns() const override {
    return std::min(deadline_ns_, active_->latest_ns());
  }

  /// After each event: is the step over that is being worked on, or the value?
  void look() {
    if (over() || !writer_.has_value())
      return;
    if (committing_) {
      if (!writer_->finished())
        return;
      const auto code = writer_->result();
      if (code == status::ok) {
        owner_.counters().writes.add();
        owner_.counters().write_bytes.add(length_);
        if (active_ != nullptr)
          std::exchange(active_, nullptr)->answer_stored(writer_->generation());
      }
      finish(code);
      return;
    }
    if (writer_->failed()) {
      if (in_flight() > 0 || !writer_->finished())
        return;
      if (active_ != nullptr || given_up()) {
        finish(writer_->result());
        return;
      }
      // Between two steps: the next one is told.
      refused_ = writer_->result();
      let_go();
      return;
    }
    if (active_ == nullptr || asked_ < end_ || in_flight() > 0 || writer_->waits_for_space())
      return;
    written_ = end_;
    if (!writer_->holds_buffer())
      share_.let_go_of_buffer();
    answer_active(status::ok);
    work();
  }

  /// Of everything but the token.
  void let_go() {
    writer_.reset();
    place_.reset();
    filling_.clear();
    digest_.reset();
    share_.let_go_of_buffer();
  }

  void forget_token() {
    if (auto* tokens = connection_.tokens(carrier()); tokens != nullptr)
      tokens->drop(token_);
  }

  /// The value is stored or given up, and nothing of it is under way.
  void finish(status code) {
    if (std::exchange(finished_, true))
      return; // its last answer may close the connection, which ends it
    forget_token();
    let_go();
    share_.give_back();
    if (code != status::ok && active_ != nullptr)
      owner_.counters().write_failures.add();
    answer_active(code);
    for (auto* step : std::exchange(steps_, {}))
      step->answer(status::not_found);
    item_decided();
  }

  // rdma_batch_request

  void forget_transfers() override { parts_.clear(); }

  void give_up(status why) override {
    if (committing_ || finished_)
      return; // all of it had arrived: it may still take effect
    forget_token();
    if (!writer_.has_value()) {
      finish(why);
      return;
    }
    writer_->abort(why);
    look();
  }

  void go_on() override {
    feed();
    look();
  }

  void open_more() override {}

  /// Those that follow have been answered.
  void answer() override {
    if (token_ == 0)
      send_status(refused_);
  }

  [[nodiscard]] bool at_drives() const override { return committing_; }

  std::uint64_t length_ = 0;
  std::uint64_t token_ = 0; // once it has been answered
  std::optional<value_writer> writer_;
  std::optional<wire::payload_digest> digest_; // keyed
  token_budget::share share_;
  status refused_ = status::ok; // why there is no writer
  std::deque<value_step*> steps_;
  value_step* active_ = nullptr;
  bool committing_ = false;
  bool finished_ = false;
  std::uint64_t written_ = 0;                // by the Writes that are over
  std::uint64_t asked_ = 0, end_ = 0;        // of the one that is not
  std::optional<value_writer::place> place_; // that the next bytes go to
  std::size_t place_asked_ = 0;
  std::vector<filling> filling_;
  std::unordered_map<std::uint32_t, part> parts_; // in flight
  std::uint32_t next_part_ = 0;
};

} // namespace

std::unique_ptr<tcp_request> make_allocate_request(tcp_connection& connection, reactor& owner,
                                                   const wire::frame_header& header) {
  return std::make_unique<allocate_request>(connection, owner, header);
}

std::unique_ptr<tcp_request> make_value_step(tcp_connection& connection, reactor& owner,
                                             const wire::frame_header& header) {
  return std::make_unique<value_step>(connection, owner, header);
}

} // namespace memkv::actors
