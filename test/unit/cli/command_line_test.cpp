// How words become a parsed command line, and what every mistake is answered with.
#define CAF_SUITE command_line
#include "cli/command_line.hpp"

#include <caf/test/unit_test.hpp>

#include <array>

using namespace memkv::cli;

namespace {

using words = std::vector<std::string>;

// A table with every kind of flag and argument, so that the parser is tested beyond what memkv has today.
constexpr std::array<flag, 7> leaf_flags{
    {{.name = "drives", .kind = value_kind::path_list, .value_name = "PATH", .required = true, .help = "d"},
     {.name = "force", .letter = 'f', .help = "f"},
     {.name = "shard-size",
      .kind = value_kind::integer,
      .value_name = "KB",
      .default_text = "64",
      .default_is_value = true,
      .least = 4,
      .help = "s"},
     {.name = "size", .letter = 's', .kind = value_kind::size, .value_name = "SIZE", .help = "z"},
     {.name = "timing",
      .kind = value_kind::optional_integer,
      .value_name = "SEC",
      .bare_value = "3600",
      .help = "t"},
     {.name = "page",
      .kind = value_kind::optional_text,
      .value_name = "PAGE",
      .bare_value = "all",
      .help = "p"},
     {.name = "name", .letter = 'n', .kind = value_kind::text, .value_name = "NAME", .help = "n"}}};
constexpr std::array<argument, 2> leaf_arguments{
    {{.name = "FIRST", .help = "a"}, {.name = "REST", .required = false, .repeated = true, .help = "b"}}};
constexpr std::array<command, 1> inner{
    {{.name = "leaf", .summary = "l", .text = "L.", .flags = leaf_flags, .arguments = leaf_arguments}}};
constexpr std::array<flag, 1> root_flags{{{.name = "version", .letter = 'V', .help = "v"}}};
constexpr std::array<command, 1> outer{{{.name = "group", .summary = "g", .text = "G.", .commands = inner}}};
constexpr command table{
    .name = "memkv", .summary = "s", .text = "T.", .flags = root_flags, .commands = outer};

parsed accepted(const words& line, const command& root = table) {
  const auto result = parse(root, line);
  if (!result.ok())
    CAF_FAIL("refused: " << result.error);
  return result.line;
}

std::string refused(const words& line, const command& root = table) {
  const auto result = parse(root, line);
  return result.ok() ? "accepted" : result.error;
}

words leaf(words more) {
  words all{"group", "leaf", "--drives", "/d0", "--force", "one"};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

} // namespace

CAF_TEST(flags take their value from the next word or after an equals sign) {
  for (const auto& form : {words{"--name", "x y"}, words{"--name=x y"}, words{"-n", "x y"}, words{"-nx y"},
                           words{"-n=x y"}, words{"-fn", "x y"}}) {
    words line{"group", "leaf", "--drives=/d0", "one"};
    line.insert(line.end(), form.begin(), form.end());
    CAF_CHECK_EQUAL(accepted(line).text("name"), "x y");
  }
  CAF_CHECK_EQUAL(accepted(leaf({"--name=a=b"})).text("name"), "a=b");
}

CAF_TEST(defaults count as values but not as given) {
  const auto line = accepted(leaf({}));
  CAF_CHECK_EQUAL(line.number("shard-size").value_or(0), 64u);
  CAF_CHECK(!line.given("shard-size"));
  CAF_CHECK(!line.has("size"));
  CAF_CHECK(line.given("force"));
  CAF_CHECK(!line.has("timing"));
  CAF_CHECK_EQUAL(line.path.size(), 2u);
}

CAF_TEST(a list takes every word up to the next flag and may be repeated) {
  const auto line = accepted({"group", "leaf", "one", "--drives", "/a", "/b", "--force", "--drives", "/c"});
  CAF_CHECK(line.list("drives") == (words{"/a", "/b", "/c"}));
  CAF_CHECK(line.list("FIRST") == (words{"one"}));
}

CAF_TEST(an optional value is the next word only if that is a number) {
  CAF_CHECK_EQUAL(accepted(leaf({"--timing"})).number("timing").value_or(0), 3600u);
  CAF_CHECK_EQUAL(accepted(leaf({"--timing=5"})).number("timing").value_or(0), 5u);
  CAF_CHECK_EQUAL(accepted(leaf({"--timing", "7"})).number("timing").value_or(0), 7u);
  const auto line = accepted(leaf({"--timing", "word"}));
  CAF_CHECK_EQUAL(line.number("timing").value_or(0), 3600u);
  CAF_CHECK(line.list("REST") == (words{"word"}));
  CAF_CHECK_EQUAL(accepted(leaf({"--page"})).text("page"), "all");
  CAF_CHECK_EQUAL(accepted(leaf({"--page=one"})).text("page"), "one");
}

CAF_TEST(two dashes end the flags and one dash is an argument) {
  const auto line = accepted(leaf({"-", "--", "--force", "-x"}));
  CAF_CHECK(line.list("REST") == (words{"-", "--force", "-x"}));
}

CAF_TEST(help is found at every level and before any other check) {
  CAF_CHECK(accepted({"--help"}).wants_help);
  CAF_CHECK(accepted({"group", "-h"}).wants_help);
  const auto line = accepted({"group", "leaf", "--help", "--no-such-flag"});
  CAF_CHECK(line.wants_help);
  CAF_CHECK_EQUAL(line.path.size(), 2u);
}

CAF_TEST(every mistake is refused with its own sentence) {
  CAF_CHECK_EQUAL(refused({}), "memkv needs a command: see memkv --help");
  CAF_CHECK_EQUAL(refused({"group"}), "memkv group needs a command: see memkv group --help");
  CAF_CHECK_EQUAL(refused({"drive"}), "this build of memkv has no command \"drive\": see memkv --help");
  CAF_CHECK_EQUAL(refused({"group", "x"}),
                  "this build of memkv has no command \"group x\": see memkv group --help");
  CAF_CHECK_EQUAL(refused({"group", "leaf", "one"}), "memkv group leaf needs --drives PATH");
  CAF_CHECK_EQUAL(refused({"group", "leaf", "--drives", "/a"}),
                  "memkv group leaf needs FIRST: see memkv group leaf --help");
  CAF_CHECK_EQUAL(refused(leaf({"--nmae", "x"})),
                  "memkv group leaf has no flag --nmae: see memkv group leaf --help");
  CAF_CHECK_EQUAL(refused(leaf({"-z"})), "memkv group leaf has no flag -z: see memkv group leaf --help");
  CAF_CHECK_EQUAL(refused(leaf({"-fz"})), "-f is given twice: give it once");
  CAF_CHECK_EQUAL(refused(leaf({"--name"})), "--name needs a value: write --name NAME");
  CAF_CHECK_EQUAL(refused(leaf({"--name", "--force"})), "--name needs a value: write --name NAME");
  CAF_CHECK_EQUAL(refused(leaf({"--name="})), "--name needs a value that is not empty: write --name NAME");
  CAF_CHECK_EQUAL(refused(leaf({"--force=yes"})), "--force takes no value: write --force alone");
  CAF_CHECK_EQUAL(refused(leaf({"--force"})), "--force is given twice: give it once");
  CAF_CHECK_EQUAL(refused(leaf({"-n", "a", "--name", "b"})), "--name is given twice: give it once");
  CAF_CHECK_EQUAL(refused(leaf({"--shard-size", "64k"})), "--shard-size needs a whole number, not \"64k\"");
  for (const auto& words : {leaf({"--shard-size=-1"}), leaf({"--shard-size", "-1"})})
    CAF_CHECK_EQUAL(refused(words), "--shard-size must be a whole number of at least 4, not \"-1\"");
  for (const auto& words : {leaf({"--timing=-60"}), leaf({"--timing", "-60"})})
    CAF_CHECK_EQUAL(refused(words), "--timing must be a whole number of at least 0, not \"-60\"");
  for (const auto& words : {leaf({"--size", "-4 KiB"}), leaf({"-s", "-4 KiB"}), leaf({"-s-4 KiB"})})
    CAF_CHECK(refused(words).ends_with(" must be a number of bytes of at least 0, not \"-4 KiB\""));
  CAF_CHECK_EQUAL(refused(leaf({"--name", "-1"})), "--name needs a value: write --name NAME");
  CAF_CHECK_EQUAL(refused(leaf({"--shard-size=99999999999999999999"})),
                  "--shard-size needs a whole number, not \"99999999999999999999\"");
  CAF_CHECK_EQUAL(refused(leaf({"--timing=x"})), "--timing needs a whole number, not \"x\"");
  CAF_CHECK_EQUAL(refused(leaf({"--size", "4 KX"})),
                  "--size needs a size such as \"64 KiB\" or \"4 MiB\", not \"4 KX\"");
  CAF_CHECK_EQUAL(refused({"--version", "group", "leaf", ""}), "FIRST must not be empty");
  CAF_CHECK_EQUAL(refused({"--drives"}), "memkv has no flag --drives: see memkv --help");
}

CAF_TEST(another program with a table of its own is called by its name) {
  const command other{.name = "other", .summary = "s", .text = "T.", .commands = outer};
  CAF_CHECK_EQUAL(refused({}, other), "other needs a command: see other --help");
  CAF_CHECK_EQUAL(refused({"x"}, other), "this build of other has no command \"x\": see other --help");
  CAF_CHECK(help_text(other, std::vector<std::string>{"group"}).starts_with("other group: g\n"));
}

CAF_TEST(the version stands alone) {
  CAF_CHECK(accepted({"-V"}, memkv_commands()).has("version"));
  CAF_CHECK(accepted({"--version"}, memkv_commands()).has("version"));
}

CAF_TEST(start has the documented defaults) {
  const auto line = accepted({"start"}, memkv_commands());
  CAF_CHECK_EQUAL(line.text("config"), "/etc/memkv/config.yaml");
  CAF_CHECK_EQUAL(line.text("log-file"), "memkv.log");
  CAF_CHECK(!line.has("license"));
  CAF_CHECK(!line.has("log-level"));
  CAF_CHECK(!line.has("log-write-timing"));
  CAF_CHECK_EQUAL(
      accepted({"start", "--log-write-timing"}, memkv_commands()).number("log-write-timing").value_or(0),
      3600u);
}

CAF_TEST(commands of other builds are refused as unknown) {
  for (const auto* name : {"Doc", "Admin", "Start", ""})
    CAF_CHECK(refused({name}, memkv_commands()).starts_with("this build of memkv has no command"));
}

CAF_TEST(sizes are read exactly) {
  const std::vector<std::pair<std::string, std::uint64_t>> good{
      {"0", 0},
      {"4096", 4096},
      {"4096 B", 4096},
      {"64KiB", 65536},
      {"64 KiB", 65536},
      {"2 MiB", 2097152},
      {"247 GiB", 247ULL << 30},
      {"1 TiB", 1ULL << 40},
      {"10 MB", 10'000'000},
      {"1.5 GiB", 3ULL << 29},
      {"0.1 GiB", 107'374'182},
      {"9223372036854775807", 9223372036854775807ULL},
      {"8191 PiB", 8191ULL << 50},
  };
  for (const auto& [text, bytes] : good) {
    const auto value = parse_size(text);
    if (!value || *value != bytes)
      CAF_ERROR("size " << text);
  }
  for (const auto* text : {"",
                           " ",
                           "KiB",
                           "-1",
                           "-1 KiB",
                           "+1",
                           "1 kib",
                           "1 K",
                           "1 M",
                           "1  KiB",
                           "1 KiB ",
                           " 1 KiB",
                           "1 ",
                           "0x10",
                           "1e3",
                           "1.5",
                           "1.5 B",
                           "1..5 KiB",
                           ".5 KiB",
                           "1. KiB",
                           "1.1234567 KiB",
                           "9223372036854775808",
                           "8192 PiB",
                           "99999999999999999999 KiB",
                           "1KiBKiB",
                           "1,5 GiB"})
    if (parse_size(text))
      CAF_ERROR("size accepted: " << text);
  CAF_CHECK(true);
}

CAF_TEST(sizes are shown in the largest unit that divides them) {
  CAF_CHECK_EQUAL(format_size(0), "0 B");
  CAF_CHECK_EQUAL(format_size(1023), "1023 B");
  CAF_CHECK_EQUAL(format_size(65536), "64 KiB");
  CAF_CHECK_EQUAL(format_size(3ULL << 29), "1536 MiB");
  CAF_CHECK_EQUAL(format_size(1ULL << 40), "1 TiB");
}
