// Opens the drives of a configuration and reads from them: what only that can tell.
//
// A raw drive is opened as the server does it (exclusively, O_DIRECT, io_uring) but read-only, asked for what
// lies on it, and then read at random places at the server's queue depth for `probe_ms`. Nothing is written.
//
// Threading: one thread; forks (doctor_apart.hpp). Ownership: values. Errors: in the facts. Limits:
// probe_deadline_ms a drive, drives_at_once of them together.
#pragma once

#include "cli/doctor_facts.hpp"

#include <cstdint>
#include <string>

namespace memkv::cli {

inline constexpr std::uint32_t probe_ms = 400;
inline constexpr std::uint32_t probe_deadline_ms = 10'000;
inline constexpr std::size_t drives_at_once = 4;

/// In this process: may hang with the drive. `reads`: measure depth and latency (raw drives).
[[nodiscard]] probe_facts probe_drive(const doctor_drive_facts& drive, const std::string& root, bool reads);

/// Facts on their way through a pipe. False: this is nothing that encode() made.
[[nodiscard]] std::string encode(const probe_facts& facts);
[[nodiscard]] bool decode(const std::string& text, probe_facts& out);

/// Fills `probe` of every drive that is there.
void probe_drives(doctor_facts& facts, const std::string& root);

} // namespace memkv::cli
