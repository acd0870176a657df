// memkv drive fsck: the same look as verify; with --repair what is wrong is mended or dropped.
#include "cli/drive_check_run.hpp"
#include "cli/drive_command.hpp"

namespace memkv::cli {

namespace {

engine::status check_and_repair(opened_drive& drive, bool quick, drive_report& report) {
  drive_progress shown;
  const auto options = check_options_for(quick, shown);
  if (auto done = engine::repair_drive(*drive.device, options, report.check, report.repair); !done.ok())
    return done;
  // What a repair wrote is believed only when it is read back. The blocks' bytes were not touched.
  engine::check_report after;
  if (auto done = engine::check_drive(*drive.device, check_options_for(true, shown), after); !done.ok())
    return done;
  report.repaired = true;
  report.errors_left = after.total(engine::check_severity::error) + (after.complete ? 0 : 1);
  return {};
}

} // namespace

int run_drive_fsck(const parsed& line) {
  const bool repair = line.has("repair");
  const bool quick = line.has("quick");
  opened_drive drive;
  drive_report report;
  report.fsck = true;
  if (const auto problem =
          open_to_check(line.text("PATH"), repair ? drive_access::write : drive_access::read, drive, report);
      !problem.empty())
    return refuse_drive(problem);
  engine::status done;
  if (repair) {
    done = check_and_repair(drive, quick, report);
  } else {
    drive_progress shown;
    done = engine::check_drive(*drive.device, check_options_for(quick, shown), report.check);
  }
  if (!done.ok())
    return refuse_drive(report.path + ": " + done.text);
  return print_report(report, line.has("json"));
}

} // namespace memkv::cli
