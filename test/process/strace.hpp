// A server under strace, which makes its system calls fail or take their time.
//
// Threading: one thread. Ownership: nothing. Errors: where strace cannot trace, can_trace() says so.
#pragma once

#include "test/process/server_process.hpp"

#include <cstdlib>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

namespace memkv::test {

/// False, and a line on standard output that `what` is left out.
inline bool can_trace(const char* what) {
  static const bool works = run_quietly({"strace", "-f", "-o", "/dev/null", "true"}) == 0;
  if (!works)
    std::cout << "skipped: " << what << ": strace is not installed or may not trace here" << std::endl;
  return works;
}

/// Starts the server under strace with these options: which calls, and what is done to them. It is not in the
/// way of signals and exit codes.
inline void spawn_traced(server_process& server, const std::vector<std::string>& options) {
  // A leak check needs to trace the process, and only one can.
  std::vector<std::pair<std::string, std::string>> extra;
  const char* given = std::getenv("ASAN_OPTIONS");
  extra.emplace_back("ASAN_OPTIONS",
                     (given != nullptr ? std::string{given} + ":" : std::string{}) + "detect_leaks=0");
  server.set_environment(std::move(extra));
  std::vector<std::string> words{"strace", "-D", "-f", "-qqq", "-o", "/dev/null"};
  words.insert(words.end(), options.begin(), options.end());
  server.spawn(words);
}

} // namespace memkv::test
