// memkv drive reset: an empty drive with the place it had in its set, and a clean record.
#include "cli/drive_command.hpp"
#include "cli/drive_progress.hpp"
#include "cli/drive_text.hpp"
#include "cli/drive_tool.hpp"
#include "engine/drive_content.hpp"
#include "engine/drive_format.hpp"

#include <cstdio>

namespace memkv::cli {

int run_drive_reset(const parsed& line) {
  const std::string path = line.text("PATH");
  opened_drive drive;
  if (const auto problem = open_for_tool(path, drive_access::write, "", drive); !problem.empty())
    return refuse_drive(problem);
  engine::drive_content content;
  if (const auto looked = engine::look_at_content(*drive.device, content); !looked.ok())
    return refuse_drive(looked.text);
  if (const auto why = engine::why_not_ours(content); !why.empty())
    return refuse_drive(path + " " + why);
  engine::status done;
  {
    drive_progress shown;
    done = engine::format_again(*drive.device, drive.discarder.get(), content.super, line.has("secure"),
                                [&shown](std::string_view verb, std::uint64_t at, std::uint64_t total) {
                                  shown.show(verb, at, total);
                                  return true;
                                });
  }
  if (!done.ok())
    return refuse_drive(path + ": " + done.text);
  if (!done.text.empty())
    std::fprintf(stderr, "memkv: %s: %s\n", path.c_str(), done.text.c_str());
  const auto& set = content.super.set;
  std::printf("%s: drive %u of %u of set %s is empty and active again\n", path.c_str(), set.drive_index,
              set.drive_count, hex_text(set.set_id).c_str());
  return finish_drive_output(0);
}

} // namespace memkv::cli
