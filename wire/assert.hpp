// MEMKV_ASSERT: a broken invariant of our own stops the program, in release builds too.
//
// Never use it for anything a peer, a drive, a file or a configuration can cause: those are values.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace memkv::detail {

[[noreturn]] inline void assertion_failed(const char* expression, const char* invariant, const char* file,
                                          int line) noexcept {
  std::fprintf(stderr, "memkv: broken invariant: %s (%s) at %s:%d\n", invariant, expression, file, line);
  std::abort();
}

} // namespace memkv::detail

#define MEMKV_ASSERT(expression, invariant)                                                                  \
  ((expression) ? static_cast<void>(0)                                                                       \
                : ::memkv::detail::assertion_failed(#expression, invariant, __FILE__, __LINE__))
