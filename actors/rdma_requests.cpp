#include "actors/rdma_requests.hpp"

#include "actors/rdma_batch.hpp"
#include "actors/reactor.hpp"
#include "actors/tcp_connection.hpp"
#include "wire/assert.hpp"
#include "wire/rdma_messages.hpp"

#include <caf/send.hpp>

#include <algorithm>

namespace memkv::actors {

using wire::opcode;
using wire::status;

namespace {

verbs::peer_address from_wire(const wire::rdma_address& given) {
  verbs::peer_address out;
  out.what =
      given.kind == wire::rdma_kind::dc ? verbs::peer_address::kind::dc : verbs::peer_address::kind::rc;
  static_assert(sizeof(out.port.port_gid) == sizeof(given.gid));
  std::ranges::copy(given.gid, out.port.port_gid.begin());
  out.port.lid = given.lid;
  out.number = given.number;
  out.packet_number = given.packet_number;
  out.mtu_bytes = given.path_mtu;
  out.reads_served_max = given.reads_served_max;
  out.dc_key = given.dc_key;
  return out;
}

wire::rdma_address to_wire(const verbs::peer_address& given) {
  wire::rdma_address out;
  out.kind = given.what == verbs::peer_address::kind::dc ? wire::rdma_kind::dc : wire::rdma_kind::rc;
  std::ranges::copy(given.port.port_gid, out.gid.begin());
  out.lid = given.port.lid;
  out.number = given.number;
  out.packet_number = given.packet_number;
  out.path_mtu = given.mtu_bytes;
  out.reads_served_max = given.reads_served_max;
  out.dc_key = given.dc_key;
  return out;
}

// --- TcpAttach, Connect ---

/// When nobody waits for its answer any more the session that was made is detached by REACTOR.
class session_request : public tcp_request {
public:
  using tcp_request::tcp_request;

  void pool_lost(std::uint32_t rail) final {
    if (rail == rail_)
      answer(status::unavailable);
  }

  void expire() final {
    if (over())
      return;
    owner_.counters().deadlines_exceeded.add();
    answer(status::deadline_exceeded);
  }

  void abandon() final { end(); }

protected:
  /// `wanted` without what is known here.
  void ask(std::uint32_t rail, attach_session wanted) {
    rail_ = rail;
    wanted.pool = owner_.rails().pool(rail);
    if (wanted.pool == nullptr) {
      answer(status::unsupported);
      return;
    }
    if (deadline_ns_ != 0)
      owner_.expire_at(serial(), deadline_ns_);
    wanted.request = serial();
    wanted.host = connection_.host();
    caf::anon_send(connection_.handle(), std::move(wanted));
  }

  void answer(status code) {
    if (over())
      return;
    send_status(code);
    end();
  }

  [[nodiscard]] std::uint32_t rail() const noexcept { return rail_; }

private:
  std::uint32_t rail_ = 0;
};

class attach_request final : public session_request {
public:
  using session_request::session_request;

  void begin(wire::bytes_view variable) override {
    wire::attach_request message;
    if (const auto decoded = wire::attach_request::decode(variable, message); decoded != status::ok) {
      answer(decoded);
      return;
    }
    attach_session wanted;
    wanted.client = from_wire(message.client);
    ask(message.rail % owner_.rails().size(), std::move(wanted));
  }

  void attached(const session_attached& message) override {
    if (over())
      return;
    if (message.result != status::ok) {
      answer(message.result);
      return;
    }
    send_reply(reply(status::ok),
               wire::attach_reply{message.session, message.transfer_bytes_max, to_wire(message.server)});
    end();
  }
};

/// The first rail that has a pool: messages need none in particular.
class connect_request final : public session_request {
public:
  using session_request::session_request;

  void begin(wire::bytes_view variable) override {
    if (const auto decoded = wire::connect_request::decode(variable, message_); decoded != status::ok) {
      answer(decoded);
      return;
    }
    const auto& rails = owner_.rails();
    std::uint32_t rail = 0;
    while (rail + 1 < rails.size() && rails.pool(rail) == nullptr)
      ++rail;
    attach_session wanted;
    wanted.client = from_wire(message_.client);
    wanted.theirs = {message_.messages_max, message_.message_bytes_max};
    wanted.ours = {tcp_connection::messages_max, tcp_connection::message_bytes_max};
    wanted.reactor = owner_.as_actor();
    ask(rail, std::move(wanted));
  }

  void attached(const session_attached& message) override {
    if (over())
      return;
    if (message.result != status::ok) {
      answer(message.result);
      return;
    }
    wire::connect_reply out;
    out.session_id = message.session;
    out.messages_max = tcp_connection::messages_max;
    out.message_bytes_max = tcp_connection::message_bytes_max;
    out.nonce = wire::random_nonce();
    out.server = to_wire(message.server);
    connection_.queue_pair_made(rail(), message_, out);
    send_reply(reply(status::ok), out);
    end();
  }

private:
  wire::connect_request message_;
};

// --- TcpDetach ---

class detach_request final : public tcp_request {
public:
  using tcp_request::tcp_request;

  void begin(wire::bytes_view variable) override {
    wire::session_message message;
    if (const auto decoded = wire::session_message::decode(variable, message); decoded != status::ok) {
      answer(decoded);
      return;
    }
    session_ = message.session_id;
    auto* found = owner_.rails().find(session_, connection_.id());
    if (found == nullptr) {
      answer(status::not_found);
      return;
    }
    found->ending = true;
    if (deadline_ns_ != 0)
      owner_.expire_at(serial(), deadline_ns_);
    caf::anon_send(connection_.handle(), detach_session{serial(), session_, nullptr});
  }

  // REACTOR says that a session is lost before it passes on the answer that it has ended.
  void session_lost(std::uint64_t session) override {
    if (session == session_ && owner_.rails().requests_on(session_) == 0)
      answer(status::ok);
  }
  void session_unused(std::uint64_t session) override {
    if (session == session_)
      answer(status::ok);
  }

  void expire() override {
    if (over())
      return;
    owner_.counters().deadlines_exceeded.add();
    answer(status::deadline_exceeded);
  }

  void abandon() override { end(); }

private:
  void answer(status code) {
    if (over())
      return;
    send_status(code);
    end();
  }

  std::uint64_t session_ = 0;
};

} // namespace

std::unique_ptr<tcp_request> make_rdma_request(tcp_connection& connection, reactor& owner,
                                               const wire::frame_header& header) {
  switch (header.opcode) {
  case opcode::tcp_attach:
    return std::make_unique<attach_request>(connection, owner, header);
  case opcode::connect:
    return std::make_unique<connect_request>(connection, owner, header);
  case opcode::tcp_detach:
    return std::make_unique<detach_request>(connection, owner, header);
  case opcode::batch_write:
    return make_batch_write_request(connection, owner, header);
  case opcode::batch_read:
    return make_batch_read_request(connection, owner, header);
  case opcode::allocate:
    return make_allocate_request(connection, owner, header);
  case opcode::write:
  case opcode::commit:
    return make_value_step(connection, owner, header);
  case opcode::read:
    return make_read_request(connection, owner, header);
  default:
    break;
  }
  MEMKV_ASSERT(false, "only the opcodes of sessions come here");
  return nullptr;
}

} // namespace memkv::actors
