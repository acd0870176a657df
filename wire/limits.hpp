// Every maximum of the protocol, in one place. Normative text: docs/formats/wire.md, section 14.
#pragma once

#include <cstdint>

namespace memkv::wire::limits {

inline constexpr std::uint64_t kib = 1024;
inline constexpr std::uint64_t mib = 1024 * kib;
inline constexpr std::uint64_t gib = 1024 * mib;

/// The version of the protocol this code speaks. Every version from 1 up to it is accepted.
inline constexpr std::uint8_t version = 1;

/// The part of a header that is the same in all versions: enough to find the end of a frame.
inline constexpr std::uint32_t frozen_bytes = 32;
/// The fixed part of a header; no header is shorter.
inline constexpr std::uint32_t fixed_header_bytes = 128;
/// ts_ns and MAC.
inline constexpr std::uint32_t trailer_bytes = 40;

/// A block's name. Long enough for a path and a hash; short enough that 4,096 of them fit a batch's header
/// four times.
inline constexpr std::uint32_t key_bytes_max = 1024;
/// A tenant's name: a fixed field of the header.
inline constexpr std::uint32_t namespace_bytes_max = 32;

/// Before a connection is authenticated: a Hello and a one-key request fit, a stranger cannot make us hold
/// more.
inline constexpr std::uint32_t header_bytes_max_unauthenticated = 512;
/// Afterwards: a batch of 4,096 keys of 250 bytes.
inline constexpr std::uint32_t header_bytes_max = static_cast<std::uint32_t>(mib);

/// One value. The server may announce less.
inline constexpr std::uint64_t value_bytes_max = gib;
/// Items of a batch request, and slices of one part of its reply.
inline constexpr std::uint32_t batch_items_max = 4096;
/// All values of one TcpBatchPut together: what a server may have to hold for one request.
inline constexpr std::uint32_t batch_payload_bytes_max = static_cast<std::uint32_t>(64 * mib);
/// Payload of one reply frame, so that a small answer never waits behind more than this.
inline constexpr std::uint32_t part_bytes_max = static_cast<std::uint32_t>(mib);

/// Requests of one connection without a complete answer; beyond it the server stops reading.
inline constexpr std::uint32_t frames_in_flight_max = 128;

/// RDMA sessions of one connection.
inline constexpr std::uint32_t sessions_connection_max = 16;

/// Values being written and leases of one queue pair of messages, together.
inline constexpr std::uint32_t tokens_max = 64;

/// How far a frame's time stamp may be from the receiver's clock, either way.
inline constexpr std::uint64_t drift_ns_max = 60'000'000'000;
/// Frames dropped without an answer; the one that reaches this number closes the connection.
inline constexpr std::uint32_t drops_max = 3;

/// The deadline of a request that names none, and the longest a lost put may still take effect.
inline constexpr std::uint32_t request_ms_max = 30'000;
/// From accept to authenticated.
inline constexpr std::uint32_t handshake_ms_max = 5'000;
/// From the first byte of a frame to the last of its header and trailer.
inline constexpr std::uint32_t header_ms_max = 5'000;
/// A payload must average this rate, once payload_grace_ms has passed: who sends slower holds memory hostage.
inline constexpr std::uint64_t payload_bytes_per_second_min = 64 * kib;
inline constexpr std::uint32_t payload_grace_ms = 5'000;
/// How long a peer may not take a single byte of an answer.
inline constexpr std::uint32_t write_ms_max = 30'000;
/// Without any frame.
inline constexpr std::uint32_t idle_timeout_ms = 300'000;

/// A block's stored checksums cover this much each, and parts are built from them.
inline constexpr std::uint32_t checksum_unit_bytes = static_cast<std::uint32_t>(64 * kib);

/// Port of a server whose name has none.
inline constexpr std::uint16_t default_port = 9900;

/// All connections together may hold this much of headers that are not complete yet, unless told otherwise.
inline constexpr std::uint64_t header_budget_bytes_default = 64 * mib;

static_assert(header_bytes_max_unauthenticated >= fixed_header_bytes);
static_assert(part_bytes_max % checksum_unit_bytes == 0);

} // namespace memkv::wire::limits
