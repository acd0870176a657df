#include "actors/admission.hpp"

#include "wire/assert.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace memkv::actors {

peer_address address_of(const sockaddr_storage& peer) noexcept {
  peer_address out{};
  if (peer.ss_family == AF_INET6) {
    sockaddr_in6 v6{};
    std::memcpy(&v6, &peer, sizeof v6);
    std::memcpy(out.data(), &v6.sin6_addr, out.size());
  } else if (peer.ss_family == AF_INET) {
    sockaddr_in v4{};
    std::memcpy(&v4, &peer, sizeof v4);
    out[10] = out[11] = 0xFF;
    std::memcpy(out.data() + 12, &v4.sin_addr, 4);
  }
  return out;
}

std::string to_string(const peer_address& address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  static constexpr std::array<std::uint8_t, 12> mapped{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};
  if (std::memcmp(address.data(), mapped.data(), mapped.size()) == 0)
    inet_ntop(AF_INET, address.data() + 12, text.data(), text.size());
  else
    inet_ntop(AF_INET6, address.data(), text.data(), text.size());
  return text.data();
}

admission_slot::admission_slot(std::shared_ptr<admission> owner, int descriptor, peer_address peer)
    : owner_(std::move(owner)), descriptor_(descriptor), peer_(peer) {}

admission_slot::~admission_slot() {
  ::close(descriptor_);
  owner_->leave(peer_, authenticated_);
}

void admission_slot::authenticated() noexcept {
  if (!authenticated_) {
    authenticated_ = true;
    owner_->authenticated(peer_);
  }
}

void admission_slot::note(door_event what) {
  owner_->events().note(what, peer_);
}

admission::admission(std::uint32_t total_max, std::uint32_t per_address_max,
                     std::uint32_t unauthenticated_max)
    : total_max_(total_max), per_address_max_(per_address_max), unauthenticated_max_(unauthenticated_max) {}

std::shared_ptr<admission_slot> admission::admit(int descriptor, const peer_address& peer, refusal& why) {
  std::lock_guard guard{lock_};
  auto& here = by_address_[peer];
  why = refusal::none;
  if (total_ >= total_max_)
    why = refusal::total;
  else if (here.connections >= per_address_max_)
    why = refusal::address;
  else if (unauthenticated_ >= unauthenticated_max_ ||
           here.unauthenticated >= std::max(1U, unauthenticated_max_ / 4))
    why = refusal::unauthenticated;
  if (why != refusal::none) {
    if (here.connections == 0)
      by_address_.erase(peer);
    ++refused_;
    events_.note(why == refusal::total     ? door_event::too_many
                 : why == refusal::address ? door_event::too_many_of_address
                                           : door_event::too_many_unauthenticated,
                 peer);
    return nullptr;
  }
  ++here.connections;
  ++here.unauthenticated;
  ++total_;
  ++unauthenticated_;
  return std::make_shared<admission_slot>(shared_from_this(), descriptor, peer);
}

void admission::leave(const peer_address& peer, bool authenticated) noexcept {
  std::lock_guard guard{lock_};
  const auto found = by_address_.find(peer);
  MEMKV_ASSERT(found != by_address_.end(), "an address is counted as long as it has a connection");
  --total_;
  if (!authenticated) {
    --unauthenticated_;
    --found->second.unauthenticated;
  }
  if (--found->second.connections == 0)
    by_address_.erase(found);
}

void admission::authenticated(const peer_address& peer) noexcept {
  std::lock_guard guard{lock_};
  --unauthenticated_;
  if (const auto found = by_address_.find(peer); found != by_address_.end())
    --found->second.unauthenticated;
}

std::uint32_t admission::unauthenticated() const {
  const std::lock_guard guard(lock_);
  return unauthenticated_;
}

std::uint32_t admission::connections() const {
  std::lock_guard guard{lock_};
  return total_;
}

std::uint64_t admission::refused() const {
  std::lock_guard guard{lock_};
  return refused_;
}

} // namespace memkv::actors
