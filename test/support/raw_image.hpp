// A raw drive for tests, without root and without a block device: an image in a regular file, through
// io_uring and with O_DIRECT where its file system has that.
#pragma once

#include "engine/drive_store.hpp"
#include "engine/open_drive.hpp"
#include "engine/uring_device.hpp"

#include <caf/test/unit_test.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

namespace memkv::test {

/// Set up for drive `index` of as many as `options` says, as memkv setup would.
inline engine::drive_description make_raw_image(const std::string& path, std::uint64_t bytes,
                                                engine::store_options options, std::uint32_t index) {
  const int file = ::open(path.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
  CAF_REQUIRE(file >= 0);
  CAF_REQUIRE(::ftruncate(file, static_cast<off_t>(bytes)) == 0);
  ::close(file);
  options.identity.drive_index = index;
  engine::status formatted;
  // The kernel interrupts a thread that had a ring when it takes that apart, and the test's may be in a call
  // by then that does not like it.
  std::thread([&] {
    std::unique_ptr<engine::block_device> device;
    engine::uring_device_options how;
    how.path = path;
    how.allow_file = true;
    formatted = engine::open_uring_device(how, device);
    if (formatted.ok())
      formatted = engine::drive_store::format(*device, options);
  }).join();
  CAF_REQUIRE(formatted.ok());
  engine::drive_description out;
  out.raw = out.image = true;
  out.path = path;
  return out;
}

/// Changes a byte of the image where `content` lies in it. False: it is not there.
inline bool damage_raw_image(const std::string& path, std::span<const std::byte> content) {
  const int file = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  CAF_REQUIRE(file >= 0);
  std::vector<std::byte> all(static_cast<std::size_t>(::lseek(file, 0, SEEK_END)));
  CAF_REQUIRE_EQUAL(::pread(file, all.data(), all.size(), 0), static_cast<ssize_t>(all.size()));
  const auto found = std::search(all.begin(), all.end(), content.begin(), content.end());
  if (found != all.end()) {
    *found ^= std::byte{1};
    CAF_REQUIRE_EQUAL(::pwrite(file, &*found, 1, found - all.begin()), 1);
    // O_DIRECT does not look at what the kernel has not written yet.
    CAF_REQUIRE_EQUAL(::fsync(file), 0);
  }
  ::close(file);
  return found != all.end();
}

} // namespace memkv::test
