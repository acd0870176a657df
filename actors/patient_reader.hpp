// Reads small files for an actor that must not wait for a file system: one on a server that is away does not
// answer for minutes.
//
// Operation. A look begins to read in a thread of its own and waits for a moment, which is enough where
// nothing is wrong. What comes later is the answer of the next look; until then a look answers `pending`, and
// when the silence has lasted, `failed`. There is one thread at a time, and none while nothing is read.
//
// Threading: one caller at a time. Ownership: copies share what they know; a thread that waits for its file
// system when the last one is gone ends by itself, and keeps nobody. Errors: in file_text.
#pragma once

#include "wire/license_search.hpp"

#include <chrono>
#include <memory>
#include <string>

namespace memkv::actors {

class patient_reader {
public:
  explicit patient_reader(wire::license_reader read,
                          std::chrono::milliseconds patience = std::chrono::milliseconds{50},
                          std::chrono::milliseconds silence = std::chrono::seconds{10});

  [[nodiscard]] wire::license_text operator()(const std::string& path) const;

private:
  struct state;
  std::shared_ptr<state> state_;
};

} // namespace memkv::actors
