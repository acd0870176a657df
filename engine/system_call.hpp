// A system call that a signal may interrupt, made until it was not.
//
// Threading: any thread. Errors: errno, as the call left it.
#pragma once

#include <cerrno>

namespace memkv::engine {

template <class Call>
auto repeated_if_interrupted(Call&& call) {
  decltype(call()) result = 0;
  do
    result = call();
  while (result < 0 && errno == EINTR);
  return result;
}

} // namespace memkv::engine
