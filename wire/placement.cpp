#include "wire/placement.hpp"

#include "wire/assert.hpp"
#include "wire/auth.hpp"

#include <algorithm>
#include <charconv>
#include <optional>

namespace memkv::wire {

namespace {

bool is_digit(char c) noexcept {
  return c >= '0' && c <= '9';
}

char lower(char c) noexcept {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

// Decimal without sign or leading zeros, at most `max`.
std::optional<unsigned> decimal(std::string_view text, unsigned max) noexcept {
  if (text.empty() || text.size() > 5 || (text.size() > 1 && text[0] == '0') ||
      !std::all_of(text.begin(), text.end(), is_digit))
    return std::nullopt;
  unsigned value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value <= max ? std::optional(value) : std::nullopt;
}

std::optional<std::array<std::uint8_t, 4>> parse_ipv4(std::string_view text) noexcept {
  std::array<std::uint8_t, 4> bytes{};
  for (std::size_t i = 0; i < 4; ++i) {
    const std::size_t dot = i < 3 ? text.find('.') : text.size();
    if (dot == std::string_view::npos)
      return std::nullopt;
    const std::optional<unsigned> value = decimal(text.substr(0, dot), 255);
    if (!value)
      return std::nullopt;
    bytes[i] = static_cast<std::uint8_t>(*value);
    text = text.substr(std::min(text.size(), dot + 1));
  }
  return bytes;
}

using groups = std::array<std::uint16_t, 8>;

// One side of "::", or the whole address: groups between colons, the last perhaps an IPv4 address.
std::optional<std::vector<std::uint16_t>> parse_groups(std::string_view text, bool may_end_in_ipv4) {
  std::vector<std::uint16_t> found;
  if (text.empty())
    return found;
  while (true) {
    const std::size_t colon = text.find(':');
    const std::string_view group = text.substr(0, colon);
    if (colon == std::string_view::npos && may_end_in_ipv4 && group.find('.') != std::string_view::npos) {
      const auto ipv4 = parse_ipv4(group);
      if (!ipv4)
        return std::nullopt;
      found.push_back(static_cast<std::uint16_t>((*ipv4)[0] << 8 | (*ipv4)[1]));
      found.push_back(static_cast<std::uint16_t>((*ipv4)[2] << 8 | (*ipv4)[3]));
    } else {
      std::uint16_t value = 0;
      if (group.empty() || group.size() > 4)
        return std::nullopt;
      const auto parsed = std::from_chars(group.data(), group.data() + group.size(), value, 16);
      if (parsed.ec != std::errc() || parsed.ptr != group.data() + group.size())
        return std::nullopt;
      found.push_back(value);
    }
    if (found.size() > 8)
      return std::nullopt;
    if (colon == std::string_view::npos)
      return found;
    text = text.substr(colon + 1);
  }
}

std::optional<groups> parse_ipv6(std::string_view text) {
  groups result{};
  const std::size_t gap = text.find("::");
  if (gap == std::string_view::npos) {
    const auto all = parse_groups(text, true);
    if (!all || all->size() != 8)
      return std::nullopt;
    std::copy(all->begin(), all->end(), result.begin());
    return result;
  }
  const auto before = parse_groups(text.substr(0, gap), false);
  const auto after = parse_groups(text.substr(gap + 2), true);
  if (!before || !after || before->size() + after->size() > 7)
    return std::nullopt;
  std::copy(before->begin(), before->end(), result.begin());
  std::copy(after->begin(), after->end(), result.end() - static_cast<std::ptrdiff_t>(after->size()));
  return result;
}

// RFC 5952: lower case, the first longest run of at least two zero groups as "::". Never the mixed form.
std::string format_ipv6(const groups& address) {
  std::size_t run_begin = 8;
  std::size_t run_length = 1;
  for (std::size_t i = 0; i < 8; ++i) {
    std::size_t end = i;
    while (end < 8 && address[end] == 0)
      ++end;
    if (end - i > run_length) {
      run_begin = i;
      run_length = end - i;
    }
  }
  std::string text;
  for (std::size_t i = 0; i < 8; ++i) {
    if (i == run_begin) {
      text += "::";
      i += run_length - 1;
      continue;
    }
    if (!text.empty() && text.back() != ':')
      text += ':';
    std::array<char, 4> digits;
    const auto written = std::to_chars(digits.data(), digits.data() + digits.size(), address[i], 16);
    text.append(digits.data(), written.ptr);
  }
  return text;
}

std::optional<std::string> normalise_host_name(std::string_view text) {
  if (text.ends_with('.'))
    text.remove_suffix(1);
  if (text.empty() || text.size() > 253)
    return std::nullopt;
  std::string name;
  std::size_t label_bytes = 0;
  bool label_numeric = true;
  for (const char c : text) {
    if (c == '.') {
      if (label_bytes == 0)
        return std::nullopt;
      label_bytes = 0;
      label_numeric = true;
    } else {
      const char small = lower(c);
      const bool fits = (small >= 'a' && small <= 'z') || is_digit(small) || small == '-' || small == '_';
      if (!fits || ++label_bytes > 63)
        return std::nullopt;
      label_numeric = label_numeric && is_digit(small);
    }
    name += lower(c);
  }
  // A last label of digits only is a mistyped IPv4 address ("10.0.0", "010.0.0.1"), which resolvers read
  // differently.
  if (label_bytes == 0 || label_numeric)
    return std::nullopt;
  return name;
}

} // namespace

normalised_server normalise_server(std::string_view text) {
  const auto refused = [text](std::string_view why) {
    normalised_server result;
    result.problem += "server \"";
    result.problem += text;
    result.problem += "\": ";
    result.problem += why;
    return result;
  };
  std::string_view host = text;
  std::optional<std::string_view> port_text;
  bool ipv6 = false;
  if (text.starts_with('[')) {
    const std::size_t bracket = text.find(']');
    if (bracket == std::string_view::npos)
      return refused("the bracket of the IPv6 address is not closed");
    host = text.substr(1, bracket - 1);
    const std::string_view rest = text.substr(bracket + 1);
    if (!rest.empty() && rest[0] != ':')
      return refused("only :port may follow the bracket of an IPv6 address");
    if (!rest.empty())
      port_text = rest.substr(1);
    ipv6 = true;
  } else if (const std::size_t colon = text.find(':'); colon != std::string_view::npos) {
    if (text.find(':', colon + 1) != std::string_view::npos) {
      ipv6 = true;
    } else {
      host = text.substr(0, colon);
      port_text = text.substr(colon + 1);
    }
  }
  unsigned port = limits::default_port;
  if (port_text) {
    // Leading zeros are dropped here, as the normal form has none.
    std::string_view digits = *port_text;
    while (digits.size() > 1 && digits[0] == '0')
      digits.remove_prefix(1);
    const std::optional<unsigned> value = decimal(digits, 65535);
    if (!value || *value == 0)
      return refused("the port must be a number from 1 to 65535");
    port = *value;
  }
  normalised_server result;
  if (ipv6) {
    const std::optional<groups> address = parse_ipv6(host);
    if (!address)
      return refused("this is not an IPv6 address (zones such as %eth0 are not possible here)");
    result.name += '[';
    result.name += format_ipv6(*address);
    result.name += ']';
  } else if (const auto ipv4 = parse_ipv4(host)) {
    for (const std::uint8_t byte : *ipv4) {
      if (!result.name.empty())
        result.name += '.';
      result.name += std::to_string(byte);
    }
  } else if (auto name = normalise_host_name(host)) {
    result.name = std::move(*name);
  } else {
    return refused("this is neither a host name nor an IPv4 address");
  }
  result.name += ':';
  result.name += std::to_string(port);
  return result;
}

placement::placement(std::vector<std::string> servers) : servers_(std::move(servers)) {
  std::sort(servers_.begin(), servers_.end());
  servers_.erase(std::unique(servers_.begin(), servers_.end()), servers_.end());
  seeds_.reserve(servers_.size());
  for (const std::string& server : servers_)
    seeds_.push_back(seed(server));
}

std::uint64_t placement::seed(std::string_view server) noexcept {
  return load_le<std::uint64_t>(sha256(as_bytes_view(server)).data());
}

std::uint64_t placement::score(std::uint64_t seed, const key_id& id) noexcept {
  std::uint64_t x = seed ^ id.head();
  x ^= x >> 30;
  x *= 0xBF58476D1CE4E5B9U;
  x ^= x >> 27;
  x *= 0x94D049BB133111EBU;
  x ^= x >> 31;
  return x;
}

std::size_t placement::pick(const key_id& id) const noexcept {
  MEMKV_ASSERT(!seeds_.empty(), "keys are placed on at least one server");
  // The servers are sorted, so the first of equal scores is the one whose name sorts first.
  std::size_t best = 0;
  std::uint64_t best_score = score(seeds_[0], id);
  for (std::size_t i = 1; i < seeds_.size(); ++i) {
    const std::uint64_t candidate = score(seeds_[i], id);
    if (candidate > best_score) {
      best = i;
      best_score = candidate;
    }
  }
  return best;
}

} // namespace memkv::wire
