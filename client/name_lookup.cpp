#include "client/name_lookup.hpp"

#include <netdb.h>

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
  bool asking = false;
  bool told = true;   // somebody has heard what the last look-up found
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

bool name_lookup::find(std::vector<socket_address>& known) {
  state& here = *state_;
  const std::lock_guard lock(here.mutex);
  known = here.known;
  if (here.fresh || !here.ask) {
    return true;
  }
  if (here.asking) {
    return false;
  }
  if (!here.told) {
    here.told = true; // it found nothing; whoever comes next has it asked again
    return true;
  }
  try {
    std::thread([shared = state_] {
      std::vector<socket_address> found = shared->ask();
      const std::lock_guard guard(shared->mutex);
      shared->asking = false;
      shared->told = !found.empty();
      if (!found.empty()) {
        shared->known = std::move(found);
        shared->fresh = true;
      }
    }).detach();
  } catch (const std::system_error&) {
    return true; // no thread to be had
  }
  here.asking = true;
  return false;
}

void name_lookup::forget() {
  const std::lock_guard guard(state_->mutex);
  state_->fresh = false;
}

} // namespace memkv::client
