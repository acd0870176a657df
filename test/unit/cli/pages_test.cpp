// The documented flags and keys are the ones the program has.
#define CAF_SUITE pages
#include "cli/command_line.hpp"
#include "cli/config.hpp"
#include "cli/config_page.hpp"

#include <caf/test/unit_test.hpp>

#include <fstream>
#include <sstream>

using namespace memkv::cli;

namespace {

std::string file(const std::string& name) {
  std::ifstream stream(std::string(DOCS_DIRECTORY) + "/" + name, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

void check_same(const std::string& documented, const std::string& made, const std::string& command) {
  std::istringstream left(documented);
  std::istringstream right(made);
  std::size_t number = 0;
  for (std::string a, b; ++number;) {
    const bool has_a = static_cast<bool>(std::getline(left, a));
    const bool has_b = static_cast<bool>(std::getline(right, b));
    if (!has_a && !has_b)
      break;
    if (has_a != has_b || a != b) {
      CAF_ERROR("line " << number << " is not what \"" << command
                        << "\" prints: run that and commit it\n  page: " << a << "\n  program: " << b);
      return;
    }
  }
  CAF_CHECK_EQUAL(documented.size(), made.size());
}

// Every command with its path.
void each_command(const command& here, std::vector<std::string> path,
                  const std::function<void(const command&, const std::vector<std::string>&)>& visit) {
  visit(here, path);
  for (const auto& next : here.commands) {
    auto deeper = path;
    deeper.emplace_back(next.name);
    each_command(next, deeper, visit);
  }
}

} // namespace

CAF_TEST(the page of the command line is the one the program prints) {
  check_same(file("cli.md"), help_markdown(memkv_commands()), "memkv --help-markdown > docs/cli.md");
}

CAF_TEST(the page of the configuration is the one the program prints) {
  check_same(file("configuration.md"), configuration_markdown(),
             "memkv --help-markdown=configuration > docs/configuration.md");
}

CAF_TEST(the example configurations are accepted and have nothing that is not in effect) {
  const config_environment environment{"0f1e2d3c4b5a69788796a5b4c3d2e1f00123456789abcdef0fedcba987654321"};
  for (const auto* name : {"memory.yaml", "file.yaml", "rdma.yaml"}) {
    const auto loaded = load_config(std::string(EXAMPLES_DIRECTORY) + "/" + name, environment);
    if (!loaded.ok())
      CAF_ERROR(describe(name, loaded.problem));
    CAF_CHECK(loaded.not_in_effect.empty());
    CAF_CHECK(loaded.warnings.empty());
  }
}

CAF_TEST(the example in the page of the configuration is accepted) {
  const auto page = configuration_markdown();
  const auto begin = page.find("```yaml\n") + 8;
  const auto example = page.substr(begin, page.find("```", begin) - begin);
  const auto result =
      parse_config(example, {"0f1e2d3c4b5a69788796a5b4c3d2e1f00123456789abcdef0fedcba987654321"});
  if (!result.ok())
    CAF_ERROR(describe("example", result.problem));
  CAF_CHECK(result.ok());
}

CAF_TEST(help at every level names each flag and argument and command and fits the terminal) {
  std::size_t commands = 0;
  each_command(memkv_commands(), {}, [&](const command& c, const std::vector<std::string>& path) {
    ++commands;
    const auto text = help_text(memkv_commands(), path);
    for (const auto& f : c.flags)
      CAF_CHECK(text.find("--" + std::string(f.name)) != std::string::npos);
    for (const auto& a : c.arguments)
      CAF_CHECK(text.find("\n  " + std::string(a.name)) != std::string::npos);
    for (const auto& next : c.commands)
      CAF_CHECK(text.find("\n  " + std::string(next.name)) != std::string::npos);
    CAF_CHECK(text.find("--help") != std::string::npos);
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);)
      if (line.size() > 100)
        CAF_ERROR("a line of help is too long: " << line);
  });
  CAF_CHECK_EQUAL(commands, 24u);
  const std::vector<std::string> nowhere{"nowhere"};
  CAF_CHECK_EQUAL(help_text(memkv_commands(), nowhere), "");
}

CAF_TEST(every flag that takes a number says so of a negative one) {
  std::size_t numbers = 0;
  each_command(memkv_commands(), {}, [&](const command& c, const std::vector<std::string>& path) {
    for (const auto& f : c.flags) {
      if (f.kind != value_kind::integer && f.kind != value_kind::optional_integer &&
          f.kind != value_kind::size)
        continue;
      ++numbers;
      auto words = path;
      words.insert(words.end(), {"--" + std::string(f.name), "-1"});
      const auto said = parse(memkv_commands(), words).error;
      CAF_CHECK(said.find(" of at least " + std::to_string(f.least) + ", not \"-1\"") != std::string::npos);
    }
  });
  CAF_CHECK(numbers >= 10);
}

CAF_TEST(the table is sound) {
  each_command(memkv_commands(), {}, [&](const command& c, const std::vector<std::string>&) {
    for (const auto& f : c.flags) {
      CAF_CHECK(f.help.ends_with('.'));
      CAF_CHECK(f.kind == value_kind::none || !f.value_name.empty());
      CAF_CHECK(f.letter != 'h' && (f.letter < '0' || f.letter > '9'));
      const bool is_optional = f.kind == value_kind::optional_integer || f.kind == value_kind::optional_text;
      CAF_CHECK_EQUAL(is_optional, !f.bare_value.empty());
      for (const auto& other : c.flags)
        if (&other != &f && (other.name == f.name || (f.letter != '\0' && other.letter == f.letter)))
          CAF_ERROR("two flags share a name: " << f.name);
    }
    for (const auto& a : c.arguments) {
      CAF_CHECK(!a.repeated || &a == &c.arguments.back());
      CAF_CHECK(a.required || &a == &c.arguments.back());
    }
    CAF_CHECK(c.arguments.empty() || c.commands.empty());
  });
}
