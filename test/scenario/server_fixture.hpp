// A real server in this process, and clients of it, for scenario tests.
#pragma once

#include "actors/run_server.hpp"
#include "client/client.hpp"
#include "test/support/raw_image.hpp"
#include "wire/license_file.hpp"

#include <caf/test/unit_test.hpp>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace memkv::client {
/// How a failing check prints an outcome.
inline std::string to_string(errc code) {
  return std::string{name(code)};
}
} // namespace memkv::client

namespace memkv::test {

/// Seed of a randomised test: MEMKV_TEST_SEED, or a fixed one; printed by the caller on failure.
inline std::uint64_t test_seed(std::uint64_t otherwise) {
  const char* text = std::getenv("MEMKV_TEST_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

inline constexpr std::string_view key_hex =
    "4f1c2b3a5968778695a4b3c2d1e0ff0e1d2c3b4a59687786f5e4d3c2b1a09f8e";

/// Deterministic bytes of a key's version; any two differ almost everywhere.
inline std::vector<std::byte> pattern(std::string_view key, std::uint64_t version, std::size_t size) {
  std::uint64_t state = 0x9E3779B97F4A7C15U ^ version;
  for (const char c : key)
    state = (state ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
  std::vector<std::byte> out(size);
  for (std::size_t at = 0; at < size; ++at) {
    if (at % 8 == 0) {
      state ^= state << 13;
      state ^= state >> 7;
      state ^= state << 17;
    }
    out[at] = static_cast<std::byte>(state >> (at % 8 * 8));
  }
  return out;
}

/// A directory that goes when the test does.
class scratch_directory {
public:
  scratch_directory() {
    std::string name = (std::filesystem::temp_directory_path() / "memkv-test-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~scratch_directory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  scratch_directory(const scratch_directory&) = delete;
  scratch_directory& operator=(const scratch_directory&) = delete;
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }

private:
  std::filesystem::path path_;
};

/// A watch on the licence that the tests run with, as `memkv start` has it.
inline std::shared_ptr<actors::license_watch> watched_license(std::shared_ptr<const engine::clock> time) {
  const auto found = wire::find_license_here({}, time->wall_ns() / 1'000'000'000);
  if (!found.verdict.ok())
    CAF_FAIL(found.verdict.problem);
  const auto keys = wire::built_in_license_keys();
  return std::make_shared<actors::license_watch>(
      found, wire::read_license_file, std::vector<wire::license_key>(keys.begin(), keys.end()),
      std::move(time));
}

enum class media { memory, file, raw };

/// How a failing check prints one.
inline std::string text_of(media kind) {
  return kind == media::memory ? "memory" : kind == media::file ? "file" : "raw";
}

struct server_fixture {
  scratch_directory directory;
  actors::server_options options;
  std::unique_ptr<actors::running_server> server;

  void configure(media kind, std::uint32_t drives, std::uint64_t drive_bytes) {
    options.host = "127.0.0.1";
    options.port = 0;
    options.key = std::make_shared<wire::shared_key>(*wire::shared_key::parse(key_hex));
    options.license = watched_license(options.time);
    options.reactors = 2;
    options.pool_bytes = 64 << 20;
    options.store.unit_bytes = 64 << 10;
    options.store.extent_bytes_max = 4 << 20;
    options.store.identity.drive_count = drives;
    options.drives.clear();
    for (std::uint32_t index = 0; index < drives; ++index) {
      engine::drive_description drive;
      drive.memory = kind == media::memory;
      drive.size_bytes = drive_bytes;
      if (kind == media::file)
        drive.path = (directory.path() / ("drive" + std::to_string(index))).string();
      drive.raw = kind == media::raw; // made at the start, as options say then
      options.drives.push_back(drive);
    }
  }

  void start() {
    for (std::uint32_t index = 0; index < options.drives.size(); ++index)
      if (auto& drive = options.drives[index]; drive.raw && drive.path.empty())
        drive = make_raw_image((directory.path() / ("raw" + std::to_string(images_made_++))).string(),
                               drive.size_bytes, options.store, index);
    std::string problem;
    server = actors::start_server(options, problem);
    if (server == nullptr)
      CAF_FAIL("the server does not start: " << problem);
  }

  /// Stops in good order; true if it was.
  bool stop() {
    server->stop();
    const bool orderly = server->wait();
    server.reset();
    return orderly;
  }

  [[nodiscard]] std::unique_ptr<client::client>
  connect(std::uint32_t connections = 2, std::string tenant = "", std::uint32_t deadline_ms = 10'000) const {
    client::options wanted;
    wanted.servers = {"127.0.0.1:" + std::to_string(server->port())};
    wanted.auth_key = wire::shared_key::parse(key_hex);
    wanted.namespace_name = std::move(tenant);
    wanted.num_connections = connections;
    wanted.deadline_ms = deadline_ms;
    wanted.transport = client::transport_choice::tcp;
    client::status problem;
    auto made = client::client::make(std::move(wanted), problem);
    if (made == nullptr)
      CAF_FAIL("no client: " << problem.text);
    return made;
  }

private:
  std::uint32_t images_made_ = 0;
};

} // namespace memkv::test
