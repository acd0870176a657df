// The threads of a DCI POOL that find the way to clients which are being attached: where nobody answers, the
// kernel looks for a peer for a second, and the pool's own thread must not wait for that.
//
// Operation. Each attachment that was given is either reached, by one of a few threads, or found too old when
// its turn comes; then it is among those done, and the descriptor is readable. Threads are started when they
// are wanted. At the end what waits is dropped, and what is under way is waited for.
//
// Threading: one owner's thread; the threads here call attachment::reach() and nothing else of it. Ownership:
// attachments are the owner's, and stay until they are done or dropped. Limits: threads_max; what waits is
// bounded by the owner. Errors: without a descriptor or a thread nothing is reached, and usable() says so.
#pragma once

#include "verbs/transfer_engine.hpp"

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

namespace memkv::actors {

class way_finder {
public:
  struct outcome {
    std::uint64_t number = 0;
    bool tried = false; // or it had waited for too long
  };

  explicit way_finder(std::uint32_t threads_max, std::uint64_t wait_ns_max);
  ~way_finder();
  way_finder(const way_finder&) = delete;
  way_finder& operator=(const way_finder&) = delete;

  /// False: the system gives no descriptor or no thread.
  [[nodiscard]] bool find(std::uint64_t number, verbs::attachment& to);
  /// Appends those done since the last time.
  void take_done(std::vector<outcome>& out);
  /// Readable when something was done, until acknowledge(). -1: there is none.
  [[nodiscard]] int event_descriptor() const noexcept { return event_fd_; }
  void acknowledge() noexcept;
  /// Drops what waits and waits for what is under way; nothing is found afterwards. A second call does
  /// nothing.
  void end() noexcept;

private:
  struct wanted {
    std::uint64_t number = 0;
    verbs::attachment* to = nullptr;
    std::uint64_t since_ns = 0;
  };

  void work();

  const std::uint32_t threads_max_;
  const std::uint64_t wait_ns_max_;
  const int event_fd_;
  std::mutex lock_;
  std::condition_variable changed_;
  std::deque<wanted> waiting_; // lock_, as all below but the threads
  std::vector<outcome> done_;
  std::uint32_t idle_ = 0;
  bool ended_ = false;
  std::vector<std::thread> threads_; // the owner's
};

} // namespace memkv::actors
