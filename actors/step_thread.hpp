// A thread of a DCI POOL for steps that take long and wait for nobody but the kernel, such as registering
// memory: it is pinned page by page, a second for a few GiB.
//
// Operation. Steps are run one after the other, in the order in which they came; one that was run is among
// those done, and the descriptor is readable. The thread is started when it is wanted. At the end what waits
// is dropped, and what is under way is waited for.
//
// Threading: one owner's thread; the thread here calls slow_step::run() and nothing else of it. Ownership:
// steps are the owner's, and stay until they are done or dropped. Limits: what waits is bounded by the owner.
// Errors: without a descriptor or a thread nothing is run, and run() says so.
#pragma once

#include "verbs/fabric.hpp"

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

namespace memkv::actors {

class step_thread {
public:
  step_thread();
  ~step_thread();
  step_thread(const step_thread&) = delete;
  step_thread& operator=(const step_thread&) = delete;

  /// False: the system gives no descriptor or no thread.
  [[nodiscard]] bool run(verbs::slow_step& step);
  /// Appends those done since the last time.
  void take_done(std::vector<verbs::slow_step*>& out);
  /// Readable when something was done, until acknowledge(). -1: there is none.
  [[nodiscard]] int event_descriptor() const noexcept { return event_fd_; }
  void acknowledge() noexcept;
  /// Nothing is run afterwards. A second call does nothing.
  void end() noexcept;

private:
  void work();

  const int event_fd_;
  std::mutex lock_;
  std::condition_variable changed_;
  std::deque<verbs::slow_step*> waiting_; // lock_, as all below but the thread
  std::vector<verbs::slow_step*> done_;
  bool ended_ = false;
  std::thread thread_; // the owner's
};

} // namespace memkv::actors
