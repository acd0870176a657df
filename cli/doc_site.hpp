// The documentation, embedded in the program, as a small web site: what `memkv doc` answers.
//
// Pages are shown as they are written, in Markdown, with their links made links. The build embeds the
// pages of the top level, everything below docs, and the licence (cmake/embed_docs.cmake), under their paths
// in the source.
//
// Threading: any thread. Ownership: everything lives as long as the program. Errors: 404 and 405. Does not:
// decode paths; there are no blanks or signs in them.
#pragma once

#include "admin/http_message.hpp"

#include <span>
#include <string>
#include <string_view>

namespace memkv::cli {

struct doc_file {
  std::string_view path; // "/README.md", "/docs/admin.md", …
  std::string_view bytes;
};

/// All of them, in the order in which the index shows them.
[[nodiscard]] std::span<const doc_file> doc_files() noexcept;

/// `/` is the index, a path of doc_files() its file.
[[nodiscard]] admin::http_answer answer_doc_request(const admin::http_request& request);

/// A page of Markdown as HTML; `path` is what links in it are relative to. Links to other places than the
/// site and the web stay text.
[[nodiscard]] std::string doc_page_html(std::string_view path, std::string_view markdown);

} // namespace memkv::cli
