// Holds a document to a schema of docs/admin-openapi.json: the part of JSON Schema that is used there.
// Strict: an object may have no member that its schema does not name.
#pragma once

#include <nlohmann/json.hpp>

#include <fstream>
#include <regex>
#include <string>

namespace memkv::test {

using nlohmann::json;

inline const json& openapi() {
  static const json document = json::parse(std::ifstream{OPENAPI_DOCUMENT});
  return document;
}

/// Empty when it fits; else where and why not.
inline std::string misfit(const json& value, const json& schema, const std::string& where = "$") {
  for (const auto& [word, unused] : schema.items()) {
    static const std::vector<std::string> known{
        "$ref",       "type",    "properties", "required", "items",   "enum",  "additionalProperties",
        "minimum",    "maximum", "minItems",   "maxItems", "pattern", "anyOf", "default",
        "description"};
    if (std::find(known.begin(), known.end(), word) == known.end())
      return where + ": the schema says " + word + ", which is not understood here";
  }
  if (schema.contains("$ref"))
    return misfit(value, openapi().at(json::json_pointer{schema["$ref"].get<std::string>().substr(1)}),
                  where);
  if (schema.contains("anyOf")) {
    std::string all;
    for (const auto& each : schema["anyOf"]) {
      const auto problem = misfit(value, each, where);
      if (problem.empty())
        return {};
      all += problem + "; ";
    }
    return all;
  }
  const auto type = schema.at("type").get<std::string>();
  const bool fits = (type == "object" && value.is_object()) || (type == "array" && value.is_array()) ||
                    (type == "string" && value.is_string()) || (type == "boolean" && value.is_boolean()) ||
                    (type == "integer" && value.is_number_integer()) ||
                    (type == "number" && value.is_number()) || (type == "null" && value.is_null());
  if (!fits)
    return where + " is no " + type + ": " + value.dump().substr(0, 60);
  if (schema.contains("enum") &&
      std::find(schema["enum"].begin(), schema["enum"].end(), value) == schema["enum"].end())
    return where + " is none of " + schema["enum"].dump() + ": " + value.dump();
  if (schema.contains("pattern") &&
      !std::regex_search(value.get<std::string>(), std::regex{schema["pattern"].get<std::string>()}))
    return where + " does not look like " + schema["pattern"].dump();
  if ((schema.contains("minimum") && value < schema["minimum"]) ||
      (schema.contains("maximum") && value > schema["maximum"]))
    return where + " is out of range: " + value.dump();
  if (type == "array") {
    if ((schema.contains("minItems") && value.size() < schema["minItems"]) ||
        (schema.contains("maxItems") && value.size() > schema["maxItems"]))
      return where + " has " + std::to_string(value.size()) + " items";
    for (std::size_t i = 0; i < value.size(); ++i)
      if (const auto problem = misfit(value[i], schema.at("items"), where + "[" + std::to_string(i) + "]");
          !problem.empty())
        return problem;
  }
  if (type == "object") {
    for (const auto& name : schema.value("required", json::array()))
      if (!value.contains(name))
        return where + " lacks " + name.get<std::string>();
    for (const auto& [name, member] : value.items()) {
      const bool named = schema.contains("properties") && schema["properties"].contains(name);
      if (!named && !schema.contains("additionalProperties"))
        return where + " has " + name + ", which the schema does not name";
      const auto& of_member = named ? schema["properties"][name] : schema["additionalProperties"];
      if (const auto problem = misfit(member, of_member, where + "." + name); !problem.empty())
        return problem;
    }
  }
  return {};
}

/// A member of a document, not of one that is gone when it is looked at.
inline json member(const std::string& text, const std::string& name) {
  return json::parse(text).at(name);
}

inline std::string misfit_of(const std::string& text, const std::string& schema) {
  const auto parsed = json::parse(text, nullptr, false);
  return parsed.is_discarded() ? "is no JSON" : misfit(parsed, openapi()["components"]["schemas"].at(schema));
}

} // namespace memkv::test
