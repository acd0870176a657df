#include "cli/drive_command.hpp"

#include "wire/assert.hpp"

namespace memkv::cli {

int run_drive_command(const parsed& line) {
  const std::string name = line.path.size() > 1 ? line.path[1] : std::string();
  if (name == "reset")
    return run_drive_reset(line);
  if (name == "verify")
    return run_drive_verify(line);
  if (name == "fsck")
    return run_drive_fsck(line);
  MEMKV_ASSERT(name == "health", "the table has no subcommand of drive that is not known here");
  return run_drive_health(line);
}

} // namespace memkv::cli
