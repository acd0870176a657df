#include "client/name_lookup.hpp"

#include <netdb.h>

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

namespace memkv::client {

std::vector<socket_address> resolve(const std::string& host, const std::string& port, bool numeric) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | (numeric ? AI_NUMERICHOST : 0);
  addrinfo* found = nullptr;
  if (::getaddrinfo(host.c_str(), port.c_str(), &hints, &found) != 0) {
    return {};
  }
  std::vector<socket_address> addresses;
  for (const addrinfo* entry = found; entry != nullptr; entry = entry->ai_next) {
    if (entry->ai_addrlen <= sizeof(sockaddr_storage)) {
      socket_address& address = addresses.emplace_back();
      std::memcpy(&address.storage, entry->ai_addr, entry->ai_addrlen);
      address.length = entry->ai_addrlen;
    }
  }
  ::freeaddrinfo(found);
  return addresses;
}

struct name_lookup::state {
  resolver ask; // constant; none for a numeric address
  std::mutex mutex;
  std::condition_variable changed;
  bool asking = false;
  bool fresh = false; // `known` is what the name stands for, as far as anybody has noticed
  std::vector<socket_address> known;
};

name_lookup::name_lookup(const std::string& host, const std::string& port)
    : name_lookup([host, port] { return resolve(host, port, false); }) {
  state_->known = resolve(host, port, true);
  if (!state_->known.empty()) {
    state_->ask = nullptr;
  }
}

name_lookup::name_lookup(resolver ask) : state_(std::make_shared<state>()) {
  state_->ask = std::move(ask);
}

std::vector<socket_address> name_lookup::find(std::int64_t until_ns) {
  state& here = *state_;
  std::unique_lock lock(here.mutex);
  if (here.fresh || !here.ask) {
    return here.known;
  }
  if (!here.asking) {
    try {
      std::thread([shared = state_] {
        std::vector<socket_address> found = shared->ask();
        const std::lock_guard guard(shared->mutex);
        shared->asking = false;
        if (!found.empty()) {
          shared->known = std::move(found);
          shared->fresh = true;
        }
        shared->changed.notify_all();
      }).detach();
      here.asking = true;
    } catch (const std::system_error&) {
      return here.known; // no thread to be had
    }
  }
  // The clock that steady_ns() reads is the one of steady_clock.
  const std::chrono::steady_clock::time_point until{std::chrono::nanoseconds(until_ns)};
  here.changed.wait_until(lock, until, [&] { return !here.asking; });
  return here.known;
}

void name_lookup::forget() {
  const std::lock_guard guard(state_->mutex);
  state_->fresh = false;
}

} // namespace memkv::client
