// POST and GET /v1/faults: orders of faults as JSON. docs/faults.md is the page for people.
//
// Threading: any thread. Ownership: nothing is kept. Errors: an answer with a status and one sentence;
// nothing throws. Limits: body_bytes_max. Does not: look at who asks; only loopback may, and only of a server
// that was started with --fault-injection.
#pragma once

#include "actors/fault_orders.hpp"

#include <cstddef>
#include <string>
#include <string_view>

namespace memkv::admin {

constexpr std::size_t fault_body_bytes_max = 4096;

/// The order in this text, which is one JSON object with one member. False: `problem` says why it is none.
[[nodiscard]] bool read_fault_order(std::string_view text, actors::faults::order& out, std::string& problem);

struct fault_answer {
  int status = 202;
  std::string body; // JSON
};

/// Of POST.
[[nodiscard]] fault_answer order_fault(actors::fault_injector& injector, std::string_view body);
/// Of GET.
[[nodiscard]] fault_answer list_faults(const actors::fault_injector& injector);

} // namespace memkv::admin
