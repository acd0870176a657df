#include "actors/registry_writer.hpp"

#include "actors/log.hpp"
#include "engine/uring_device.hpp"

#include <chrono>
#include <memory>
#include <thread>
#include <utility>

namespace memkv::actors {

namespace {

/// The server's own claim on the drive goes when the last request on it has ended.
constexpr int attempts_max = 40;
constexpr auto between_attempts = std::chrono::milliseconds{250};

void write_registry(const std::string& path, const engine::drive_failures& failures) {
  engine::uring_device_options options;
  options.path = path;
  options.allow_file = true;
  std::unique_ptr<engine::block_device> device;
  auto result = engine::open_uring_device(options, device);
  for (int attempt = 1; attempt < attempts_max && result.code == engine::errc::in_use; ++attempt) {
    std::this_thread::sleep_for(between_attempts);
    result = engine::open_uring_device(options, device);
  }
  if (result.ok())
    result = engine::drive_store::blacklist(*device, failures);
  if (!result.ok())
    log::warn("memkv::server", "it could not be written on the drive that it is blacklisted: " + result.text,
              {{"drive", path}});
}

} // namespace

void write_registry_aside(std::string path, engine::drive_failures failures) {
  std::thread([path = std::move(path), failures] { write_registry(path, failures); }).detach();
}

} // namespace memkv::actors
