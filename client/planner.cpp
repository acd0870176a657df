#include "client/planner.hpp"

#include <bit>

namespace memkv::client {
namespace {

[[nodiscard]] bool is_valid_key(std::string_view key) noexcept {
  return !key.empty() && key.size() <= wire::limits::key_bytes_max;
}

} // namespace

void planner::plan(operation& wanted) {
  const auto count = static_cast<std::uint32_t>(wanted.results.size());
  std::fill(wanted.results.begin(), wanted.results.end(), item_result{});
  const bool has_values = wanted.kind == operation_kind::put || wanted.kind == operation_kind::get;
  if (shared_.cache.enabled() && (has_values || wanted.kind == operation_kind::remove)) {
    wanted.cache = &shared_.cache;
  }
  const bool needs_ids = wanted.cache != nullptr || servers_.size() > 1;
  if (needs_ids) {
    wanted.ids.resize(count);
  }
  if (wanted.cache != nullptr && wanted.kind == operation_kind::get) {
    wanted.epochs.resize(count);
  }
  if (has_values && shared_.rdma != nullptr && shared_.rdma->has_registrations()) {
    find_memory(wanted);
  }
  std::vector<bool> follows;
  if (wanted.kind == operation_kind::get && count > 1) {
    find_followers(wanted, follows);
  }
  std::vector<std::vector<std::uint32_t>> by_server(servers_.size());
  for (std::uint32_t i = 0; i < count; ++i) {
    if (!follows.empty() && follows[i]) {
      if (wanted.cache != nullptr) {
        wanted.epochs[i] = ~std::uint64_t{0}; // its leader is the one to be kept
      }
      continue;
    }
    if (check_item(wanted, i, needs_ids)) {
      const std::size_t at = servers_.size() == 1 ? 0 : placed_.pick(wanted.ids[i]);
      by_server[at].push_back(i);
    }
  }
  for (std::size_t i = 0; i < by_server.size(); ++i) {
    if (!by_server[i].empty()) {
      plan_items(wanted, i, by_server[i]);
    }
  }
}

bool planner::check_item(operation& wanted, std::uint32_t i, bool needs_ids) {
  const std::string_view key = wanted.key_of(i);
  item_result& result = wanted.results[i];
  if (!is_valid_key(key)) {
    result.code = errc::invalid_argument;
    return false;
  }
  if (wanted.kind == operation_kind::put && wanted.puts[i].value.size() > wire::limits::value_bytes_max) {
    result.code = errc::too_large;
    return false;
  }
  if (needs_ids) {
    wanted.ids[i] = wire::make_key_id(shared_.ns.text(), wire::as_bytes_view(key));
  }
  if (wanted.cache == nullptr) {
    return true;
  }
  if (wanted.kind != operation_kind::get) {
    shared_.cache.forget(wanted.ids[i]);
    return true;
  }
  wanted.epochs[i] = shared_.cache.epoch(wanted.ids[i]);
  if (wanted.in_device_memory(i)) {
    return true;
  }
  const get_item& item = wanted.gets[i];
  const read_cache::found found =
      shared_.cache.copy(wanted.ids[i], key, item.range_offset, item.range_length, item.target);
  if (!found.hit) {
    return true;
  }
  result.value_length = found.value_length;
  result.length = found.length;
  result.code = !found.in_range ? errc::out_of_range : !found.fits ? errc::buffer_too_small : errc::ok;
  wanted.epochs[i] = ~std::uint64_t{0};
  return false;
}

void planner::find_memory(operation& wanted) {
  const auto count = static_cast<std::uint32_t>(wanted.results.size());
  wanted.memory_of.assign(count, operation::not_registered);
  const auto holds = [](const registration& one, const std::byte* data, std::size_t bytes) {
    const auto address = static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(data));
    return address >= one.address && bytes <= one.length && address - one.address <= one.length - bytes;
  };
  std::uint32_t last = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::byte* const data = wanted.data_of(i);
    const std::size_t bytes = wanted.bytes_of(i);
    if (bytes == 0) {
      continue;
    }
    // Most calls use one range, or a few.
    for (std::uint32_t tried = 0; tried < wanted.used.size(); ++tried) {
      const std::uint32_t at = (last + tried) % static_cast<std::uint32_t>(wanted.used.size());
      if (holds(*wanted.used[at], data, bytes)) {
        wanted.memory_of[i] = last = at;
        break;
      }
    }
    if (wanted.memory_of[i] != operation::not_registered) {
      continue;
    }
    wanted.used.reserve(wanted.used.size() + 1);
    if (std::shared_ptr<registration> found = shared_.rdma->find(data, bytes)) {
      last = static_cast<std::uint32_t>(wanted.used.size());
      wanted.memory_of[i] = last;
      wanted.used.push_back(std::move(found));
    }
  }
}

void planner::find_followers(operation& wanted, std::vector<bool>& follows) {
  // A table of positions, twice as large as it must be; the last bits of a hash say where to look first.
  const auto count = static_cast<std::uint32_t>(wanted.gets.size());
  constexpr std::uint32_t nobody = ~std::uint32_t{0};
  std::vector<std::uint32_t> table(std::bit_ceil(std::size_t{count} * 2), nobody);
  const auto same = [&](const get_item& a, const get_item& b) {
    return a.range_offset == b.range_offset && a.range_length == b.range_length && a.key == b.key;
  };
  for (std::uint32_t i = 0; i < count; ++i) {
    const get_item& item = wanted.gets[i];
    // A copy is made by the processor; and an empty target is one byte wide on the wire.
    if (item.target.empty() || wanted.in_device_memory(i)) {
      continue;
    }
    std::size_t at = std::hash<std::string_view>()(item.key) + item.range_offset * 0x9E3779B97F4A7C15;
    for (at &= table.size() - 1; table[at] != nobody; at = (at + 1) & (table.size() - 1)) {
      if (same(wanted.gets[table[at]], item)) {
        break;
      }
    }
    if (table[at] == nobody) {
      table[at] = i;
      continue;
    }
    if (follows.empty()) {
      follows.resize(count);
    }
    std::uint32_t follower = i;
    if (item.target.size() > wanted.gets[table[at]].target.size()) {
      // The larger target leads, so that what it cannot take nobody can.
      follower = std::exchange(table[at], i);
      for (operation::follower& other : wanted.followers) {
        other.leader = other.leader == follower ? i : other.leader;
      }
    }
    wanted.followers.push_back({follower, table[at]});
    follows[follower] = true;
  }
}

void planner::plan_items(operation& wanted, std::size_t server_index,
                         const std::vector<std::uint32_t>& items) {
  const server& at = *servers_[server_index];
  const bool has_values = wanted.kind == operation_kind::put || wanted.kind == operation_kind::get;
  const auto over_tcp = [&](const std::vector<std::uint32_t>& some) {
    plan_for_tcp(wanted, at, servers_.size() == 1, some,
                 [&](request_kind kind, std::vector<std::uint32_t> group) {
                   add_request(wanted, server_index, kind, std::move(group));
                 });
  };
  if (!has_values || shared_.rdma == nullptr) {
    over_tcp(items);
    return;
  }
  if (!shared_.rdma->in_use()) {
    if (wanted.used.empty()) {
      over_tcp(items);
      return;
    }
    std::vector<std::uint32_t> others;
    for (const std::uint32_t item : items) {
      if (wanted.in_device_memory(item)) {
        wanted.results[item].code = errc::unsupported;
      } else {
        others.push_back(item);
      }
    }
    over_tcp(others);
    return;
  }
  const bool is_put = wanted.kind == operation_kind::put;
  const request_kind kind = is_put ? request_kind::batch_write : request_kind::batch_read;
  const std::size_t items_max = at.batch_items_max.load();
  const std::uint64_t area_bytes =
      shared_.rdma->staging() != nullptr ? shared_.rdma->staging()->data().size() : 0;
  item_grouper registered(
      items_max, rdma_batch_bytes_max, rdma_item_fixed_bytes,
      [&](std::vector<std::uint32_t> group) { add_request(wanted, server_index, kind, std::move(group)); });
  item_grouper staged(items_max, std::min(staged_batch_bytes_max, area_bytes), rdma_item_fixed_bytes,
                      [&](std::vector<std::uint32_t> group) {
                        add_request(wanted, server_index, kind, std::move(group), true);
                      });
  std::vector<std::uint32_t> others;
  for (const std::uint32_t item : items) {
    const std::uint64_t bytes = wanted.room_of(item);
    const std::size_t key_bytes = wanted.key_of(item).size();
    if (wanted.memory_at(item) != nullptr || (bytes == 0 && shared_.rdma->strict())) {
      registered.add(item, key_bytes, bytes);
    } else if (!shared_.rdma->strict()) {
      others.push_back(item);
    } else if (staged_bytes_of(bytes) > area_bytes) {
      wanted.results[item].code = errc::memory_not_registered;
    } else {
      staged.add(item, key_bytes, staged_bytes_of(bytes));
    }
  }
  registered.flush();
  staged.flush();
  over_tcp(others);
}

void planner::add_request(operation& wanted, std::size_t server_index, request_kind kind,
                          std::vector<std::uint32_t> items, bool staged) {
  request& added = wanted.requests.emplace_back();
  added.owner = &wanted;
  added.kind = kind;
  added.items = std::move(items);
  added.deadline_ns = wanted.deadline_ns;
  added.server_index = static_cast<std::uint32_t>(server_index);
  added.staged = staged;
}

} // namespace memkv::client
