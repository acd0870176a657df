// Request traces of LLM inference in the form that Mooncake published: JSON lines with `timestamp` (ms),
// `input_length`, `output_length` and `hash_ids`, where one id stands for one block of 512 tokens and for all
// that went before it.
//
// Threading: one thread. Ownership: values. Errors: one sentence with the line's number.
// Limits: lines up to 4 MiB, ids below 2^63. Does not do: sort; the lines must be in the order of time.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace memkv::bench {

constexpr std::uint32_t tokens_per_block = 512;
constexpr std::size_t trace_line_bytes_max = 4U << 20U;

struct trace_request {
  std::uint64_t timestamp_ms = 0;
  std::uint64_t input_tokens = 0;
  std::uint64_t output_tokens = 0;
  std::vector<std::uint64_t> blocks; // ids of the prompt's blocks, in order
};

struct trace {
  std::vector<trace_request> requests;
  std::uint64_t references = 0;    // blocks of all requests
  std::uint64_t unique_blocks = 0; // different ones
};

/// Reads a file, also one that gzip made, up to (not including) `minutes` after its first time stamp; 0 = all
/// of it. Returns an empty text, or what is wrong.
[[nodiscard]] std::string read_trace(const std::string& path, double minutes, trace& result);

/// Reads one line.
[[nodiscard]] std::string parse_trace_line(std::string_view line, trace_request& result);

/// How many blocks a cache that never forgets serves, when of each request only the leading blocks count that
/// were all there before it came.
[[nodiscard]] std::uint64_t ideal_hits(const trace& requests);

} // namespace memkv::bench
