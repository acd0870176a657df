// The verdicts of memkv doctor: facts in, findings out.
//
// Threading: pure functions. Ownership: values. Errors: none. Does not: look at the machine.
#pragma once

#include "cli/doctor_facts.hpp"
#include "cli/doctor_report.hpp"

#include <vector>

namespace memkv::cli {

/// Every check, in the order in which they are shown; the licence's is added by the caller.
[[nodiscard]] std::vector<finding> judge(const doctor_facts& facts);

// The parts of it.

void judge_machine(const doctor_facts& facts, std::vector<finding>& out); // kernel, memory, limits, ports
void judge_drives(const doctor_facts& facts, std::vector<finding>& out);
void judge_network(const doctor_facts& facts, std::vector<finding>& out); // RDMA devices
void judge_access(const doctor_facts& facts, std::vector<finding>& out);  // keys, certificate, clocks, log

} // namespace memkv::cli
