#include "test/unit/client/fake_rdma.hpp"

#include <poll.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>

namespace memkv::test {
namespace {

constexpr std::size_t opcode_at = 6; // in a frame

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
  std::vector<std::unique_ptr<session>> ended;
  for (auto& [id, one] : sessions_) {
    ended.push_back(std::move(one));
  }
  end(std::move(ended));
}

void fake_rdma::end(std::vector<std::unique_ptr<session>> ended) {
  for (const auto& one : ended) {
    one->over = true;
    if (one->thread.joinable()) {
      one->thread.join();
    }
  }
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
  auto owned = std::make_unique<session>();
  session& made = *owned;
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
  sessions_.emplace(last_, std::move(owned));
  return wire::status::ok;
}

wire::status fake_rdma::detach(const void* connection, std::uint64_t session) {
  if (!has_session(connection, session)) {
    return wire::status::not_found;
  }
  std::vector<std::unique_ptr<fake_rdma::session>> ended;
  if (forgets_to_detach) {
    ++detached;
    return wire::status::ok;
  }
  {
    const std::lock_guard lock(mutex_);
    ended.push_back(std::move(sessions_[session]));
    sessions_.erase(session);
  }
  end(std::move(ended));
  ++detached;
  return wire::status::ok;
}

void fake_rdma::connection_ended(const void* connection) {
  std::vector<std::unique_ptr<session>> ended;
  {
    const std::lock_guard lock(mutex_);
    for (auto place = sessions_.begin(); place != sessions_.end();) {
      if (place->second->connection != connection) {
        ++place;
        continue;
      }
      ended.push_back(std::move(place->second));
      place = sessions_.erase(place);
    }
  }
  end(std::move(ended));
}

// ---- messages ----

wire::status fake_rdma::connect(const void* connection, const wire::connect_request& wanted,
                                wire::connect_reply& reply,
                                const std::function<message_handler(const wire::connect_reply&)>& begin) {
  if (connect_answer.load() != wire::status::ok) {
    return connect_answer;
  }
  const std::lock_guard lock(mutex_);
  auto owned = std::make_unique<session>();
  session& made = *owned;
  made.connection = connection;
  made.message_bytes = message_bytes_max;
  reply.messages_max = messages_max;
  reply.message_bytes_max = made.message_bytes;
  const std::size_t room = std::max(made.message_bytes, wanted.message_bytes_max);
  made.memory.resize(std::size_t{reply.messages_max} * made.message_bytes + room);
  must(fabric_->register_memory(made.memory, {}, made.region));
  must(fabric_->create_completion_queue(256, made.completions));
  verbs::queue_pair_options options;
  options.completions = made.completions.get();
  options.sends_max = 16;
  options.receives_max = reply.messages_max;
  must(fabric_->create_rc(options, made.rc));
  for (std::uint32_t i = 0; i < reply.messages_max; ++i) {
    const verbs::receive_request receive{i,
                                         {made.region->address() + std::uint64_t{i} * made.message_bytes,
                                          made.message_bytes, made.region->lkey()}};
    must(made.rc->post_receives({&receive, 1}).outcome);
  }
  must(made.rc->connect({{wanted.client.gid, wanted.client.lid},
                         wanted.client.number,
                         wanted.client.packet_number,
                         wanted.client.path_mtu,
                         wanted.client.reads_served_max}));
  const verbs::rc_address own = made.rc->address();
  reply.server.kind = wire::rdma_kind::rc;
  reply.server.path_mtu = fabric_->path().mtu_bytes;
  reply.server.gid = fabric_->self().port_gid;
  reply.server.number = own.queue_pair_number;
  reply.server.packet_number = own.packet_number;
  reply.server.reads_served_max = own.reads_served_max;
  reply.nonce = wire::random_nonce();
  reply.session_id = ++last_;
  ++connected;
  made.thread = std::thread([this, &made, handler = begin(reply)] { serve_messages(made, handler); });
  sessions_.emplace(last_, std::move(owned));
  return wire::status::ok;
}

void fake_rdma::break_messages() {
  const std::lock_guard lock(mutex_);
  for (const auto& [id, one] : sessions_) {
    if (one->region != nullptr) {
      one->rc->fail();
    }
  }
}

void fake_rdma::serve_messages(session& served, const message_handler& handler) {
  std::vector<std::vector<std::byte>> held;
  std::uint64_t answered = 0;
  std::uint64_t came = 0;
  while (!served.over) {
    const std::optional<verbs::report> one = take_report(served, verbs::operation::receive);
    if (!one && (held.empty() || answers_held)) {
      const timespec pause{.tv_sec = 0, .tv_nsec = 20'000};
      ::ppoll(nullptr, 0, &pause, nullptr);
      continue;
    }
    if (one) {
      if (one->status != verbs::completion_status::success) {
        return; // until it is ended
      }
      const std::uint64_t at = one->id * served.message_bytes;
      const std::vector<std::byte> frame(served.memory.begin() + static_cast<std::ptrdiff_t>(at),
                                         served.memory.begin() +
                                             static_cast<std::ptrdiff_t>(at + one->bytes));
      messages += frame[opcode_at] == static_cast<std::byte>(wire::opcode::ping) ? 0 : 1;
      messages_open_peak = std::max(messages_open_peak.load(), ++came - answered);
      const verbs::receive_request again{
          one->id, {served.region->address() + at, served.message_bytes, served.region->lkey()}};
      static_cast<void>(served.rc->post_receives({&again, 1}).outcome.ok());
      for (std::vector<std::byte>& answer : handler(frame)) {
        held.push_back(std::move(answer));
      }
    }
    for (; !answers_held && !held.empty(); held.erase(held.begin())) {
      if (!send_message(served, held.front())) {
        return;
      }
      ++answered;
    }
  }
}

bool fake_rdma::send_message(session& served, wire::bytes_view frame) {
  const std::size_t at = served.memory.size() - std::max<std::size_t>(frame.size(), 1);
  std::copy(frame.begin(), frame.end(), served.memory.begin() + static_cast<std::ptrdiff_t>(at));
  const verbs::local_range local{served.region->address() + at, static_cast<std::uint32_t>(frame.size()),
                                 served.region->lkey()};
  verbs::work_request request;
  request.kind = verbs::operation::send;
  request.local = std::span(&local, 1);
  request.signalled = true;
  return served.rc->post(std::span(&request, 1)).outcome.ok() &&
         wait_for(served, verbs::operation::send) == verbs::completion_status::success;
}

std::optional<verbs::report> fake_rdma::take_report(session& served, verbs::operation kind) {
  const std::lock_guard lock(served.reports_mutex);
  std::array<verbs::report, 8> some;
  const std::size_t count = served.completions->poll(some);
  served.unseen.insert(served.unseen.end(), some.begin(), some.begin() + static_cast<std::ptrdiff_t>(count));
  const auto place = std::find_if(served.unseen.begin(), served.unseen.end(),
                                  [&](const verbs::report& one) { return one.kind == kind; });
  if (place == served.unseen.end()) {
    return std::nullopt;
  }
  const verbs::report found = *place;
  served.unseen.erase(place);
  return found;
}

verbs::completion_status fake_rdma::wait_for(session& served, verbs::operation kind) {
  while (true) {
    if (const std::optional<verbs::report> one = take_report(served, kind)) {
      return one->status;
    }
    if (served.over) {
      served.rc->fail(); // its report comes soon; the memory may not go before
    }
    const timespec pause{.tv_sec = 0, .tv_nsec = 20'000};
    ::ppoll(nullptr, 0, &pause, nullptr);
  }
}

// ---- transfers ----

bool fake_rdma::has_session(const void* connection, std::uint64_t session) const {
  const std::lock_guard lock(mutex_);
  const auto place = sessions_.find(session);
  return place != sessions_.end() && place->second->connection == connection && !end_sessions.load();
}

wire::status fake_rdma::transfer(std::uint64_t number, verbs::operation kind, std::uint64_t address,
                                 std::uint32_t rkey, std::span<std::byte> bytes) {
  ++transfers_begun;
  last_address = address;
  last_rkey = rkey;
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
    used = place->second.get();
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
  switch (wait_for(*used, kind)) {
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
