#include "verbs/completion_status.hpp"
#include "verbs/errc.hpp"

namespace memkv::verbs {

std::string_view name(errc code) noexcept {
  switch (code) {
  case errc::ok:
    return "ok";
  case errc::invalid_argument:
    return "invalid_argument";
  case errc::not_found:
    return "not_found";
  case errc::unsupported:
    return "unsupported";
  case errc::queue_full:
    return "queue_full";
  case errc::wrong_state:
    return "wrong_state";
  case errc::no_resources:
    return "no_resources";
  case errc::device_failed:
    return "device_failed";
  }
  return "unknown";
}

namespace {

struct entry {
  std::string_view name;
  std::string_view text;
  bool retryable;
  bool peer;
};

// In the order of the numbers.
constexpr std::array<entry, completion_status_last + 1> table = {{
    {"success", "It was carried out.", false, false},
    {"local_length", "A message was longer than the receive that took it.", false, false},
    {"local_queue_pair_operation", "The device could not carry out the request as it was posted.", false,
     false},
    {"local_protection", "A local range is not covered by the key it was posted with.", false, false},
    {"flushed", "Another request failed on the same queue pair, which was then emptied.", true, false},
    {"memory_window_bind", "A memory window could not be bound.", false, false},
    {"bad_response", "The peer answered with something that is no answer to the request.", true, true},
    {"local_access", "The peer tried to reach memory here that forbids it.", false, true},
    {"remote_invalid_request", "The peer does not take such a request; check its limits.", false, true},
    {"remote_access", "The peer's key does not cover the range, or was withdrawn.", false, true},
    {"remote_operation", "The peer could not carry out the request.", true, true},
    {"retry_exceeded",
     "The peer does not acknowledge: it is gone or cut off, or the path MTU is larger than the network's.",
     true, true},
    {"receiver_retry_exceeded", "The peer posted no receive in time.", true, true},
    {"remote_aborted", "The peer gave the request up.", true, true},
    {"fatal", "The device failed; look into the kernel's log.", true, false},
    {"response_timeout", "The answer did not come in time.", true, true},
    {"general", "The driver reported an error without a name.", true, false},
}};

const entry& of(completion_status code) noexcept {
  const auto number = static_cast<std::size_t>(code);
  return table[number < table.size() ? number : table.size() - 1];
}

} // namespace

std::array<completion_status, 15> errors() noexcept {
  std::array<completion_status, 15> found{};
  std::size_t count = 0;
  for (std::uint8_t number = 1; number <= completion_status_last; ++number) {
    const auto code = static_cast<completion_status>(number);
    if (code != completion_status::flushed) {
      found[count++] = code;
    }
  }
  return found;
}

std::string_view name(completion_status code) noexcept {
  return of(code).name;
}
std::string_view explain(completion_status code) noexcept {
  return of(code).text;
}
bool retryable(completion_status code) noexcept {
  return of(code).retryable;
}
bool caused_by_peer(completion_status code) noexcept {
  return of(code).peer;
}

} // namespace memkv::verbs
