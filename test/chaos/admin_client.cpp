#include "test/chaos/admin_client.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cstdlib>
#include <random>

namespace memkv::test {

namespace {

sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

/// Binds it for a moment; 0: cannot.
std::uint16_t bindable(std::uint16_t port) {
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  auto address = loopback(port);
  socklen_t bytes = sizeof address;
  const bool bound = ::bind(socket, reinterpret_cast<sockaddr*>(&address), bytes) == 0 &&
                     ::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &bytes) == 0;
  ::close(socket);
  return bound ? ntohs(address.sin_port) : 0;
}

bool send_all(int socket, const std::string& text) {
  for (std::size_t done = 0; done < text.size();) {
    const auto count = ::send(socket, text.data() + done, text.size() - done, MSG_NOSIGNAL);
    if (count <= 0)
      return false;
    done += static_cast<std::size_t>(count);
  }
  return true;
}

} // namespace

admin_reply ask_admin(std::uint16_t port, const std::string& method, const std::string& target,
                      const std::string& body, std::chrono::milliseconds limit) {
  admin_reply out;
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  timeval patience{};
  patience.tv_sec = limit.count() / 1'000;
  patience.tv_usec = limit.count() % 1'000 * 1'000;
  ::setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  ::setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  const auto address = loopback(port);
  std::string text = method + " " + target + " HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n";
  if (method == "POST")
    text += "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) + "\r\n";
  text += "\r\n" + body;
  std::string reply;
  if (::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 &&
      send_all(socket, text)) {
    char bytes[16'384];
    for (ssize_t count = 1; count > 0;) {
      count = ::recv(socket, bytes, sizeof bytes, 0);
      if (count > 0)
        reply.append(bytes, static_cast<std::size_t>(count));
    }
  }
  ::close(socket);
  const auto end = reply.find("\r\n\r\n");
  if (!reply.starts_with("HTTP/1.") || end == std::string::npos)
    return out;
  out.status = std::atoi(reply.c_str() + 9);
  out.body = nlohmann::json::parse(reply.substr(end + 4), nullptr, false);
  if (out.body.is_discarded())
    out.body = nullptr;
  return out;
}

std::uint16_t free_port_pair() {
  std::minstd_rand chance(std::random_device{}());
  while (true) {
    // Below the ports that the kernel takes for outgoing connections.
    const auto port = bindable(static_cast<std::uint16_t>(20'000 + chance() % 12'000));
    if (port != 0 && bindable(static_cast<std::uint16_t>(port + 1)) != 0)
      return port;
  }
}

} // namespace memkv::test
