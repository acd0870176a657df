#include "actors/delete_requests.hpp"

#include "actors/block_head.hpp"
#include "actors/reactor.hpp"
#include "actors/tcp_connection.hpp"
#include "wire/assert.hpp"
#include "wire/messages.hpp"

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

// --- TcpDelete, Delete, TcpBatchDelete ---

class delete_request final : public tcp_request {
public:
  using tcp_request::tcp_request;

  void begin(wire::bytes_view variable) override {
    const bool batch = header_.opcode == opcode::tcp_batch_delete;
    wire::key_request one;
    wire::batch_keys_view many;
    const auto code =
        batch ? wire::batch_keys_view::decode(variable, many) : wire::key_request::decode(variable, one);
    if (code != status::ok) {
      send_status(code);
      end();
      return;
    }
    const auto count = batch ? many.size() : 1;
    results_.assign(count, status::internal);
    striped_.resize(count);
    waiting_.assign(count, -1);
    left_ = count;
    if (batch) {
      std::uint32_t item = 0;
      // The last item may end the request, never an earlier one.
      for (const auto& each : many)
        erase(item++, wire::make_key_id(header_.ns.text(), each.key));
    } else {
      erase(0, wire::make_key_id(header_.ns.text(), one.key));
    }
    if (deadline_ns_ != 0 && !over())
      owner_.expire_at(serial(), deadline_ns_);
  }

  void expire() override {
    // What was asked of a drive may still happen.
    owner_.counters().deadlines_exceeded.add();
    for (std::uint32_t item = 0; item < waiting_.size() && !over(); ++item)
      if (waiting_[item] >= 0)
        decide(item, status::deadline_exceeded);
  }

  void erased(const block_erase_ptr& erase) override {
    // A drive that was given up may answer after all: its items are decided.
    if (waiting_[erase->item] < 0)
      return;
    auto code = status::internal;
    switch (erase->result) {
    case engine::errc::ok:
      code = status::ok;
      break;
    case engine::errc::not_found:
      code = status::not_found;
      break;
    case engine::errc::offline:
    case engine::errc::io_error:
      code = status::unavailable;
      break;
    case engine::errc::busy:
      code = status::busy;
      break;
    default:
      break;
    }
    if (code == status::ok) {
      erase_parts(erase->item, erase->id);
      if (striped_[erase->item].incomplete)
        code = status::not_found;
    }
    decide(erase->item, code);
  }

  void drive_down(std::uint32_t drive) override {
    for (std::uint32_t item = 0; item < waiting_.size() && !over(); ++item)
      if (waiting_[item] == static_cast<std::int64_t>(drive))
        decide(item, status::internal);
  }

  void abandon() override {
    abandoned_ = true;
    if (left_ == 0 && !over())
      end();
  }

private:
  struct striped {
    std::uint64_t put_id = 0;
    std::uint32_t parts = 1;
    bool incomplete = false; // a part is missing: it is a miss, and goes
  };

  void erase(std::uint32_t item, const wire::key_id& id) {
    auto& drives = owner_.drives();
    owner_.note_change(id);
    const auto home = drives.home(id);
    auto& seat = drives.at(home);
    if (seat.drive == nullptr) {
      decide(item, status::unavailable);
      return;
    }
    auto message = std::make_shared<block_erase>();
    if (const auto [pin, whole] = find_head(drives, id, owner_.extent_bytes_max());
        pin && (pin->flags & engine::entry_striped) != 0) {
      striped_[item].put_id = pin->put_id;
      striped_[item].parts = static_cast<std::uint32_t>((pin->value_length + owner_.extent_bytes_max() - 1) /
                                                        owner_.extent_bytes_max());
      striped_[item].incomplete = !whole;
      // What is put from here on comes after this request, which has found nothing.
      if (!whole)
        message->generation = pin->generation;
    }
    message->request = serial();
    message->item = item;
    message->reply_to = owner_.as_actor();
    message->id = id;
    waiting_[item] = home;
    now_in(request_stage::drive);
    owner_.send_to_drive(home, erase_block{std::move(message)});
  }

  void erase_parts(std::uint32_t item, const wire::key_id& id) {
    const auto& [put_id, parts, incomplete] = striped_[item];
    for (std::uint32_t part = 1; part < parts; ++part) {
      auto message = std::make_shared<block_erase>();
      message->id = engine::part_id(id, put_id, part);
      const auto home = owner_.drives().home(message->id);
      owner_.send_to_drive(home, erase_block{std::move(message)});
    }
  }

  void decide(std::uint32_t item, status code) {
    waiting_[item] = -1;
    results_[item] = code;
    if (code == status::ok)
      owner_.counters().deletes.add();
    else if (code == status::busy && header_.opcode == opcode::tcp_batch_delete)
      owner_.counters().busy.add();
    if (--left_ > 0)
      return;
    if (!abandoned_) {
      if (header_.opcode == opcode::tcp_batch_delete)
        send_reply(reply(status::ok), wire::batch_delete_reply{results_});
      else
        send_status(results_.front());
    }
    end();
  }

  std::vector<status> results_;
  std::vector<striped> striped_;
  std::vector<std::int64_t> waiting_; // drive that each item waits for, or -1
  std::size_t left_ = 0;
  bool abandoned_ = false;
};

} // namespace

std::unique_ptr<tcp_request> make_delete_request(tcp_connection& connection, reactor& owner,
                                                 const frame_header& header) {
  return std::make_unique<delete_request>(connection, owner, header);
}

} // namespace memkv::actors
