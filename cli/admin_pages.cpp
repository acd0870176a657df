#include "cli/admin_pages.hpp"

#include "cli/drive_text.hpp"

namespace memkv::cli {

namespace {

constexpr const char* unknown = "-";

colour colour_of_status(const std::string& status) {
  if (status == "healthy" || status == "online")
    return colour::good;
  if (status == "degraded" || status == "joining" || status == "opening" || status == "resetting")
    return colour::doubtful;
  return colour::bad;
}

cell state_cell(const std::string& state) {
  return {state.empty() ? unknown : state, state.empty() ? colour::none : colour_of_status(state)};
}

cell no_answer() {
  return {"no answer", colour::bad};
}

std::string of_total(const std::optional<std::uint64_t>& online, const std::optional<std::uint64_t>& total) {
  if (!online || !total)
    return unknown;
  return std::to_string(*online) + "/" + std::to_string(*total);
}

cell drives_cell(const std::optional<std::uint64_t>& online, const std::optional<std::uint64_t>& total) {
  const bool known = online && total;
  return {of_total(online, total), known && *online < *total ? colour::bad : colour::none};
}

std::string size_or_unknown(const std::optional<std::uint64_t>& bytes) {
  return bytes ? about_size(*bytes) : unknown;
}

std::string or_unknown(const std::string& text) {
  return text.empty() ? unknown : text;
}

// Sums must not wrap, whatever a server claims.
void add(std::uint64_t& sum, std::uint64_t more) {
  if (__builtin_add_overflow(sum, more, &sum))
    sum = UINT64_MAX;
}

std::string time_text(std::uint64_t seconds) {
  constexpr std::uint64_t seconds_max = UINT64_MAX / 1'000'000'000;
  return seconds > seconds_max ? "unknown" : utc_text(seconds * 1'000'000'000);
}

std::string reasons_of(const std::string& server, const std::vector<std::string>& reasons) {
  std::string text;
  for (const auto& each : reasons)
    text += server + ": " + each + "\n";
  return text;
}

std::string usage_text(std::uint64_t used, std::uint64_t whole, const palette& colours) {
  if (whole == 0)
    return unknown; // no drive is open, or a reset has not begun to write
  return colours.paint(fill_colour(used, whole), usage_bar(used, whole)) + "  " + about_size(used) + " of " +
         about_size(whole) + "  " + percent_text(used, whole);
}

std::string licence_text(const licence_entry& licence) {
  std::string text = licence.valid ? or_unknown(licence.plan) : "not valid";
  if (!licence.valid && !licence.plan.empty())
    text += ", " + licence.plan;
  if (!licence.organization.empty())
    text += ", " + licence.organization;
  if (licence.days_left)
    text += ", " + counted(*licence.days_left, "day", "days") + " left";
  if (!licence.source.empty())
    text += ", from " + licence.source;
  return text + (licence.development ? ", for development" : "");
}

std::string devices_table(const std::vector<device_entry>& devices, const palette& colours) {
  text_table table({{"DRIVE", true},
                    {"STATE"},
                    {"RAW", true},
                    {"USABLE", true},
                    {"USED", true},
                    {"FILL"},
                    {"", true},
                    {"BLOCKS", true},
                    {"FAILURES", true},
                    {"MEDIA"}});
  for (const auto& each : devices) {
    const bool known = each.usable_bytes && each.used_bytes;
    const auto used = each.used_bytes.value_or(0);
    const auto whole = each.usable_bytes.value_or(0);
    table.add(
        {{std::to_string(each.device_id)},
         state_cell(each.state),
         {size_or_unknown(each.raw_bytes)},
         {size_or_unknown(each.usable_bytes)},
         {size_or_unknown(each.used_bytes)},
         {known ? usage_bar(used, whole) : unknown, known ? fill_colour(used, whole) : colour::none},
         {known ? percent_text(used, whole) : unknown},
         {each.blocks ? std::to_string(*each.blocks) : unknown},
         {each.failure_count ? std::to_string(*each.failure_count) : unknown,
          each.failure_count.value_or(0) == 0 ? colour::none : colour::doubtful},
         {each.media + (each.model.empty() || each.model == each.media ? "" : " (" + each.model + ")")}});
  }
  std::string text = table.render(colours, 2);
  for (const auto& each : devices) {
    const std::string name = "  drive " + std::to_string(each.device_id) + ": ";
    if (!each.reason.empty())
      text += name + each.reason + "\n";
    if (!each.reset_problem.empty() && each.reset_problem != each.reason)
      text += name + "its last reset did not end well: " + each.reset_problem + "\n";
    if (each.blacklisted && each.state != "blacklisted")
      text += name + "blacklisted\n";
    if (each.reset)
      text += name + (each.reset->secure ? "is being overwritten, " : "is being reset, ") +
              usage_text(each.reset->done_bytes, each.reset->total_bytes, {}) + "\n";
  }
  return text;
}

std::string actors_table(const std::vector<actor_entry>& actors, const palette& colours) {
  text_table table({{"ACTOR"}, {"STATE"}, {"MAILBOX", true}, {"RESTARTS", true}});
  for (const auto& each : actors) {
    const cell state = !each.alive      ? cell{"dead", colour::bad}
                       : !each.answered ? cell{"silent", colour::bad}
                                        : cell{"running", colour::good};
    table.add({{or_unknown(each.name)},
               state,
               {std::to_string(each.mailbox)},
               {std::to_string(each.restarts), each.restarts == 0 ? colour::none : colour::doubtful}});
  }
  return table.render(colours, 2);
}

} // namespace

std::string health_page(std::span<const report_of<health_document>> servers, const palette& colours) {
  text_table table({{"SERVER"}, {"STATUS"}, {"DRIVES", true}, {"RDMA"}});
  std::string reasons;
  for (const auto& each : servers) {
    if (!each.document) {
      table.add({{each.server}, no_answer(), {unknown}, {unknown}});
      continue;
    }
    const auto& health = *each.document;
    table.add({{each.server},
               state_cell(health.status),
               drives_cell(health.drives_online, health.drives_total),
               {health.rdma_active ? (*health.rdma_active ? "active" : "inactive") : unknown}});
    reasons += reasons_of(each.server, health.reasons);
  }
  return table.render(colours) + reasons;
}

std::string ready_page(std::span<const report_of<readiness>> servers, const palette& colours) {
  text_table table({{"SERVER"}, {"READY"}});
  for (const auto& each : servers)
    table.add({{each.server},
               !each.document         ? no_answer()
               : each.document->ready ? cell{"ready", colour::good}
                                      : cell{"NOT READY", colour::bad}});
  return table.render(colours);
}

std::string status_page(std::span<const report_of<status_document>> servers, const palette& colours) {
  text_table table({{"SERVER"},
                    {"STATUS"},
                    {"DRIVES", true},
                    {"RAW", true},
                    {"USABLE", true},
                    {"USED", true},
                    {"FILL", true},
                    {"BLOCKS", true},
                    {"UPTIME", true},
                    {"VERSION"}});
  status_document total;
  std::uint64_t drives_online = 0;
  std::uint64_t drives_total = 0;
  std::size_t answered = 0;
  std::string reasons;
  const auto fill = [](const status_document& of) {
    return cell{percent_text(of.used_bytes_total, of.usable_bytes_total),
                fill_colour(of.used_bytes_total, of.usable_bytes_total)};
  };
  for (const auto& each : servers) {
    if (!each.document) {
      std::vector<cell> row{{each.server}, no_answer()};
      row.resize(10, {unknown});
      table.add(std::move(row));
      continue;
    }
    const auto& one = *each.document;
    ++answered;
    add(total.raw_bytes_total, one.raw_bytes_total);
    add(total.usable_bytes_total, one.usable_bytes_total);
    add(total.used_bytes_total, one.used_bytes_total);
    add(total.blocks_total, one.blocks_total);
    add(drives_online, one.drives_online.value_or(0));
    add(drives_total, one.drives_total.value_or(0));
    table.add({{each.server},
               state_cell(one.status),
               drives_cell(one.drives_online, one.drives_total),
               {about_size(one.raw_bytes_total)},
               {about_size(one.usable_bytes_total)},
               {about_size(one.used_bytes_total)},
               fill(one),
               {std::to_string(one.blocks_total)},
               {one.uptime_seconds ? duration_text(*one.uptime_seconds) : unknown},
               {or_unknown(one.version)}});
    reasons += reasons_of(each.server, one.reasons);
    if (one.fault_injection)
      reasons += each.server + ": fault injection is on\n";
  }
  if (servers.size() > 1)
    table.add({{"total"},
               {std::to_string(answered) + " of " + std::to_string(servers.size()) + " answered",
                answered == servers.size() ? colour::none : colour::bad},
               drives_cell(drives_online, drives_total),
               {about_size(total.raw_bytes_total)},
               {about_size(total.usable_bytes_total)},
               {about_size(total.used_bytes_total)},
               fill(total),
               {std::to_string(total.blocks_total)},
               {""},
               {""}});
  return table.render(colours) + reasons;
}

std::string status_details(const status_document& one, const palette& colours) {
  const auto painted = [&colours](const cell& each) { return colours.paint(each.tint, each.text); };
  std::string text = text_row("status", painted(state_cell(one.status)));
  for (const auto& each : one.reasons)
    text += text_row("", each);
  if (one.fault_injection)
    text += text_row("", colours.paint(colour::bad, "fault injection is on"));
  text += text_row("version", or_unknown(one.version));
  text += text_row("uptime", one.uptime_seconds ? duration_text(*one.uptime_seconds) : unknown);
  if (one.licence)
    text += text_row("licence", colours.paint(one.licence->valid ? colour::none : colour::bad,
                                              licence_text(*one.licence)));
  if (one.memory) {
    text += text_row("memory pool", usage_text(one.memory->pool_used_bytes, one.memory->pool_bytes, colours) +
                                        (one.memory->huge_pages ? ", in huge pages" : ""));
    if (one.memory->resident_bytes)
      text += text_row("resident", about_size(*one.memory->resident_bytes));
  }
  text += text_row("storage", usage_text(one.used_bytes_total, one.usable_bytes_total, colours) +
                                  (one.mode.empty() ? "" : ", mode " + one.mode));
  text += text_row("raw", about_size(one.raw_bytes_total));
  text += text_row("blocks", std::to_string(one.blocks_total));
  text += text_row("rdma", std::string(one.rdma_active ? "active" : "inactive") + ", " +
                               counted(one.rdma_connections, "connection", "connections") +
                               (one.rdma_sessions ? ", " + counted(*one.rdma_sessions, "session", "sessions")
                                                  : std::string{}));
  if (one.connections)
    text += text_row("network", counted(*one.connections, "connection", "connections"));
  text += text_row("drives", of_total(one.drives_online, one.drives_total) + " online");
  if (!one.devices.empty())
    text += "\n" + devices_table(one.devices, colours);
  if (!one.actors.empty())
    text += "\n" + actors_table(one.actors, colours);
  return text;
}

std::string failed_drives_page(std::span<const failed_drive_entry> drives, const palette& colours) {
  if (drives.empty())
    return "no drive has failed\n";
  text_table table({{"DRIVE", true},
                    {"STATE"},
                    {"FAILURES", true},
                    {"FIRST"},
                    {"LAST"},
                    {"BLACKLISTED"},
                    {"MEDIA"},
                    {"REASON"}});
  for (const auto& each : drives)
    table.add({{std::to_string(each.device_id)},
               state_cell(each.state),
               {each.failure_count ? std::to_string(*each.failure_count) : unknown},
               {each.first_failed_at ? time_text(*each.first_failed_at) : unknown},
               {each.last_failed_at ? time_text(*each.last_failed_at) : unknown},
               {each.blacklisted ? "yes" : "no", each.blacklisted ? colour::bad : colour::none},
               {or_unknown(each.media)},
               {each.reason}});
  return table.render(colours);
}

} // namespace memkv::cli
