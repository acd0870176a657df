#include "engine/guarded_read.hpp"

#include "wire/assert.hpp"

#include <csetjmp>
#include <csignal>
#include <cstdint>
#include <ucontext.h>

namespace memkv::engine::detail {

namespace {

struct frame {
  std::uintptr_t begin = 0;
  std::uintptr_t end = 0;
  frame* outer = nullptr;
  sigjmp_buf back;
};

thread_local frame* innermost = nullptr;
struct sigaction previous_action;

void on_bus_error(int number, siginfo_t* information, void* context) {
  const auto address = reinterpret_cast<std::uintptr_t>(information->si_addr);
  for (frame* guard = innermost; guard != nullptr; guard = guard->outer) {
    if (address < guard->begin || address >= guard->end)
      continue;
    innermost = guard->outer;
    // The jump leaves the handler without the kernel noticing. Restoring the mask here, and not by sigsetjmp,
    // spares a system call at each guard that meets no fault.
    static_cast<void>(
        ::pthread_sigmask(SIG_SETMASK, &static_cast<const ucontext_t*>(context)->uc_sigmask, nullptr));
    siglongjmp(guard->back, 1);
  }
  if ((previous_action.sa_flags & SA_SIGINFO) != 0) {
    previous_action.sa_sigaction(number, information, context);
  } else if (previous_action.sa_handler != SIG_DFL && previous_action.sa_handler != SIG_IGN) {
    previous_action.sa_handler(number);
  } else {
    // Returning repeats the access, which now ends the process as it would have without us. A signal that
    // somebody sent is not repeated by that, so it is sent again.
    ::sigaction(SIGBUS, &previous_action, nullptr);
    if (information->si_code <= 0)
      ::raise(SIGBUS);
  }
}

bool install() {
  struct sigaction action = {};
  action.sa_sigaction = on_bus_error;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  return ::sigaction(SIGBUS, &action, &previous_action) == 0;
}

} // namespace

bool guarded_read(std::span<const std::byte> range, void (*function)(void*), void* context) {
  static const bool installed = install();
  MEMKV_ASSERT(installed, "a handler for SIGBUS can be installed");
  frame guard;
  guard.begin = reinterpret_cast<std::uintptr_t>(range.data());
  guard.end = guard.begin + range.size();
  guard.outer = innermost;
  // After a jump only what is written before sigsetjmp is looked at.
  if (sigsetjmp(guard.back, 0) != 0)
    return false;
  innermost = &guard;
  function(context);
  innermost = guard.outer;
  return true;
}

} // namespace memkv::engine::detail
