// The vocabulary of the protocol's tests: hex, the page's worked example, a seeded generator, frames and a
// peer that listens to a request_reader.
#pragma once

#include "wire/frame_writer.hpp"
#include "wire/hello.hpp"
#include "wire/messages.hpp"
#include "wire/request_reader.hpp"

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace memkv::wire::test {

using buffer = std::vector<std::byte>;

inline constexpr std::uint64_t second_ns = 1'000'000'000;
inline constexpr std::uint64_t noon_ns = 1'700'000'000 * second_ns;

inline buffer from_hex(std::string_view hex) {
  buffer bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes.push_back(static_cast<std::byte>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
  return bytes;
}

inline std::string to_hex(bytes_view bytes) {
  std::string hex;
  for (const std::byte byte : bytes) {
    hex += "0123456789abcdef"[std::to_integer<unsigned>(byte >> 4)];
    hex += "0123456789abcdef"[std::to_integer<unsigned>(byte & std::byte{15})];
  }
  return hex;
}

inline buffer bytes_of(std::string_view text) {
  const bytes_view view = as_bytes_view(text);
  return buffer(view.begin(), view.end());
}

template <std::size_t N>
std::array<std::byte, N> array_of(bytes_view bytes) {
  std::array<std::byte, N> result{};
  if (bytes.size() != N)
    throw std::runtime_error("a field has another length than the test expects");
  std::copy(bytes.begin(), bytes.end(), result.begin());
  return result;
}

/// The lines of the page.
inline std::vector<std::string> page_lines() {
  std::ifstream page(MEMKV_WIRE_PAGE);
  if (!page)
    throw std::runtime_error("the protocol's page is not where the build said");
  std::vector<std::string> lines;
  for (std::string line; std::getline(page, line);)
    lines.push_back(line);
  return lines;
}

/// Section 18: label (the whole line without its colon) to bytes.
inline std::map<std::string, buffer> worked_example() {
  std::map<std::string, buffer> blocks;
  bool inside = false;
  std::string label;
  for (const std::string& line : page_lines()) {
    if (line.starts_with("## "))
      inside = line.starts_with("## 18");
    if (!inside)
      continue;
    if (line.starts_with("  ") && !label.empty()) {
      const buffer more = from_hex(line.substr(2));
      blocks[label].insert(blocks[label].end(), more.begin(), more.end());
    } else {
      label = line.ends_with(':') ? line.substr(0, line.size() - 1) : "";
    }
  }
  return blocks;
}

inline shared_key page_key() {
  return *shared_key::parse("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
}

inline std::uint64_t test_seed() {
  const char* given = std::getenv("MEMKV_TEST_SEED");
  return given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
}

/// Prints its seed when the test that holds it fails by exception or says so.
class generator {
public:
  explicit generator(std::uint64_t seed = test_seed()) : seed_(seed), engine_(seed) {}

  [[nodiscard]] std::uint64_t seed() const noexcept { return seed_; }
  [[nodiscard]] std::string hint() const { return "MEMKV_TEST_SEED=" + std::to_string(seed_); }
  std::uint64_t number() { return engine_(); }
  std::uint64_t below(std::uint64_t bound) { return engine_() % bound; }
  template <class T>
  T any() {
    return static_cast<T>(engine_());
  }
  buffer bytes(std::size_t size) {
    buffer result(size);
    for (std::byte& byte : result)
      byte = static_cast<std::byte>(engine_());
    return result;
  }
  template <std::size_t N>
  void fill(std::array<std::byte, N>& to) {
    for (std::byte& byte : to)
      byte = static_cast<std::byte>(engine_());
  }

private:
  std::uint64_t seed_;
  std::mt19937_64 engine_;
};

inline connection_tag test_tag() {
  connection_tag tag;
  tag.fill(std::byte{0x5A});
  return tag;
}

/// A sealed request frame with its payload behind it.
template <message Body>
buffer request(opcode code, std::uint64_t id, const Body& body, std::uint64_t ts_ns = noon_ns,
               bytes_view payload = {}, const connection_tag& tag = test_tag()) {
  frame_header header;
  header.opcode = code;
  header.request_id = id;
  header.tag = code == opcode::hello ? connection_tag{} : tag;
  header.payload_length = payload.size();
  if (!payload.empty() && code != opcode::tcp_batch_put)
    store_le(header.digest.data(), std::uint32_t{1});
  buffer frame;
  append_frame(frame, header, body);
  seal(frame, ts_ns, mac(page_key()));
  frame.insert(frame.end(), payload.begin(), payload.end());
  return frame;
}

inline buffer ping(std::uint64_t id, std::uint64_t ts_ns = noon_ns) {
  return request(opcode::ping, id, empty_message{}, ts_ns);
}
inline buffer hello(std::uint64_t id = 1, std::uint64_t ts_ns = noon_ns) {
  return request(opcode::hello, id, hello_request{}, ts_ns);
}
inline buffer put(std::uint64_t id, std::string_view key, bytes_view value, std::uint64_t ts_ns = noon_ns) {
  return request(opcode::tcp_put, id, key_request{as_bytes_view(key)}, ts_ns, value);
}

/// Changes a byte of the header and signs again: what a buggy or hostile holder of the key can send.
inline void reseal(buffer& frame, std::uint64_t ts_ns = noon_ns) {
  const auto header_length = load_le<std::uint32_t>(frame.data() + 8);
  seal(bytes_span(frame).first(header_length + limits::trailer_bytes), ts_ns, mac(page_key()));
}

/// A server's connection without a server: reads a stream as it comes and writes down what would have been
/// done.
class listening_peer {
public:
  explicit listening_peer(header_budget& budget, std::uint64_t now_ns = noon_ns,
                          connection_tag tag = test_tag())
      : reader(verifier_, budget), now_ns(now_ns), tag_(tag) {}

  /// Feeds one piece. Stops at a close.
  void feed(bytes_view in) {
    while (!closed) {
      const std::size_t skipped = static_cast<std::size_t>(std::min<std::uint64_t>(payload_left_, in.size()));
      payload_.insert(payload_.end(), in.begin(), in.begin() + static_cast<std::ptrdiff_t>(skipped));
      payload_left_ -= skipped;
      in = in.subspan(skipped);
      if (payload_left_ != 0)
        return;
      finish_payload();
      if (in.empty())
        return;
      const request_reader::result result = reader.consume(in, now_ns);
      in = in.subspan(result.consumed);
      switch (result.event) {
      case request_event::need_more:
        return;
      case request_event::wait_for_budget:
        log.push_back("wait");
        return;
      case request_event::close:
        log.push_back("close " + std::string(name(reader.reason())));
        closed = true;
        return;
      case request_event::refuse_version:
        log.push_back("refuse version " + std::to_string(reader.header().request_id));
        closed = true;
        return;
      case request_event::drop:
        log.push_back("drop " + std::string(name(reader.reason())));
        break;
      case request_event::malformed:
        log.push_back("malformed " + std::string(name(reader.fault())) + " " +
                      std::to_string(reader.header().request_id));
        break;
      case request_event::header:
        executing_ = true;
        log.push_back(std::string(name(reader.header().opcode)) + " " +
                      std::to_string(reader.header().request_id) + " " + to_hex(reader.variable_part()));
        if (reader.header().opcode == opcode::hello)
          reader.accept_hello(tag_);
        break;
      }
      payload_left_ = reader.payload_bytes();
      payload_open_ = true;
      if (payload_left_ == 0)
        finish_payload();
    }
  }

  [[nodiscard]] std::string joined() const {
    std::string all;
    for (const std::string& line : log)
      all += line + "\n";
    return all;
  }

private:
  void finish_payload() {
    if (payload_open_ && executing_ && !payload_.empty())
      log.push_back("payload " + to_hex(payload_));
    payload_open_ = false;
    executing_ = false;
    payload_.clear();
  }

  mac verifier_{page_key()};

public:
  request_reader reader;
  std::uint64_t now_ns;
  std::vector<std::string> log;
  bool closed = false;

private:
  connection_tag tag_;
  std::uint64_t payload_left_ = 0;
  bool payload_open_ = false;
  bool executing_ = false;
  buffer payload_;
};

inline buffer encoded_hello_variable() {
  buffer bytes(hello_request::size);
  byte_writer writer(bytes);
  hello_request{}.encode(writer);
  return bytes;
}

inline buffer joined(std::initializer_list<buffer> frames) {
  buffer all;
  for (const buffer& frame : frames)
    all.insert(all.end(), frame.begin(), frame.end());
  return all;
}

} // namespace memkv::wire::test
