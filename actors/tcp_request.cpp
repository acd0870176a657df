#include "actors/tcp_request.hpp"

#include "actors/delete_requests.hpp"
#include "actors/get_requests.hpp"
#include "actors/lookup_requests.hpp"
#include "actors/put_requests.hpp"
#include "actors/queries.hpp"
#include "actors/rdma_requests.hpp"
#include "actors/reactor.hpp"
#include "actors/tcp_connection.hpp"

namespace memkv::actors {

using wire::digest_kind;
using wire::frame_header;
using wire::opcode;
using wire::status;

namespace {

request_kind kind_of(opcode what) noexcept {
  switch (what) {
  case opcode::tcp_get:
    return request_kind::get;
  case opcode::tcp_batch_get:
    return request_kind::batch_get;
  case opcode::tcp_put:
    return request_kind::put;
  case opcode::tcp_batch_put:
    return request_kind::batch_put;
  case opcode::tcp_delete:
  case opcode::erase:
    return request_kind::remove;
  case opcode::tcp_batch_delete:
    return request_kind::batch_remove;
  case opcode::exists:
    return request_kind::exists;
  case opcode::batch_exists:
    return request_kind::batch_exists;
  case opcode::prefix:
    return request_kind::prefix;
  case opcode::lookup:
    return request_kind::lookup;
  case opcode::batch_read:
    return request_kind::batch_read;
  case opcode::batch_write:
    return request_kind::batch_write;
  case opcode::tcp_attach:
  case opcode::connect:
    return request_kind::attach;
  case opcode::allocate:
    return request_kind::allocate;
  case opcode::write:
    return request_kind::write;
  case opcode::commit:
    return request_kind::commit;
  case opcode::read:
    return request_kind::read;
  default:
    return request_kind::count_;
  }
}

} // namespace

tcp_request::tcp_request(tcp_connection& connection, reactor& owner, const frame_header& header)
    : connection_(connection), owner_(owner), header_(header),
      clock_(kind_of(header.opcode), owner.now_ns()), carrier_(connection.carrier()) {
  if (header.deadline_ms != 0)
    deadline_ns_ = owner.now_ns() + std::uint64_t{header.deadline_ms} * 1'000'000;
}

tcp_request::~tcp_request() {
  if (serial_ != 0)
    owner_.delist(serial_, deadline_ns_);
}

std::uint64_t tcp_request::serial() {
  if (serial_ == 0)
    serial_ = owner_.enlist(*this);
  return serial_;
}

payload_step tcp_request::next_payload(std::uint64_t left) {
  return {{}, nullptr, left};
}

outgoing tcp_request::next_part() {
  return {};
}

frame_header tcp_request::reply(status code, bool last) const {
  return wire::reply_header(header_, connection_.tag(), code, last);
}

void tcp_request::now_in(request_stage stage) noexcept {
  clock_.enter(stage, owner_.now_ns());
}

void tcp_request::hand_clock_to(outgoing& frame) noexcept {
  frame.clock = clock_.hand_over(owner_.now_ns());
}

void tcp_request::queue(outgoing frame) {
  hand_clock_to(frame);
  connection_.queue(std::move(frame), this);
}

void tcp_request::send_status(status code) {
  if (code == status::busy)
    owner_.counters().busy.add();
  send_reply(reply(code), wire::empty_message{});
}

void tcp_request::move_deadline(std::uint64_t deadline_ns) {
  if (deadline_ns_ != 0)
    owner_.cancel_expiry(serial(), deadline_ns_);
  deadline_ns_ = deadline_ns;
  owner_.expire_at(serial(), deadline_ns_);
}

void tcp_request::end() {
  if (serial_ != 0) {
    owner_.delist(serial_, deadline_ns_);
    serial_ = 0;
  }
  connection_.ended(*this);
}

std::unique_ptr<tcp_request> make_request(tcp_connection& connection, reactor& owner,
                                          const frame_header& header, wire::bytes_view variable) {
  const auto refuse = [&](status code) -> std::unique_ptr<tcp_request> {
    outgoing out;
    wire::append_frame(out.frame, wire::reply_header(header, connection.tag(), code), wire::empty_message{});
    connection.queue(std::move(out));
    return nullptr;
  };
  const bool weak = owner.shared().options.require_keyed_digest && header.kind != digest_kind::keyed;
  switch (header.opcode) {
  case opcode::tcp_put:
    return weak ? refuse(status::keyed_digest_required) : make_put_request(connection, owner, header);
  case opcode::tcp_batch_put:
    return weak ? refuse(status::keyed_digest_required) : make_batch_put_request(connection, owner, header);
  case opcode::tcp_get:
    return weak ? refuse(status::keyed_digest_required) : make_get_request(connection, owner, header);
  case opcode::tcp_batch_get:
    return weak ? refuse(status::keyed_digest_required) : make_batch_get_request(connection, owner, header);
  case opcode::lookup:
    // The socket has no tokens: there the flag is none.
    if (header.lease() && connection.carrier() == 0) {
      owner.counters().malformed.add();
      return refuse(status::bad_request);
    }
    return weak ? refuse(status::keyed_digest_required) : make_lookup_request(connection, owner, header);
  case opcode::tcp_delete:
  case opcode::erase:
  case opcode::tcp_batch_delete:
    return weak ? refuse(status::keyed_digest_required) : make_delete_request(connection, owner, header);
  case opcode::exists:
  case opcode::batch_exists:
  case opcode::prefix:
  case opcode::ping:
  case opcode::stat:
    if (weak)
      return refuse(status::keyed_digest_required);
    if (answer_query(connection, owner, header, variable))
      return nullptr;
    break;
  case opcode::tcp_attach:
  case opcode::connect:
  case opcode::tcp_detach:
  case opcode::batch_write:
  case opcode::batch_read:
    if (owner.rails().size() == 0)
      break;
    return weak ? refuse(status::keyed_digest_required) : make_rdma_request(connection, owner, header);
  case opcode::allocate:
  case opcode::write:
  case opcode::commit:
  case opcode::read:
    if (owner.rails().size() == 0 || connection.carrier() == 0)
      break;
    return weak ? refuse(status::keyed_digest_required) : make_rdma_request(connection, owner, header);
  default:
    break;
  }
  return refuse(status::unsupported);
}

} // namespace memkv::actors
