#include "client/operation.hpp"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace memkv::client {

completion completion::call(std::function<void()> function) {
  completion made;
  made.function_ = std::move(function);
  return made;
}

completion completion::signal(int event_fd) noexcept {
  completion made;
  made.event_fd_ = event_fd;
  return made;
}

void completion::operator()() const noexcept {
  if (function_) {
    function_();
  }
  if (event_fd_ >= 0) {
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(event_fd_, &one, sizeof one);
  }
}

bool is_unreachable(errc code) noexcept {
  switch (code) {
  case errc::server_down:
  case errc::connection_lost:
  case errc::clock_or_key:
  case errc::no_greeting:
  case errc::bad_reply:
  case errc::unavailable:
  case errc::shutting_down:
  case errc::internal:
  case errc::corrupt:
    return true;
  default:
    return false;
  }
}

void request::start_over() noexcept {
  value_length = 0;
  generation = 0;
  received_bytes = 0;
  by_message = false;
  std::fill(received.begin(), received.end(), 0);
  for (const std::uint32_t item : items) {
    owner->results[item] = {};
  }
}

void operation::set_result(std::uint32_t item, errc code) noexcept {
  item_result& result = results[item];
  const bool mutates = kind == operation_kind::put || kind == operation_kind::remove;
  if (!mutates && kind != operation_kind::stat && is_unreachable(code)) {
    result.code = errc::not_found;
    result.cause = code;
  } else {
    result.code = code;
  }
}

void operation::fail(request& failed, errc code) noexcept {
  for (const std::uint32_t item : failed.items) {
    if (results[item].code == errc::pending) {
      set_result(item, code);
    }
  }
}

void operation::complete_one(const waiter* here) noexcept {
  if (asynchronous) {
    if (pending.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      conclude();
      const completion said = std::move(done);
      std::atomic<std::uint64_t>* const open = async_open;
      std::atomic<std::uint64_t>* const completed = async_completed;
      delete this;
      said();
      completed->fetch_add(1);
      open->fetch_sub(1);
    }
    return;
  }
  if (waiting.get() == here) {
    pending.fetch_sub(1, std::memory_order_acq_rel);
    return;
  }
  // The caller may return, and its operation be gone, as soon as it sees zero; its waiter is kept.
  const std::shared_ptr<waiter> sleeper = waiting;
  if (pending.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    sleeper->notify();
  }
}

void operation::conclude() noexcept {
  if (kind == operation_kind::prefix) {
    prefix_result combined{.code = errc::ok};
    for (std::size_t i = 0; i < results.size(); ++i) {
      if (results[i].code != errc::ok) {
        if (results[i].code != errc::not_found) {
          combined.code = combined.matched == 0 ? results[i].code : errc::ok;
          combined.cause = results[i].code;
        } else {
          combined.cause = results[i].cause;
        }
        break;
      }
      ++combined.matched;
      combined.total_bytes += results[i].value_length;
      if (!lengths.empty()) {
        lengths[i] = results[i].value_length;
      }
    }
    *prefix = combined;
  }
  give_to_followers();
  if (cache != nullptr) {
    keep_in_cache();
  }
  let_go_of_memory();
}

void operation::let_go_of_memory() noexcept {
  for (const std::shared_ptr<registration>& memory : used) {
    memory->let_go();
  }
  used.clear();
  memory_of.clear();
}

void operation::give_to_followers() noexcept {
  for (const auto [item, leader] : followers) {
    const std::span<const std::byte> found = gets[leader].target;
    results[item] = results[leader];
    item_result& result = results[item];
    if (result.code != errc::ok) {
      continue;
    }
    // The leader has the largest target, so what did not fit there fits nowhere.
    if (result.length > gets[item].target.size()) {
      result.code = errc::buffer_too_small;
      result.length = 0;
    } else if (result.length != 0) {
      std::memmove(gets[item].target.data(), found.data(), result.length);
    }
  }
}

void operation::keep_in_cache() noexcept {
  if (kind == operation_kind::put || kind == operation_kind::remove) {
    for (const wire::key_id& id : ids) {
      cache->forget(id);
    }
  } else if (kind == operation_kind::get) {
    for (std::size_t i = 0; i < gets.size(); ++i) {
      const item_result& result = results[i];
      // An epoch of all ones marks an item that came from the cache.
      if (result.code == errc::ok && !in_device_memory(static_cast<std::uint32_t>(i)) &&
          gets[i].range_offset == 0 && result.length == result.value_length &&
          epochs[i] != ~std::uint64_t{0}) {
        cache->keep(ids[i], gets[i].key, gets[i].target.first(result.length), epochs[i]);
      }
    }
  }
}

errc operation::first_error() const noexcept {
  for (const item_result& result : results) {
    if (result.code != errc::ok) {
      return result.code;
    }
  }
  return errc::ok;
}

} // namespace memkv::client
