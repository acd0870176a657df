// What the log writes, what it leaves out, and that nothing in a line can break the line.
#define CAF_SUITE log
#include "actors/log.hpp"

#include <caf/test/unit_test.hpp>

#include <nlohmann/json.hpp>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <thread>

using namespace memkv;
using log::level;

namespace {

constexpr std::string_view target = "memkv::server";
constexpr std::uint64_t moment_ns = 1'795'221'375'123'456'789; // 2026-11-21T00:36:15.123456789Z

log::filter parsed_filter(std::string_view text) {
  log::filter made;
  std::string problem;
  if (!log::filter::parse(text, made, problem))
    CAF_FAIL("the filter was refused: " << problem);
  return made;
}

std::string refusal(std::string_view text) {
  log::filter made;
  std::string problem;
  return log::filter::parse(text, made, problem) ? "accepted" : problem;
}

// The lines of a file that the log wrote while `body` ran.
template <class Body>
std::vector<std::string> lines_of_file(log::format how, Body body) {
  const auto path = std::filesystem::temp_directory_path() / ("memkv_log_test." + std::to_string(::getpid()));
  std::filesystem::remove(path);
  std::string problem;
  log::settings wanted;
  wanted.how = how;
  wanted.file = path;
  CAF_REQUIRE(log::configure(wanted, problem));
  body();
  CAF_REQUIRE(log::configure({}, problem));
  std::vector<std::string> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);)
    lines.push_back(line);
  std::filesystem::remove(path);
  return lines;
}

} // namespace

CAF_TEST(a text line has time and level and target and message and fields) {
  CAF_CHECK_EQUAL(
      log::render(log::format::text, moment_ns, level::info, target, "drive opened",
                  {{"drive", 3}, {"media", "a file"}, {"free", 0.5}, {"ok", true}}),
      "2026-11-21T00:36:15.123456Z  INFO memkv::server: drive opened drive=3 media=\"a file\" free=0.5 "
      "ok=true\n");
  CAF_CHECK_EQUAL(log::render(log::format::text, moment_ns, level::error, target, "x", {}),
                  "2026-11-21T00:36:15.123456Z ERROR memkv::server: x\n");
}

CAF_TEST(a json line has its members in the fixed order) {
  CAF_CHECK_EQUAL(log::render(log::format::json, moment_ns, level::warn, target, "slow",
                              {{"milliseconds", 12u}, {"peer", "10.0.0.1:5"}, {"delta", -3}}),
                  R"({"timestamp":"2026-11-21T00:36:15.123456Z","level":"WARN","message":"slow",)"
                  R"("milliseconds":12,"peer":"10.0.0.1:5","delta":-3,"target":"memkv::server"})"
                  "\n");
}

CAF_TEST(every byte a message can have stays within one line and one json string) {
  for (int first = 0; first < 256; ++first) {
    for (const int second : {0, 10, 34, 92, 0x80, 0x9B, 0xA8, 0xBF, 0xC2, 0xE2, 0xFF}) {
      std::string message{static_cast<char>(first), static_cast<char>(second), '\x80', '\xA8', 'z'};
      for (const auto how : {log::format::text, log::format::json}) {
        const auto line = log::render(how, moment_ns, level::info, target, message, {{"key", message}});
        CAF_CHECK_EQUAL(line.find('\n'), line.size() - 1);
        for (const char c : line.substr(0, line.size() - 1))
          if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F)
            CAF_FAIL("a control character was written for bytes " << first << " " << second);
        if (how == log::format::json) {
          const auto value = nlohmann::json::parse(line, nullptr, false);
          CAF_CHECK(value.is_object());
        }
      }
    }
  }
}

CAF_TEST(well formed text survives and a forged line ending does not) {
  const auto line = log::render(log::format::text, moment_ns, level::info, target, "grün 漢 😀", {});
  CAF_CHECK(line.find("grün 漢 😀") != std::string::npos);
  const auto forged = log::render(log::format::text, moment_ns, level::info, target,
                                  "a\nb\x1b[31m\xC2\x9B\xE2\x80\xA8\xFF", {{"k", "v\"\n w"}});
  CAF_CHECK_EQUAL(forged.substr(forged.find(": ") + 2),
                  "a\\nb\\x1b[31m\\u009b\\u2028\\xff k=\"v\\\"\\n w\"\n");
}

CAF_TEST(a huge line is cut and stays a line and valid json) {
  const std::string huge(1 << 20, '\x01');
  for (const auto how : {log::format::text, log::format::json}) {
    const auto line = log::render(how, moment_ns, level::info, target, huge, {{"a", huge}, {"b", 1}});
    CAF_CHECK(line.size() <= log::line_bytes_max);
    CAF_CHECK_EQUAL(line.find('\n'), line.size() - 1);
    if (how == log::format::json) {
      const auto value = nlohmann::json::parse(line, nullptr, false);
      CAF_REQUIRE(value.is_object());
      CAF_CHECK_EQUAL(value["cut"].get<bool>(), true);
      CAF_CHECK_EQUAL(value["target"].get<std::string>(), target);
    }
  }
}

CAF_TEST(a filter of one level is for everything) {
  const auto what = parsed_filter("warn");
  CAF_CHECK(!what.passes(level::info, target));
  CAF_CHECK(what.passes(level::warn, target));
  CAF_CHECK(what.lowest() == level::warn);
  CAF_CHECK(!parsed_filter("off").passes(level::error, target));
  CAF_CHECK(parsed_filter("DEBUG").passes(level::debug, "anything"));
}

CAF_TEST(the longest target that matches decides and both spellings are one) {
  const auto what = parsed_filter("memkv_server=debug, memkv=warn ,info,memkv::server::tcp=off");
  CAF_CHECK(what.passes(level::debug, "memkv::server"));
  CAF_CHECK(what.passes(level::debug, "memkv::server::accept"));
  CAF_CHECK(!what.passes(level::error, "memkv::server::tcp"));
  CAF_CHECK(!what.passes(level::info, "memkv::drive"));
  CAF_CHECK(what.passes(level::warn, "memkv::drive"));
  CAF_CHECK(what.passes(level::info, "other"));
  CAF_CHECK(!what.passes(level::debug, "other"));
  CAF_CHECK(what.lowest() == level::debug);
}

CAF_TEST(a target matches whole names only) {
  const auto what = parsed_filter("memkv::serv=trace,warn");
  CAF_CHECK(!what.passes(level::info, "memkv::server"));
  CAF_CHECK(what.passes(level::trace, "memkv::serv"));
  CAF_CHECK(what.passes(level::trace, "memkv_serv"));
  CAF_CHECK(!what.passes(level::info, "memkv"));
}

CAF_TEST(targets alone leave errors of all others) {
  const auto what = parsed_filter("memkv_drive=trace");
  CAF_CHECK(what.passes(level::trace, "memkv::drive"));
  CAF_CHECK(!what.passes(level::warn, "memkv::server"));
  CAF_CHECK(what.passes(level::error, "memkv::server"));
}

CAF_TEST(filters that say nothing are refused with a sentence) {
  for (const auto* text : {"", " ", "inof", "info,", ",info", "info,warn", "memkv=", "=info", "memkv=loud",
                           "memkv[span]=info", "memkv::a=info,memkv_a=warn", "a=b=c"}) {
    const auto sentence = refusal(text);
    CAF_CHECK(sentence != "accepted");
    CAF_CHECK(sentence.find("such as memkv_server=debug,info") != std::string::npos);
  }
  CAF_CHECK(refusal(std::string(5000, 'a')).find("at most") != std::string::npos);
  std::string many = "a0=info";
  for (int i = 1; i < 65; ++i)
    many += ",a" + std::to_string(i) + "=info";
  CAF_CHECK(refusal(many).find("at most 64") != std::string::npos);
}

CAF_TEST(lines of many threads come out whole and are counted) {
  const auto before = log::lines_written();
  const auto lines = lines_of_file(log::format::json, [] {
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i)
      threads.emplace_back([i] {
        for (int n = 0; n < 250; ++n) {
          log::info(target, "hello", {{"thread", i}, {"n", n}});
          log::debug(target, "not written");
        }
      });
    for (auto& each : threads)
      each.join();
  });
  CAF_CHECK_EQUAL(lines.size(), 1000u);
  for (const auto& line : lines)
    CAF_CHECK(nlohmann::json::parse(line, nullptr, false).is_object());
  const auto after = log::lines_written();
  CAF_CHECK_EQUAL(after[2] - before[2], 1000u);
  CAF_CHECK_EQUAL(after[1] - before[1], 0u);
}

CAF_TEST(a log file that cannot be opened is refused and the old place stays) {
  std::string problem;
  log::settings wanted;
  wanted.file = "/nonexistent-directory/memkv.log";
  CAF_CHECK(!log::configure(wanted, problem));
  CAF_CHECK(problem.find("/nonexistent-directory/memkv.log cannot be opened") != std::string::npos);
  CAF_CHECK(problem.find("--log-file none") != std::string::npos);
}

CAF_TEST(a pipe is a log file only while somebody reads it) {
  const auto pipe =
      (std::filesystem::temp_directory_path() / ("memkv_log_pipe." + std::to_string(::getpid()))).string();
  CAF_REQUIRE_EQUAL(::mkfifo(pipe.c_str(), 0600), 0);
  std::string problem;
  log::settings wanted;
  wanted.file = pipe;
  CAF_CHECK(!log::configure(wanted, problem));
  CAF_CHECK_EQUAL(problem, "the log file " + pipe +
                               " cannot be opened (it is a pipe that nobody reads): name another with "
                               "--log-file, or write --log-file none for standard error");
  const int reader = ::open(pipe.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  CAF_REQUIRE(reader >= 0);
  CAF_REQUIRE(log::configure(wanted, problem));
  log::info(target, "to whoever reads");
  CAF_REQUIRE(log::configure({}, problem));
  std::array<char, 256> bytes{};
  const auto count = ::read(reader, bytes.data(), bytes.size());
  ::close(reader);
  std::filesystem::remove(pipe);
  CAF_REQUIRE(count > 0);
  const std::string_view line(bytes.data(), static_cast<std::size_t>(count));
  CAF_CHECK(line.ends_with("to whoever reads\n"));
}

CAF_TEST(a line that the file system refuses is counted as lost) {
  if (!std::filesystem::exists("/dev/full"))
    return;
  std::string problem;
  log::settings wanted;
  wanted.file = "/dev/full";
  CAF_REQUIRE(log::configure(wanted, problem));
  const auto before = log::lines_lost();
  log::info(target, "into the void");
  CAF_REQUIRE(log::configure({}, problem));
  CAF_CHECK_EQUAL(log::lines_lost() - before, 1u);
}

CAF_TEST(a capture takes the lines that pass its filter) {
  log::capture captured(parsed_filter("debug"));
  CAF_CHECK(log::enabled(level::debug, target));
  log::debug(target, "one", {{"n", 1}});
  log::trace(target, "two");
  log::error("memkv::drive", "three");
  const auto lines = captured.lines();
  CAF_REQUIRE_EQUAL(lines.size(), 2u);
  CAF_CHECK_EQUAL(lines[0].message, "one");
  CAF_CHECK(lines[0].text.find("n=1") != std::string::npos);
  CAF_CHECK_EQUAL(lines[1].target, "memkv::drive");
  CAF_CHECK_EQUAL(captured.count(level::error), 1u);
}

CAF_TEST(a rate limit lets one line through and says how many it held back) {
  log::rate_limit limit(1000);
  std::uint64_t suppressed = 99;
  CAF_CHECK(limit.allow(0, suppressed));
  CAF_CHECK_EQUAL(suppressed, 0u);
  CAF_CHECK(!limit.allow(1, suppressed));
  CAF_CHECK(!limit.allow(999, suppressed));
  CAF_CHECK(limit.allow(1000, suppressed));
  CAF_CHECK_EQUAL(suppressed, 2u);
  log::capture captured;
  log::rate_limit hour(3'600'000'000'000);
  for (int i = 0; i < 5; ++i)
    log::write_limited(hour, level::warn, target, "again");
  CAF_CHECK_EQUAL(captured.count(level::warn), 1u);
}
