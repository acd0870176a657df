// The offline drive commands stand without actors and network: this program links them and no CAF, and runs
// one on a file.
#include "cli/command_line.hpp"
#include "cli/drive_command.hpp"

#include <array>
#include <cstdio>
#include <string>

int main(int, char** words) {
  const std::array<std::string, 3> line{"drive", "health", words[0]};
  const auto parsed = memkv::cli::parse(memkv::cli::memkv_commands(), line);
  if (!parsed.ok()) {
    std::fprintf(stderr, "the command line was refused: %s\n", parsed.error.c_str());
    return 1;
  }
  // This program's own file is no drive, and must be told from one.
  return memkv::cli::run_drive_command(parsed.line) == 1 ? 0 : 1;
}
