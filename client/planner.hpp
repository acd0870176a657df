// How the items of one call become requests. Internal to client/.
//
// Operation. Items are checked, looked up in the cache, given to their servers, and put into as few requests
// as possible. Over TCP small items share batch frames and large ones are requests of their own. Over RDMA
// all share: values in registered memory travel from there, and with transport rdma all others through the
// staging area. Several gets of one call that want the same range of the same key become one; the others are
// given a copy.
//
// Threading: the calling thread's. Ownership: refers to what the client has. Errors: in the results.
#pragma once

#include "client/client.hpp"
#include "client/operation.hpp"
#include "client/shared.hpp"
#include "wire/placement.hpp"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace memkv::client {

// Room for keys in one batch frame; the limit is 1 MiB with the fixed part.
constexpr std::size_t batch_key_bytes_max = 1'000'000;
// Fixed bytes of the largest item in a batch request over TCP, and over RDMA.
constexpr std::size_t batch_item_fixed_bytes = 32;
constexpr std::size_t rdma_item_fixed_bytes = 40;
// Values of one request over RDMA, about: it has to be done within its deadline.
constexpr std::uint64_t rdma_batch_bytes_max = 64U << 20U;
// Of one request through the staging area, so that several can be on their way.
constexpr std::uint64_t staged_batch_bytes_max = 8U << 20U;
// Values begin at multiples of it in the staging area.
constexpr std::uint64_t staging_alignment = 64;

/// Room that a value takes in the staging area.
[[nodiscard]] constexpr std::uint64_t staged_bytes_of(std::uint64_t length) noexcept {
  return (length + staging_alignment - 1) / staging_alignment * staging_alignment;
}

/// Collects items into groups that stay within limits. A group that would break one is given away first.
template <class Give>
class item_grouper {
public:
  item_grouper(std::size_t items_max, std::uint64_t bytes_max, std::size_t item_fixed_bytes, Give give)
      : items_max_(items_max), bytes_max_(bytes_max), item_fixed_bytes_(item_fixed_bytes),
        give_(std::move(give)) {}

  void add(std::uint32_t item, std::size_t key_bytes, std::uint64_t value_bytes) {
    key_bytes += item_fixed_bytes_;
    if (!group_.empty() && (group_.size() >= items_max_ || key_bytes_ + key_bytes > batch_key_bytes_max ||
                            value_bytes_ + value_bytes > bytes_max_)) {
      flush();
    }
    group_.push_back(item);
    key_bytes_ += key_bytes;
    value_bytes_ += value_bytes;
  }
  void flush() {
    if (!group_.empty()) {
      give_(std::exchange(group_, {}));
      key_bytes_ = 0;
      value_bytes_ = 0;
    }
  }

private:
  std::size_t items_max_;
  std::uint64_t bytes_max_;
  std::size_t item_fixed_bytes_;
  Give give_;
  std::vector<std::uint32_t> group_;
  std::size_t key_bytes_ = 0;
  std::uint64_t value_bytes_ = 0;
};

/// Calls give(request_kind, items) for each request that the items of one server become over TCP.
template <class Give>
void plan_for_tcp(const operation& wanted, const server& at, bool one_server,
                  const std::vector<std::uint32_t>& items, Give give) {
  request_kind single = request_kind::get;
  request_kind batch = request_kind::batch_get;
  switch (wanted.kind) {
  case operation_kind::put:
    single = request_kind::put;
    batch = request_kind::batch_put;
    break;
  case operation_kind::get:
    break;
  case operation_kind::exists:
    single = request_kind::exists;
    batch = request_kind::batch_exists;
    break;
  case operation_kind::remove:
    single = request_kind::remove;
    batch = request_kind::batch_remove;
    break;
  case operation_kind::lookup:
    single = request_kind::lookup;
    batch = request_kind::lookup;
    break;
  case operation_kind::prefix:
    single = batch = one_server ? request_kind::prefix : request_kind::batch_exists;
    break;
  case operation_kind::stat:
    return;
  }
  const bool has_values = wanted.kind == operation_kind::put || wanted.kind == operation_kind::get;
  const std::size_t items_max = wanted.kind == operation_kind::lookup ? 1 : at.batch_items_max.load();
  const std::uint64_t payload_max =
      std::min<std::uint64_t>(batch_frame_bytes_max, at.batch_payload_bytes_max.load());
  item_grouper groups(items_max, payload_max, batch_item_fixed_bytes, [&](std::vector<std::uint32_t> group) {
    const bool alone = group.size() == 1 && wanted.kind != operation_kind::prefix;
    give(alone ? single : batch, std::move(group));
  });
  for (const std::uint32_t item : items) {
    const std::uint64_t payload = has_values ? wanted.bytes_of(item) : 0;
    if (payload > small_item_bytes_max) {
      give(single, std::vector<std::uint32_t>{item});
    } else {
      groups.add(item, wanted.key_of(item).size(), payload);
    }
  }
  groups.flush();
}

class planner {
public:
  planner(shared_state& shared, const wire::placement& placed,
          const std::vector<std::unique_ptr<server>>& servers) noexcept
      : shared_(shared), placed_(placed), servers_(servers) {}

  /// Gives the operation its requests, and results to the items that need none.
  void plan(operation& wanted);

private:
  void find_memory(operation& wanted);
  void find_followers(operation& wanted, std::vector<bool>& follows);
  /// False: the item has its result.
  [[nodiscard]] bool check_item(operation& wanted, std::uint32_t item, bool needs_ids);
  void plan_items(operation& wanted, std::size_t server_index, const std::vector<std::uint32_t>& items);
  void add_request(operation& wanted, std::size_t server_index, request_kind kind,
                   std::vector<std::uint32_t> items, bool staged = false);

  shared_state& shared_;
  const wire::placement& placed_;
  const std::vector<std::unique_ptr<server>>& servers_;
};

} // namespace memkv::client
