#include "cli/admin_drives.hpp"

#include "cli/admin_documents.hpp"
#include "cli/drive_text.hpp"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <optional>
#include <thread>

namespace memkv::cli {

namespace {

constexpr std::chrono::milliseconds look_again{500};
constexpr int silences_max = 10; // answers in a row that may fail before nobody looks any more

int refuse(const std::string& sentence) {
  std::fprintf(stderr, "memkv: %s\n", sentence.c_str());
  return 1;
}

/// One line on a terminal that is written over and wiped away in the end; nothing elsewhere.
class progress_line {
public:
  progress_line() = default;
  ~progress_line() {
    if (terminal_)
      std::fprintf(stderr, "\r\033[K");
  }
  progress_line(const progress_line&) = delete;
  progress_line& operator=(const progress_line&) = delete;

  void show(const device_entry& drive) const {
    if (!terminal_)
      return;
    if (!drive.reset || drive.reset->total_bytes == 0) {
      std::fprintf(stderr, "\rdrive %llu: %s\033[K", static_cast<unsigned long long>(drive.device_id),
                   drive.state.c_str());
      return;
    }
    const auto done = drive.reset->done_bytes;
    const auto total = drive.reset->total_bytes;
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
    std::string left;
    if (done > 0 && total > done)
      left = "  " + duration_text(seconds * static_cast<double>(total - done) / static_cast<double>(done)) +
             " left";
    std::fprintf(stderr, "\rdrive %llu: %s  %s of %s  %s%s\033[K",
                 static_cast<unsigned long long>(drive.device_id), usage_bar(done, total).c_str(),
                 about_size(done).c_str(), about_size(total).c_str(), percent_text(done, total).c_str(),
                 left.c_str());
  }

private:
  const bool terminal_ = ::isatty(STDERR_FILENO) == 1;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

/// The drive as the server's status describes it; a problem when it does not.
std::optional<device_entry> look_at(const admin_session& session, std::uint64_t device_id,
                                    std::string& problem) {
  const auto answer = session.get("/v1/status", document_bytes_max).front();
  status_document document;
  if (problem = admin_session::fault_of(answer); answer.status != 200 && answer.status != 503)
    return std::nullopt;
  if (auto unread = read_status(answer.body, document); !unread.empty()) {
    problem = problem.empty() ? std::move(unread) : problem;
    return std::nullopt;
  }
  const auto found = std::find_if(document.devices.begin(), document.devices.end(),
                                  [device_id](const auto& each) { return each.device_id == device_id; });
  if (found != document.devices.end())
    return *found;
  problem = "the status does not name drive " + std::to_string(device_id);
  return std::nullopt;
}

enum class follow_until {
  done,
  begun, // the drive was found to be the right one, and is being written to
};

/// Looks at the drive until then. Empty when it came to that, else why not. `ended`: the reset is over.
std::string follow(const admin_session& session, std::uint64_t device_id, follow_until until, bool& ended) {
  const progress_line line;
  int silences = 0;
  while (true) {
    std::string problem;
    const auto drive = look_at(session, device_id, problem);
    if (drive) {
      silences = 0;
      line.show(*drive);
      if (drive->state != "resetting" && !drive->reset_problem.empty())
        return "the reset of drive " + std::to_string(device_id) +
               " did not end well: " + drive->reset_problem;
      ended = drive->state == "online" || drive->state == "joining";
      if (ended || (until == follow_until::begun && drive->reset && drive->reset->total_bytes > 0))
        return {};
      if (drive->state != "resetting" && drive->state != "opening")
        return "drive " + std::to_string(device_id) + " is " + drive->state + " after the reset" +
               (drive->reason.empty() ? "" : ": " + drive->reason);
    } else if (++silences > silences_max) {
      return "the reset has begun, and how it goes on cannot be seen: " + problem;
    }
    std::this_thread::sleep_for(look_again);
  }
}

} // namespace

int reset_drive(admin_session& session, const std::string& device_id, bool secure) {
  if (session.servers().size() != 1)
    return refuse("drives reset is for exactly one server, and " + std::to_string(session.servers().size()) +
                  " are named: pass --servers with the one that has the drive");
  std::uint64_t number = 0;
  const auto* end = device_id.data() + device_id.size();
  if (const auto read = std::from_chars(device_id.data(), end, number);
      read.ec != std::errc{} || read.ptr != end || number > UINT32_MAX)
    return refuse("a device id is a whole number, as in the table of memkv admin drives failed");

  const auto& server = session.servers().front();
  std::string problem;
  const auto answer = session.post(
      "/v1/drives/" + std::to_string(number) + "/reset" + (secure ? "?secure=true" : ""), problem);
  if (!problem.empty())
    return refuse(problem);
  if (auto fault = admin_session::fault_of(answer); !fault.empty()) {
    if (answer.status == 0 && answer.may_have_arrived)
      fault += " (the reset may have begun: see memkv admin status --verbose)";
    session.fail(server, fault);
    return session.code();
  }
  // Overwriting takes hours, for which a script need not wait.
  const auto until = secure && ::isatty(STDERR_FILENO) != 1 ? follow_until::begun : follow_until::done;
  bool ended = false;
  if (auto fault = follow(session, number, until, ended); !fault.empty())
    session.fail(server, fault);
  else
    admin_session::print(server.text() + ": drive " + std::to_string(number) +
                         (ended ? " was reset" : " is being reset") +
                         (secure ? " and overwritten with zeros" : "") +
                         (ended ? "\n" : "; memkv admin status --verbose shows how it goes on\n"));
  return session.code();
}

} // namespace memkv::cli
