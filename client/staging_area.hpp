// Registered memory through which values travel that lie outside registered memory. Internal to client/.
//
// Operation. The area is cut into slots of 2 MiB; a request takes a run of neighbouring ones, for all its
// values together, and gives it back when it is complete. Requests that find no room wait in the order in
// which they came, so that a long one is not overtaken for ever.
//
// Threading: any thread. Ownership: the memory. Limits: its size; at most one waiting place for a request.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <span>
#include <vector>

namespace memkv::client {

class connection;
struct request;

constexpr std::size_t staging_slot_bytes = 2U << 20U;

struct staging_run {
  std::uint32_t first = 0;
  std::uint32_t slots = 0; // 0: none
};

class staging_area {
public:
  /// `data` is empty when there was no memory.
  explicit staging_area(std::size_t bytes) noexcept;
  ~staging_area();
  staging_area(const staging_area&) = delete;
  staging_area& operator=(const staging_area&) = delete;

  [[nodiscard]] std::span<std::byte> data() const noexcept { return {data_, bytes_}; }
  [[nodiscard]] std::byte* at(staging_run run) const noexcept {
    return data_ + std::size_t{run.first} * staging_slot_bytes;
  }
  /// False: no room now; `waiting` is told by connection::poke() when there may be.
  [[nodiscard]] bool acquire(const request& wanted, connection& waiting, std::size_t bytes, staging_run& out);
  void release(staging_run run);
  /// The request does not wait any more.
  void forget(const request& wanted);
  [[nodiscard]] std::uint32_t slots_free() const;

private:
  struct waiting_request {
    const request* wanted;
    connection* at;
  };
  void tell_first() const;

  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
  mutable std::mutex mutex_;
  std::vector<bool> taken_;
  std::deque<waiting_request> waiting_;
};

} // namespace memkv::client
