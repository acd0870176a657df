// The life of a connection: who drives it, its turns, its deadlines, its end.
#include "client/connection.hpp"

#include <poll.h>

#include <algorithm>
#include <limits>
#include <utility>

namespace memkv::client {
namespace {

constexpr std::int64_t never_ns = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t ns_per_ms = 1'000'000;

} // namespace

connection::connection(shared_state& shared, server& peer, std::uint32_t number) noexcept
    : shared_(shared), server_(peer), dialer_(shared, peer.lookup),
      rail_(shared.rdma == nullptr || shared.rdma->devices().empty()
                ? 0
                : number % static_cast<std::uint32_t>(shared.rdma->devices().size())) {}

connection::~connection() {
  close_socket();
}

void connection::take_queue() {
  queue_.take([this](request& taken) {
    (travels_as_message(taken) ? messages_.backlog : backlog_).push_back(&taken);
    next_deadline_ns_ =
        next_deadline_ns_ == 0 ? taken.deadline_ns : std::min(next_deadline_ns_, taken.deadline_ns);
  });
}

void connection::pump(std::span<const pollfd> ready) {
  const std::int64_t now_ns = turn_ns_ = steady_ns();
  const short revents = ready.empty() ? short{0} : ready[0].revents;
  take_queue();
  leave_rdma();
  if (pause_over_ns_ != 0 && now_ns >= pause_over_ns_) {
    end_pauses(now_ns);
  }
  if (next_deadline_ns_ != 0 && now_ns >= next_deadline_ns_) {
    watch_deadlines(now_ns);
  }
  if (state_ == state::ready && (revents & (POLLIN | POLLERR | POLLHUP)) != 0) {
    read_replies();
  }
  if (state_ == state::dialing) {
    take_socket(dialer_.go_on(revents, now_ns), now_ns);
  } else if (state_ == state::greeting) {
    await_greeting(revents, now_ns);
  }
  if (messages_.state == session_state::ready) {
    read_messages(!ready.empty() && ready[1].revents != 0);
    if (now_ns >= ping_due_ns()) {
      ping_by_message(now_ns);
    }
  }
  if (backlog_.empty() && burst_.empty() && messages_.backlog.empty()) {
    return;
  }
  if (state_ == state::ready && open_.empty() && messages_.open.empty() && was_closed_while_idle(now_ns)) {
    ++shared_.counted.connections_lost;
    close_socket();
  }
  if (state_ == state::closed) {
    open(now_ns);
  }
  if (state_ == state::ready) {
    write_messages(now_ns);
    write_requests(now_ns);
  }
}

void connection::wanted(polled out) const noexcept {
  out[0] = {state_ == state::dialing ? dialer_.descriptor() : fd_, POLLIN, 0};
  if (state_ == state::dialing || wants_write_) {
    out[0].events |= POLLOUT;
  }
  out[1] = {awaits_message() ? messages_.pair->descriptor() : -1, POLLIN, 0};
}

std::int64_t connection::wake_ns() const noexcept {
  // A connection that was lost while it was written to has requests to try again on a new one.
  if (!queue_.empty() || (state_ == state::closed && !(backlog_.empty() && messages_.backlog.empty()))) {
    return 0;
  }
  std::int64_t wake = never_ns;
  if (next_deadline_ns_ != 0 && outstanding() != 0) {
    wake = next_deadline_ns_; // perhaps of a request that is complete by now: then pump() only finds the next
                              // one
  }
  if (state_ == state::dialing) {
    wake = std::min(wake, dialer_.wake_ns());
  } else if (state_ == state::greeting) {
    wake = std::min(wake, dialer_.until_ns());
  }
  if (pause_over_ns_ != 0) {
    wake = std::min(wake, pause_over_ns_);
  }
  return std::min(wake, ping_due_ns());
}

void connection::watch_deadlines(std::int64_t now_ns) {
  watch_message_deadlines(now_ns);
  const auto late_begin = std::stable_partition(
      open_.begin(), open_.end(), [&](const request* one) { return one->deadline_ns > now_ns; });
  if (late_begin != open_.end()) {
    const std::vector<request*> late(late_begin, open_.end());
    open_.erase(late_begin, open_.end());
    // What was written may still be carried out or answered; only the end of the connection makes an end of
    // that. It comes first: whoever is told that a put was given up may make the next one at once.
    ++shared_.counted.connections_closed_by_deadline;
    lose(errc::connection_lost);
    for (request* const one : late) {
      if (one->owner != nullptr) {
        one->owner->fail(*one, errc::deadline_exceeded);
      }
      if (one->uses_rdma()) {
        shared_.rdma->note_deadline();
      } else if (one->kind == request_kind::attach) {
        fail_rdma("no answer to the request for a session");
      } else if (one->kind == request_kind::connect) {
        fail_messages("no answer to the request for a queue pair");
      }
      complete(*one);
    }
  }
  for (auto place = backlog_.begin(); place != backlog_.end();) {
    request& one = **place;
    if (one.deadline_ns > now_ns) {
      ++place;
      continue;
    }
    place = backlog_.erase(place);
    if (one.owner != nullptr) {
      one.owner->fail(one, errc::deadline_exceeded);
    } else if (one.kind == request_kind::attach && session_state_ == session_state::attaching &&
               one.session_id == session_.id) {
      // It never went out, behind a long payload. What waits for the session asks for another one.
      end_session(false);
    } else if (one.kind == request_kind::connect && one.session_id == messages_.session.id) {
      end_messages(false); // likewise
    }
    complete(one);
  }
  next_deadline_ns_ = 0;
  const auto note = [&](const request* one) {
    next_deadline_ns_ =
        next_deadline_ns_ == 0 ? one->deadline_ns : std::min(next_deadline_ns_, one->deadline_ns);
  };
  std::for_each(open_.begin(), open_.end(), note);
  std::for_each(backlog_.begin(), backlog_.end(), note);
  for (const request* const one : messages_.open) {
    if (one->owner != nullptr) { // a Ping has no end of its own
      note(one);
    }
  }
  std::for_each(messages_.backlog.begin(), messages_.backlog.end(), note);
}

void connection::lose(errc code) {
  if (state_ == state::closed) {
    return;
  }
  close_socket();
  std::vector<request*> lost;
  lost.swap(open_);
  ask_again_or_fail(std::exchange(messages_.open, {}), code);
  for (auto place = lost.rbegin(); place != lost.rend(); ++place) {
    request& one = **place;
    if (one.owner == nullptr) {
      complete(one);
      continue;
    }
    // Frames of the burst that no byte was written of never reached the server: they wait for the next
    // connection.
    const bool written = !burst_.is_unstarted(one);
    if (written && (one.mutates() || one.attempts >= attempts_max)) {
      one.owner->fail(one, code);
      complete(one);
      continue;
    }
    if (written) {
      ++shared_.counted.requests_retried;
    }
    one.start_over();
    backlog_.push_front(&one);
  }
  burst_.clear();
}

void connection::shut(errc code) {
  take_queue();
  say_detach();
  close_socket();
  burst_.clear();
  std::vector<request*> ended;
  ended.swap(open_);
  ended.insert(ended.end(), backlog_.begin(), backlog_.end());
  ended.insert(ended.end(), messages_.open.begin(), messages_.open.end());
  ended.insert(ended.end(), messages_.backlog.begin(), messages_.backlog.end());
  ended.insert(ended.end(), pausing_.begin(), pausing_.end());
  backlog_.clear();
  messages_.open.clear();
  messages_.backlog.clear();
  pausing_.clear();
  pause_over_ns_ = 0;
  for (request* const one : ended) {
    if (one->owner != nullptr) {
      one->owner->fail(*one, code);
    }
    complete(*one);
  }
}

void connection::keep_alive() {
  const std::int64_t now_ns = steady_ns();
  leave_rdma();
  if (!backlog_.empty() || !messages_.backlog.empty()) {
    pump({});
  }
  if (state_ != state::ready || outstanding() != 0 ||
      now_ns - last_io_ns_ < std::int64_t{idle_timeout_ms_} * ns_per_ms / 3) {
    return;
  }
  auto* const ping = new request;
  ping->deadline_ns = now_ns + ping_deadline_ns;
  if (!enqueue(*ping, queue_.driver())) {
    delete ping;
    return;
  }
  pump({});
}

void connection::let_go(request& done) {
  std::erase(open_, &done);
  std::erase(messages_.open, &done);
  if (receiving_ == &done) {
    receiving_ = nullptr;
  }
  if (done.staged) {
    // Answered, or the session is gone: nobody touches it any more.
    if (done.run.slots != 0) {
      shared_.rdma->staging()->release(std::exchange(done.run, {}));
    } else {
      shared_.rdma->staging()->forget(done);
    }
  }
}

void connection::complete(request& done) {
  let_go(done);
  queue_.count_complete();
  if (done.owner == nullptr) {
    delete &done;
  } else {
    done.owner->complete_one(queue_.driver());
  }
}

} // namespace memkv::client
