#include "actors/lookup_requests.hpp"

#include "actors/reactor.hpp"
#include "actors/tcp_connection.hpp"
#include "actors/value_reader.hpp"
#include "wire/crc32c.hpp"
#include "wire/messages.hpp"

#include <algorithm>
#include <memory>
#include <utility>

namespace memkv::actors {

using wire::frame_header;
using wire::status;

namespace {

class lookup_request final : public tcp_request, public block_lease {
public:
  using tcp_request::tcp_request;
  ~lookup_request() override {
    // Only when the reactor itself ends: nobody is told.
    if (token_ != 0)
      static_cast<void>(owner_.rails().leave(carrier()));
  }

  void begin(wire::bytes_view variable) override {
    wire::key_request message;
    auto code = wire::key_request::decode(variable, message);
    // What cannot be had is not read for.
    if (code == status::ok && header_.lease() && connection_.tokens(carrier())->full()) {
      owner_.counters().leases_refused.add();
      code = status::busy;
    }
    if (code == status::ok) {
      if (deadline_ns_ != 0)
        owner_.expire_at(serial(), deadline_ns_);
      reader_ = std::make_shared<value_reader>(owner_, serial(), 0);
      code = reader_->open(header_.ns.text(), message.key, 0, 0, 0, wire::limits::part_bytes_max);
    }
    if (code == status::ok)
      go_on();
    else
      answer(code == status::corrupt ? status::not_found : code);
  }

  void was_read(const extent_read_ptr& read) override {
    reader_->was_read(read);
    go_on();
  }
  void buffers_there() override {
    reader_->buffers_there();
    go_on();
  }
  void drive_down(std::uint32_t drive) override {
    reader_->drive_down(drive);
    if (token_ == 0)
      go_on();
    else if (reader_->lost())
      end_lease(); // nothing of the drive may be held when it is opened again
  }
  void session_lost(std::uint64_t session) override {
    if (token_ != 0 && session == carrier())
      end_lease();
  }
  void expire() override {
    if (over())
      return;
    if (token_ == 0) {
      answer(status::deadline_exceeded);
      return;
    }
    owner_.counters().leases_expired.add();
    end_lease();
  }
  void abandon() override {
    if (token_ != 0)
      end_lease();
    else
      end();
  }

  [[nodiscard]] const std::shared_ptr<value_reader>& block() const noexcept override { return reader_; }
  [[nodiscard]] std::uint64_t ends_at_ns() const noexcept override { return deadline_ns_; }
  void release() override { end_lease(); }

private:
  void answer(status code) {
    send_status(code);
    end();
  }

  void go_on() {
    now_in(reader_->waits_for_room() ? request_stage::queue : request_stage::drive);
    while (!over() && token_ == 0 && reader_->ready()) {
      const auto piece = reader_->next();
      if (piece.status != status::ok) {
        answer(piece.status == status::corrupt ? status::not_found : piece.status);
        return;
      }
      sum_ = wire::crc32c_combine(sum_, piece.crc32c, piece.bytes);
      if (piece.last)
        found();
    }
  }

  void found() {
    auto header = reply(status::ok);
    header.value_length = reader_->value_length();
    wire::lookup_reply body{reader_->generation(), sum_, 0, 0};
    if (header_.lease()) {
      const auto refused = begin_lease();
      if (refused != status::ok) {
        answer(refused);
        return;
      }
      body.lease_token = token_;
      body.lease_ms = owner_.shared().options.limits.request_ms;
    }
    send_reply(header, body);
    if (token_ == 0)
      end();
    else
      connection_.lives_on(*this);
  }

  [[nodiscard]] status begin_lease() {
    auto* session = owner_.rails().find(carrier(), connection_.id());
    auto* tokens = connection_.tokens(carrier());
    if (session == nullptr || tokens == nullptr)
      return status::session_ended; // it is ending: nobody will read this
    if (tokens->full()) {
      owner_.counters().leases_refused.add();
      return status::busy;
    }
    share_ = owner_.tokens().take(token_budget::kind::lease, reader_->extents());
    if (!share_ || !reader_->count_as_lease()) {
      share_.give_back();
      owner_.counters().leases_refused.add();
      return status::busy;
    }
    // Its end is answered when the lease has ended.
    ++session->requests;
    token_ = tokens->add(*this);
    move_deadline(owner_.now_ns() + std::uint64_t{owner_.shared().options.limits.request_ms} * 1'000'000);
    return status::ok;
  }

  void end_lease() {
    if (over())
      return;
    if (auto* tokens = connection_.tokens(carrier()); tokens != nullptr)
      tokens->drop(token_);
    token_ = 0;
    reader_.reset();
    share_.give_back();
    end();
    owner_.leave_session(carrier());
  }

  std::shared_ptr<value_reader> reader_;
  std::uint32_t sum_ = 0;
  token_budget::share share_;
  std::uint64_t token_ = 0; // of the lease, while there is one
};

} // namespace

std::unique_ptr<tcp_request> make_lookup_request(tcp_connection& connection, reactor& owner,
                                                 const frame_header& header) {
  return std::make_unique<lookup_request>(connection, owner, header);
}

} // namespace memkv::actors
