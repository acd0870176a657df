// docs/admin-openapi.json as it was when the program was built.
#pragma once

#include <string_view>

namespace memkv::admin {

[[nodiscard]] std::string_view openapi_document() noexcept;

} // namespace memkv::admin
