// The JSON documents of the administration endpoint, made from a report.
// Normative text: docs/admin-api.md and docs/admin-openapi.json.
//
// Threading: pure functions. Errors: none; text that is no UTF-8 gets replacement characters, a number that
// is none becomes null. Each document ends with a line feed.
#pragma once

#include "actors/admin_gateway.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace memkv::admin {

/// What about the server is not as it should be, a sentence each: drives that are not online, actors that are
/// not there, and why it does not serve. Empty for a healthy one.
[[nodiscard]] std::vector<std::string> reasons_of(const actors::gathered& about);

/// Why the question cannot be answered in whole: names the actors that are silent. Empty when none is.
[[nodiscard]] std::string sentence_about_silence(const actors::gathered& about);

[[nodiscard]] std::string health_document(const actors::gathered& about);
[[nodiscard]] std::string status_document(const actors::gathered& about, std::string_view version);
/// Needs a report.
[[nodiscard]] std::string failed_drives_document(const actors::server_report& report);
[[nodiscard]] std::string reset_document(std::uint32_t device_id, bool secure);
/// {"error": …}
[[nodiscard]] std::string problem_document(std::string_view sentence);
/// The error when actors are silent, with their names.
[[nodiscard]] std::string silence_document(const actors::gathered& about);

/// "healthy", "degraded" or "unhealthy"; the last as well when an actor is silent.
[[nodiscard]] std::string_view status_word(const actors::gathered& about) noexcept;
/// Which status of HTTP goes with the documents of health and status.
[[nodiscard]] int health_code(const actors::gathered& about) noexcept;
[[nodiscard]] int status_code(const actors::gathered& about) noexcept;

[[nodiscard]] std::string_view name_of(actors::drive_state state) noexcept;

} // namespace memkv::admin
