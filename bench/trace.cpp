#include "bench/trace.hpp"

#include <nlohmann/json.hpp>
#include <zlib.h>

#include <memory>
#include <unordered_set>

namespace memkv::bench {
namespace {

struct close_gz {
  void operator()(gzFile_s* file) const noexcept { gzclose(file); }
};

[[nodiscard]] std::string read_number(const nlohmann::json& line, const char* key, std::uint64_t& target) {
  const auto found = line.find(key);
  if (found == line.end() || !found->is_number_unsigned()) {
    return std::string(key) + " must be a whole number from 0 on";
  }
  target = found->get<std::uint64_t>();
  return {};
}

} // namespace

std::string parse_trace_line(std::string_view text, trace_request& result) {
  const nlohmann::json line = nlohmann::json::parse(text, nullptr, false);
  if (line.is_discarded() || !line.is_object()) {
    return "a line must be a JSON object";
  }
  trace_request parsed;
  for (const auto& [key, target] :
       {std::pair{"timestamp", &parsed.timestamp_ms}, std::pair{"input_length", &parsed.input_tokens},
        std::pair{"output_length", &parsed.output_tokens}}) {
    if (std::string problem = read_number(line, key, *target); !problem.empty()) {
      return problem;
    }
  }
  const auto ids = line.find("hash_ids");
  if (ids == line.end() || !ids->is_array()) {
    return "hash_ids must be a list";
  }
  for (const nlohmann::json& id : *ids) {
    if (!id.is_number_unsigned()) {
      return "hash_ids must hold whole numbers from 0 on";
    }
    parsed.blocks.push_back(id.get<std::uint64_t>());
  }
  result = std::move(parsed);
  return {};
}

std::string read_trace(const std::string& path, double minutes, trace& result) {
  // zlib hands plain files through as they are.
  const std::unique_ptr<gzFile_s, close_gz> file(gzopen(path.c_str(), "rb"));
  if (!file) {
    return path + ": the trace cannot be opened: check its path and permissions";
  }
  trace parsed;
  std::unordered_set<std::uint64_t> seen;
  std::string line;
  std::vector<char> buffer(64U << 10U);
  std::uint64_t number = 0;
  const auto where = [&] { return path + ":" + std::to_string(number) + ": "; };
  while (gzgets(file.get(), buffer.data(), static_cast<int>(buffer.size())) != nullptr) {
    line += buffer.data();
    if (line.size() > trace_line_bytes_max) {
      ++number;
      return where() + "the line is longer than 4 MiB";
    }
    if (line.back() != '\n' && gzeof(file.get()) == 0) {
      continue;
    }
    ++number;
    if (line.find_first_not_of(" \t\r\n") == std::string::npos) {
      line.clear();
      continue;
    }
    trace_request request;
    if (const std::string problem = parse_trace_line(line, request); !problem.empty()) {
      return where() + problem;
    }
    line.clear();
    if (!parsed.requests.empty() && request.timestamp_ms < parsed.requests.back().timestamp_ms) {
      return where() + "the time goes backwards";
    }
    if (minutes > 0 && !parsed.requests.empty() &&
        static_cast<double>(request.timestamp_ms - parsed.requests.front().timestamp_ms) >=
            minutes * 60'000.0) {
      break;
    }
    parsed.references += request.blocks.size();
    seen.insert(request.blocks.begin(), request.blocks.end());
    parsed.requests.push_back(std::move(request));
  }
  int problem = Z_OK;
  const char* text = gzerror(file.get(), &problem);
  if (problem != Z_OK && problem != Z_STREAM_END) {
    return path + ": the trace cannot be read: " + (problem == Z_ERRNO ? "the file cannot be read" : text);
  }
  if (parsed.requests.empty()) {
    return path + ": the trace has no requests";
  }
  parsed.unique_blocks = seen.size();
  result = std::move(parsed);
  return {};
}

std::uint64_t ideal_hits(const trace& requests) {
  std::unordered_set<std::uint64_t> stored;
  std::uint64_t hits = 0;
  for (const trace_request& request : requests.requests) {
    bool leading = true;
    for (const std::uint64_t block : request.blocks) {
      leading = leading && stored.contains(block);
      if (leading) {
        ++hits;
      }
    }
    stored.insert(request.blocks.begin(), request.blocks.end());
  }
  return hits;
}

} // namespace memkv::bench
