#include "client/rdma_device.hpp"

#include "wire/auth.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <utility>

namespace memkv::client {
namespace {

[[nodiscard]] verbs::status gone(const std::string& name) {
  return {verbs::errc::device_failed, "The RDMA device " + name + " is gone or its port is down."};
}

constexpr verbs::remote_access lent{.read = true, .write = true};

[[nodiscard]] wire::rdma_address to_wire(const verbs::rc_address& self) noexcept {
  wire::rdma_address address;
  address.kind = wire::rdma_kind::rc;
  address.path_mtu = self.mtu_bytes;
  address.gid = self.port.port_gid;
  address.lid = self.port.lid;
  address.number = self.queue_pair_number;
  address.packet_number = self.packet_number;
  address.reads_served_max = self.reads_served_max;
  return address;
}

/// Between two attempts to open a device again.
constexpr std::uint64_t again_ns = 100'000'000;

[[nodiscard]] std::uint64_t steady_ns() noexcept {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                        std::chrono::steady_clock::now().time_since_epoch())
                                        .count());
}

} // namespace

rdma_device::rdma_device(std::string name, std::unique_ptr<verbs::fabric> fabric, opener open_again)
    : name_(std::move(name)), open_again_(std::move(open_again)), fabric_(std::move(fabric)) {
  event_descriptor_ = fabric_->event_descriptor();
  dc_ = fabric_->facts().dc;
}

rdma_device::~rdma_device() {
  close();
  for (const auto& [id, one] : regions_) {
    if (one.descriptor >= 0) {
      ::close(one.descriptor);
    }
  }
}

// ---- opening it again ----

verbs::status rdma_device::open_if_closed() {
  if (fabric_) {
    return {};
  }
  if (!open_again_) {
    return gone(name_);
  }
  // Each call that fails says why, but the driver is not asked for each of them.
  if (const std::uint64_t now_ns = steady_ns(); tried_ns_ == 0 || now_ns - tried_ns_ >= again_ns) {
    problem_ = open_anew();
    tried_ns_ = steady_ns();
  }
  return fabric_ ? verbs::status{} : problem_;
}

verbs::status rdma_device::open_anew() {
  if (verbs::status opened = open_again_(fabric_); !opened.ok()) {
    fabric_.reset();
    return {opened.code, gone(name_).text + " It cannot be opened again: " + opened.text};
  }
  verbs::status fit = fabric_->facts().port_active ? verbs::status{} : gone(name_);
  for (auto place = regions_.begin(); fit.ok() && place != regions_.end(); ++place) {
    fit = make(place->second);
  }
  if (!fit.ok()) {
    close_fabric();
    return fit;
  }
  dc_ = fabric_->facts().dc;
  event_descriptor_ = fabric_->event_descriptor();
  ++openings_;
  closed_ = false;
  return {};
}

verbs::status rdma_device::make(region& one) {
  verbs::status made = one.descriptor >= 0 ? fabric_->register_dma_buf(one.descriptor, one.offset, one.length,
                                                                       one.address, lent, one.made)
                                           : fabric_->register_memory(one.range, lent, one.made);
  if (made.ok()) {
    *one.key = one.made->rkey();
  }
  return made;
}

verbs::status rdma_device::add(region one, memory& out) {
  one.key = std::make_shared<std::atomic<std::uint32_t>>(0);
  if (verbs::status registered = make(one); !registered.ok()) {
    return registered;
  }
  out = {++last_, one.key};
  regions_.emplace(out.id, std::move(one));
  return {};
}

// ---- what is made on it ----

verbs::status rdma_device::open_session(bool dc, session& out) {
  const std::lock_guard lock(mutex_);
  if (verbs::status there = open_if_closed(); !there.ok()) {
    return there;
  }
  dc = dc && dc_;
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
    address = to_wire(parts.rc->address());
  }
  out = {++last_, openings_.load(), address};
  sessions_.emplace(out.id, std::move(parts));
  return {};
}

verbs::status rdma_device::open_messages(const message_pair::room& wanted, std::function<void()> lost,
                                         session& out, std::shared_ptr<message_pair>& pair) {
  const std::lock_guard lock(mutex_);
  if (verbs::status there = open_if_closed(); !there.ok()) {
    return there;
  }
  open_session_parts parts;
  if (verbs::status made = message_pair::make(*fabric_, wanted, parts.messages); !made.ok()) {
    return made;
  }
  parts.lost = std::move(lost);
  pair = parts.messages;
  out = {++last_, openings_.load(), to_wire(pair->address())};
  sessions_.emplace(out.id, std::move(parts));
  return {};
}

verbs::status rdma_device::connect(handle session, const wire::rdma_address& server) {
  const std::lock_guard lock(mutex_);
  const auto place = sessions_.find(session);
  if (place == sessions_.end()) {
    return gone(name_);
  }
  open_session_parts& parts = place->second;
  const bool wants_rc = parts.dc == nullptr;
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
  return parts.messages != nullptr ? parts.messages->connect(peer) : parts.rc->connect(peer);
}

void rdma_device::close_session(handle session) noexcept {
  const std::lock_guard lock(mutex_);
  if (const auto place = sessions_.find(session); place != sessions_.end()) {
    if (place->second.messages != nullptr) {
      place->second.messages->close(); // its driver may hold it still
    }
    sessions_.erase(place);
  }
  if (fabric_ && fabric_->queue_pairs_left() != 0) {
    // The server may reach memory through it until that is withdrawn as well.
    closed_ = true;
    close_fabric();
  }
}

std::size_t rdma_device::sessions() const {
  const std::lock_guard lock(mutex_);
  return sessions_.size();
}

verbs::status rdma_device::register_memory(std::span<std::byte> range, memory& out) {
  const std::lock_guard lock(mutex_);
  if (verbs::status there = open_if_closed(); !there.ok()) {
    return there;
  }
  region one;
  one.range = range;
  return add(std::move(one), out);
}

verbs::status rdma_device::register_dma_buf(int descriptor, std::uint64_t offset, std::uint64_t length,
                                            std::uint64_t address, memory& out) {
  const std::lock_guard lock(mutex_);
  if (verbs::status there = open_if_closed(); !there.ok()) {
    return there;
  }
  region one;
  // The caller may close its own, and it is wanted again when the device is opened again.
  one.descriptor = ::fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
  if (one.descriptor < 0) {
    return {verbs::errc::invalid_argument, "The descriptor of device memory is none that is open."};
  }
  one.offset = offset;
  one.length = length;
  one.address = address;
  const int held = one.descriptor;
  verbs::status added = add(std::move(one), out);
  if (!added.ok()) {
    ::close(held);
  }
  return added;
}

void rdma_device::deregister(handle memory) noexcept {
  const std::lock_guard lock(mutex_);
  const auto place = regions_.find(memory);
  if (place == regions_.end()) {
    return;
  }
  place->second.made.reset();
  if (place->second.descriptor >= 0) {
    ::close(place->second.descriptor);
  }
  regions_.erase(place);
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
  close_fabric();
}

void rdma_device::close_fabric() noexcept {
  event_descriptor_ = -1;
  for (auto& [id, one] : sessions_) {
    if (one.messages != nullptr) {
      one.messages->close();
      one.lost();
    }
  }
  sessions_.clear();
  for (auto& [id, one] : regions_) {
    one.made.reset();
  }
  fabric_.reset();
}

} // namespace memkv::client
