// One run of memkv admin: the servers it is about, how they are asked, and what went wrong so far.
//
// Threading: one thread. Ownership: values. Errors: collected; code() is the exit code at the end.
#pragma once

#include "admin/http_client.hpp"
#include "cli/command_line.hpp"
#include "cli/text_table.hpp"

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace memkv::cli {

constexpr std::size_t document_bytes_max = 16U << 20U;
constexpr std::size_t metrics_bytes_max = 64U << 20U;

class admin_session {
public:
  /// From the flags and the environment; `problem` says why it cannot be.
  admin_session(const parsed& line, std::string& problem);

  [[nodiscard]] std::span<const admin::server_url> servers() const noexcept { return servers_; }
  [[nodiscard]] const palette& colours() const noexcept { return colours_; }
  /// Standard output is a terminal: nothing may reach it that a terminal obeys.
  [[nodiscard]] bool on_terminal() const noexcept { return on_terminal_; }

  /// Asks every server the same, within one deadline. One answer a server, in their order.
  [[nodiscard]] std::vector<admin::server_answer> get(std::string_view target,
                                                      std::size_t body_bytes_max) const;
  /// Asks the only server to do something, signed when there is a key.
  [[nodiscard]] admin::server_answer post(std::string_view target, std::string& problem) const;

  /// Takes note of what went wrong with a server; report() prints it.
  void fail(const admin::server_url& server, const std::string& sentence);
  /// What is wrong with an answer that is not 200 to 299; empty for a good one.
  [[nodiscard]] static std::string fault_of(const admin::server_answer& answer);

  /// Prints to standard output, in order with the sentences of report().
  static void print(std::string_view text);
  /// Prints the sentences noted since the last call.
  void report();
  /// 0 only if nothing failed and everything was printed.
  [[nodiscard]] int code();

private:
  std::vector<admin::server_url> servers_;
  admin::http_options options_;
  palette colours_;
  bool on_terminal_ = false;
  bool failed_ = false;
  std::vector<std::string> sentences_;
};

} // namespace memkv::cli
