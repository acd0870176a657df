#include "cli/client_command.hpp"

#include "cli/client_values.hpp"
#include "cli/drive_text.hpp"
#include "client/client.hpp"
#include "wire/hex.hpp"

#include <nlohmann/json.hpp>

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cinttypes>
#include <condition_variable>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>

namespace memkv::cli {
namespace {

using client::errc;
using client::item_result;
using steady = std::chrono::steady_clock;

constexpr std::uint64_t progress_bytes_min = 16U << 20U;
constexpr int progress_ms = 100;
constexpr int value_changes_max =
    5; // so often a value may change between asking for its length and fetching it
constexpr const char* default_server = "127.0.0.1:9900";

int refuse(const std::string& sentence) {
  std::fprintf(stderr, "memkv: %s\n", sentence.c_str());
  return 1;
}

/// Everything printed must have arrived; a full disk or a closed pipe is an error.
int finish_output(int code) {
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    return refuse("standard output cannot be written");
  }
  return code;
}

std::optional<std::string> key_from_hex(std::string_view digits) {
  std::string key(digits.size() / 2, '\0');
  if (key.empty() || !wire::read_hex(digits, std::as_writable_bytes(std::span(key)))) {
    return std::nullopt;
  }
  return key;
}

/// Quoted for JSON; what is no UTF-8 becomes U+FFFD.
std::string json_text(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

/// As it may be shown on a terminal: control characters become \xNN.
std::string printable(std::string_view text) {
  std::string shown;
  for (const char letter : text) {
    const auto code = static_cast<unsigned char>(letter);
    if (code < 0x20 || code == 0x7F) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\x%02x", code);
      shown += escaped;
    } else {
      shown += letter;
    }
  }
  return shown;
}

/// What the user asked for, ready to be sent.
struct session {
  std::unique_ptr<client::client> kv;
  std::vector<std::string> keys;
  std::vector<std::string> shown_keys; // as the user wrote them, printable
  std::vector<std::string> given_keys; // as the user wrote them
  std::vector<std::string_view> key_views;
  bool hex = false;
  std::uint32_t deadline_ms = 0; // of the whole command
};

/// Says why in `problem` when it cannot be made.
session make_session(const parsed& line, const char* keys_argument, std::string& problem) {
  session made;
  client::options chosen;
  if (const client::status loaded =
          client::load_options([](const char* name) { return std::getenv(name); }, chosen);
      !loaded.ok()) {
    problem = loaded.text;
    return made;
  }
  if (line.given("servers")) {
    chosen.servers = client::split_list(line.text("servers"));
  } else if (const char* listed = std::getenv("MEMKV_SERVERS");
             listed != nullptr && *listed != '\0' && client::split_list(listed).empty()) {
    problem = "MEMKV_SERVERS names no server: set it to host:port,host:port, or to nothing";
    return made;
  } else if (chosen.servers.empty()) {
    chosen.servers = {default_server};
  }
  if (line.given("namespace")) {
    chosen.namespace_name = line.text("namespace");
  }
  if (line.given("deadline-ms")) {
    const std::uint64_t deadline_ms = line.number("deadline-ms").value_or(0);
    if (deadline_ms == 0 || deadline_ms > client::deadline_ms_max) {
      problem = "--deadline-ms must be from 1 to 600000";
      return made;
    }
    chosen.deadline_ms = static_cast<std::uint32_t>(deadline_ms);
  }
  // Nothing here lies in registered memory, so auto is tcp, and no device has to be opened for that.
  if (chosen.transport == client::transport_choice::automatic) {
    chosen.transport = client::transport_choice::tcp;
  }
  made.hex = line.has("hex");
  made.deadline_ms = chosen.deadline_ms;
  for (const std::string& text : line.list(keys_argument)) {
    std::string key = text;
    if (made.hex) {
      const std::optional<std::string> decoded = key_from_hex(text);
      if (!decoded) {
        problem = "\"" + text + "\" is not a key in hexadecimal: write two digits for each byte";
        return made;
      }
      key = *decoded;
    }
    if (key.empty() || key.size() > 1024) {
      problem = "a key has 1 to 1024 bytes";
      return made;
    }
    made.keys.push_back(std::move(key));
    made.shown_keys.push_back(printable(text));
    made.given_keys.push_back(text);
  }
  made.key_views.assign(made.keys.begin(), made.keys.end());
  client::status refused;
  made.kv = client::client::make(std::move(chosen), refused);
  problem = refused.text;
  return made;
}

/// About a result that is not ok: the key, the server where that is of use, and the sentence.
std::string explain(const session& wanted, std::size_t item, const item_result& result) {
  return wanted.shown_keys[item] + ": " + wanted.kv->explain(wanted.keys[item], result);
}

/// A line on a terminal that grows while a value travels.
class progress {
public:
  progress(std::string_view verb, std::uint64_t total_bytes, bool wanted)
      : verb_(verb), total_bytes_(total_bytes),
        shown_(wanted && total_bytes >= progress_bytes_min && ::isatty(STDERR_FILENO) == 1),
        begin_(std::chrono::steady_clock::now()) {}
  ~progress() {
    if (shown_) {
      std::fprintf(stderr, "\r\033[K");
    }
  }
  progress(const progress&) = delete;
  progress& operator=(const progress&) = delete;

  void show(std::uint64_t done_bytes) {
    if (!shown_) {
      return;
    }
    const std::uint64_t done = done_bytes < total_bytes_ ? done_bytes : total_bytes_;
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
    const double rate = seconds > 0 ? static_cast<double>(done) / seconds : 0;
    const double left = rate > 0 ? static_cast<double>(total_bytes_ - done) / rate : 0;
    std::fprintf(stderr, "\r%.*s %.1f of %.1f MiB  %3.0f %%  %.1f MiB/s  %.0f s left\033[K",
                 static_cast<int>(verb_.size()), verb_.data(), mebibytes(done), mebibytes(total_bytes_),
                 100.0 * static_cast<double>(done) / static_cast<double>(total_bytes_),
                 rate / (1024.0 * 1024.0), left);
  }

private:
  static double mebibytes(std::uint64_t value) { return static_cast<double>(value) / (1024.0 * 1024.0); }

  std::string_view verb_;
  std::uint64_t total_bytes_;
  bool shown_;
  std::chrono::steady_clock::time_point begin_;
};

/// The end of a call, said by the library's thread.
class completed {
public:
  void set() {
    const std::lock_guard guard(lock_);
    done_ = true;
    changed_.notify_all();
  }
  /// True as soon as it has ended, false when it has not within the time.
  bool wait(std::chrono::milliseconds time) {
    std::unique_lock guard(lock_);
    return changed_.wait_for(guard, time, [this] { return done_; });
  }

private:
  std::mutex lock_;
  std::condition_variable changed_;
  bool done_ = false;
};

/// Waits for an asynchronous call and shows meanwhile what `moved` says.
template <class Moved>
void wait_with_progress(completed& done, progress& line, Moved moved) {
  do {
    line.show(moved());
  } while (!done.wait(std::chrono::milliseconds(progress_ms)));
}

int put(const parsed& line) {
  std::string problem;
  const session wanted = make_session(line, "KEY", problem);
  std::vector<std::byte> value;
  client::call_options call;
  if (problem.empty()) {
    const auto end = steady::now() + std::chrono::milliseconds(wanted.deadline_ms);
    problem = read_value(line.text("FILE"), end, value);
    call.deadline_ms = static_cast<std::uint32_t>(std::max<std::int64_t>(
        1, std::chrono::duration_cast<std::chrono::milliseconds>(end - steady::now()).count()));
  }
  if (!problem.empty()) {
    return refuse(problem);
  }
  const client::put_item item{wanted.keys.front(), value, line.has("if-absent")};
  item_result result;
  completed done;
  {
    progress shown("put", value.size(), !line.has("quiet"));
    const client::status submitted = wanted.kv->submit_put(
        std::span(&item, 1), std::span(&result, 1), client::completion::call([&] { done.set(); }), call);
    if (!submitted.ok()) {
      return refuse(submitted.text);
    }
    wait_with_progress(done, shown, [&] { return wanted.kv->count().bytes_sent; });
  }
  return result.code == errc::ok ? 0 : refuse(explain(wanted, 0, result));
}

int get(const parsed& line) {
  std::string problem;
  const session wanted = make_session(line, "KEY", problem);
  if (!problem.empty()) {
    return refuse(problem);
  }
  const std::string& key = wanted.shown_keys.front();
  const std::uint64_t offset = line.number("offset").value_or(0);
  const std::optional<std::uint64_t> length = line.number("length");
  std::vector<std::byte> value;
  item_result result;
  for (int changes = 0; changes < value_changes_max; ++changes) {
    result = wanted.kv->lookup(wanted.keys.front());
    if (result.code != errc::ok) {
      return refuse(explain(wanted, 0, result));
    }
    if (offset > result.value_length) {
      return refuse(key + ": the value has " + std::to_string(result.value_length) +
                    " bytes and --offset is behind them");
    }
    std::uint64_t bytes_wanted = result.value_length - offset;
    if (length && *length < bytes_wanted) {
      bytes_wanted = *length;
    }
    value.resize(bytes_wanted);
    if (bytes_wanted == 0) {
      break; // nothing to fetch; the length came in a signed answer
    }
    const client::get_item item{wanted.keys.front(), value, offset, bytes_wanted};
    completed done;
    {
      progress shown("get", bytes_wanted, !line.has("quiet"));
      const std::uint64_t before = wanted.kv->count().bytes_received;
      const client::status submitted = wanted.kv->submit_get(std::span(&item, 1), std::span(&result, 1),
                                                             client::completion::call([&] { done.set(); }));
      if (!submitted.ok()) {
        return refuse(submitted.text);
      }
      wait_with_progress(done, shown, [&] { return wanted.kv->count().bytes_received - before; });
    }
    if (result.code == errc::ok && result.length == bytes_wanted) {
      break;
    }
    if (result.code != errc::ok && result.code != errc::buffer_too_small &&
        result.code != errc::out_of_range) {
      return refuse(explain(wanted, 0, result));
    }
    result.code = errc::busy; // another client stored a value of another length in between
  }
  if (result.code != errc::ok) {
    return refuse(key + ": the value changes faster than it can be fetched: try again");
  }
  problem = line.has("output") && line.text("output") != "-"
                ? write_file(line.text("output"), value)
                : write_all(STDOUT_FILENO, "standard output", value);
  return problem.empty() ? 0 : refuse(problem);
}

const char* state_of(const item_result& result) {
  if (result.code == errc::ok) {
    return "stored";
  }
  return result.code == errc::not_found && result.cause == errc::ok ? "missing" : "unknown";
}

int exists(const parsed& line) {
  std::string problem;
  const session wanted = make_session(line, "KEY", problem);
  if (!problem.empty()) {
    return refuse(problem);
  }
  const bool json = line.has("json");
  if (line.has("prefix")) {
    const client::prefix_result found = wanted.kv->prefix(wanted.key_views);
    if (found.code != errc::ok || found.cause != errc::ok) {
      // Of the first key that the answer does not cover.
      const std::size_t first = std::min<std::size_t>(found.matched, wanted.keys.size() - 1);
      return refuse(explain(wanted, first, {.code = found.cause != errc::ok ? found.cause : found.code}));
    }
    std::printf(json ? "{\"matched\":%" PRIu64 ",\"keys\":%zu,\"bytes\":%" PRIu64 "}\n"
                     : "%" PRIu64 " of %zu keys from the start, %" PRIu64 " bytes\n",
                found.matched, wanted.keys.size(), found.total_bytes);
    return finish_output(found.matched == wanted.keys.size() ? 0 : 1);
  }
  std::vector<item_result> results(wanted.keys.size());
  const errc code = wanted.kv->exists(wanted.key_views, results);
  for (std::size_t i = 0; i < results.size(); ++i) {
    const item_result& result = results[i];
    if (json) {
      std::printf("{\"key\":%s,\"state\":\"%s\",\"bytes\":%" PRIu64 "}\n",
                  json_text(wanted.given_keys[i]).c_str(), state_of(result), result.value_length);
    } else if (result.code == errc::ok) {
      std::printf("%s: stored, %" PRIu64 " bytes\n", wanted.shown_keys[i].c_str(), result.value_length);
    } else {
      std::printf("%s: %s\n", wanted.shown_keys[i].c_str(), state_of(result));
    }
    if (std::strcmp(state_of(result), "unknown") == 0) {
      refuse(explain(wanted, i, result));
    }
  }
  return finish_output(code == errc::ok ? 0 : 1);
}

int remove_blocks(const parsed& line) {
  std::string problem;
  const session wanted = make_session(line, "KEY", problem);
  if (!problem.empty()) {
    return refuse(problem);
  }
  std::vector<item_result> results(wanted.keys.size());
  const errc code = wanted.kv->remove(wanted.key_views, results);
  for (std::size_t i = 0; i < results.size(); ++i) {
    if (results[i].code != errc::ok) {
      refuse(explain(wanted, i, results[i]));
    }
  }
  return code == errc::ok ? 0 : 1;
}

int stat_servers(const session& wanted, bool json) {
  int code = 0;
  for (const client::server_stat& server : wanted.kv->stat()) {
    if (server.code != errc::ok) {
      code = refuse(server.server + ": " + std::string(sentence(server.code)));
      continue;
    }
    if (json)
      std::printf("{\"server\":\"%s\",\"blocks\":%" PRIu64 ",\"used_bytes\":%" PRIu64
                  ",\"usable_bytes\":%" PRIu64
                  ",\"drives_online\":%u,\"drives_total\":%u,\"uptime_ms\":%" PRIu64 "}\n",
                  server.server.c_str(), server.blocks, server.used_bytes, server.usable_bytes,
                  server.drives_online, server.drives_total, server.uptime_ms);
    else
      std::printf("%s: %s, %" PRIu64 " of %s used, %u of %s online, up for %" PRIu64 " ms\n",
                  server.server.c_str(), counted(server.blocks, "block", "blocks").c_str(), server.used_bytes,
                  counted(server.usable_bytes, "byte", "bytes").c_str(), server.drives_online,
                  counted(server.drives_total, "drive", "drives").c_str(), server.uptime_ms);
  }
  return finish_output(code);
}

int stat(const parsed& line) {
  std::string problem;
  const session wanted = make_session(line, "KEY", problem);
  if (!problem.empty()) {
    return refuse(problem);
  }
  const bool json = line.has("json");
  if (wanted.keys.empty()) {
    return stat_servers(wanted, json);
  }
  std::vector<item_result> results(wanted.keys.size());
  const errc code = wanted.kv->lookup(wanted.key_views, results);
  for (std::size_t i = 0; i < results.size(); ++i) {
    const item_result& result = results[i];
    if (result.code != errc::ok) {
      refuse(explain(wanted, i, result));
    } else if (json) {
      std::printf("{\"key\":%s,\"bytes\":%" PRIu64 ",\"generation\":%" PRIu64
                  ",\"crc32c\":\"%08x\",\"server\":\"%s\"}\n",
                  json_text(wanted.given_keys[i]).c_str(), result.value_length, result.generation,
                  result.crc32c, wanted.kv->servers()[wanted.kv->server_of(wanted.keys[i])].c_str());
    } else {
      std::printf("%s: %" PRIu64 " bytes, generation %" PRIu64 ", crc32c %08x, on %s\n",
                  wanted.shown_keys[i].c_str(), result.value_length, result.generation, result.crc32c,
                  wanted.kv->servers()[wanted.kv->server_of(wanted.keys[i])].c_str());
    }
  }
  return finish_output(code == errc::ok ? 0 : 1);
}

} // namespace

int run_client_command(const parsed& line) {
  const std::string name = line.path.size() > 1 ? line.path[1] : std::string();
  if (name == "put") {
    return put(line);
  }
  if (name == "get") {
    return get(line);
  }
  if (name == "exists") {
    return exists(line);
  }
  if (name == "delete") {
    return remove_blocks(line);
  }
  if (name == "stat") {
    return stat(line);
  }
  return refuse("say what to do: memkv client put, get, exists, delete or stat");
}

} // namespace memkv::cli
