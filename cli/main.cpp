// The program memkv: main only dispatches.
#include "cli/admin_command.hpp"
#include "cli/client_command.hpp"
#include "cli/command_line.hpp"
#include "cli/config_page.hpp"
#include "cli/doc.hpp"
#include "cli/doctor.hpp"
#include "cli/drive_command.hpp"
#include "cli/setup.hpp"
#include "cli/start.hpp"
#include "cli/version.hpp"
#include "wire/assert.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <string>
#include <vector>

namespace {

using namespace memkv::cli;

int print(const std::string& text) {
  const bool written =
      std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  if (!written)
    std::fprintf(stderr, "memkv: standard output cannot be written\n");
  return written ? 0 : 1;
}

int refuse(const std::string& sentence) {
  std::fprintf(stderr, "memkv: %s\n", sentence.c_str());
  return 1;
}

int print_page(const std::string& name) {
  if (name == "cli")
    return print(help_markdown(memkv_commands()));
  if (name == "configuration")
    return print(configuration_markdown());
  return refuse("there is no page \"" + name + "\": use cli or configuration");
}

int dispatch(const std::vector<std::string>& words) {
  const auto [line, error] = parse(memkv_commands(), words);
  if (!error.empty())
    return refuse(error);
  if (line.wants_help)
    return print(help_text(memkv_commands(), line.path));
  if (line.path.empty())
    return line.has("version") ? print("memkv " + std::string(version()) + "\n")
                               : print_page(line.text("help-markdown"));
  if (line.path.front() == "start")
    return run_start_command(line);
  if (line.path.front() == "setup")
    return run_setup_command(line);
  if (line.path.front() == "admin")
    return run_admin_command(line);
  if (line.path.front() == "doctor")
    return run_doctor_command(line);
  if (line.path.front() == "doc")
    return run_doc_command(line);
  if (line.path.front() == "drive")
    return run_drive_command(line);
  MEMKV_ASSERT(line.path.front() == "client", "the table has no command that main does not know");
  return run_client_command(line);
}

/// A standard stream that was closed must not be taken by a socket or a drive: what is printed would go
/// there. Opened the wrong way round, so that using it still fails.
bool keep_standard_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    if (::fcntl(stream, F_GETFD) < 0 &&
        ::open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY) != stream)
      return false;
  return true;
}

} // namespace

int main(int count, char** words) {
  if (!keep_standard_streams())
    return 1;
  try {
    return dispatch({words + 1, words + count});
  } catch (const std::exception& problem) {
    // Nothing of ours throws; the standard library does when memory ends.
    return refuse(std::string("ended by an unexpected problem: ") + problem.what());
  }
}
