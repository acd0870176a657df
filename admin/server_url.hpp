// Where an administration endpoint is: what operators write in --servers and MEMKV_SERVERS.
//
// Grammar: [http:// | https://] host [:port] [/]. Without a scheme http, without a port 9901. An IPv6 address
// stands in brackets. User names, passwords, paths and other schemes are refused.
//
// Threading: pure functions. Ownership: values. Errors: one sentence; a password is never repeated in it.
// Limits: servers_max entries. Does not: resolve names.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace memkv::admin {

constexpr std::uint16_t admin_port = 9901;
constexpr std::size_t servers_max = 4'096;

struct server_url {
  bool tls = false;
  bool is_address = false; // host is an address, not a name
  std::string host;        // lower case, without brackets
  std::uint16_t port = admin_port;

  /// "host:port", with brackets where they are needed: the Host header.
  [[nodiscard]] std::string authority() const;
  /// "http://host:port".
  [[nodiscard]] std::string text() const;

  friend bool operator==(const server_url&, const server_url&) = default;
};

struct server_url_result {
  server_url url;
  std::string problem; // empty: it parsed
};
[[nodiscard]] server_url_result parse_server_url(std::string_view text);

struct server_list_result {
  std::vector<server_url> servers; // in the order given; what is repeated is there once
  std::string problem;
};
/// Entries with commas between. Blanks around them and empty entries are dropped; none left is a problem.
[[nodiscard]] server_list_result parse_server_list(std::string_view text);

} // namespace memkv::admin
