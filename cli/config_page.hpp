// docs/configuration.md as the program prints it: what one has to know, and the table of all keys.
//
// Threading: pure function. Errors: none.
#pragma once

#include <string>

namespace memkv::cli {

/// The page from the first to the last byte.
[[nodiscard]] std::string configuration_markdown();

} // namespace memkv::cli
