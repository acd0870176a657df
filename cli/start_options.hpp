// From what the user wrote to what the server takes.
//
// Threading: pure functions. Ownership: values. Errors: sentences.
#pragma once

#include "actors/log.hpp"
#include "actors/server_options.hpp"
#include "cli/config.hpp"

#include <cstdint>
#include <optional>
#include <string>

namespace memkv::cli {

/// The configuration as options of the server. `write_timing_s` 0: off. Precondition: the configuration is
/// valid and its mode is file or memory.
[[nodiscard]] actors::server_options server_options_of(const server_config& config,
                                                       std::uint64_t write_timing_s);

/// Whether a server may be told to fail: with a license that is only for development, or by force.
[[nodiscard]] bool may_inject_faults(bool development_license, bool forced) noexcept;

struct log_choice {
  log::settings settings;
  std::string problem; // the server must not start
  std::string warning; // it may, but a person should know
};

/// Which filter counts: the flag, else the configuration, else RUST_LOG, else info. A RUST_LOG that cannot be
/// read is ignored with a warning, because it may be meant for another program. `file` "none": standard
/// error.
[[nodiscard]] log_choice choose_log(const server_config& config, const std::optional<std::string>& level_flag,
                                    const std::string& file, const std::optional<std::string>& rust_log);

} // namespace memkv::cli
