#include "bench/plain_socket.hpp"

#include "bench/text_connection.hpp"

#include <sys/mman.h>

#include <cstdio>
#include <thread>

namespace memkv::bench {

namespace {

/// "put 17 65536" or "get 17 65536": which value, how long.
bool understand(std::string_view line, bool& is_put, std::size_t& number, std::size_t& bytes) {
  const std::size_t space = line.rfind(' ');
  if (line.size() < 7 || space < 4) {
    return false;
  }
  is_put = line.starts_with("put ");
  return (is_put || line.starts_with("get ")) && number_in(line.substr(4, space - 4), number) &&
         number_in(line.substr(space + 1), bytes);
}

void serve(int accepted, std::span<std::byte> memory) {
  text_connection connection(accepted);
  std::string_view line;
  while (connection.read_line(line)) {
    bool is_put = false;
    std::size_t number = 0;
    std::size_t bytes = 0;
    if (!understand(line, is_put, number, bytes) || bytes == 0 || bytes > memory.size() ||
        number >= memory.size() / bytes) {
      return;
    }
    const std::span<std::byte> value = memory.subspan(number * bytes, bytes);
    std::array<iovec, 1> answer{is_put ? piece_of("ok\r\n") : piece_of(std::span<const std::byte>(value))};
    if ((is_put && !connection.read_value(value, nullptr)) || !connection.send_pieces(answer)) {
      return;
    }
  }
}

} // namespace

int serve_plain_socket(const std::string& address, std::uint64_t data_bytes) {
  const std::size_t colon = address.rfind(':');
  sockaddr_in at{};
  at.sin_family = AF_INET;
  void* memory =
      ::mmap(nullptr, data_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  const int listening = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (colon == std::string::npos || memory == MAP_FAILED ||
      ::inet_pton(AF_INET, address.substr(0, colon).c_str(), &at.sin_addr) != 1) {
    std::fprintf(stderr, "memkv-peer-bench: cannot serve %llu bytes at %s\n",
                 static_cast<unsigned long long>(data_bytes), address.c_str());
    return 1;
  }
  static_cast<void>(::madvise(memory, data_bytes, MADV_HUGEPAGE));
  at.sin_port = htons(static_cast<std::uint16_t>(std::atoi(address.c_str() + colon + 1)));
  if (::bind(listening, reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0 ||
      ::listen(listening, 64) != 0) {
    std::fprintf(stderr, "memkv-peer-bench: cannot listen on %s: %s\n", address.c_str(),
                 std::strerror(errno));
    return 1;
  }
  std::thread([listening, all = std::span(static_cast<std::byte*>(memory), data_bytes)] {
    while (true) {
      const int accepted = ::accept4(listening, nullptr, nullptr, SOCK_CLOEXEC);
      if (accepted < 0) {
        return;
      }
      std::thread(serve, accepted, all).detach();
    }
  }).detach();
  // Until whoever started it lets go of its standard input, or ends.
  while (std::getchar() != EOF) {
  }
  std::fflush(nullptr);
  // Threads that serve are still there; what they use goes with the process.
  std::_Exit(0);
}

} // namespace memkv::bench
