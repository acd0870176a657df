#include "actors/way_finder.hpp"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <system_error>
#include <utility>

namespace memkv::actors {

namespace {

/// The kernel gave up looking, or nearly so: whoever was found at that port before is gone.
constexpr std::uint64_t gone_ns = 500'000'000;

std::uint64_t steady_now_ns() noexcept {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                        std::chrono::steady_clock::now().time_since_epoch())
                                        .count());
}

std::pair<verbs::gid, std::uint16_t> name_of(const verbs::endpoint& port) {
  return {port.port_gid, port.lid};
}

template <class Map>
std::uint32_t count_in(const Map& map, const typename Map::key_type& key) {
  const auto found = map.find(key);
  return found == map.end() ? 0 : found->second;
}

template <class Map>
void count_down(Map& map, const typename Map::key_type& key) {
  const auto found = map.find(key);
  if (--found->second == 0)
    map.erase(found);
}

} // namespace

std::uint64_t way_finder::cost_of(const asker& by, std::uint64_t now_ns) const {
  const std::uint64_t under_way =
      std::uint64_t{count_in(of_connections_, by.connection)} + count_in(of_hosts_, by.host);
  return connections_.of(by.connection, now_ns) + hosts_.of(by.host, now_ns) + under_way * cost_ns_nobody;
}

// --- the owner ---

way_finder::way_finder(std::uint32_t threads_max, std::uint64_t wait_ns_max)
    : threads_max_(threads_max), wait_ns_max_(wait_ns_max),
      event_fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

way_finder::~way_finder() {
  end();
  if (event_fd_ >= 0)
    ::close(event_fd_);
}

bool way_finder::find(std::uint64_t number, const asker& by, verbs::attachment& to) {
  if (event_fd_ < 0)
    return false;
  bool another = false;
  {
    const std::lock_guard guard(lock_);
    if (ended_)
      return false;
    another = waiting_.size() >= idle_ && threads_.size() < threads_max_;
  }
  if (another) {
    try {
      threads_.emplace_back([this] { work(); });
    } catch (const std::system_error&) {
      if (threads_.empty())
        return false;
    }
  }
  {
    const std::lock_guard guard(lock_);
    const auto now_ns = steady_now_ns();
    wanted one{number, &to, by, name_of(by.port), now_ns};
    const auto known = found_.find(one.port);
    one.proved = known != found_.end() && now_ns - known->second <= found_ns_max;
    waiting_.push_back(one);
  }
  changed_.notify_one();
  return true;
}

bool way_finder::make_room(const asker& by) {
  const std::lock_guard guard(lock_);
  const auto now_ns = steady_now_ns();
  // Who waits with many is the next to cost much.
  std::map<std::uint64_t, std::uint64_t> waiting;
  ++waiting[by.connection];
  for (const auto& each : waiting_)
    ++waiting[each.by.connection];
  const auto would_cost = [&](const asker& one) {
    return cost_of(one, now_ns) + waiting[one.connection] * cost_ns_nobody;
  };
  auto dearest = waiting_.end();
  auto most = would_cost(by);
  for (auto at = waiting_.begin(); at != waiting_.end(); ++at)
    // Of equals the one that came last.
    if (const auto ns = at->proved ? 0 : would_cost(at->by);
        ns > most || (dearest != waiting_.end() && ns == most)) {
      dearest = at;
      most = ns;
    }
  if (dearest == waiting_.end())
    return false;
  tell(dearest->number, false);
  waiting_.erase(dearest);
  return true;
}

void way_finder::reached(const verbs::endpoint& port) {
  const auto name = name_of(port);
  {
    const std::lock_guard guard(lock_);
    if (found_.size() >= remembered_max && !found_.contains(name))
      found_.erase(std::ranges::min_element(found_, {}, [](const auto& each) { return each.second; }));
    found_[name] = steady_now_ns();
    for (auto& each : waiting_)
      each.proved = each.proved || each.port == name;
  }
  changed_.notify_all();
}

void way_finder::take_done(std::vector<outcome>& out) {
  const std::lock_guard guard(lock_);
  out.insert(out.end(), done_.begin(), done_.end());
  done_.clear();
}

void way_finder::acknowledge() noexcept {
  std::uint64_t count = 0;
  [[maybe_unused]] const auto taken = ::read(event_fd_, &count, sizeof count);
}

void way_finder::end() noexcept {
  {
    const std::lock_guard guard(lock_);
    ended_ = true;
    waiting_.clear();
  }
  changed_.notify_all();
  for (auto& each : std::exchange(threads_, {}))
    each.join();
}

// --- the threads ---

void way_finder::tell(std::uint64_t number, bool tried) {
  done_.push_back({number, tried});
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write(event_fd_, &one, sizeof one);
}

void way_finder::drop_late(std::uint64_t now_ns) {
  std::erase_if(waiting_, [&](const wanted& each) {
    const bool late = now_ns - each.since_ns > wait_ns_max_;
    if (late)
      tell(each.number, false);
    return late;
  });
}

bool way_finder::may_begin(const wanted& one) const {
  return one.proved || (unproved_ < threads_max_ - threads_max_ / 4 &&
                        count_in(of_connections_, one.by.connection) < together_max &&
                        count_in(to_ports_, one.port) < together_max);
}

std::deque<way_finder::wanted>::iterator way_finder::choose(std::uint64_t now_ns) {
  auto best = waiting_.end();
  std::uint64_t least = 0;
  for (auto at = waiting_.begin(); at != waiting_.end(); ++at) {
    if (!may_begin(*at))
      continue;
    if (at->proved)
      return at;
    if (const auto ns = cost_of(at->by, now_ns); best == waiting_.end() || ns < least) {
      best = at;
      least = ns;
    }
  }
  return best;
}

void way_finder::begin(const wanted& one) {
  if (one.proved)
    return;
  ++unproved_;
  ++of_connections_[one.by.connection];
  ++of_hosts_[one.by.host];
  ++to_ports_[one.port];
}

void way_finder::finish(const wanted& one, std::uint64_t took_ns, std::uint64_t now_ns) {
  connections_.add(one.by.connection, took_ns, now_ns);
  hosts_.add(one.by.host, took_ns, now_ns);
  if (took_ns >= gone_ns && found_.erase(one.port) > 0)
    for (auto& each : waiting_)
      each.proved = each.proved && each.port != one.port;
  if (one.proved)
    return;
  --unproved_;
  count_down(of_connections_, one.by.connection);
  count_down(of_hosts_, one.by.host);
  count_down(to_ports_, one.port);
}

void way_finder::work() {
  std::unique_lock guard(lock_);
  for (;;) {
    ++idle_;
    auto next = waiting_.end();
    changed_.wait(guard, [&] {
      const auto now_ns = steady_now_ns();
      drop_late(now_ns);
      next = choose(now_ns);
      return ended_ || next != waiting_.end();
    });
    --idle_;
    if (ended_)
      return;
    const auto one = *next;
    waiting_.erase(next);
    begin(one);
    guard.unlock();
    const auto begun_ns = steady_now_ns();
    one.to->reach();
    const auto now_ns = steady_now_ns();
    guard.lock();
    finish(one, now_ns - begun_ns, now_ns);
    tell(one.number, true);
    // What waited for its place may go on elsewhere as well.
    changed_.notify_all();
  }
}

} // namespace memkv::actors
