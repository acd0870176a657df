// Which server a key lives on: rendezvous hashing over normalised names. Normative text: wire.md, section 15.
//
// Threading: const members from any thread. Ownership: values. Errors: normalise_server says what is wrong.
// Does not: resolve names, weigh servers, or know whether one is up.
#pragma once

#include "wire/key_id.hpp"

#include <string>
#include <vector>

namespace memkv::wire {

struct normalised_server {
  std::string name;    ///< host:port; empty when refused
  std::string problem; ///< a sentence when refused

  [[nodiscard]] bool ok() const noexcept { return problem.empty(); }
};

/// Accepts host, host:port, IPv4, IPv4:port, [IPv6], [IPv6]:port and a bare IPv6.
[[nodiscard]] normalised_server normalise_server(std::string_view text);

class placement {
public:
  /// Takes normalised names. The list is a set: order does not matter, and a name given twice counts once.
  explicit placement(std::vector<std::string> servers);

  /// Sorted, without duplicates; pick's results are positions here.
  [[nodiscard]] const std::vector<std::string>& servers() const noexcept { return servers_; }
  /// There must be a server.
  [[nodiscard]] std::size_t pick(const key_id& id) const noexcept;

  [[nodiscard]] static std::uint64_t seed(std::string_view server) noexcept;
  [[nodiscard]] static std::uint64_t score(std::uint64_t seed, const key_id& id) noexcept;

private:
  std::vector<std::string> servers_;
  std::vector<std::uint64_t> seeds_;
};

} // namespace memkv::wire
