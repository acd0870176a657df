#include "test/unit/client/fake_rdma.hpp"

#include <poll.h>

#include <array>
#include <cstdio>
#include <cstdlib>

namespace memkv::test {
namespace {

void must(const verbs::status& outcome) {
  if (!outcome.ok()) {
    std::fprintf(stderr, "fake_rdma: %s\n", outcome.text.c_str());
    std::abort();
  }
}

} // namespace

fake_rdma::fake_rdma(shared_network& network, const verbs::simulated_node_options& options)
    : fabric_(network.create_node(options)) {}

fake_rdma::~fake_rdma() {
  sessions_.clear();
}

std::size_t fake_rdma::sessions() const {
  const std::lock_guard lock(mutex_);
  return sessions_.size();
}

wire::status fake_rdma::attach(const void* connection, const wire::attach_request& wanted,
                               wire::attach_reply& reply) {
  const bool dc = wanted.client.kind == wire::rdma_kind::dc;
  if (attach_answer.load() != wire::status::ok) {
    return attach_answer;
  }
  if (dc && !takes_dc) {
    return wire::status::unsupported;
  }
  const std::lock_guard lock(mutex_);
  session made;
  made.connection = connection;
  must(fabric_->create_completion_queue(64, made.completions));
  verbs::queue_pair_options options;
  options.completions = made.completions.get();
  options.sends_max = 16;
  const verbs::endpoint port{wanted.client.gid, wanted.client.lid};
  reply.server.kind = wanted.client.kind;
  reply.server.path_mtu = fabric_->path().mtu_bytes;
  reply.server.gid = fabric_->self().port_gid;
  if (dc) {
    must(fabric_->create_dc_initiator(options, made.dc));
    must(fabric_->create_address_handle(port, made.handle));
    made.target = {made.handle.get(), wanted.client.number, wanted.client.dc_key};
    ++attached_dc;
  } else {
    must(fabric_->create_rc(options, made.rc));
    must(made.rc->connect({port, wanted.client.number, wanted.client.packet_number, wanted.client.path_mtu,
                           wanted.client.reads_served_max}));
    const verbs::rc_address own = made.rc->address();
    reply.server.number = own.queue_pair_number;
    reply.server.packet_number = own.packet_number;
    reply.server.reads_served_max = own.reads_served_max;
  }
  ++attached;
  reply.session_id = ++last_;
  reply.transfer_bytes_max = 1U << 20U;
  sessions_.emplace(last_, std::move(made));
  return wire::status::ok;
}

wire::status fake_rdma::detach(const void* connection, std::uint64_t session) {
  if (!has_session(connection, session)) {
    return wire::status::not_found;
  }
  const std::lock_guard lock(mutex_);
  sessions_.erase(session);
  ++detached;
  return wire::status::ok;
}

void fake_rdma::connection_ended(const void* connection) {
  const std::lock_guard lock(mutex_);
  std::erase_if(sessions_, [&](const auto& one) { return one.second.connection == connection; });
}

bool fake_rdma::has_session(const void* connection, std::uint64_t session) const {
  const std::lock_guard lock(mutex_);
  const auto place = sessions_.find(session);
  return place != sessions_.end() && place->second.connection == connection && !end_sessions.load();
}

wire::status fake_rdma::transfer(std::uint64_t number, verbs::operation kind, std::uint64_t address,
                                 std::uint32_t rkey, std::span<std::byte> bytes) {
  ++transfers_begun;
  if (transfers_end.load() != wire::status::ok) {
    return transfers_end;
  }
  // A session is used by the thread of its connection only.
  session* used = nullptr;
  {
    const std::lock_guard lock(mutex_);
    const auto place = sessions_.find(number);
    if (place == sessions_.end()) {
      return wire::status::session_ended;
    }
    used = &place->second;
  }
  verbs::queue_pair& pair = used->rc ? static_cast<verbs::queue_pair&>(*used->rc) : *used->dc;
  if (pair.state() != verbs::queue_pair_state::ready) {
    return wire::status::session_ended;
  }
  std::unique_ptr<verbs::memory_region> region;
  must(fabric_->register_memory(bytes, {}, region));
  const verbs::local_range local{reinterpret_cast<std::uintptr_t>(bytes.data()),
                                 static_cast<std::uint32_t>(bytes.size()), region->lkey()};
  verbs::work_request request;
  request.kind = kind;
  request.local = std::span(&local, 1);
  request.remote_address = address;
  request.rkey = rkey;
  request.target = used->dc ? &used->target : nullptr;
  request.signalled = true;
  if (!pair.post(std::span(&request, 1)).outcome.ok()) {
    return wire::status::unavailable;
  }
  std::array<verbs::report, 1> reports;
  while (used->completions->poll(reports) == 0) {
    const timespec pause{.tv_sec = 0, .tv_nsec = 20'000};
    ::ppoll(nullptr, 0, &pause, nullptr);
  }
  switch (reports[0].status) {
  case verbs::completion_status::success:
    return wire::status::ok;
  case verbs::completion_status::remote_access:
    return wire::status::memory_refused;
  default:
    return wire::status::unavailable;
  }
}

wire::status fake_rdma::fetch(std::uint64_t session, std::uint64_t address, std::uint32_t rkey,
                              std::span<std::byte> to) {
  ++reads;
  return to.empty() ? wire::status::ok : transfer(session, verbs::operation::read, address, rkey, to);
}

wire::status fake_rdma::place(std::uint64_t session, std::uint64_t address, std::uint32_t rkey,
                              std::span<const std::byte> from) {
  ++writes;
  if (from.empty()) {
    return wire::status::ok;
  }
  std::vector<std::byte> bytes(from.begin(), from.end());
  if (damage_reads) {
    bytes[bytes.size() / 3] ^= std::byte{16};
  }
  return transfer(session, verbs::operation::write, address, rkey, bytes);
}

} // namespace memkv::test
