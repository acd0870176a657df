// What memkv admin prints for people, from documents that were read. See cli/admin_documents.hpp.
//
// Threading: pure functions. Ownership: values. Errors: none: a server without a document has a row that says
// so.
#pragma once

#include "cli/admin_documents.hpp"
#include "cli/text_table.hpp"

#include <optional>
#include <span>
#include <string>
#include <vector>

namespace memkv::cli {

template <class Document>
struct report_of {
  std::string server;               // its address
  std::optional<Document> document; // none: it did not answer, or not with one
};

/// Whether a server takes requests, and why not.
struct readiness {
  bool ready = false;
};

[[nodiscard]] std::string health_page(std::span<const report_of<health_document>> servers,
                                      const palette& colours);
[[nodiscard]] std::string ready_page(std::span<const report_of<readiness>> servers, const palette& colours);
/// One row a server, and a row of totals when there are several.
[[nodiscard]] std::string status_page(std::span<const report_of<status_document>> servers,
                                      const palette& colours);
/// Everything about one server, without its address.
[[nodiscard]] std::string status_details(const status_document& document, const palette& colours);
[[nodiscard]] std::string failed_drives_page(std::span<const failed_drive_entry> drives,
                                             const palette& colours);

} // namespace memkv::cli
