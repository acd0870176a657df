// memkv-license, the program that issues licences and shows what they say. Not part of memkv.
#include "cli/command_line.hpp"
#include "wire/license_file.hpp"
#include "wire/license_issuer.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

namespace memkv::cli {
namespace {

constexpr std::uint64_t day_s = 86'400;
constexpr std::uint64_t days_max = 36'500;

constexpr std::array<flag, 8> issue_flags{{
    {.name = "plan",
     .kind = value_kind::text,
     .value_name = "PLAN",
     .default_text = "Enterprise",
     .default_is_value = true,
     .help = "Free, Enterprise, EnterpriseLite or EnterprisePlus. Free lets a client use one server."},
    {.name = "days",
     .kind = value_kind::integer,
     .value_name = "N",
     .default_text = "30",
     .default_is_value = true,
     .least = 1,
     .help = "Days until it ends, 1 to 36500."},
    {.name = "org",
     .kind = value_kind::text,
     .value_name = "TEXT",
     .default_text = "Development",
     .default_is_value = true,
     .help = "Organization it is issued to."},
    {.name = "subject",
     .kind = value_kind::text,
     .value_name = "TEXT",
     .default_text = "none",
     .help = "Address of mail of whoever asked for it."},
    {.name = "account",
     .kind = value_kind::integer,
     .value_name = "N",
     .default_text = "0",
     .default_is_value = true,
     .help = "Number of the account."},
    {.name = "key",
     .kind = value_kind::path,
     .value_name = "PEM",
     .default_text = "the development key",
     .help = "Private key to sign with, on the curve P-384. Only builds that know its public half accept the "
             "license."},
    {.name = "output",
     .letter = 'o',
     .kind = value_kind::path,
     .value_name = "PATH",
     .default_text = "standard output",
     .help = "File to write it to; it is replaced as a whole."},
    {.name = "keep-days",
     .kind = value_kind::integer,
     .value_name = "N",
     .default_text = "off",
     .help = "With --output: does nothing when the file holds a license of this plan that this build accepts "
             "for N more days."},
}};
constexpr std::array<flag, 1> show_flags{{
    {.name = "key",
     .kind = value_kind::path,
     .value_name = "PEM",
     .default_text = "those of this build",
     .help = "Public key to verify it with."},
}};
constexpr std::array<argument, 1> show_arguments{
    {{.name = "FILE", .help = "The file of a license; - is standard input."}}};
constexpr std::array<argument, 2> key_arguments{
    {{.name = "PRIVATE", .help = "File to write the private key to, which must not be there yet."},
     {.name = "PUBLIC", .help = "File to write the public key to, which must not be there yet."}}};

constexpr std::array<command, 3> commands{
    {{.name = "issue",
      .summary = "Make a license",
      .text = "Signs a license and prints it.",
      .flags = issue_flags},
     {.name = "show",
      .summary = "Show what a license says",
      .text = "Verifies a license as servers and clients do, and prints what it says. Exits with 1 if it is "
              "not valid.",
      .flags = show_flags,
      .arguments = show_arguments},
     {.name = "key",
      .summary = "Make a key pair to sign licenses with",
      .text = "Writes a new pair of keys. A build made with -DMEMKV_LICENSE_KEY=PUBLIC accepts what is "
              "signed with it.",
      .arguments = key_arguments}}};

constexpr command root{
    .name = "memkv-license",
    .summary = "Issues licenses",
    .text = "Issues licenses and shows what they say. Without a key of one's own it signs with the "
            "development key, which release builds refuse.",
    .commands = commands};

int refuse(const std::string& sentence) {
  std::fprintf(stderr, "memkv-license: %s\n", sentence.c_str());
  return 1;
}

std::uint64_t now_s() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::seconds>(now).count());
}

/// A key's file, or a problem.
std::string read_key(const std::string& path, std::string& pem) {
  auto file = wire::read_license_file(path);
  if (file.result != wire::license_text::outcome::read)
    return path + " cannot be read: " + file.problem;
  pem = std::move(file.text);
  return {};
}

bool write_all(int file, std::string_view text) {
  while (!text.empty()) {
    const auto count = ::write(file, text.data(), text.size());
    if (count < 0 && errno == EINTR)
      continue;
    if (count <= 0)
      return false;
    text.remove_prefix(static_cast<std::size_t>(count));
  }
  return true;
}

/// A file that was not there before.
std::string write_new(const std::string& path, std::string_view text, mode_t mode) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (file < 0)
    return path + " cannot be made: " + std::strerror(errno);
  const bool written = write_all(file, text) && ::fsync(file) == 0;
  const int error = errno;
  ::close(file);
  return written ? std::string{} : path + " cannot be written: " + std::strerror(error);
}

/// Whoever reads it meanwhile sees the old one or the new one.
std::string replace_file(const std::string& path, std::string_view text) {
  const auto beside = path + "." + std::to_string(::getpid()) + ".new";
  auto problem = write_new(beside, text, 0644);
  if (problem.empty() && ::rename(beside.c_str(), path.c_str()) != 0)
    problem = path + " cannot be written: " + std::strerror(errno);
  if (!problem.empty())
    ::unlink(beside.c_str());
  return problem;
}

int issue(const parsed& line) {
  wire::license wanted;
  const auto plan = wire::parse_license_plan(line.text("plan"));
  if (!plan)
    return refuse("--plan must be Free, Enterprise, EnterpriseLite or EnterprisePlus");
  const auto days = line.number("days").value_or(0);
  if (days == 0 || days > days_max)
    return refuse("--days must be from 1 to " + std::to_string(days_max));
  const auto output = line.text("output");
  if (line.given("keep-days") && !output.empty()) {
    const auto file = wire::read_license_file(output);
    const auto kept =
        wire::verify_license(wire::trimmed_license(file.text), wire::built_in_license_keys(), now_s());
    if (kept.ok() && kept.granted->plan == *plan &&
        kept.granted->expires_at_s - now_s() >= line.number("keep-days").value_or(0) * day_s)
      return 0;
  }
  std::string pem(wire::development_license_key());
  if (line.given("key")) {
    if (const auto problem = read_key(line.text("key"), pem); !problem.empty())
      return refuse(problem);
  } else if (pem.empty()) {
    return refuse("this is a release build without a development key: name a private key with --key");
  }
  wanted.plan = *plan;
  wanted.organization = line.text("org");
  wanted.subject = line.text("subject");
  wanted.issuer = "memkv-license";
  wanted.account = line.number("account").value_or(0);
  wanted.id = wire::random_license_id();
  wanted.issued_at_s = now_s();
  wanted.expires_at_s = wanted.issued_at_s + days * day_s;
  std::string token;
  if (const auto problem = wire::issue_license(wanted, pem, token); !problem.empty())
    return refuse(problem);
  // What servers would refuse is not handed out.
  std::string public_pem;
  if (const auto problem = wire::public_license_key(pem, public_pem); !problem.empty())
    return refuse(problem);
  const std::array<wire::license_key, 1> keys{{{public_pem, false}}};
  if (const auto verdict = wire::verify_license(token, keys, now_s()); !verdict.ok())
    return refuse("nobody would accept it: " + verdict.problem);
  if (output.empty()) {
    std::printf("%s\n", token.c_str());
    return std::fflush(stdout) == 0 ? 0 : refuse("standard output cannot be written");
  }
  const auto problem = replace_file(output, token + "\n");
  return problem.empty() ? 0 : refuse(problem);
}

int show(const parsed& line) {
  const auto path = line.text("FILE");
  std::string text;
  if (path == "-") {
    text.assign(wire::license_file_bytes_max, '\0');
    std::cin.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<std::size_t>(std::cin.gcount()));
  } else {
    auto file = wire::read_license_file(path);
    if (file.result != wire::license_text::outcome::read)
      return refuse(path + " cannot be read: " + file.problem);
    text = std::move(file.text);
  }
  std::string pem;
  std::vector<wire::license_key> keys(wire::built_in_license_keys().begin(),
                                      wire::built_in_license_keys().end());
  if (line.given("key")) {
    if (const auto problem = read_key(line.text("key"), pem); !problem.empty())
      return refuse(problem);
    keys = {{pem, false}};
  }
  const auto verdict = wire::verify_license(wire::trimmed_license(text), keys, now_s());
  if (!verdict.ok())
    return refuse(verdict.problem);
  const auto& found = *verdict.granted;
  std::printf("plan          %s\norganization  %s\naccount       %llu\nsubject       %s\nissuer        %s\n"
              "id            %s\nissued        %s\nends          %s\nkey           %s\n",
              std::string(name(found.plan)).c_str(), found.organization.c_str(),
              static_cast<unsigned long long>(found.account), found.subject.c_str(), found.issuer.c_str(),
              found.id.c_str(), wire::utc_text(found.issued_at_s).c_str(),
              wire::utc_text(found.expires_at_s).c_str(),
              found.development ? "development: release builds refuse it" : "release");
  return std::fflush(stdout) == 0 ? 0 : refuse("standard output cannot be written");
}

int make_key(const parsed& line) {
  wire::license_key_pair pair;
  if (const auto problem = wire::make_license_keys(pair); !problem.empty())
    return refuse(problem);
  if (const auto problem = write_new(line.text("PRIVATE"), pair.private_pem, 0600); !problem.empty())
    return refuse(problem);
  const auto problem = write_new(line.text("PUBLIC"), pair.public_pem, 0644);
  return problem.empty() ? 0 : refuse(problem);
}

int dispatch(const std::vector<std::string>& words) {
  const auto [line, error] = parse(root, words);
  if (!error.empty())
    return refuse(error);
  if (line.wants_help || line.path.empty()) {
    std::fputs(help_text(root, line.path).c_str(), line.wants_help ? stdout : stderr);
    return line.wants_help ? 0 : 1;
  }
  const auto& name = line.path.front();
  return name == "issue" ? issue(line) : name == "show" ? show(line) : make_key(line);
}

} // namespace
} // namespace memkv::cli

int main(int count, char** words) {
  try {
    return memkv::cli::dispatch({words + 1, words + count});
  } catch (const std::exception& problem) {
    return memkv::cli::refuse(std::string("ended by an unexpected problem: ") + problem.what());
  }
}
