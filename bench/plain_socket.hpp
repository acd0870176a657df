// The ceiling of a TCP server on this machine: one that finds a value by its number, copies bytes between the
// socket and memory, and does nothing else: no names, no authentication, no checksums, no making of room.
//
// Threading: a thread a connection. It ends when its standard input does.
#pragma once

#include <cstdint>
#include <string>

namespace memkv::bench {

/// Serves values of equal size out of `data_bytes` of memory at a numeric IPv4 address. Returns the exit
/// code.
int serve_plain_socket(const std::string& address, std::uint64_t data_bytes);

} // namespace memkv::bench
