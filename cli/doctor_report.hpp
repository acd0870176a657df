// The findings of memkv doctor, and how they are shown: one line a check, or one JSON document.
//
// Threading: pure functions. Ownership: values. Errors: none. Format of the JSON: docs/doctor.md.
// Does not: look at the machine, or judge.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace memkv::cli {

enum class check_state : std::uint8_t {
  ok,
  warning, // works, but not as well or not for as long as it could
  failed,  // a start would fail, or what is configured does not hold
  skipped, // cannot be told here, does not apply, or is not part of this build; `found` says which
};

/// "ok", "warning", "failed", "skipped".
[[nodiscard]] std::string_view name(check_state state) noexcept;

struct finding {
  check_state state = check_state::ok;
  std::string check;   // which one: "drive.discard"; never changes its meaning
  std::string subject; // of what: "/dev/nvme0n1"; empty when there is only one
  std::string found;   // what is the case
  std::string remedy;  // what to do, a command where there is one; may be empty

  /// Without the state: "drive.discard /dev/nvme0n1: there is none: format ...".
  [[nodiscard]] std::string sentence() const;
};

/// A finding from a sentence of the form "what is wrong: what to do".
[[nodiscard]] finding from_sentence(check_state state, std::string check, std::string subject,
                                    std::string_view sentence);

struct state_counts {
  std::size_t ok = 0, warning = 0, failed = 0, skipped = 0;
};

[[nodiscard]] state_counts count_states(std::span<const finding> findings) noexcept;

/// 1 if something failed, else 0.
[[nodiscard]] int exit_code(std::span<const finding> findings) noexcept;
/// How many checks failed, and which: the sentence for standard error.
[[nodiscard]] std::string failed_checks(std::span<const finding> findings);

/// A table, and a line with the counts. `colour`: states in the colours of a terminal.
[[nodiscard]] std::string findings_text(std::span<const finding> findings, bool colour);

/// docs/doctor.md's document. `config`: path of the configuration.
[[nodiscard]] std::string findings_json(std::span<const finding> findings, std::string_view config,
                                        std::string_view version);

} // namespace memkv::cli
