// The metrics of a server in the text format of Prometheus. Which there are: docs/metrics.md.
//
// Threading: any thread. Ownership: values. Errors: none. What is not known is left out: without a report
// (the gateway itself is silent) only the process, the log, the build and who is silent are given.
// Does not: gather anything from actors; wait.
#pragma once

#include "actors/admin_gateway.hpp"

#include <string>
#include <string_view>

namespace memkv::admin {

/// The media type of the text.
constexpr std::string_view metrics_content_type = "text/plain; version=0.0.4; charset=utf-8";

/// `version` is that of the build; empty: not given.
[[nodiscard]] std::string metrics_text(const actors::gathered& about, std::string_view version = {});

} // namespace memkv::admin
