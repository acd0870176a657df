#include "cli/config_tree.hpp"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <exception>
#include <sstream>

namespace memkv::cli {

namespace {

// Leaves the parser at the first refusal. It never leaves this file.
struct refusal : std::exception {
  explicit refusal(config_problem found) : problem(std::move(found)) {}
  config_problem problem;
};

// The convenient interface of yaml-cpp resolves aliases and forgets which of two equal keys came first, so
// the tree is built from its events.
class tree_builder : public YAML::EventHandler {
public:
  explicit tree_builder(config_node& root) : root_(root) {}

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (documents_++ > 0)
      fail(mark, "the file holds more than one document: keep one and remove the line ---");
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override { add(mark, {}, "", "null"); }
  void OnAnchor(const YAML::Mark& mark, const std::string&) override {
    fail(mark, "anchors (&) are not supported: write the value out");
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    fail(mark, "aliases (*) are not supported: write the value out");
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                const std::string& value) override {
    config_node node;
    node.what = config_node::kind::scalar;
    node.quoted = tag == "!";
    node.text = value;
    add(mark, std::move(node), tag, value);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, config_node::kind::list);
  }
  void OnSequenceEnd() override { levels_.pop_back(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, config_node::kind::map);
  }
  void OnMapEnd() override { levels_.pop_back(); }

private:
  struct level {
    config_node* node = nullptr;
    std::string path;
    bool expects_key = true; // maps
  };

  [[nodiscard]] std::string path() const {
    std::string text;
    if (levels_.empty())
      return text;
    const level& last = levels_.back();
    text = last.path;
    if (last.node->what == config_node::kind::list)
      return text + "[" + std::to_string(last.node->items.size()) + "]";
    if (!last.expects_key)
      text += (text.empty() ? "" : ".") + last.node->members.back().key;
    return text;
  }

  [[noreturn]] void fail(const YAML::Mark& mark, const std::string& what) const {
    config_problem problem;
    problem.line = static_cast<std::size_t>(std::max(mark.line, 0)) + 1;
    problem.key = path();
    problem.sentence = (problem.key.empty() ? "" : problem.key + ": ") + what;
    throw refusal(std::move(problem));
  }

  void check_tag(const YAML::Mark& mark, const std::string& tag) const {
    if (!tag.empty() && tag != "?" && tag != "!" && tag != "null")
      fail(mark, "tags (!) are not supported: write the value alone");
  }

  config_node* add(const YAML::Mark& mark, config_node node, const std::string& tag,
                   const std::string& value) {
    check_tag(mark, tag);
    node.line = static_cast<std::size_t>(std::max(mark.line, 0)) + 1;
    if (levels_.empty()) {
      root_ = std::move(node);
      return &root_;
    }
    level& last = levels_.back();
    if (last.node->what == config_node::kind::list) {
      last.node->items.push_back(std::move(node));
      return &last.node->items.back();
    }
    if (last.expects_key) {
      if (node.what != config_node::kind::scalar || value.empty())
        fail(mark, "a key must be a plain word");
      if (value == "<<")
        fail(mark, "merge keys (<<) are not supported: write the values out");
      for (const auto& other : last.node->members)
        if (other.key == value) {
          const auto first_line = other.line; // the next line moves the members
          last.node->members.push_back({value, node.line, {}});
          last.expects_key = false;
          fail(mark, "the key stands here for the second time, the first is in line " +
                         std::to_string(first_line) + ": keep one of them");
        }
      last.node->members.push_back({value, node.line, {}});
      last.expects_key = false;
      return nullptr;
    }
    // An empty value has no place of its own in the text; its key has.
    if (node.what == config_node::kind::nothing)
      node.line = last.node->members.back().line;
    last.node->members.back().value = std::move(node);
    last.expects_key = true;
    return &last.node->members.back().value;
  }

  void open(const YAML::Mark& mark, const std::string& tag, config_node::kind what) {
    if (levels_.size() == depth_max)
      fail(mark, "the file is nested deeper than any key of it: see docs/configuration.md");
    const std::string here = path();
    config_node node;
    node.what = what;
    config_node* added = add(mark, std::move(node), tag, "");
    // Members and items are only added to the innermost level, so the outer pointers stay good.
    levels_.push_back({added, here, true});
  }

  config_node& root_;
  std::vector<level> levels_;
  std::size_t documents_ = 0;
};

config_problem whole_file(std::size_t line, std::string sentence) {
  return {line, "", std::move(sentence)};
}

} // namespace

config_problem parse_config_tree(std::string_view text, config_node& root) {
  root = {};
  if (text.size() > file_bytes_max)
    return whole_file(0, std::string(too_long_sentence));
  const auto bad = std::find_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\r' && c != '\t') || c == '\x7f';
  });
  if (bad != text.end())
    return whole_file(static_cast<std::size_t>(std::count(text.begin(), bad, '\n')) + 1,
                      "the file holds a control character: it must be a text file");
  // The scanner of yaml-cpp takes a time that grows with the square of open brackets.
  const auto is_bracket = [](char c) { return c == '[' || c == '{'; };
  if (static_cast<std::size_t>(std::count_if(text.begin(), text.end(), is_bracket)) > brackets_max)
    return whole_file(0, "the file has more than " + std::to_string(brackets_max) +
                             " opening brackets: no configuration needs that many");
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    tree_builder builder(root);
    while (parser.HandleNextDocument(builder))
      continue;
  } catch (const refusal& found) {
    return found.problem;
  } catch (const YAML::Exception& found) {
    // Only the library's fixed texts: the file may hold a secret.
    return whole_file(static_cast<std::size_t>(std::max(found.mark.line, 0)) + 1,
                      "the file is not YAML (" + found.msg + "): correct this line");
  } catch (const std::exception& found) {
    return whole_file(0, std::string("the file cannot be read as YAML (") + found.what() + ")");
  }
  return {};
}

} // namespace memkv::cli
