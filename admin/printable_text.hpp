// Text of another machine, made fit for a terminal and for one line of a log.
//
// Threading: pure functions. Ownership: values. Errors: none: what cannot be shown becomes '?'.
// Does not: keep line breaks, or know how wide a terminal is.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace memkv::admin {

/// At most `characters_max` characters in UTF-8. Control characters, escapes of terminals, marks that change
/// the direction of text and bytes that are no UTF-8 become '?'; runs of blanks, tabs and line breaks one
/// blank. Longer text ends in "...".
[[nodiscard]] std::string printable(std::string_view text, std::size_t characters_max = 300);

/// Columns that `text` (valid UTF-8) takes on a terminal: two for wide characters, none for combining ones.
[[nodiscard]] std::size_t columns_of(std::string_view text);

/// A JSON text with what a terminal could obey written as \u escapes: the same document. Everything else
/// stays.
[[nodiscard]] std::string json_for_terminal(std::string_view text);

/// Lines of text with every control character except line feed and tab as '?'.
[[nodiscard]] std::string lines_for_terminal(std::string_view text);

} // namespace memkv::admin
