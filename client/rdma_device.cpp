#include "client/rdma_device.hpp"

#include "wire/auth.hpp"

#include <utility>

namespace memkv::client {
namespace {

[[nodiscard]] verbs::status gone(const std::string& name) {
  return {verbs::errc::device_failed, "The RDMA device " + name + " is gone or its port is down."};
}

constexpr verbs::remote_access lent{.read = true, .write = true};

} // namespace

rdma_device::rdma_device(std::string name, std::unique_ptr<verbs::fabric> fabric)
    : name_(std::move(name)), fabric_(std::move(fabric)) {
  event_descriptor_ = fabric_->event_descriptor();
  dc_ = fabric_->facts().dc;
}

rdma_device::~rdma_device() {
  close();
}

verbs::status rdma_device::open_session(bool dc, session& out) {
  const std::lock_guard lock(mutex_);
  if (!fabric_) {
    return gone(name_);
  }
  open_session_parts parts;
  wire::rdma_address address;
  if (dc) {
    std::uint64_t key = 0;
    wire::fill_random(std::as_writable_bytes(std::span(&key, 1)));
    if (verbs::status made = fabric_->create_dc_target(key, parts.dc); !made.ok()) {
      return made;
    }
    const verbs::endpoint self = fabric_->self();
    address.kind = wire::rdma_kind::dc;
    address.path_mtu = fabric_->path().mtu_bytes;
    address.gid = self.port_gid;
    address.lid = self.lid;
    address.number = parts.dc->number();
    address.dc_key = parts.dc->key();
  } else {
    // Nothing is posted here, but a queue of no entries is not to be had.
    if (verbs::status made = fabric_->create_completion_queue(1, parts.completions); !made.ok()) {
      return made;
    }
    verbs::queue_pair_options options;
    options.completions = parts.completions.get();
    options.sends_max = 1;
    options.reads_max = 1;
    if (verbs::status made = fabric_->create_rc(options, parts.rc); !made.ok()) {
      return made;
    }
    const verbs::rc_address self = parts.rc->address();
    address.kind = wire::rdma_kind::rc;
    address.path_mtu = self.mtu_bytes;
    address.gid = self.port.port_gid;
    address.lid = self.port.lid;
    address.number = self.queue_pair_number;
    address.packet_number = self.packet_number;
    address.reads_served_max = self.reads_served_max;
  }
  out = {++last_, address};
  sessions_.emplace(out.id, std::move(parts));
  return {};
}

verbs::status rdma_device::connect(handle session, const wire::rdma_address& server) {
  const std::lock_guard lock(mutex_);
  const auto place = sessions_.find(session);
  if (place == sessions_.end()) {
    return gone(name_);
  }
  const bool wants_rc = place->second.rc != nullptr;
  if (wants_rc != (server.kind == wire::rdma_kind::rc)) {
    return {verbs::errc::invalid_argument, "The server answered with an address of the other kind."};
  }
  if (!wants_rc) {
    return {};
  }
  verbs::rc_address peer;
  peer.port = {server.gid, server.lid};
  peer.queue_pair_number = server.number;
  peer.packet_number = server.packet_number;
  peer.mtu_bytes = server.path_mtu;
  peer.reads_served_max = server.reads_served_max;
  return place->second.rc->connect(peer);
}

void rdma_device::close_session(handle session) noexcept {
  const std::lock_guard lock(mutex_);
  sessions_.erase(session);
}

std::size_t rdma_device::sessions() const {
  const std::lock_guard lock(mutex_);
  return sessions_.size();
}

verbs::status rdma_device::register_memory(std::span<std::byte> range, memory& out) {
  const std::lock_guard lock(mutex_);
  if (!fabric_) {
    return gone(name_);
  }
  std::unique_ptr<verbs::memory_region> made;
  if (verbs::status registered = fabric_->register_memory(range, lent, made); !registered.ok()) {
    return registered;
  }
  out = {++last_, made->rkey()};
  regions_.emplace(out.id, std::move(made));
  return {};
}

verbs::status rdma_device::register_dma_buf(int descriptor, std::uint64_t offset, std::uint64_t length,
                                            std::uint64_t address, memory& out) {
  const std::lock_guard lock(mutex_);
  if (!fabric_) {
    return gone(name_);
  }
  std::unique_ptr<verbs::memory_region> made;
  if (verbs::status registered = fabric_->register_dma_buf(descriptor, offset, length, address, lent, made);
      !registered.ok()) {
    return registered;
  }
  out = {++last_, made->rkey()};
  regions_.emplace(out.id, std::move(made));
  return {};
}

void rdma_device::deregister(handle memory) noexcept {
  const std::lock_guard lock(mutex_);
  regions_.erase(memory);
}

bool rdma_device::watch() noexcept {
  bool lost = false;
  {
    const std::lock_guard lock(mutex_);
    while (fabric_) {
      const verbs::fabric_event event = fabric_->next_event();
      if (event == verbs::fabric_event::none) {
        break;
      }
      // A link that is deleted waits for all who hold it open, so its port going down is the end too.
      lost = lost || event == verbs::fabric_event::port_down || event == verbs::fabric_event::device_removed;
      if (event == verbs::fabric_event::device_removed) {
        break;
      }
    }
  }
  if (lost) {
    close();
  }
  return lost;
}

void rdma_device::close() noexcept {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  event_descriptor_ = -1;
  sessions_.clear();
  regions_.clear();
  fabric_.reset();
}

} // namespace memkv::client
