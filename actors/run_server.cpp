#include "actors/run_server.hpp"

#include "actors/fault_points.hpp"
#include "actors/find_set.hpp"
#include "actors/log.hpp"
#include "actors/server.hpp"

#include <caf/actor_system_config.hpp>
#include <caf/scoped_actor.hpp>
#include <caf/send.hpp>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <mutex>
#include <random>
#include <thread>

namespace memkv::actors {

namespace {

constexpr int receive_buffer_bytes = 1 << 20;

/// The largest receive buffer that may be asked for: net.core.rmem_max; 0 when nobody knows.
int receive_bytes_allowed() {
  std::ifstream file("/proc/sys/net/core/rmem_max");
  int bytes = 0;
  return file >> bytes ? bytes : 0;
}

constexpr const char* target = "memkv::server";

/// A listening socket, or -1 and a sentence.
int bind_socket(const server_options& options, std::string& problem) {
  sockaddr_storage address{};
  socklen_t bytes = 0;
  if (auto* v4 = reinterpret_cast<sockaddr_in*>(&address);
      inet_pton(AF_INET, options.host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(options.port);
    bytes = sizeof *v4;
  } else if (auto* v6 = reinterpret_cast<sockaddr_in6*>(&address);
             inet_pton(AF_INET6, options.host.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(options.port);
    bytes = sizeof *v6;
  } else {
    problem = "network.address: '" + options.host + "' is not an IPv4 or IPv6 address";
    return -1;
  }
  const int socket = ::socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int one = 1;
  if (socket >= 0)
    ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (socket >= 0 && options.socket_buffer_bytes > 0) {
    // Accepted sockets inherit both. Left to itself the kernel lets what a connection has not been read of
    // grow to many megabytes; a size beyond net.core.rmem_max would be cut to less than is good for speed, so
    // then it is the kernel's to choose, within net.ipv4.tcp_rmem.
    const int size = static_cast<int>(options.socket_buffer_bytes);
    ::setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    if (receive_bytes_allowed() >= receive_buffer_bytes)
      ::setsockopt(socket, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof receive_buffer_bytes);
  }
  if (socket < 0 || ::bind(socket, reinterpret_cast<sockaddr*>(&address), bytes) != 0 ||
      ::listen(socket, 4096) != 0) {
    problem = "network.address: cannot listen on " + options.host + ":" + std::to_string(options.port) +
              ": " + std::strerror(errno);
    if (socket >= 0)
      ::close(socket);
    return -1;
  }
  return socket;
}

std::uint16_t port_of(int socket) {
  sockaddr_storage address{};
  socklen_t bytes = sizeof address;
  ::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &bytes);
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&address)->sin6_port
                                             : reinterpret_cast<sockaddr_in*>(&address)->sin_port);
}

/// The listening socket, and what belongs beside it; -1 and a sentence. Of any free port the next one may be
/// taken by somebody else: then another pair is looked for, below the ports that the kernel takes for
/// outgoing connections, which may be taken in every second place.
int bind_sockets(server_options options, std::string& problem) {
  constexpr int attempts_max = 100;
  constexpr std::uint16_t first = 20'000, last = 32'000;
  const bool any = options.port == 0 && options.beside;
  std::minstd_rand chance(std::random_device{}());
  for (int attempt = 0; attempt < (any ? attempts_max : 1); ++attempt) {
    if (attempt > 0)
      options.port = static_cast<std::uint16_t>(first + chance() % (last - first));
    const int socket = bind_socket(options, problem);
    if (socket >= 0) {
      if (!options.beside || options.beside(port_of(socket), problem))
        return socket;
      ::close(socket);
    }
  }
  return -1;
}

class running final : public running_server {
public:
  running(server_options options, int socket, std::shared_ptr<reactor_shared> shared)
      : socket_(socket), port_(port_of(socket)), board_(std::make_shared<server_board>()) {
    if (options.faults != nullptr)
      faults_ = std::make_shared<fault_injector>(options.faults, board_);
    auto started = board_->started.get_future();
    // The few event-based actors do little; more threads would only compete with the reactors.
    configuration_.set("scheduler.max-threads", std::size_t{2});
    // They sleep until there is work. Workers that steal look for it ten thousand times a second each, which
    // costs an idle server a thirtieth of a processor and a busy one its caches.
    configuration_.set("scheduler.policy", caf::atom("sharing"));
    system_ = std::make_unique<caf::actor_system>(configuration_);
    system_->await_actors_before_shutdown(true);
    server_ = system_->spawn(server, std::move(options), socket, std::move(shared), board_);
    problem_ = started.get();
  }

  ~running() override {
    stop();
    wait();
    server_ = nullptr;
    system_.reset();
    ::close(socket_);
  }

  [[nodiscard]] const std::string& problem() const noexcept { return problem_; }
  [[nodiscard]] std::uint16_t port() const noexcept override { return port_; }

  void stop() noexcept override { caf::anon_send(server_, stop_server{}); }

  bool wait() override {
    if (!ended_) {
      caf::scoped_actor self{*system_};
      self->wait_for(server_);
      ended_ = true;
    }
    return board_->orderly;
  }

  [[nodiscard]] std::vector<std::pair<std::string, caf::actor>> actors() const override {
    std::lock_guard guard{board_->lock};
    return {board_->actors.begin(), board_->actors.end()};
  }
  [[nodiscard]] std::string ended_because() const override {
    std::lock_guard guard{board_->lock};
    return board_->ended_because;
  }
  [[nodiscard]] std::shared_ptr<admin_door> door() const override { return make_admin_door(board_); }
  [[nodiscard]] std::shared_ptr<fault_injector> faults() const override { return faults_; }
  [[nodiscard]] std::uint32_t drives_online() const noexcept override { return board_->drives_online; }
  [[nodiscard]] std::uint32_t connections() const noexcept override { return board_->door->connections(); }
  [[nodiscard]] server_actor handle() const { return server_; }

private:
  int socket_;
  std::uint16_t port_;
  std::shared_ptr<server_board> board_;
  std::shared_ptr<fault_injector> faults_;
  caf::actor_system_config configuration_;
  std::unique_ptr<caf::actor_system> system_;
  server_actor server_;
  std::string problem_;
  bool ended_ = false;
};

std::shared_ptr<fault_points> fault_points_for(const server_options& options) {
  auto made = std::make_shared<fault_points>();
  for (const auto& drive : options.drives)
    made->drives.push_back(drive.memory ? nullptr : std::make_shared<engine::drive_faults>());
  return made;
}

/// Descriptors for every connection that may be admitted, and some for everything else.
void raise_descriptor_limit(std::uint32_t connections_max) {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const rlim_t wanted = static_cast<rlim_t>(connections_max) + 256;
  if (limit.rlim_cur < wanted) {
    auto raised = limit;
    raised.rlim_cur = std::max(wanted, limit.rlim_cur);
    raised.rlim_max = std::max(wanted, limit.rlim_max);
    if (::setrlimit(RLIMIT_NOFILE, &raised) != 0) {
      raised = limit;
      raised.rlim_cur = limit.rlim_max;
      ::setrlimit(RLIMIT_NOFILE, &raised);
    }
    ::getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < wanted)
      log::warn(target,
                "the limit on open files is below network.max_connections; accepting will pause when it "
                "is reached",
                {{"limit", std::to_string(limit.rlim_cur)}, {"wanted", std::to_string(wanted)}});
  }
}

} // namespace

std::unique_ptr<running_server> start_server(const server_options& given, std::string& problem) {
  auto options = given;
  if (options.key == nullptr) {
    problem = "no authentication key: set MEMKV_AUTH_KEY or network.auth_key to 64 hexadecimal digits "
              "(openssl rand "
              "-hex 32)";
    return nullptr;
  }
  if (options.drives.empty()) {
    problem = "storage.drives is empty: name at least one drive";
    return nullptr;
  }
  if (options.reactors == 0)
    options.reactors = std::clamp(std::thread::hardware_concurrency(), 1U, 16U);
  if (options.socket_buffer_bytes == 0)
    options.socket_buffer_bytes = 256 << 10;
  options.store.identity.drive_count = static_cast<std::uint32_t>(options.drives.size());
  options.set.set_id = options.store.identity.set_id;
  if (const auto found = find_set(options, options.set, options.registries); !found.ok()) {
    problem = found.text;
    return nullptr;
  }
  options.start_failed = nullptr;
  options.store.identity.set_id = options.set.set_id;
  static std::atomic<std::uint64_t> generation{0};
  if (options.store.generation == nullptr)
    options.store.generation = &generation;
  if (options.store.boot_id == std::array<std::byte, 16>{} && !engine::read_boot_id(options.store.boot_id))
    log::warn(target,
              "/proc/sys/kernel/random/boot_id cannot be read: a power cut cannot be told from a crash");
  if (!options.fault_injection)
    options.faults = nullptr;
  else if (options.faults == nullptr)
    options.faults = fault_points_for(options);
  raise_descriptor_limit(options.limits.connections_max);
  const int socket = bind_sockets(options, problem);
  if (socket < 0)
    return nullptr;
  options.beside = nullptr;
  options.port = port_of(socket);
  auto shared = reactor_shared::create(options, problem);
  if (shared == nullptr) {
    ::close(socket);
    return nullptr;
  }
  auto server = std::make_unique<running>(std::move(options), socket, std::move(shared));
  if (!server->problem().empty()) {
    problem = server->problem();
    if (given.start_failed)
      given.start_failed(problem);
    return nullptr;
  }
  return server;
}

namespace {

sigset_t stop_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  return signals;
}

/// Blocked in all threads, they wait for serve_until_told.
bool stop_is_pending() {
  sigset_t pending;
  sigpending(&pending);
  return sigismember(&pending, SIGINT) == 1 || sigismember(&pending, SIGTERM) == 1;
}

} // namespace

void block_signals() {
  auto signals = stop_signals();
  sigaddset(&signals, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

int serve_until_told(std::unique_ptr<running_server> server, std::string& problem) {
  // The root supervisor's own death ends the process with 1: nobody above it could do better.
  std::atomic<bool> over{false};
  std::thread watcher{[&] {
    server->wait();
    over = true;
    ::kill(::getpid(), SIGTERM);
  }};
  const auto signals = stop_signals();
  int received = 0;
  sigwait(&signals, &received);
  if (!over)
    log::info(target, std::string{"received "} + (received == SIGINT ? "SIGINT" : "SIGTERM"));
  server->stop();
  watcher.join();
  const bool orderly = server->wait();
  if (!orderly) {
    log::error(target,
               "the server did not end in good order: what was not closed in time is left to the kernel; the "
               "next start recovers a drive of which the log does not say that it was closed");
    std::_Exit(1);
  }
  problem = server->ended_because();
  server.reset();
  log::info(target, "stopped");
  return problem.empty() ? 0 : 1;
}

int run_server(const server_options& given, const std::function<void(running_server&)>& ready,
               std::string& problem) {
  block_signals();
  auto options = given;
  options.told_to_stop = stop_is_pending;
  bool said = false;
  options.start_failed = [&said, patience = options.shutdown_ms](const std::string& why) {
    said = true;
    if (why != stopped_while_starting)
      log::error(target, why);
    std::thread([patience] {
      std::this_thread::sleep_for(std::chrono::milliseconds{patience});
      log::error(target, "a drive that was opened was not closed in time: the next start recovers it");
      std::_Exit(1);
    }).detach();
  };
  auto server = start_server(options, problem);
  if (server == nullptr && problem == stopped_while_starting) {
    log::info(target, "stopped before it served");
    problem.clear();
    return 0;
  }
  if (server == nullptr) {
    if (!said)
      log::error(target, problem);
    return 1;
  }
  log::info(target, "serving",
            {{"address", options.host + ":" + std::to_string(server->port())},
             {"drives_online", std::to_string(server->drives_online())}});
  if (ready)
    ready(*server);
  return serve_until_told(std::move(server), problem);
}

} // namespace memkv::actors
