// memkv drive health: what the metadata of a drive says.
#include "cli/drive_command.hpp"
#include "cli/drive_snapshot.hpp"
#include "cli/drive_tool.hpp"
#include "engine/drive_set.hpp"

#include <cstdio>

namespace memkv::cli {

int run_drive_health(const parsed& line) {
  const std::string path = line.text("PATH");
  opened_drive drive;
  if (const auto problem = open_for_tool(path, drive_access::read, "", drive); !problem.empty())
    return refuse_drive(problem);
  drive_snapshot snapshot;
  snapshot.path = path;
  snapshot.model = drive.model();
  snapshot.serial = drive.facts.serial;
  engine::identity boot_id{};
  (void)engine::read_boot_id(boot_id); // unknown: taken for the same boot
  if (const auto problem = read_snapshot(*drive.device, boot_id, snapshot); !problem.empty())
    return refuse_drive(path + " " + problem);
  const std::string text = line.has("json") ? snapshot_json(snapshot) : snapshot_text(snapshot);
  std::fwrite(text.data(), 1, text.size(), stdout);
  return finish_drive_output(0);
}

} // namespace memkv::cli
