#include "client/client.hpp"

#include "client/connection.hpp"
#include "client/operation.hpp"
#include "client/planner.hpp"
#include "client/shared.hpp"
#include "wire/license_file.hpp"
#include "wire/placement.hpp"

#include <poll.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <limits>
#include <new>
#include <thread>
#include <utility>

namespace memkv::client {
namespace {

constexpr std::int64_t ns_per_ms = 1'000'000;
constexpr std::int64_t never_ns = std::numeric_limits<std::int64_t>::max();
// Threads that use drive() leave their connections without a driver for a moment between two calls. While
// such threads were there lately, the background thread looks again after this time instead of taking over at
// once.
constexpr std::int64_t background_watch_ns = 1 * ns_per_ms;
constexpr std::int64_t drive_absence_ns = 5 * ns_per_ms;
constexpr std::int64_t keep_alive_check_ns = 10'000 * ns_per_ms;
// A thread uses one connection until it has so much open there; then its next requests go elsewhere.
constexpr std::uint32_t requests_before_next_connection = 16;
// So often messages are read, when they keep coming, before the sockets have their turn.
constexpr std::uint32_t messages_before_sockets = 16;
[[nodiscard]] std::uint32_t ordinal_of_this_thread() noexcept {
  static std::atomic<std::uint32_t> next{0};
  thread_local const std::uint32_t ordinal = next++;
  return ordinal;
}

} // namespace

struct client::implementation {
  explicit implementation(options wanted, std::vector<std::string> names)
      : shared(std::move(wanted)), placed(std::move(names)) {}

  shared_state shared;
  wire::placement placed;
  std::vector<std::unique_ptr<server>> servers; // in the order of placed.servers()
  std::vector<std::string> notes;

  std::atomic<std::uint64_t> async_open{0};
  std::atomic<std::uint64_t> async_completed{0};

  std::shared_ptr<waiter> background_waiter = std::make_shared<waiter>();
  std::atomic<bool> background_watches{false}; // it looks every background_watch_ns without being told
  std::atomic<std::int64_t> last_drive_ns{-drive_absence_ns};
  std::atomic<bool> stopping{false};
  std::thread background;

  [[nodiscard]] std::size_t server_of(const wire::key_id& id) const noexcept {
    return servers.size() == 1 ? 0 : placed.pick(id);
  }

  // Planning.
  [[nodiscard]] status prepare(operation& wanted, std::size_t items, call_options call) const;
  void plan(operation& wanted) { planner{shared, placed, servers}.plan(wanted); }
  void add_request(operation& wanted, std::size_t server_index, request_kind kind,
                   std::vector<std::uint32_t> items);
  [[nodiscard]] connection& choose(server& target, bool asynchronous);

  // Running.
  //
  // From the moment the first request is queued the operation must live until the last one is complete.
  // Running out of memory in between cannot be undone, so it ends the program: these functions do not throw.
  void start(operation& wanted, std::vector<connection*>& used) noexcept;
  void run_blocking(operation& wanted) noexcept;
  void run_asynchronous(std::unique_ptr<operation> wanted) noexcept;
  template <class Done>
  void drive_until(const std::vector<connection*>& candidates, Done done, std::int64_t until_ns) noexcept;
  /// As waiter::sleep, but looks for messages first. `unpolled` counts how often it ended with one, and
  /// without a look at the sockets.
  void wait(const std::vector<connection*>& driven, std::span<pollfd> sockets_and_spare,
            std::int64_t until_ns, std::uint32_t& unpolled) noexcept;
  void background_main() noexcept;
  [[nodiscard]] bool driven_lately(std::int64_t now_ns) const noexcept {
    return now_ns - last_drive_ns.load() < drive_absence_ns;
  }
  void wake_background() noexcept;

  // The calls' common halves.
  [[nodiscard]] status submit(std::unique_ptr<operation> wanted, std::size_t items, call_options call);
  [[nodiscard]] status submit_keys(operation_kind kind, std::span<const std::string_view> keys,
                                   std::span<item_result> results, completion done, call_options call);
  errc call(operation& wanted, std::size_t items, call_options call);
  errc call_keys(operation_kind kind, std::span<const std::string_view> keys, std::span<item_result> results,
                 call_options call);
};

void client::implementation::wake_background() noexcept {
  if (!background_watches.load() || !driven_lately(steady_ns())) {
    background_waiter->notify();
  }
}

status client::implementation::submit(std::unique_ptr<operation> wanted, std::size_t items,
                                      call_options call) {
  if (status prepared = prepare(*wanted, items, call); !prepared.ok()) {
    return prepared;
  }
  plan(*wanted);
  run_asynchronous(std::move(wanted));
  return {};
}

status client::implementation::submit_keys(operation_kind kind, std::span<const std::string_view> keys,
                                           std::span<item_result> results, completion done,
                                           call_options call) {
  auto wanted = std::make_unique<operation>();
  wanted->kind = kind;
  wanted->keys = keys;
  wanted->results = results;
  wanted->done = std::move(done);
  return submit(std::move(wanted), keys.size(), call);
}

errc client::implementation::call(operation& wanted, std::size_t items, call_options call) {
  if (const status prepared = prepare(wanted, items, call); !prepared.ok()) {
    return prepared.code;
  }
  plan(wanted);
  run_blocking(wanted);
  return wanted.first_error();
}

errc client::implementation::call_keys(operation_kind kind, std::span<const std::string_view> keys,
                                       std::span<item_result> results, call_options call) {
  operation wanted;
  wanted.kind = kind;
  wanted.keys = keys;
  wanted.results = results;
  return this->call(wanted, keys.size(), call);
}

status client::implementation::prepare(operation& wanted, std::size_t items, call_options call) const {
  if (wanted.kind != operation_kind::prefix && wanted.results.size() != items) {
    return {errc::invalid_argument, "results must be as long as the items"};
  }
  if (wanted.kind == operation_kind::prefix && !wanted.lengths.empty() && wanted.lengths.size() != items) {
    return {errc::invalid_argument, "lengths must be empty or as long as the keys"};
  }
  if (items > std::numeric_limits<std::uint32_t>::max()) {
    return {errc::invalid_argument, "a call takes at most 2^32 - 1 items"};
  }
  const std::uint32_t deadline_ms = call.deadline_ms != 0 ? call.deadline_ms : shared.chosen.deadline_ms;
  if (deadline_ms > deadline_ms_max) {
    return {errc::invalid_argument, "deadline_ms is at most 600000"};
  }
  wanted.deadline_ns = steady_ns() + std::int64_t{deadline_ms} * ns_per_ms;
  return {};
}

void client::implementation::add_request(operation& wanted, std::size_t server_index, request_kind kind,
                                         std::vector<std::uint32_t> items) {
  request& added = wanted.requests.emplace_back();
  added.owner = &wanted;
  added.kind = kind;
  added.items = std::move(items);
  added.deadline_ns = wanted.deadline_ns;
  added.server_index = static_cast<std::uint32_t>(server_index);
}

connection& client::implementation::choose(server& target, bool asynchronous) {
  auto& connections = target.connections;
  const std::size_t home = ordinal_of_this_thread() % connections.size();
  // A thread that will wait looks for a connection that it can have for itself, others for one with little to
  // do.
  const std::uint32_t busy_from = asynchronous ? requests_before_next_connection : 1;
  for (std::size_t i = 0; i < connections.size(); ++i) {
    connection& candidate = *connections[(home + i) % connections.size()];
    if (candidate.outstanding() < busy_from && (asynchronous || !candidate.driven())) {
      return candidate;
    }
  }
  return *connections[home];
}

void client::implementation::start(operation& wanted, std::vector<connection*>& used) noexcept {
  const waiter* const here = wanted.waiting.get();
  std::vector<connection*> chosen(servers.size(), nullptr);
  std::vector<std::uint32_t> given(wanted.asynchronous ? servers.size() : 0, 0);
  // Until this function ends the operation cannot finish, whatever happens to its requests.
  wanted.pending = static_cast<std::uint32_t>(wanted.requests.size()) + 1;
  for (request& one : wanted.requests) {
    const std::uint32_t index = one.server_index;
    if (chosen[index] == nullptr ||
        (wanted.asynchronous && ++given[index] % requests_before_next_connection == 0)) {
      chosen[index] = &choose(*servers[index], wanted.asynchronous);
      if (std::find(used.begin(), used.end(), chosen[index]) == used.end()) {
        used.push_back(chosen[index]);
      }
    }
    if (!chosen[index]->enqueue(one, here)) {
      wanted.fail(one, errc::queue_full);
      wanted.complete_one(here);
    }
  }
}

template <class Done>
void client::implementation::drive_until(const std::vector<connection*>& candidates, Done done,
                                         std::int64_t until_ns) noexcept {
  const std::shared_ptr<waiter>& self = waiter::of_this_thread();
  constexpr std::size_t each = connection::descriptors;
  std::vector<pollfd> sockets(candidates.size() * each + 1);
  const auto of = [&](std::size_t i) { return connection::polled(sockets.data() + i * each, each); };
  std::uint32_t unpolled = 0;
  std::vector<connection*> driven;
  driven.reserve(candidates.size());
  std::fill(sockets.begin(), sockets.end(), pollfd{-1, 0, 0});
  while (!done()) {
    driven.clear();
    std::int64_t wake_ns = until_ns;
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      connection& candidate = *candidates[i];
      if (!candidate.try_drive(self)) {
        continue;
      }
      candidate.pump(of(i));
      driven.push_back(&candidate);
    }
    if (done()) {
      break;
    }
    std::fill(sockets.begin(), sockets.end(), pollfd{-1, 0, 0});
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      if (std::find(driven.begin(), driven.end(), candidates[i]) != driven.end()) {
        candidates[i]->wanted(of(i));
        wake_ns = std::min(wake_ns, candidates[i]->wake_ns());
      }
    }
    wait(driven, sockets, wake_ns, unpolled);
    if (until_ns != never_ns && steady_ns() >= until_ns) {
      break;
    }
  }
  for (connection* const candidate : candidates) {
    if (candidate->leave(self.get())) {
      wake_background();
    }
  }
}

void client::implementation::wait(const std::vector<connection*>& driven, std::span<pollfd> sockets_and_spare,
                                  std::int64_t until_ns, std::uint32_t& unpolled) noexcept {
  waiter& self = *waiter::of_this_thread();
  std::int64_t answer_ns = std::numeric_limits<std::int64_t>::max();
  for (const connection* const one : driven) {
    if (one->awaits_message()) {
      answer_ns = std::min(answer_ns, one->message_answer_ns());
    }
  }
  const auto any = [&](auto looks) {
    return std::any_of(driven.begin(), driven.end(),
                       [&](connection* const one) { return one->awaits_message() && looks(*one); });
  };
  bool came = false;
  // It pays where answers come soon. Sockets wait so long, and those who want this thread do not.
  if (shared.spin_ns_max > 0 && answer_ns <= shared.spin_ns_max) {
    const std::int64_t end_ns = std::min(until_ns, steady_ns() + shared.spin_ns_max);
    while (!came && !self.is_notified() && steady_ns() < end_ns) {
      came = any([](connection& one) { return one.message_came(); });
    }
  }
  came = came || any([](connection& one) { return !one.arm_messages(); });
  if (came) {
    if (++unpolled % messages_before_sockets != 0) {
      return;
    }
    until_ns = 0;
  }
  self.sleep(sockets_and_spare, until_ns);
}

void client::implementation::run_blocking(operation& wanted) noexcept {
  wanted.waiting = waiter::of_this_thread();
  std::vector<connection*> used;
  start(wanted, used);
  --wanted.pending;
  // Every request has a deadline that its connection's driver keeps, so this ends.
  drive_until(
      used, [&] { return wanted.pending.load(std::memory_order_acquire) == 0; }, never_ns);
  wanted.conclude();
}

void client::implementation::run_asynchronous(std::unique_ptr<operation> wanted) noexcept {
  wanted->asynchronous = true;
  wanted->async_open = &async_open;
  wanted->async_completed = &async_completed;
  ++async_open;
  std::vector<connection*> used;
  const std::shared_ptr<waiter>& self = waiter::of_this_thread();
  start(*wanted, used);
  // From here on the operation owns itself.
  wanted.release()->complete_one(self.get());
  // What fits into the socket goes out now; the answers are somebody else's.
  bool nobody_drives = false;
  for (connection* const one : used) {
    if (!one->driven() && one->drive_if_free(self)) {
      one->pump({});
      nobody_drives = one->leave(self.get()) || nobody_drives;
    }
  }
  if (nobody_drives) {
    wake_background();
  }
}

void client::implementation::background_main() noexcept {
  const std::shared_ptr<waiter> self = background_waiter;
  std::vector<connection*> all;
  for (const auto& one : servers) {
    for (const auto& candidate : one->connections) {
      all.push_back(candidate.get());
    }
  }
  std::vector<bool> ours(all.size(), false);
  std::vector<std::int64_t> alone_since_ns(all.size(), 0);
  const std::size_t devices = shared.rdma != nullptr ? shared.rdma->devices().size() : 0;
  // Behind the connections come the RDMA devices, and the spare.
  constexpr std::size_t each = connection::descriptors;
  std::vector<pollfd> sockets(all.size() * each + devices + 1, pollfd{-1, 0, 0});
  const auto of = [&](std::size_t i) { return connection::polled(sockets.data() + i * each, each); };
  std::int64_t next_keep_alive_ns = steady_ns() + keep_alive_check_ns;
  while (!stopping.load()) {
    const std::int64_t now_ns = steady_ns();
    const bool others_drive = driven_lately(now_ns);
    std::int64_t wake_ns = next_keep_alive_ns;
    bool watching = others_drive && async_open.load() != 0;
    const auto device_sockets = std::span(sockets).subspan(all.size() * each, devices);
    if (std::any_of(device_sockets.begin(), device_sockets.end(),
                    [](const pollfd& one) { return one.revents != 0; }) ||
        (devices != 0 && now_ns >= next_keep_alive_ns)) {
      shared.rdma->watch();
    }
    for (std::size_t i = 0; i < devices; ++i) {
      device_sockets[i] = {shared.rdma->devices()[i]->event_descriptor(), POLLIN, 0};
    }
    if (now_ns >= next_keep_alive_ns) {
      next_keep_alive_ns = now_ns + keep_alive_check_ns;
      wake_ns = next_keep_alive_ns;
      for (connection* const one : all) {
        if (!one->driven() && one->drive_if_free(self)) {
          one->keep_alive();
          static_cast<void>(one->leave(self.get()));
        }
      }
    }
    for (std::size_t i = 0; i < all.size(); ++i) {
      connection& one = *all[i];
      if (ours[i]) {
        one.pump(of(i));
      } else if (one.outstanding() != 0 && !one.driven()) {
        watching = true;
        if (alone_since_ns[i] == 0) {
          alone_since_ns[i] = now_ns;
        }
        if ((!others_drive || now_ns - alone_since_ns[i] >= background_watch_ns) && one.drive_if_free(self)) {
          ours[i] = true;
          one.pump({});
        }
      }
      std::ranges::fill(of(i), pollfd{-1, 0, 0});
      if (!ours[i]) {
        if (one.outstanding() == 0 || one.driven()) {
          alone_since_ns[i] = 0;
        }
        continue;
      }
      alone_since_ns[i] = 0;
      if (one.outstanding() == 0 || one.wanted_by_others()) {
        ours[i] = false;
        static_cast<void>(one.leave(self.get()));
        continue;
      }
      watching = true;
      one.wanted(of(i));
      wake_ns = std::min(wake_ns, one.wake_ns());
      if (one.awaits_message() && !one.arm_messages()) {
        wake_ns = 0;
      }
    }
    background_watches = watching;
    if (watching) {
      wake_ns = std::min(wake_ns, steady_ns() + background_watch_ns);
    } else {
      // Between the look above and this moment somebody may have left without a notice, because we were still
      // watching.
      for (const connection* const one : all) {
        if (one->outstanding() != 0 && !one->driven()) {
          wake_ns = 0;
        }
      }
    }
    self->sleep(sockets, wake_ns);
  }
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (ours[i]) {
      static_cast<void>(all[i]->leave(self.get()));
    }
  }
}

// ---- the public face ----

client::client(std::unique_ptr<implementation> impl) noexcept : impl_(std::move(impl)) {}

namespace {

/// The servers are normalised: two names of one server count as two, since nobody can tell.
status check_license(const options& chosen) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto now_s =
      static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::seconds>(now).count());
  const std::string& source = chosen.license_source;
  const wire::found_license found =
      wire::find_license_here({source.empty() ? "license" : source, chosen.license}, now_s);
  if (!found.verdict.ok()) {
    return {errc::bad_config, found.verdict.problem};
  }
  if (found.verdict.granted->plan == wire::license_plan::free && chosen.servers.size() > 1) {
    return {errc::bad_config, found.source + ": a license of the plan Free is for one server, and " +
                                  std::to_string(chosen.servers.size()) +
                                  " are configured: name one, or get an Enterprise license"};
  }
  return {};
}

} // namespace

std::unique_ptr<client> client::make(options wanted, status& problem) {
  problem = validate(wanted);
  if (!problem.ok()) {
    return nullptr;
  }
  try {
    problem = check_license(wanted);
    if (!problem.ok()) {
      return nullptr;
    }
    std::vector<std::string> names = wanted.servers;
    auto impl = std::make_unique<implementation>(std::move(wanted), std::move(names));
    const options& chosen = impl->shared.chosen;
    for (const std::string& text : chosen.bind_addresses) {
      socket_address address;
      if (!parse_local_address(text, address)) {
        problem = {errc::bad_config,
                   "bind_addresses: '" + text + "' is not a numeric IPv4 or IPv6 address of this host"};
        return nullptr;
      }
      impl->shared.bind_to.push_back(address);
    }
    const bool rdma_settings = !chosen.rdma_devices.empty() || chosen.gid_index || chosen.traffic_class ||
                               chosen.service_level || chosen.mtu;
    if (chosen.transport == transport_choice::tcp && rdma_settings) {
      impl->notes.emplace_back("rdma_devices, gid_index, traffic_class, service_level and mtu are not in "
                               "effect: transport is tcp");
    }
    problem = rdma_core::make(chosen, impl->notes, impl->shared.rdma);
    if (!problem.ok()) {
      return nullptr;
    }
    for (const std::string& name : impl->placed.servers()) {
      auto added = std::make_unique<server>(name);
      for (std::uint32_t i = 0; i < chosen.num_connections; ++i) {
        added->connections.push_back(std::make_unique<connection>(impl->shared, *added, i));
      }
      impl->servers.push_back(std::move(added));
    }
    static std::atomic<bool> notes_logged{false};
    if (!impl->notes.empty() && !notes_logged.exchange(true)) {
      for (const std::string& note : impl->notes) {
        impl->shared.log(note);
      }
    }
    implementation* const running = impl.get();
    impl->background = std::thread([running] { running->background_main(); });
    return std::unique_ptr<client>(new client(std::move(impl)));
  } catch (const std::exception& error) {
    problem = {errc::no_memory, std::string("the client cannot be made: ") + error.what()};
    return nullptr;
  }
}

client::~client() {
  impl_->stopping = true;
  impl_->background_waiter->notify();
  impl_->background.join();
  const std::shared_ptr<waiter>& self = waiter::of_this_thread();
  for (const auto& one : impl_->servers) {
    for (const auto& open : one->connections) {
      if (open->drive_if_free(self)) {
        open->shut(errc::closed);
        static_cast<void>(open->leave(self.get()));
      }
    }
  }
}

namespace {

[[nodiscard]] status no_memory() {
  return status_of(errc::no_memory);
}

} // namespace

status client::submit_put(std::span<const put_item> items, std::span<item_result> results, completion done,
                          call_options call) try {
  auto wanted = std::make_unique<operation>();
  wanted->kind = operation_kind::put;
  wanted->puts = items;
  wanted->results = results;
  wanted->done = std::move(done);
  return impl_->submit(std::move(wanted), items.size(), call);
} catch (const std::bad_alloc&) {
  return no_memory();
}

status client::submit_get(std::span<const get_item> items, std::span<item_result> results, completion done,
                          call_options call) try {
  auto wanted = std::make_unique<operation>();
  wanted->kind = operation_kind::get;
  wanted->gets = items;
  wanted->results = results;
  wanted->done = std::move(done);
  return impl_->submit(std::move(wanted), items.size(), call);
} catch (const std::bad_alloc&) {
  return no_memory();
}

status client::submit_exists(std::span<const std::string_view> keys, std::span<item_result> results,
                             completion done, call_options call) try {
  return impl_->submit_keys(operation_kind::exists, keys, results, std::move(done), call);
} catch (const std::bad_alloc&) {
  return no_memory();
}

status client::submit_remove(std::span<const std::string_view> keys, std::span<item_result> results,
                             completion done, call_options call) try {
  return impl_->submit_keys(operation_kind::remove, keys, results, std::move(done), call);
} catch (const std::bad_alloc&) {
  return no_memory();
}

status client::submit_lookup(std::span<const std::string_view> keys, std::span<item_result> results,
                             completion done, call_options call) try {
  return impl_->submit_keys(operation_kind::lookup, keys, results, std::move(done), call);
} catch (const std::bad_alloc&) {
  return no_memory();
}

status client::submit_prefix(std::span<const std::string_view> keys, prefix_result& result,
                             std::span<std::uint64_t> lengths, completion done, call_options call) try {
  auto wanted = std::make_unique<operation>();
  wanted->kind = operation_kind::prefix;
  wanted->keys = keys;
  wanted->prefix = &result;
  wanted->lengths = lengths;
  wanted->own_results.resize(keys.size());
  wanted->results = wanted->own_results;
  wanted->done = std::move(done);
  return impl_->submit(std::move(wanted), keys.size(), call);
} catch (const std::bad_alloc&) {
  return no_memory();
}

errc client::put(std::span<const put_item> items, std::span<item_result> results, call_options call) try {
  operation wanted;
  wanted.kind = operation_kind::put;
  wanted.puts = items;
  wanted.results = results;
  return impl_->call(wanted, items.size(), call);
} catch (const std::bad_alloc&) {
  return errc::no_memory;
}

errc client::get(std::span<const get_item> items, std::span<item_result> results, call_options call) try {
  operation wanted;
  wanted.kind = operation_kind::get;
  wanted.gets = items;
  wanted.results = results;
  return impl_->call(wanted, items.size(), call);
} catch (const std::bad_alloc&) {
  return errc::no_memory;
}

errc client::exists(std::span<const std::string_view> keys, std::span<item_result> results,
                    call_options call) try {
  return impl_->call_keys(operation_kind::exists, keys, results, call);
} catch (const std::bad_alloc&) {
  return errc::no_memory;
}

errc client::remove(std::span<const std::string_view> keys, std::span<item_result> results,
                    call_options call) try {
  return impl_->call_keys(operation_kind::remove, keys, results, call);
} catch (const std::bad_alloc&) {
  return errc::no_memory;
}

errc client::lookup(std::span<const std::string_view> keys, std::span<item_result> results,
                    call_options call) try {
  return impl_->call_keys(operation_kind::lookup, keys, results, call);
} catch (const std::bad_alloc&) {
  return errc::no_memory;
}

prefix_result client::prefix(std::span<const std::string_view> keys, std::span<std::uint64_t> lengths,
                             call_options call) try {
  prefix_result result;
  operation wanted;
  wanted.kind = operation_kind::prefix;
  wanted.keys = keys;
  wanted.prefix = &result;
  wanted.lengths = lengths;
  wanted.own_results.resize(keys.size());
  wanted.results = wanted.own_results;
  const errc called = impl_->call(wanted, keys.size(), call);
  if (result.code == errc::pending) {
    result.code = called;
  }
  return result;
} catch (const std::bad_alloc&) {
  return {.code = errc::no_memory};
}

std::vector<server_stat> client::stat(call_options call) try {
  std::vector<server_stat> stats(impl_->servers.size());
  operation wanted;
  wanted.kind = operation_kind::stat;
  wanted.stats = &stats;
  wanted.own_results.resize(stats.size());
  wanted.results = wanted.own_results;
  if (const status prepared = impl_->prepare(wanted, stats.size(), call); !prepared.ok()) {
    for (server_stat& stat : stats) {
      stat.code = prepared.code;
    }
    return stats;
  }
  for (std::size_t i = 0; i < stats.size(); ++i) {
    stats[i].server = impl_->servers[i]->name;
    impl_->add_request(wanted, i, request_kind::stat, {static_cast<std::uint32_t>(i)});
  }
  impl_->run_blocking(wanted);
  for (std::size_t i = 0; i < stats.size(); ++i) {
    stats[i].code = wanted.results[i].code;
  }
  return stats;
} catch (const std::bad_alloc&) {
  return {};
}

item_result client::put(std::string_view key, std::span<const std::byte> value, bool if_absent,
                        call_options call) {
  const put_item item{key, value, if_absent};
  item_result result;
  if (const errc called = put(std::span(&item, 1), std::span(&result, 1), call);
      result.code == errc::pending) {
    result.code = called;
  }
  return result;
}

item_result client::get(std::string_view key, std::span<std::byte> target, call_options call) {
  const get_item item{key, target};
  item_result result;
  if (const errc called = get(std::span(&item, 1), std::span(&result, 1), call);
      result.code == errc::pending) {
    result.code = called;
  }
  return result;
}

item_result client::exists(std::string_view key, call_options call) {
  item_result result;
  if (const errc called = exists(std::span(&key, 1), std::span(&result, 1), call);
      result.code == errc::pending) {
    result.code = called;
  }
  return result;
}

item_result client::remove(std::string_view key, call_options call) {
  item_result result;
  if (const errc called = remove(std::span(&key, 1), std::span(&result, 1), call);
      result.code == errc::pending) {
    result.code = called;
  }
  return result;
}

item_result client::lookup(std::string_view key, call_options call) {
  item_result result;
  if (const errc called = lookup(std::span(&key, 1), std::span(&result, 1), call);
      result.code == errc::pending) {
    result.code = called;
  }
  return result;
}

status client::register_memory(std::span<std::byte> range, registered_memory& out) try {
  const auto address = reinterpret_cast<std::uintptr_t>(range.data());
  if (range.empty() || address + range.size() < address) {
    return {errc::invalid_argument, "a range of registered memory has at least one byte"};
  }
  if (impl_->shared.rdma == nullptr) {
    out = {};
    return {};
  }
  return impl_->shared.rdma->register_memory(range, out);
} catch (const std::bad_alloc&) {
  return no_memory();
}

status client::register_device_memory(const device_memory& memory, registered_memory& out) try {
  if (memory.length == 0 || memory.address + memory.length < memory.address || memory.descriptor < 0 ||
      !memory.copy_out) {
    return {errc::invalid_argument, "device memory needs a dma-buf, a length and copy_out"};
  }
  if (impl_->shared.rdma == nullptr || !impl_->shared.rdma->in_use()) {
    return {errc::unsupported, "memory of another device can be used over RDMA only, which is not in use"};
  }
  return impl_->shared.rdma->register_device_memory(memory, out);
} catch (const std::bad_alloc&) {
  return no_memory();
}

std::size_t client::drive(std::uint32_t timeout_ms) try {
  const std::uint64_t before = impl_->async_completed.load();
  impl_->last_drive_ns = steady_ns();
  const std::int64_t until_ns = impl_->last_drive_ns.load() + std::int64_t{timeout_ms} * ns_per_ms;
  const auto done = [&] { return impl_->async_completed.load() != before || impl_->async_open.load() == 0; };
  // The thread's own connections first; all of them only when it has nothing open there.
  std::vector<connection*> own;
  std::vector<connection*> others;
  for (const auto& one : impl_->servers) {
    const std::size_t home = ordinal_of_this_thread() % one->connections.size();
    for (std::size_t i = 0; i < one->connections.size(); ++i) {
      if (one->connections[i]->outstanding() != 0) {
        (i == home ? own : others).push_back(one->connections[i].get());
      }
    }
  }
  impl_->drive_until(own.empty() ? others : own, done, until_ns);
  impl_->last_drive_ns = steady_ns();
  return impl_->async_completed.load() - before;
} catch (const std::bad_alloc&) {
  return 0;
}

const std::vector<std::string>& client::servers() const noexcept {
  return impl_->placed.servers();
}

std::size_t client::server_of(std::string_view key) const noexcept {
  return impl_->server_of(wire::make_key_id(impl_->shared.ns.text(), wire::as_bytes_view(key)));
}

std::string client::explain(std::string_view key, const item_result& result) const {
  const errc code = result.code == errc::not_found && result.cause != errc::ok ? result.cause : result.code;
  std::string text(sentence(code));
  return is_of_a_server(code) ? servers()[server_of(key)] + ": " + text : text;
}

const std::vector<std::string>& client::notes() const noexcept {
  return impl_->notes;
}

counters client::count() const noexcept {
  const atomic_counters& counted = impl_->shared.counted;
  counters result;
  result.connections_opened = counted.connections_opened;
  result.connections_failed = counted.connections_failed;
  result.connections_lost = counted.connections_lost;
  result.connections_closed_by_check = counted.connections_closed_by_check;
  result.connections_closed_by_deadline = counted.connections_closed_by_deadline;
  result.requests_retried = counted.requests_retried;
  result.busy_retried = counted.busy_retried;
  result.bytes_sent = counted.bytes_sent;
  result.bytes_received = counted.bytes_received;
  result.cache_hits = impl_->shared.cache.hits();
  result.cache_misses = impl_->shared.cache.misses();
  if (const rdma_core* const rdma = impl_->shared.rdma.get(); rdma != nullptr) {
    result.rdma_in_use = rdma->in_use();
    result.rdma_failures = rdma->failures;
    result.rdma_sessions_opened = rdma->sessions_opened;
    result.rdma_queue_pairs_opened = rdma->queue_pairs_opened;
    result.rdma_messages = rdma->messages_sent;
    result.rdma_value_bytes = rdma->registered_bytes;
    result.staged_value_bytes = rdma->staged_bytes;
  }
  return result;
}

} // namespace memkv::client
