// memkv drive verify: everything on a drive is looked at, and nothing is written.
#include "cli/drive_check_run.hpp"
#include "cli/drive_command.hpp"

namespace memkv::cli {

int run_drive_verify(const parsed& line) {
  opened_drive drive;
  drive_report report;
  if (const auto problem = open_to_check(line.text("PATH"), drive_access::read, drive, report);
      !problem.empty())
    return refuse_drive(problem);
  engine::status checked;
  {
    drive_progress shown;
    checked = engine::check_drive(*drive.device, check_options_for(line.has("quick"), shown), report.check);
  }
  if (!checked.ok())
    return refuse_drive(report.path + ": " + checked.text);
  return print_report(report, line.has("json"));
}

} // namespace memkv::cli
