// The console: the web page that a server shows at GET / of its administration endpoint, embedded in the
// program.
//
// The files lie under admin/console and are turned into bytes by the build (cmake/embed_assets.cmake). They
// ask for nothing from elsewhere, contain neither inline scripts nor inline styles, and work under
//   default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'
// docs/console.md says what the page shows.
//
// Threading: any thread; never changes. Ownership: everything lives as long as the program. Limits: about ten
// files, together less than 70 KiB.
#pragma once

#include <span>
#include <string_view>

namespace memkv::admin {

struct console_asset {
  std::string_view path;         // as requested: "/", "/console.js", …
  std::string_view content_type; // for the header Content-Type
  std::string_view bytes;
  std::string_view etag; // for the header ETag, quotation marks included; changes with the bytes
};

/// All of them; the first is the page itself, "/".
[[nodiscard]] std::span<const console_asset> console_assets() noexcept;

} // namespace memkv::admin
