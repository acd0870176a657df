// The part of a connection that asks again for what the server had no room for at that moment.
//
// `Busy` says that nothing was done, so puts and deletes are asked for again as well. Other statuses that may
// be retried are not: `unavailable` lasts as long as a drive is away, and a cache goes on without it.
#include "client/connection.hpp"

#include <algorithm>
#include <utility>

namespace memkv::client {
namespace {

constexpr std::int64_t ns_per_ms = 1'000'000;
// What is left of the deadline after a pause, besides as much time again: less is no time for an answer.
constexpr std::int64_t answer_ns_min = 50 * ns_per_ms;

} // namespace

void connection::finish(request& answered) {
  if (!ask_again_later(answered)) {
    complete(answered);
  }
}

bool connection::ask_again_later(request& answered) {
  if (answered.owner == nullptr || answered.busy_answers >= shared_.chosen.busy_retries) {
    return false;
  }
  std::vector<std::uint32_t> again;
  for (const std::uint32_t item : answered.items) {
    if (answered.owner->results[item].code == errc::busy) {
      again.push_back(item);
    }
  }
  if (again.empty()) {
    return false;
  }
  const std::uint32_t doubled = std::min<std::uint32_t>(answered.busy_answers, 16);
  const std::uint32_t pause_ms = std::min(busy_pause_ms_first << doubled, busy_pause_ms_max);
  // Three quarters to five quarters, so that those who were refused together do not come back together.
  const auto pause_ns =
      static_cast<std::int64_t>(std::uint64_t{pause_ms} * (750 + shared_.random() % 501) * 1000);
  const std::int64_t now_ns = steady_ns();
  if (now_ns + 2 * pause_ns + answer_ns_min > answered.deadline_ns) {
    return false; // they stay `busy`: the connection is worth more than a try that cannot end in time
  }
  let_go(answered);
  answered.items = std::move(again);
  answered.start_over();
  answered.attempts = 0;
  ++answered.busy_answers;
  answered.pause_until_ns = now_ns + pause_ns;
  pausing_.push_back(&answered);
  pause_over_ns_ =
      pause_over_ns_ == 0 ? answered.pause_until_ns : std::min(pause_over_ns_, answered.pause_until_ns);
  ++shared_.counted.busy_retried;
  return true;
}

void connection::end_pauses(std::int64_t now_ns) {
  pause_over_ns_ = 0;
  std::erase_if(pausing_, [&](request* one) {
    if (one->pause_until_ns > now_ns) {
      pause_over_ns_ =
          pause_over_ns_ == 0 ? one->pause_until_ns : std::min(pause_over_ns_, one->pause_until_ns);
      return false;
    }
    (travels_as_message(*one) ? messages_.backlog : backlog_).push_back(one);
    next_deadline_ns_ =
        next_deadline_ns_ == 0 ? one->deadline_ns : std::min(next_deadline_ns_, one->deadline_ns);
    return true;
  });
}

} // namespace memkv::client
