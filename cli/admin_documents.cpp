#include "cli/admin_documents.hpp"

#include "admin/printable_text.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>

namespace memkv::cli {

namespace {

using nlohmann::json;

constexpr std::size_t depth_max = 32;
constexpr std::size_t refusal_bytes_max = 2'000;
constexpr double exact_number_max = 1.8e19;

/// Whether brackets nest too deeply for a document of ours. Text inside strings does not count.
bool is_too_deep(std::string_view text) {
  std::size_t depth = 0;
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char letter = text[i];
    if (quoted) {
      if (letter == '\\')
        ++i;
      else if (letter == '"')
        quoted = false;
    } else if (letter == '"') {
      quoted = true;
    } else if (letter == '[' || letter == '{') {
      if (++depth > depth_max)
        return true;
    } else if ((letter == ']' || letter == '}') && depth > 0) {
      --depth;
    }
  }
  return false;
}

/// The members of one object. The first problem stays.
class members {
public:
  members(const json& object, std::string where, std::string& problem)
      : object_(object), where_(std::move(where)), problem_(problem) {
    if (!object.is_object())
      complain(where_.empty() ? "the document is no object" : "\"" + where_ + "\" is no object");
  }

  std::string text(const char* name, bool needed = false) {
    const json* found = find(name, needed);
    if (found == nullptr)
      return {};
    if (!found->is_string()) {
      wrong(name, "text");
      return {};
    }
    return admin::printable(found->get_ref<const std::string&>(), 400);
  }

  std::optional<std::uint64_t> number(const char* name, bool needed = false) {
    const json* found = find(name, needed);
    if (found == nullptr)
      return std::nullopt;
    if (found->is_number_unsigned())
      return found->get<std::uint64_t>();
    if (found->is_number_float() && found->get<double>() >= 0 && found->get<double>() < exact_number_max)
      return static_cast<std::uint64_t>(found->get<double>());
    wrong(name, "number that is not negative");
    return std::nullopt;
  }
  std::uint64_t number_or_0(const char* name, bool needed = false) {
    return number(name, needed).value_or(0);
  }

  /// None when it is null. One that is not there is `absent`; without that it is missed.
  std::optional<std::uint64_t> number_or_null(const char* name, std::optional<std::uint64_t> absent = {}) {
    if (object_.is_object() && object_.contains(name) && object_[name].is_null())
      return std::nullopt;
    const auto found = number(name, !absent);
    return found ? found : absent;
  }

  std::optional<double> real(const char* name) {
    const json* found = find(name, false);
    if (found == nullptr)
      return std::nullopt;
    if (found->is_number())
      return found->get<double>();
    wrong(name, "number");
    return std::nullopt;
  }

  std::optional<bool> truth(const char* name, bool needed = false) {
    const json* found = find(name, needed);
    if (found == nullptr)
      return std::nullopt;
    if (found->is_boolean())
      return found->get<bool>();
    wrong(name, "true or false");
    return std::nullopt;
  }

  std::vector<std::string> texts(const char* name) {
    std::vector<std::string> all;
    for_each(name, [&](const json& each, const std::string& where) {
      if (!each.is_string())
        return complain("\"" + where + "\" is no text");
      all.push_back(admin::printable(each.get_ref<const std::string&>(), 300));
    });
    return all;
  }

  /// Calls `use` with the members of the object under that name, if it is there.
  template <class Use>
  void object(const char* name, Use use, bool needed = false) {
    if (const json* found = find(name, needed); found != nullptr) {
      members inner(*found, path(name), problem_);
      if (found->is_object())
        use(inner);
    }
  }

  template <class Use>
  void for_each(const char* name, Use use) {
    const json* found = find(name, false);
    if (found == nullptr)
      return;
    if (!found->is_array())
      return wrong(name, "list");
    std::size_t number = 0;
    for (const auto& each : *found)
      use(each, path(name) + "[" + std::to_string(number++) + "]");
  }

  [[nodiscard]] std::string& problem() const { return problem_; }

private:
  /// Null when it is not there; null of JSON counts as not there.
  const json* find(const char* name, bool needed) {
    if (!object_.is_object())
      return nullptr;
    const auto found = object_.find(name);
    if (found != object_.end() && !found->is_null())
      return &*found;
    if (needed)
      complain("\"" + path(name) + "\" is missing");
    return nullptr;
  }

  [[nodiscard]] std::string path(const char* name) const {
    return where_.empty() ? name : where_ + "." + name;
  }
  void wrong(const char* name, const char* wanted) { complain("\"" + path(name) + "\" is no " + wanted); }
  void complain(std::string sentence) {
    if (problem_.empty())
      problem_ = std::move(sentence);
  }

  const json& object_;
  std::string where_;
  std::string& problem_;
};

/// The document in `text`; `problem` says what it is instead.
json parse_document(std::string_view text, std::string& problem) {
  if (is_too_deep(text)) {
    problem = "the document nests too deeply";
    return {};
  }
  json document = json::parse(text, nullptr, false);
  if (document.is_discarded()) {
    problem = "the answer is not JSON";
    return {};
  }
  return document;
}

device_entry read_device(const json& value, const std::string& where, std::string& problem) {
  members from(value, where, problem);
  device_entry made;
  made.device_id = from.number_or_0("device_id", true);
  made.state = from.text("state", true);
  made.media = from.text("media");
  made.model = from.text("model");
  made.reason = from.text("reason");
  made.raw_bytes = from.number("raw_bytes");
  made.usable_bytes = from.number("usable_bytes");
  made.used_bytes = from.number("used_bytes");
  made.blocks = from.number("blocks");
  made.failure_count = from.number_or_null("failure_count", 0);
  made.blacklisted = from.truth("blacklisted").value_or(false);
  made.reset_problem = from.text("reset_problem");
  from.object("reset", [&made](members& reset) {
    made.reset = reset_progress{reset.truth("secure").value_or(false), reset.number_or_0("done_bytes"),
                                reset.number_or_0("total_bytes")};
  });
  return made;
}

actor_entry read_actor(const json& value, const std::string& where, std::string& problem) {
  members from(value, where, problem);
  return {from.text("name", true), from.truth("alive").value_or(true), from.truth("answered").value_or(true),
          from.number_or_0("mailbox"), from.number_or_0("restarts")};
}

void read_storage(members& storage, status_document& made) {
  made.mode = storage.text("mode");
  made.raw_bytes_total = storage.number_or_0("raw_bytes_total", true);
  made.usable_bytes_total = storage.number_or_0("usable_bytes_total", true);
  made.used_bytes_total = storage.number_or_0("used_bytes_total", true);
  made.blocks_total = storage.number_or_0("blocks_total");
  made.drives_online = storage.number("drives_online");
  made.drives_total = storage.number("drives_total");
  storage.for_each("devices", [&](const json& each, const std::string& where) {
    made.devices.push_back(read_device(each, where, storage.problem()));
  });
}

} // namespace

std::string read_health(std::string_view text, health_document& document) {
  std::string problem;
  const json root = parse_document(text, problem);
  if (!problem.empty())
    return problem;
  members from(root, "", problem);
  document.status = from.text("status", true);
  document.reasons = from.texts("reasons");
  document.rdma_active = from.truth("rdma_active");
  document.drives_online = from.number("drives_online");
  document.drives_total = from.number("drives_total");
  if (problem.empty() && document.status != "healthy" && document.status != "degraded" &&
      document.status != "unhealthy")
    problem = "the status \"" + document.status + "\" is none of healthy, degraded, unhealthy";
  return problem;
}

std::string read_status(std::string_view text, status_document& document) {
  std::string problem;
  const json root = parse_document(text, problem);
  if (!problem.empty())
    return problem;
  members from(root, "", problem);
  document.status = from.text("status");
  document.reasons = from.texts("reasons");
  document.version = from.text("version");
  document.server_id = from.text("server_id");
  document.phase = from.text("phase");
  document.uptime_seconds = from.real("uptime_seconds");
  document.fault_injection = from.truth("fault_injection").value_or(false);
  from.object(
      "storage", [&document](members& storage) { read_storage(storage, document); }, true);
  from.object("license", [&document](members& licence) {
    licence_entry made;
    made.valid = licence.truth("valid").value_or(false);
    made.plan = licence.text("plan");
    made.organization = licence.text("organization");
    made.source = licence.text("source");
    if (const auto days = licence.real("days_left"); days && std::isfinite(*days))
      made.days_left = *days > 0 ? static_cast<std::uint64_t>(std::min(*days, 1e9)) : 0;
    made.development = licence.truth("development").value_or(false);
    document.licence = std::move(made);
  });
  from.object("memory", [&document](members& memory) {
    document.memory =
        memory_entry{memory.number_or_0("pool_bytes"), memory.number_or_0("pool_used_bytes"),
                     memory.number("resident_bytes"), memory.truth("huge_pages").value_or(false)};
  });
  from.object("rdma", [&document](members& rdma) {
    document.rdma_active = rdma.truth("active").value_or(false);
    document.rdma_connections = rdma.number_or_0("connections");
    document.rdma_sessions = rdma.number("sessions");
  });
  from.object("network",
              [&document](members& network) { document.connections = network.number("connections"); });
  from.for_each("actors", [&](const json& each, const std::string& where) {
    document.actors.push_back(read_actor(each, where, problem));
  });
  return problem;
}

std::string read_failed_drives(std::string_view text, std::vector<failed_drive_entry>& drives) {
  std::string problem;
  const json root = parse_document(text, problem);
  if (problem.empty() && !root.is_array())
    problem = "the document is no list";
  if (!problem.empty())
    return problem;
  for (const auto& each : root) {
    members from(each, "[" + std::to_string(drives.size()) + "]", problem);
    failed_drive_entry made;
    made.device_id = from.number_or_0("device_id", true);
    made.failure_count = from.number_or_null("failure_count");
    made.first_failed_at = from.number_or_null("first_failed_at", 0);
    made.last_failed_at = from.number_or_null("last_failed_at", 0);
    made.blacklisted = from.truth("blacklisted").value_or(false);
    made.state = from.text("state");
    made.reason = from.text("reason");
    made.media = from.text("media");
    drives.push_back(std::move(made));
  }
  return problem;
}

std::string read_refusal(std::string_view text) {
  std::string problem;
  const json root = parse_document(text, problem);
  if (!problem.empty() || !root.is_object()) {
    const auto shown = text.size() <= refusal_bytes_max ? admin::printable(text) : std::string{};
    return shown.starts_with('<') ? std::string{} : shown;
  }
  members from(root, "", problem);
  std::string sentence = from.text("error");
  if (sentence.empty())
    for (const auto& each : from.texts("reasons"))
      sentence += (sentence.empty() ? "" : "; ") + each;
  std::string silent;
  for (const auto& each : from.texts("silent"))
    silent += (silent.empty() ? "" : ", ") + each;
  if (!silent.empty() && sentence.find(silent) == std::string::npos)
    sentence +=
        (sentence.empty() ? "not answering: " : " (not answering: ") + silent + (sentence.empty() ? "" : ")");
  return admin::printable(sentence);
}

} // namespace memkv::cli
