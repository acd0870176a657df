// How far the clocks of running servers are from ours.
//
// A server drops what is stamped more than 60 s away from its clock, without a word. So it is greeted with
// our time first, and if it says nothing, with other times until one is near its own: the answer is signed
// and carries the server's time, whatever the difference.
//
// Threading: one thread; forks (doctor_apart.hpp). Ownership: values. Errors: in the facts. Limits: finds
// differences up to half an hour, and whole hours up to 14; peer_deadline_ms a server, all at the same time.
#pragma once

#include "cli/doctor_facts.hpp"
#include "wire/auth.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace memkv::cli {

inline constexpr std::uint32_t peer_deadline_ms = 12'000;

/// Where a server listens. From "host", "host:port", "[v6]:port", or the URL of its administration endpoint,
/// whose port is the next one. False: none of these.
[[nodiscard]] bool parse_peer(std::string_view text, std::string& host, std::uint16_t& port);

/// In this process: may wait as long as names are resolved. What listens at the port and is not a server that
/// knows the key may be an administration endpoint: then the port before it is tried, too.
[[nodiscard]] peer_facts ask_peer(const std::string& server, const wire::shared_key& key);

[[nodiscard]] std::string encode(const peer_facts& facts);
[[nodiscard]] bool decode(const std::string& text, peer_facts& out);

/// All of them, in the same order. Who refuses `key` is asked again with `previous`, if there is one.
[[nodiscard]] std::vector<peer_facts> ask_peers(const std::vector<std::string>& servers,
                                                const wire::shared_key& key,
                                                const std::optional<wire::shared_key>& previous);

/// Whether the kernel holds this machine's clock to be synchronised, and the time.
[[nodiscard]] clock_facts read_clock_facts();

} // namespace memkv::cli
