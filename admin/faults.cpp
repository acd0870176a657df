#include "admin/faults.hpp"

#include <nlohmann/json.hpp>

#include <array>
#include <initializer_list>
#include <optional>
#include <set>
#include <utility>
#include <vector>

namespace memkv::admin {

namespace {

using engine::drive_fault;
using nlohmann::json;
using effect = drive_fault::effect;
using target = drive_fault::target;

constexpr std::array<std::pair<std::string_view, target>, 4> targets{{{"any", target::any},
                                                                      {"reads", target::reads},
                                                                      {"writes", target::writes},
                                                                      {"flushes", target::flushes}}};
constexpr std::array<std::pair<std::string_view, actors::faults::how>, 3> ways{
    {{"kill", actors::faults::how::kill},
     {"exception", actors::faults::how::exception},
     {"shutdown", actors::faults::how::shutdown}}};

std::string_view name_of(target which) noexcept {
  for (const auto& [name, value] : targets)
    if (value == which)
      return name;
  return "any";
}

/// One JSON object being read; the first problem is kept.
class reader {
public:
  reader(const json& object, std::string where, std::string& problem)
      : object_(object), where_(std::move(where)), problem_(problem) {
    if (!object.is_object())
      fail(where_ + " must be an object");
  }

  [[nodiscard]] bool ok() const noexcept { return problem_.empty(); }
  [[nodiscard]] bool has(const char* name) const { return object_.is_object() && object_.contains(name); }

  void only(std::initializer_list<const char*> names) {
    if (!ok())
      return;
    for (const auto& each : object_.items()) {
      bool known = false;
      for (const auto* name : names)
        known = known || each.key() == name;
      if (!known)
        fail(where_ + " knows no member '" + each.key() + "'");
    }
  }

  std::uint64_t number(const char* name, std::uint64_t otherwise, std::uint64_t least, std::uint64_t most) {
    if (!ok() || !has(name))
      return otherwise;
    const auto& value = object_[name];
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() < least ||
        value.get<std::uint64_t>() > most) {
      fail(member(name) + " must be a whole number from " + std::to_string(least) + " to " +
           std::to_string(most));
      return otherwise;
    }
    return value.get<std::uint64_t>();
  }

  std::string text(const char* name) {
    if (!ok() || !has(name))
      return {};
    const auto* value = object_[name].get_ptr<const std::string*>();
    if (value == nullptr || value->empty() || value->size() > 64) {
      fail(member(name) + " must be a text of 1 to 64 bytes");
      return {};
    }
    return *value;
  }

  template <class Table>
  auto choice(const char* name, const Table& table) {
    auto chosen = table.front().second;
    const auto word = text(name);
    if (!ok() || word.empty())
      return chosen;
    std::string all;
    for (const auto& [known, value] : table) {
      if (known == word)
        return value;
      all += (all.empty() ? "" : ", ") + std::string{known};
    }
    fail(member(name) + " must be one of " + all);
    return chosen;
  }

  /// Which of the names is there: exactly one must be.
  std::string one_of(std::initializer_list<const char*> names) {
    std::string found;
    std::string all;
    for (const auto* name : names) {
      all += (all.empty() ? "" : ", ") + std::string{name};
      if (!has(name))
        continue;
      if (!found.empty())
        fail(where_ + " takes only one of " + all);
      found = name;
    }
    if (ok() && found.empty())
      fail(where_ + " needs one of " + all);
    return found;
  }

  void must_have(const char* name) {
    if (ok() && !has(name))
      fail(where_ + " needs '" + name + "'");
  }

  [[nodiscard]] const json& at(const char* name) const { return object_[name]; }
  void fail(std::string sentence) {
    if (problem_.empty())
      problem_ = std::move(sentence);
  }

private:
  [[nodiscard]] std::string member(const char* name) const { return where_ + "." + name; }

  const json& object_;
  std::string where_;
  std::string& problem_;
};

actors::faults::order read_kill(const json& value, std::string& problem) {
  reader in(value, "kill", problem);
  in.only({"name", "kind", "how"});
  in.one_of({"name", "kind"});
  actors::faults::kill out;
  out.name = in.text("name");
  out.kind = in.text("kind");
  out.by = in.choice("how", ways);
  return out;
}

actors::faults::order read_drive(const json& value, std::string& problem) {
  using limits = actors::faults::drive;
  reader in(value, "drive", problem);
  in.only({"id", "fail", "corrupt", "slow_ms", "hang_ms", "of", "count"});
  in.must_have("id");
  actors::faults::drive out;
  out.id = static_cast<std::uint32_t>(in.number("id", 0, 0, 65'535));
  out.fault.count = in.number("count", 1, 1, limits::count_max);
  const auto what = in.one_of({"fail", "corrupt", "slow_ms", "hang_ms"});
  if (what == "fail") {
    out.fault.what = effect::fail;
    out.fault.which = in.choice("fail", targets);
  } else if (what == "corrupt") {
    out.fault.what = effect::corrupt;
    out.fault.which = target::reads;
    if (in.text("corrupt") != "reads")
      in.fail("drive.corrupt must be reads: nothing else can be found out to be corrupt");
  } else if (what == "slow_ms") {
    out.fault.what = effect::slow;
    out.fault.ns = in.number("slow_ms", 1, 1, limits::slow_ms_max) * 1'000'000;
  } else {
    out.fault.what = effect::hang;
    out.fault.ns = in.number("hang_ms", 0, 0, limits::hang_ms_max) * 1'000'000;
  }
  if (what == "slow_ms" || what == "hang_ms")
    out.fault.which = in.choice("of", targets);
  else if (in.has("of"))
    in.fail("drive.of belongs to slow_ms and hang_ms; fail and corrupt say it themselves");
  return out;
}

actors::faults::order read_connections(const json& value, std::string& problem) {
  reader in(value, "connections", problem);
  in.only({"drop", "delay_ms", "seconds"});
  if (in.one_of({"drop", "delay_ms"}) == "drop") {
    if (in.has("seconds"))
      in.fail("connections.seconds belongs to delay_ms");
    if (in.ok() && in.at("drop").is_string() && in.text("drop") == "all")
      return actors::faults::drop_connections{};
    return actors::faults::drop_connections{static_cast<std::uint32_t>(in.number("drop", 1, 1, 1'000'000))};
  }
  using limits = actors::faults::delay_connections;
  in.must_have("seconds");
  return actors::faults::delay_connections{in.number("delay_ms", 1, 1, limits::delay_ms_max),
                                           in.number("seconds", 1, 1, limits::seconds_max)};
}

actors::faults::order read_actor(const json& value, std::string& problem) {
  reader in(value, "actor", problem);
  in.only({"name", "stall_ms"});
  in.must_have("name");
  in.must_have("stall_ms");
  return actors::faults::stall{in.text("name"), in.number("stall_ms", 1, 1, actors::faults::stall::ms_max)};
}

/// The value of the text; nothing, if it is no JSON or names a member twice.
std::optional<json> parse_strictly(std::string_view text) {
  std::vector<std::set<std::string>> open;
  bool twice = false;
  const auto watch = [&](int, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::object_start)
      open.emplace_back();
    else if (event == json::parse_event_t::object_end)
      open.pop_back();
    else if (event == json::parse_event_t::key)
      twice = !open.back().insert(parsed.get<std::string>()).second || twice;
    return true;
  };
  auto value = json::parse(text.begin(), text.end(), watch, false);
  if (value.is_discarded() || twice)
    return std::nullopt;
  return value;
}

fault_answer answer_with(int status, const json& body) {
  return {status, body.dump(-1, ' ', false, json::error_handler_t::replace)};
}

json describe(const drive_fault& order) {
  json out = {{"count", order.count}};
  switch (order.what) {
  case effect::fail:
    out["fail"] = name_of(order.which);
    break;
  case effect::corrupt:
    out["corrupt"] = "reads";
    break;
  case effect::slow:
    out["slow_ms"] = order.ns / 1'000'000;
    out["of"] = name_of(order.which);
    break;
  case effect::hang:
    out["hang_ms"] = order.ns / 1'000'000;
    out["of"] = name_of(order.which);
    break;
  }
  return out;
}

} // namespace

bool read_fault_order(std::string_view text, actors::faults::order& out, std::string& problem) {
  problem.clear();
  const auto value = parse_strictly(text);
  if (!value) {
    problem = "the body is not JSON, or names a member twice";
    return false;
  }
  reader in(*value, "an order", problem);
  in.only({"kill", "drive", "connections", "actor", "clear"});
  const auto what = in.one_of({"kill", "drive", "connections", "actor", "clear"});
  if (!in.ok())
    return false;
  const auto& order = in.at(what.c_str());
  if (what == "kill")
    out = read_kill(order, problem);
  else if (what == "drive")
    out = read_drive(order, problem);
  else if (what == "connections")
    out = read_connections(order, problem);
  else if (what == "actor")
    out = read_actor(order, problem);
  else if (order == json(true))
    out = actors::faults::clear{};
  else
    problem = "clear must be true";
  return problem.empty();
}

fault_answer order_fault(actors::fault_injector& injector, std::string_view body) {
  if (body.size() > fault_body_bytes_max)
    return answer_with(413, {{"error", "an order has at most 4096 bytes"}});
  actors::faults::order order;
  std::string problem;
  if (!read_fault_order(body, order, problem))
    return answer_with(400, {{"error", problem}});
  const auto outcome = injector.apply(order);
  switch (outcome.what) {
  case actors::fault_outcome::kind::done:
    break;
  case actors::fault_outcome::kind::refused:
    return answer_with(400, {{"error", outcome.text}});
  case actors::fault_outcome::kind::unknown:
    return answer_with(404, {{"error", outcome.text}});
  case actors::fault_outcome::kind::conflict:
    return answer_with(409, {{"error", outcome.text}});
  }
  json out = {{"accepted", true}};
  if (!outcome.text.empty())
    out["actor"] = outcome.text;
  return answer_with(202, out);
}

fault_answer list_faults(const actors::fault_injector& injector) {
  const auto now = injector.list();
  json out = {
      {"drives", json::array()},
      {"connections", {{"delay_ms", now.connection_delay_ms}, {"left_ms", now.connection_delay_left_ms}}},
      {"actors", now.actors}};
  for (const auto& drive : now.drives) {
    json armed = json::array();
    for (const auto& order : drive.armed)
      armed.push_back(describe(order));
    out["drives"].push_back({{"id", drive.id},
                             {"possible", drive.possible},
                             {"armed", std::move(armed)},
                             {"met",
                              {{"failed", drive.met.failed},
                               {"slowed", drive.met.slowed},
                               {"hung", drive.met.hung},
                               {"corrupted", drive.met.corrupted}}}});
  }
  return answer_with(200, out);
}

} // namespace memkv::admin
