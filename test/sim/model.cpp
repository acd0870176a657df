#include "test/sim/model.hpp"

#include "wire/assert.hpp"

#include <algorithm>

namespace memkv::sim {

namespace {

std::string text(const std::optional<model::content>& what) {
  return what ? std::to_string(*what) : std::string("a miss");
}

} // namespace

std::vector<model::write>& model::writes_of(const key& name) {
  auto [found, is_new] = writes_.try_emplace(name);
  // Before everything else there was nothing.
  if (is_new)
    found->second.push_back({std::nullopt, 0, 0, true, 0});
  return found->second;
}

model::ticket model::begin_write(const key& name, std::optional<content> what) {
  const ticket operation = ++last_;
  writes_of(name).push_back({what, now_++, open_end, false, operation});
  writing_.emplace(operation, name);
  return operation;
}

model::ticket model::begin_put(const key& name, content what) {
  return begin_write(name, what);
}

model::ticket model::begin_delete(const key& name) {
  return begin_write(name, std::nullopt);
}

void model::end(ticket operation, outcome how) {
  const auto found = writing_.find(operation);
  MEMKV_ASSERT(found != writing_.end(), "a write ends once");
  const key name = found->second;
  writing_.erase(found);
  std::vector<write>& all = writes_.at(name);
  const auto one =
      std::find_if(all.begin(), all.end(), [&](const write& w) { return w.operation == operation; });
  MEMKV_ASSERT(one != all.end(), "a write under way is not forgotten");
  one->operation = 0;
  const std::uint64_t now = now_++;
  if (how == outcome::refused) {
    all.erase(one);
  } else if (how == outcome::done) {
    one->end = now;
    one->certain = true;
  }
  forget(name);
}

model::ticket model::begin_get(const key& name) {
  const ticket operation = ++last_;
  static_cast<void>(writes_of(name));
  getting_.emplace(operation, get{name, now_++});
  return operation;
}

/// Whether a get between `begin` and `end` may see this write.
bool model::visible(const std::vector<write>& writes, const write& one, std::uint64_t begin,
                    std::uint64_t end) {
  if (one.begin > end)
    return false;
  return std::none_of(writes.begin(), writes.end(), [&](const write& later) {
    return &later != &one && later.certain && later.begin > one.end && later.end < begin;
  });
}

std::string model::end_get(ticket operation, std::optional<content> seen) {
  const auto found = getting_.find(operation);
  MEMKV_ASSERT(found != getting_.end(), "a get ends once");
  const get what = found->second;
  getting_.erase(found);
  const std::uint64_t now = now_++;
  std::vector<write>& all = writes_of(what.name);
  bool legal = std::any_of(all.begin(), all.end(), [&](const write& one) {
    return one.what == seen && visible(all, one, what.begin, now);
  });
  if (!legal && !seen && misses_ < announced_) {
    ++misses_;
    legal = true;
  }
  if (!legal) {
    std::string sentence = "key " + what.name + ": got " + text(seen) + ", allowed are";
    for (const write& one : all)
      if (visible(all, one, what.begin, now))
        sentence += " " + text(one.what) + ",";
    sentence.back() = '.';
    return sentence;
  }
  all.push_back({seen, what.begin, now, true, 0});
  forget(what.name);
  return {};
}

void model::abandon_get(ticket operation) {
  getting_.erase(operation);
}

void model::settle() {
  const std::uint64_t now = now_++;
  for (auto& [name, all] : writes_)
    for (write& one : all)
      if (one.operation == 0 && one.end == open_end)
        one.end = now;
}

void model::evicted(const key& name) {
  std::vector<write>& all = writes_of(name);
  // It may have happened at any moment since the last write that could have been its victim began.
  std::uint64_t begin = 0;
  for (const write& one : all)
    if (one.what)
      begin = std::max(begin, one.begin);
  const std::uint64_t now = now_++;
  all.push_back({std::nullopt, begin, now, false, 0});
}

void model::lost(const std::function<bool(const key&)>& where) {
  const std::uint64_t now = now_++;
  for (auto& [name, all] : writes_)
    if (where(name))
      all.push_back({std::nullopt, now, now, false, 0});
}

void model::crash(bool lossy) {
  const std::uint64_t now = now_++;
  for (auto& [name, all] : writes_) {
    for (write& one : all)
      if (one.end == open_end) {
        one.end = now;
        one.operation = 0;
      }
    if (lossy)
      all.push_back({std::nullopt, now, now, false, 0});
  }
  writing_.clear();
  getting_.clear();
}

std::vector<std::optional<model::content>> model::allowed(const key& name) const {
  std::vector<std::optional<content>> result;
  const auto found = writes_.find(name);
  if (found == writes_.end())
    return {std::nullopt};
  for (const write& one : found->second)
    if (visible(found->second, one, now_, now_) &&
        std::find(result.begin(), result.end(), one.what) == result.end())
      result.push_back(one.what);
  return result;
}

std::vector<model::key> model::keys() const {
  std::vector<key> result;
  result.reserve(writes_.size());
  for (const auto& [name, all] : writes_)
    result.push_back(name);
  return result;
}

/// Drops what no get that is under way or still comes can see, as long as what hides it stays.
void model::forget(const key& name) {
  std::uint64_t oldest = now_;
  for (const auto& [operation, one] : getting_)
    if (one.name == name)
      oldest = std::min(oldest, one.begin);
  std::vector<write>& all = writes_.at(name);
  std::vector<write> kept;
  for (const write& one : all)
    if (one.operation != 0 || visible(all, one, oldest, open_end))
      kept.push_back(one);
  all = std::move(kept);
}

} // namespace memkv::sim
