#include "client/shared.hpp"

#include "client/client.hpp"
#include "client/connection.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <thread>

namespace memkv::client {
namespace {

// Where there are few processors, whoever looks takes one from those who work.
constexpr unsigned spin_processors_min = 5;
constexpr std::uint32_t spin_us_default = 50;

[[nodiscard]] bool has_many_processors() noexcept {
  return std::thread::hardware_concurrency() >= spin_processors_min;
}

[[nodiscard]] std::int64_t spin_ns_of(const options& chosen) noexcept {
  return std::int64_t{chosen.rdma_spin_us.value_or(has_many_processors() ? spin_us_default : 0)} * 1000;
}

[[nodiscard]] std::uint64_t seed_from_system() noexcept {
  std::uint64_t seed = 0;
  wire::fill_random(std::as_writable_bytes(std::span(&seed, 1)));
  return seed;
}

} // namespace

shared_state::shared_state(options wanted)
    : chosen(std::move(wanted)), frame_mac(*chosen.auth_key),
      ns(wire::ns_name::from_text(chosen.namespace_name).value_or(wire::ns_name())),
      cache(std::uint64_t{chosen.cache_size_mb} << 20U),
      messages(chosen.rdma_messages.value_or(has_many_processors())), spin_ns_max(spin_ns_of(chosen)),
      random_state_(chosen.seed != 0 ? chosen.seed : seed_from_system()) {}

std::uint64_t shared_state::random() noexcept {
  const std::lock_guard lock(mutex_);
  random_state_ += 0x9E3779B97F4A7C15;
  std::uint64_t x = random_state_;
  x = (x ^ (x >> 30U)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27U)) * 0x94D049BB133111EB;
  return x ^ (x >> 31U);
}

void shared_state::log(const std::string& line) const noexcept {
  if (chosen.log) {
    chosen.log(line);
  } else {
    std::fprintf(stderr, "memkv: %s\n", line.c_str());
  }
}

const socket_address* shared_state::next_local(sa_family_t family) noexcept {
  for (std::size_t i = 0; i < bind_to.size(); ++i) {
    const socket_address& local = bind_to[next_bind++ % bind_to.size()];
    if (local.storage.ss_family == family) {
      return &local;
    }
  }
  return nullptr;
}

namespace {

[[nodiscard]] std::string host_of(const std::string& name) {
  const std::string host = name.substr(0, name.rfind(':'));
  return host.front() == '[' ? host.substr(1, host.size() - 2) : host;
}

/// Whether the kernel lets a socket begin there.
[[nodiscard]] bool is_of_this_host(const socket_address& local) noexcept {
  const int probe = ::socket(local.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (probe < 0) {
    return false;
  }
  const bool bound = ::bind(probe, reinterpret_cast<const sockaddr*>(&local.storage), local.length) == 0;
  ::close(probe);
  return bound;
}

} // namespace

server::server(const std::string& full_name)
    : name(full_name), lookup(host_of(full_name), full_name.substr(full_name.rfind(':') + 1)) {}

void server::note_failure(shared_state& shared, errc reason, std::int64_t now_ns) {
  const std::lock_guard lock(mutex_);
  lookup.forget();
  if (now_ns < down_until_ns.load()) {
    return; // another connection of this server noticed the same outage
  }
  back_off_ms_ = back_off_ms_ == 0 ? reconnect_ms_first : std::min(back_off_ms_ * 2, reconnect_ms_max);
  // Three quarters to five quarters, so that the clients of a fleet do not come back in one moment.
  const std::uint64_t jittered_us = std::uint64_t{back_off_ms_} * (750 + shared.random() % 501);
  down_reason = reason;
  down_until_ns = now_ns + static_cast<std::int64_t>(jittered_us * 1000);
}

void server::note_success() {
  const std::lock_guard lock(mutex_);
  back_off_ms_ = 0;
  down_until_ns = 0;
}

bool parse_local_address(const std::string& text, socket_address& result) {
  sockaddr_in v4{};
  if (::inet_pton(AF_INET, text.c_str(), &v4.sin_addr) == 1) {
    v4.sin_family = AF_INET;
    std::memcpy(&result.storage, &v4, sizeof v4);
    result.length = sizeof v4;
    return is_of_this_host(result);
  }
  sockaddr_in6 v6{};
  if (::inet_pton(AF_INET6, text.c_str(), &v6.sin6_addr) == 1) {
    v6.sin6_family = AF_INET6;
    std::memcpy(&result.storage, &v6, sizeof v6);
    result.length = sizeof v6;
    return is_of_this_host(result);
  }
  return false;
}

} // namespace memkv::client
