// The administration endpoint of a server on this machine, as a test asks it: one request a connection.
//
// Threading: any thread. Errors: a status of 0, when there was no answer in time.
#pragma once

#include <nlohmann/json.hpp>

#include <chrono>
#include <cstdint>
#include <string>

namespace memkv::test {

struct admin_reply {
  int status = 0;
  nlohmann::json body; // null, if it was no JSON
};

[[nodiscard]] admin_reply ask_admin(std::uint16_t port, const std::string& method, const std::string& target,
                                    const std::string& body = {},
                                    std::chrono::milliseconds limit = std::chrono::milliseconds{5'000});

/// A port that is free, and the next one too.
[[nodiscard]] std::uint16_t free_port_pair();

} // namespace memkv::test
