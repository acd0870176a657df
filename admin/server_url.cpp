#include "admin/server_url.hpp"

#include "admin/printable_text.hpp"
#include "wire/text.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

namespace memkv::admin {

namespace {

constexpr std::string_view blanks = " \t\r\n\f\v";

bool is_ipv4(const std::string& host) {
  std::array<unsigned char, 4> address{};
  return ::inet_pton(AF_INET, host.c_str(), address.data()) == 1;
}

// With or without a zone: fe80::1%eth0.
bool is_ipv6(const std::string& host) {
  std::array<unsigned char, 16> address{};
  const auto zone = host.find('%');
  const bool good_zone = zone == std::string::npos || (zone + 1 < host.size() && host.size() - zone <= 17);
  return good_zone && ::inet_pton(AF_INET6, host.substr(0, zone).c_str(), address.data()) == 1;
}

bool is_name(std::string_view host) {
  constexpr std::size_t name_bytes_max = 253;
  const auto fits = [](char letter) {
    return (letter >= 'a' && letter <= 'z') || (letter >= '0' && letter <= '9') || letter == '-' ||
           letter == '.' || letter == '_';
  };
  return !host.empty() && host.size() <= name_bytes_max && std::all_of(host.begin(), host.end(), fits) &&
         !host.starts_with('.') && !host.starts_with('-') && host.find("..") == std::string_view::npos;
}

server_url_result refused(std::string_view text, std::string_view why) {
  return {{}, "\"" + printable(text, 100) + "\" " + std::string(why)};
}

} // namespace

std::string server_url::authority() const {
  const bool brackets = host.find(':') != std::string::npos;
  return (brackets ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

std::string server_url::text() const {
  return (tls ? "https://" : "http://") + authority();
}

server_url_result parse_server_url(std::string_view text) {
  server_url_result made;
  std::string_view rest = text;
  if (rest.find('@') != std::string_view::npos)
    return {{}, "the address of a server holds no user name and no password: write http://host:port"};
  if (const auto end = rest.find("://"); end != std::string_view::npos) {
    const auto scheme = wire::lowered(rest.substr(0, end));
    if (scheme != "http" && scheme != "https")
      return refused(text, "is neither http:// nor https://");
    made.url.tls = scheme == "https";
    rest.remove_prefix(end + 3);
  }
  if (rest.ends_with('/'))
    rest.remove_suffix(1);
  if (rest.find_first_of("/?#") != std::string_view::npos)
    return refused(text, "names a path: write only host and port, the rest is known");

  std::string_view port;
  bool has_port = false;
  if (rest.starts_with('[')) {
    const auto end = rest.find(']');
    if (end == std::string_view::npos)
      return refused(text, "has a bracket that does not end");
    made.url.host = wire::lowered(rest.substr(1, end - 1));
    if (!is_ipv6(made.url.host))
      return refused(text, "has brackets around what is no IPv6 address");
    made.url.is_address = true;
    rest.remove_prefix(end + 1);
    has_port = rest.starts_with(':');
    if (!has_port && !rest.empty())
      return refused(text, "has something else than :port behind the bracket");
    port = has_port ? rest.substr(1) : rest;
  } else {
    const auto colon = rest.find(':');
    if (colon != rest.rfind(':'))
      return refused(text, "has too many colons: write an IPv6 address in brackets, as in [::1]:9901");
    has_port = colon != std::string_view::npos;
    made.url.host = wire::lowered(rest.substr(0, colon));
    port = has_port ? rest.substr(colon + 1) : std::string_view{};
    made.url.is_address = is_ipv4(made.url.host);
    if (!made.url.is_address && !is_name(made.url.host))
      return refused(text, "names no host: write host:port");
  }
  if (has_port) {
    unsigned number = 0;
    const auto* end = port.data() + port.size();
    const auto read = std::from_chars(port.data(), end, number);
    if (port.size() > 5 || read.ec != std::errc{} || read.ptr != end || number == 0 || number > 65'535)
      return refused(text, "has a port that is no number from 1 to 65535");
    made.url.port = static_cast<std::uint16_t>(number);
  }
  return made;
}

server_list_result parse_server_list(std::string_view text) {
  server_list_result made;
  while (true) {
    const auto comma = text.find(',');
    if (const auto entry = wire::trimmed(text.substr(0, comma), blanks); !entry.empty()) {
      auto [url, problem] = parse_server_url(entry);
      if (!problem.empty())
        return {{}, std::move(problem)};
      if (std::find(made.servers.begin(), made.servers.end(), url) == made.servers.end())
        made.servers.push_back(std::move(url));
    }
    if (made.servers.size() > servers_max)
      return {{}, "more than " + std::to_string(servers_max) + " servers are named"};
    if (comma == std::string_view::npos)
      break;
    text.remove_prefix(comma + 1);
  }
  if (made.servers.empty())
    made.problem = "no servers were configured: the list names none";
  return made;
}

} // namespace memkv::admin
