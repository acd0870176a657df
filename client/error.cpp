#include "client/error.hpp"

namespace memkv::client {
namespace {

struct error_text {
  errc code;
  std::string_view name;
  std::string_view sentence;
};

constexpr error_text error_texts[] = {
    {errc::ok, "ok", ""},
    {errc::not_found, "not_found", "there is no block under this key"},
    {errc::already_exists, "already_exists", "a block with this key is there already and was left as it is"},
    {errc::no_space, "no_space",
     "the server has no room for it: it may be larger than the drives, or eviction is off and they are full"},
    {errc::deadline_exceeded, "deadline_exceeded",
     "it was not done within the deadline: try again, or allow more time"},
    {errc::busy, "busy", "the server has reached one of its limits: try again a little later"},
    {errc::unavailable, "unavailable",
     "the drive of this block is offline or being recovered: the server's log says why"},
    {errc::bad_request, "bad_request",
     "the server found the request malformed: client and server do not match"},
    {errc::too_large, "too_large", "the key, the value or the batch is above a limit of the server"},
    {errc::unsupported, "unsupported", "this server does not know this operation: use a newer server"},
    {errc::unsupported_version, "unsupported_version",
     "the server speaks an older version of the protocol: use a newer server"},
    {errc::digest_mismatch, "digest_mismatch",
     "the bytes changed on their way, or the memory meanwhile: a put stored nothing, a get's target holds "
     "nothing of meaning; try again, look at the network"},
    {errc::out_of_range, "out_of_range", "the range begins behind the end of the value"},
    {errc::buffer_too_small, "buffer_too_small", "the value is larger than the memory given for it"},
    {errc::corrupt, "corrupt", "the block failed its checksum and was dropped: it is a miss now"},
    {errc::shutting_down, "shutting_down", "the server is stopping"},
    {errc::keyed_digest_required, "keyed_digest_required",
     "this server wants keyed digests: set digest: keyed"},
    {errc::internal, "internal",
     "the part of the server that worked on it ended; whether a put took effect is not known: try again"},
    {errc::memory_refused, "memory_refused",
     "the RDMA device of this host did not let the server reach the memory of the item: keep it registered "
     "during the call, or set transport to auto"},
    {errc::session_ended, "session_ended",
     "the server ended the RDMA session before it was done with the item: try again, look at its log"},
    {errc::invalid_argument, "invalid_argument",
     "an argument is outside its limits: keys have 1 to 1024 bytes, namespaces at most 32 of A-Z a-z 0-9 . _ "
     "-"},
    {errc::bad_config, "bad_config", "the client's configuration cannot be used"},
    {errc::server_down, "server_down",
     "the server cannot be reached: check that it runs, its address and the network"},
    {errc::connection_lost, "connection_lost",
     "the connection ended before the answer came; a put may or may not have taken effect: try again"},
    {errc::clock_or_key, "clock_or_key",
     "the server accepts connections but does not answer: clock skew or wrong key? compare the clocks (60 s) "
     "and auth_key on both sides"},
    {errc::no_greeting, "no_greeting",
     "the server accepts connections but did not answer a greeting within connect_timeout_ms: is it stopped "
     "or overloaded, or is there clock skew? look at the server, and compare the clocks (60 s)"},
    {errc::bad_reply, "bad_reply",
     "an answer of the server failed a check and the connection was closed: look for a wrong port (data is "
     "on 9900, administration on 9901), a server that is not memkv, or damage on the network"},
    {errc::queue_full, "queue_full", "too many requests are waiting in this client: wait for some to finish"},
    {errc::closed, "closed", "the client is being closed"},
    {errc::no_memory, "no_memory", "the client got no memory for the request"},
    {errc::rdma_failed, "rdma_failed",
     "RDMA to the server of this key could not be set up, or broke: the client's log says why; set transport "
     "to auto to work over TCP then"},
    {errc::memory_not_registered, "memory_not_registered",
     "the item is larger than the staging area and not in registered memory: register its memory, or raise "
     "rdma_staging_mb in the options"},
    {errc::pending, "pending", "the operation has not finished yet"},
};

[[nodiscard]] const error_text& text_of(errc code) noexcept {
  for (const error_text& text : error_texts) {
    if (text.code == code) {
      return text;
    }
  }
  return text_of(errc::internal);
}

} // namespace

std::string_view name(errc code) noexcept {
  return text_of(code).name;
}

std::string_view sentence(errc code) noexcept {
  return text_of(code).sentence;
}

bool is_of_a_server(errc code) noexcept {
  switch (code) {
  case errc::ok:
  case errc::not_found:
  case errc::already_exists:
  case errc::out_of_range:
  case errc::buffer_too_small:
  case errc::memory_refused:
  case errc::invalid_argument:
  case errc::bad_config:
  case errc::queue_full:
  case errc::closed:
  case errc::no_memory:
  case errc::pending:
  case errc::memory_not_registered:
    return false;
  default:
    return true;
  }
}

errc from_wire(std::uint8_t status) noexcept {
  constexpr auto wire_status_max = static_cast<std::uint8_t>(errc::session_ended);
  return status <= wire_status_max ? static_cast<errc>(status) : errc::internal;
}

status status_of(errc code) {
  return {code, std::string(sentence(code))};
}

} // namespace memkv::client
