// What RDMA has in common for all connections of a client: devices, registered memory, the staging area, and
// whether it is in use at all. Internal to client/.
//
// Threading: any thread. Ownership: shared by the client and all handles of registered memory; whoever is
// last destroys the devices. Errors: values. Limits: registrations as the devices allow.
#pragma once

#include "client/options.hpp"
#include "client/rdma_device.hpp"
#include "client/registered_memory.hpp"
#include "client/staging_area.hpp"

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <span>
#include <string>
#include <vector>

namespace memkv::client {

/// One range of registered memory.
class registration {
public:
  std::uint64_t address = 0;
  std::uint64_t length = 0;
  std::vector<rdma_device::memory> on_device; // by the device's position; handle 0: that one does not know it
  std::function<bool(std::uint64_t, std::span<std::byte>)> copy_out; // device memory only
  std::shared_ptr<rdma_core> core;
  std::atomic<std::uint32_t> uses{0}; // operations

  [[nodiscard]] bool is_device_memory() const noexcept { return static_cast<bool>(copy_out); }
  void let_go() noexcept {
    if (uses.fetch_sub(1) == 1) {
      uses.notify_all();
    }
  }
};

class rdma_core : public std::enable_shared_from_this<rdma_core> {
public:
  /// With transport rdma: all of the devices, or a status that says why not. With auto: null when there is
  /// no device, which `notes` says; a device that cannot be used is the first failure.
  [[nodiscard]] static status make(const options& chosen, std::vector<std::string>& notes,
                                   std::shared_ptr<rdma_core>& out);
  ~rdma_core();

  /// No failure of RDMA ends it.
  [[nodiscard]] bool strict() const noexcept { return strict_; }
  [[nodiscard]] bool in_use() const noexcept { return !latched_.load(); }
  /// A failure. With auto the first one turns RDMA off for good, and is logged.
  void note_failure(const std::string& why);
  /// A request that could not be answered in time: a failure when it is the third one in a row.
  void note_deadline();
  void note_success() noexcept;

  [[nodiscard]] const std::vector<std::unique_ptr<rdma_device>>& devices() const noexcept { return devices_; }
  [[nodiscard]] bool has_open_device() const noexcept;
  [[nodiscard]] staging_area* staging() noexcept { return staging_ ? &*staging_ : nullptr; }
  [[nodiscard]] std::uint32_t staging_rkey(std::size_t device) const noexcept {
    return staging_on_device_[device].rkey();
  }

  [[nodiscard]] status register_memory(std::span<std::byte> range, registered_memory& out);
  [[nodiscard]] status register_device_memory(const device_memory& memory, registered_memory& out);
  /// False: a call uses it.
  [[nodiscard]] bool deregister(registration& one, bool wait);
  /// The registration that holds the whole range; with one use more, which the caller lets go.
  [[nodiscard]] std::shared_ptr<registration> find(const void* begin, std::size_t length);
  [[nodiscard]] bool has_registrations() const noexcept { return count_.load() != 0; }

  /// Looks at the devices' events.
  void watch();

  std::atomic<std::uint64_t> failures{0};
  std::atomic<std::uint64_t> sessions_opened{0};
  std::atomic<std::uint64_t> queue_pairs_opened{0}; // of messages
  std::atomic<std::uint64_t> messages_sent{0};
  std::atomic<std::uint64_t> registered_bytes{0}; // of values, to and from registered memory
  std::atomic<std::uint64_t> staged_bytes{0};     // of values, through the staging area

private:
  rdma_core() = default;
  [[nodiscard]] status open_devices(const options& chosen, std::vector<std::string>& notes, bool& none);
  [[nodiscard]] status add(std::shared_ptr<registration> made, registered_memory& out);
  void log(const std::string& line) const;

  bool strict_ = false;
  std::function<void(std::string_view)> log_;
  std::vector<std::unique_ptr<rdma_device>> devices_;
  std::optional<staging_area> staging_;
  std::vector<rdma_device::memory> staging_on_device_;
  std::atomic<bool> latched_{false};
  std::atomic<std::uint32_t> deadlines_in_a_row_{0};

  mutable std::shared_mutex mutex_;
  std::map<std::uint64_t, std::shared_ptr<registration>> registrations_; // by address; no two overlap
  std::atomic<std::size_t> count_{0};
};

} // namespace memkv::client
