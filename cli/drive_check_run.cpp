#include "cli/drive_check_run.hpp"

#include "engine/drive_content.hpp"
#include "engine/drive_set.hpp"

#include <cstdio>

namespace memkv::cli {

std::string open_to_check(const std::string& path, drive_access access, opened_drive& drive,
                          drive_report& report) {
  if (auto problem = open_for_tool(path, access, "", drive); !problem.empty())
    return problem;
  engine::drive_content content;
  if (const auto looked = engine::look_at_content(*drive.device, content); !looked.ok())
    return looked.text;
  if (const auto why = engine::why_not_ours(content); !why.empty())
    return path + " " + why;
  report.path = path;
  report.model = drive.model();
  report.serial = drive.facts.serial;
  return {};
}

engine::check_options check_options_for(bool quick, drive_progress& line) {
  engine::check_options options;
  options.quick = quick;
  (void)engine::read_boot_id(options.boot_id); // unknown: taken for the same boot
  options.progress = [&line](const engine::check_progress& at) {
    const bool writes = at.stage == engine::check_stage::repair;
    line.show(writes ? "repairing" : "checking", at.bytes_done, at.bytes_total);
  };
  return options;
}

int print_report(const drive_report& report, bool as_json) {
  const std::string text = as_json ? report_json(report) : report_text(report);
  std::fwrite(text.data(), 1, text.size(), stdout);
  if (const int code = finish_drive_output(0); code != 0)
    return code;
  const auto advice = report_advice(report);
  return advice.empty() ? 0 : refuse_drive(advice);
}

} // namespace memkv::cli
