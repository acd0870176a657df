#include "actors/rdma_rails.hpp"

#include <caf/send.hpp>

#include <algorithm>
#include <utility>

namespace memkv::actors {

bool rdma_rails::any_pool() const noexcept {
  return std::ranges::any_of(rails_, [](const rail& each) { return each.pool != nullptr; });
}

std::uint32_t rdma_rails::rail_of(const caf::actor& pool) const noexcept {
  const auto found =
      std::ranges::find_if(rails_, [&](const rail& each) { return pool != nullptr && each.pool == pool; });
  return static_cast<std::uint32_t>(found - rails_.begin());
}

bool rdma_rails::reaches(std::uint32_t rail, std::span<const std::byte> range) const noexcept {
  return std::ranges::any_of(rails_[rail].reachable, [&](const std::span<std::byte>& each) {
    const auto* end = each.data() + each.size();
    return range.data() >= each.data() && range.data() <= end &&
           range.size() <= static_cast<std::size_t>(end - range.data());
  });
}

bool rdma_rails::change(const dci_pool_changed& change, std::vector<std::uint64_t>& lost) {
  if (rails_.size() < change.rails)
    rails_.resize(change.rails);
  auto& which = rails_.at(change.rail);
  const bool another = which.pool != change.pool;
  which.pool = change.pool;
  which.reachable = change.reachable;
  if (!another)
    return false;
  // They are for sessions that ended with the one before.
  which.waiting.clear();
  which.messages.clear();
  which.transfers = 0;
  ++which.pool_number;
  for (const auto& [id, each] : sessions_)
    if (each.rail == change.rail && !each.ended)
      lost.push_back(id);
  return true;
}

void rdma_rails::add(std::uint64_t id, std::uint64_t connection, std::uint32_t rail,
                     std::uint32_t transfer_bytes_max) {
  sessions_[id] = {.connection = connection, .rail = rail, .transfer_bytes_max = transfer_bytes_max};
}

rdma_rails::session* rdma_rails::find(std::uint64_t id, std::uint64_t connection) noexcept {
  const auto found = sessions_.find(id);
  if (found == sessions_.end())
    return nullptr;
  auto& which = found->second;
  return which.connection == connection && !which.ending && !which.ended ? &which : nullptr;
}

std::uint64_t rdma_rails::connection_of(std::uint64_t id) const noexcept {
  const auto found = sessions_.find(id);
  return found == sessions_.end() || found->second.ended ? 0 : found->second.connection;
}

bool rdma_rails::end(std::uint64_t id) {
  const auto found = sessions_.find(id);
  if (found == sessions_.end() || found->second.ended)
    return false;
  if (found->second.requests == 0)
    sessions_.erase(found);
  else
    found->second.ended = true;
  return true;
}

std::vector<std::uint64_t> rdma_rails::of_connection(std::uint64_t connection) const {
  std::vector<std::uint64_t> out;
  for (const auto& [id, each] : sessions_)
    if (each.connection == connection)
      out.push_back(id);
  return out;
}

std::uint32_t rdma_rails::requests_on(std::uint64_t id) const noexcept {
  const auto found = sessions_.find(id);
  return found == sessions_.end() ? 0 : found->second.requests;
}

bool rdma_rails::leave(std::uint64_t id) noexcept {
  const auto found = sessions_.find(id);
  if (found == sessions_.end())
    return false;
  auto& which = found->second;
  if (--which.requests > 0 || !which.ended)
    return false;
  sessions_.erase(found);
  return true;
}

std::size_t rdma_rails::sessions() const noexcept {
  return static_cast<std::size_t>(
      std::ranges::count_if(sessions_, [](const auto& each) { return !each.second.ended; }));
}

void rdma_rails::share_between(std::uint32_t reactors) noexcept {
  transfers_max_ = transfers_pool_max / std::max(reactors, 1U);
  small_items_free_ = small_items_all_max / std::max(reactors, 1U);
}

void rdma_rails::move(session& of, memory_transfer_ptr one) {
  auto& which = rails_[of.rail];
  one->rail = of.rail;
  one->pool_number = which.pool_number;
  ++which.transfers;
  ++of.transfers;
  which.waiting.push_back(std::move(one));
}

void rdma_rails::moved(const memory_transfer& one) noexcept {
  // The answer of a pool that is gone may come behind the word that there is another.
  if (one.rail < rails_.size() && rails_[one.rail].pool_number == one.pool_number)
    --rails_[one.rail].transfers;
  if (const auto found = sessions_.find(one.session); found != sessions_.end())
    --found->second.transfers;
}

void rdma_rails::take_turns(std::vector<std::uint64_t>& out) {
  // An eighth is to be free, so that those who wait are not asked for each transfer.
  std::erase_if(turns_, [&](const turn& each) {
    const auto found = sessions_.find(each.session);
    const bool comes = found == sessions_.end() || found->second.ended ||
                       (found->second.transfers <= transfers_session_max / 8 * 7 &&
                        rails_[found->second.rail].transfers <= transfers_max_ - transfers_max_ / 8);
    if (comes)
      out.push_back(each.request);
    return comes;
  });
}

void rdma_rails::flush() {
  for (auto& each : rails_) {
    if (each.pool == nullptr)
      continue;
    if (!each.waiting.empty())
      caf::anon_send(each.pool, move_bytes{std::exchange(each.waiting, {})});
    if (!each.messages.empty())
      caf::anon_send(each.pool, send_messages{std::exchange(each.messages, {})});
  }
}

void rdma_rails::clear() {
  rails_.clear();
  sessions_.clear();
  turns_.clear();
}

} // namespace memkv::actors
