// A blocking TCP connection that speaks in lines and values, for the peers that bench/compare measures.
//
// Threading: one thread. Errors: false, after which the connection is of no use.
#pragma once

#include "wire/crc32c.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

namespace memkv::bench {

/// Values are received in steps, so that their checksum is taken while they are in the processor's cache.
constexpr std::size_t receive_step_bytes = 256U << 10U;
constexpr std::size_t line_bytes_max = 512;

class text_connection {
public:
  bool open(const std::string& address, int send_kb, int receive_kb) {
    const std::size_t colon = address.rfind(':');
    sockaddr_in to{};
    to.sin_family = AF_INET;
    if (colon == std::string::npos ||
        ::inet_pton(AF_INET, address.substr(0, colon).c_str(), &to.sin_addr) != 1) {
      return false;
    }
    to.sin_port = htons(static_cast<std::uint16_t>(std::atoi(address.c_str() + colon + 1)));
    fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int on = 1;
    ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    const auto set = [this](int option, int kib) {
      const int bytes = kib * 1024;
      if (kib != 0) {
        ::setsockopt(fd_, SOL_SOCKET, option, &bytes, sizeof bytes);
      }
    };
    set(SO_SNDBUF, send_kb);
    set(SO_RCVBUF, receive_kb);
    return ::connect(fd_, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0;
  }
  text_connection() = default;
  /// Takes an accepted socket over.
  explicit text_connection(int accepted) : fd_(accepted) {
    const int on = 1;
    ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  ~text_connection() {
    if (fd_ >= 0) {
      ::close(fd_);
    }
  }
  text_connection(const text_connection&) = delete;
  text_connection& operator=(const text_connection&) = delete;

  bool send_pieces(std::span<iovec> pieces) {
    while (!pieces.empty()) {
      msghdr message{};
      message.msg_iov = pieces.data();
      message.msg_iovlen = pieces.size();
      ssize_t sent = ::sendmsg(fd_, &message, MSG_NOSIGNAL);
      if (sent <= 0) {
        return false;
      }
      while (!pieces.empty() && static_cast<std::size_t>(sent) >= pieces.front().iov_len) {
        sent -= static_cast<ssize_t>(pieces.front().iov_len);
        pieces = pieces.subspan(1);
      }
      if (!pieces.empty()) {
        pieces.front().iov_base = static_cast<char*>(pieces.front().iov_base) + sent;
        pieces.front().iov_len -= static_cast<std::size_t>(sent);
      }
    }
    return true;
  }

  /// A line without its end; false when the connection ended.
  bool read_line(std::string_view& line) {
    while (true) {
      const std::string_view seen(buffer_.data() + begin_, end_ - begin_);
      if (const std::size_t found = seen.find("\r\n"); found != std::string_view::npos) {
        line = seen.substr(0, found);
        begin_ += found + 2;
        return true;
      }
      if (begin_ > 0) {
        std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
        end_ -= begin_;
        begin_ = 0;
      }
      const ssize_t got = ::recv(fd_, buffer_.data() + end_, buffer_.size() - end_, 0);
      if (got <= 0) {
        return false;
      }
      end_ += static_cast<std::size_t>(got);
    }
  }

  /// Exactly that many bytes, and the CRC32C over them if it is wanted.
  bool read_value(std::span<std::byte> target, std::uint32_t* crc) {
    std::uint32_t sum = 0;
    const std::size_t buffered = std::min(target.size(), end_ - begin_);
    std::memcpy(target.data(), buffer_.data() + begin_, buffered);
    begin_ += buffered;
    if (crc != nullptr) {
      sum = wire::crc32c(target.first(buffered), sum);
    }
    std::size_t done = buffered;
    while (done < target.size()) {
      const std::size_t step = std::min(receive_step_bytes, target.size() - done);
      const ssize_t got = ::recv(fd_, target.data() + done, step, 0);
      if (got <= 0) {
        return false;
      }
      if (crc != nullptr) {
        sum = wire::crc32c(target.subspan(done, static_cast<std::size_t>(got)), sum);
      }
      done += static_cast<std::size_t>(got);
    }
    if (crc != nullptr) {
      *crc = sum;
    }
    return true;
  }

private:
  int fd_ = -1;
  std::array<char, line_bytes_max> buffer_{};
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
};

inline iovec piece_of(std::string_view text) {
  return {const_cast<char*>(text.data()), text.size()};
}
inline iovec piece_of(std::span<const std::byte> bytes) {
  return {const_cast<std::byte*>(bytes.data()), bytes.size()};
}

inline bool number_in(std::string_view text, std::size_t& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

} // namespace memkv::bench
