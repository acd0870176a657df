// The version of this build, as memkv --version prints it.
//
// Threading: any thread. Ownership: the text is a constant of the program. Errors: none.
#pragma once

#include <string_view>

namespace memkv::cli {

/// The release tag of the build, or DEVELOPMENT.<7 digits of the commit>, or DEVELOPMENT.
[[nodiscard]] std::string_view version() noexcept;

} // namespace memkv::cli
