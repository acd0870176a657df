// The part of a connection that has to do with messages: their queue pair, and the requests that travel
// there.
#include "client/connection.hpp"
#include "client/planner.hpp"
#include "wire/frame_writer.hpp"
#include "wire/rdma_messages.hpp"

#include <poll.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <utility>

namespace memkv::client {
namespace {

// Of the time that answers take: one in so many counts.
constexpr std::int64_t answers_remembered = 8;

/// Variable parts of a request and of its answer, at most.
struct message_sizes {
  std::uint64_t request = 0;
  std::uint64_t answer = 64;
};

/// False: requests of this kind never travel as messages.
[[nodiscard]] bool sizes_of(const request& one, message_sizes& out) noexcept {
  const std::uint64_t count = one.items.size();
  std::uint64_t item_bytes = 0;
  switch (one.kind) {
  case request_kind::stat:
    return true;
  case request_kind::exists:
  case request_kind::lookup:
  case request_kind::remove:
    break;
  case request_kind::batch_exists:
    out.answer = 8 + 9 * count;
    item_bytes = wire::batch_key::fixed_size;
    break;
  case request_kind::batch_remove:
    out.answer = 8 + count;
    item_bytes = wire::batch_key::fixed_size;
    break;
  case request_kind::prefix:
    out.answer = 16 + 8 * count;
    item_bytes = wire::batch_key::fixed_size;
    break;
  case request_kind::batch_write:
    out.answer = 8 + 16 * count;
    item_bytes = wire::batch_write_item::fixed_size;
    break;
  case request_kind::batch_read:
    out.answer = 8 + wire::batch_read_result::size * count;
    item_bytes = wire::batch_read_item::fixed_size;
    break;
  default:
    return false;
  }
  out.request = 16 + item_bytes * count;
  return true;
}

} // namespace

bool connection::travels_as_message(const request& one) const noexcept {
  if (shared_.rdma == nullptr || !shared_.messages || !shared_.rdma->in_use() ||
      (state_ == state::ready && !server_has_rdma_)) {
    return false;
  }
  // With auto no failure of RDMA may leave it unknown whether a change took effect.
  if (one.mutates() && !shared_.rdma->strict()) {
    return false;
  }
  message_sizes sizes;
  if (!sizes_of(one, sizes) || wire::frame_bytes(sizes.answer) > message_bytes_max ||
      wire::frame_bytes(sizes.request) > message_bytes_max) {
    return false;
  }
  std::uint64_t values = 0;
  for (const std::uint32_t item : one.items) {
    sizes.request += one.kind == request_kind::stat ? 0 : one.owner->key_of(item).size();
    values += one.uses_rdma() ? one.owner->room_of(item) : 0;
  }
  return wire::frame_bytes(sizes.request) <= message_bytes_max && values <= message_values_bytes_max;
}

bool connection::may_use_messages(std::int64_t now_ns) const noexcept {
  return shared_.rdma->in_use() && server_has_rdma_ && now_ns >= messages_.refused_until_ns;
}

bool connection::awaits_message() const noexcept {
  return messages_.state == session_state::ready && !(messages_.open.empty() && messages_.backlog.empty());
}

// ---- the queue pair ----

void connection::begin_connect() {
  const message_pair::room room{messages_open_max, messages_open_max, message_bytes_max};
  if (const verbs::status opened = device().open_messages(
          room, [this] { poke(); }, messages_.session, messages_.pair);
      !opened.ok()) {
    fail_messages(opened.text);
    return;
  }
  messages_.state = session_state::attaching;
  ask_for(request_kind::connect, messages_.session.id, true);
}

void connection::accept_connect(request& wanted) {
  const wire::status answer = reader_->header().status();
  wire::connect_reply reply;
  const bool readable = answer == wire::status::ok &&
                        wire::connect_reply::decode(reader_->variable_part(), reply) == wire::status::ok;
  if (messages_.state != session_state::attaching || wanted.session_id != messages_.session.id) {
    // Ours was ended meanwhile, so the server's is of no use.
    if (readable) {
      ask_for(request_kind::detach, reply.session_id, false);
    }
    complete(wanted);
    return;
  }
  std::string problem;
  if (answer == wire::status::busy) {
    // It has no room for another one, which says nothing about RDMA: the socket serves meanwhile.
    messages_.refused_until_ns = steady_ns() + messages_refused_ns;
    end_messages(false);
    complete(wanted);
    return;
  }
  if (answer != wire::status::ok) {
    problem = "it refuses a queue pair of messages: " + std::string(wire::explain(answer));
  } else if (!readable || reply.session_id == 0 || reply.messages_max == 0) {
    problem = "its answer to the request for a queue pair of messages is malformed";
  } else {
    messages_.session_id = reply.session_id;
    if (const verbs::status connected = device().connect(messages_.session.id, reply.server);
        !connected.ok()) {
      problem = connected.text;
    }
  }
  if (problem.empty()) {
    const wire::rdma_address& own = messages_.session.address;
    messages_.tag = wire::derive_queue_pair_tag(*shared_.chosen.auth_key, tag_, reply.nonce,
                                                {own.number, own.packet_number},
                                                {reply.server.number, reply.server.packet_number});
    messages_.reader.emplace(shared_.frame_mac, shared_.headers);
    messages_.reader->set_tag(messages_.tag);
    messages_.last_id = 0;
    messages_.open_max = std::min(messages_open_max, reply.messages_max);
    messages_.bytes_max = std::min(message_bytes_max, reply.message_bytes_max);
    messages_.pinged = false;
    messages_.state = session_state::ready;
    ++shared_.rdma->queue_pairs_opened;
  } else {
    fail_messages(problem);
  }
  complete(wanted);
}

void connection::end_messages(bool tell) noexcept {
  if (messages_.state == session_state::none) {
    return;
  }
  device().close_session(messages_.session.id);
  messages_.state = session_state::none;
  messages_.pair.reset();
  messages_.reader.reset();
  const std::uint64_t ended = std::exchange(messages_.session_id, 0);
  if (tell && ended != 0 && state_ == state::ready) {
    ask_for(request_kind::detach, ended, false);
  }
}

// ---- failures ----

void connection::fail_messages(const std::string& why) {
  end_messages(true); // before any request is given up
  shared_.rdma->note_failure(server_.name + ": " + why);
  const bool strict = shared_.rdma->strict();
  std::vector<request*> failed;
  for (request* const one : std::exchange(messages_.open, {})) {
    // Nobody knows whether what changes something took effect.
    if (strict || one->mutates() || one->owner == nullptr) {
      failed.push_back(one);
    } else {
      ++shared_.counted.requests_retried;
      one->start_over();
      backlog_.push_back(one);
    }
  }
  for (request* const one : std::exchange(messages_.backlog, {})) {
    if (strict) {
      failed.push_back(one);
    } else {
      backlog_.push_back(one);
    }
  }
  for (request* const one : failed) {
    if (one->owner != nullptr) {
      one->owner->fail(*one, one->by_message && one->mutates() ? errc::connection_lost : errc::rdma_failed);
    }
    complete(*one);
  }
}

void connection::ask_again_or_fail(std::vector<request*> sent, errc code) {
  for (auto place = sent.rbegin(); place != sent.rend(); ++place) {
    request& one = **place;
    if (one.owner == nullptr) {
      complete(one);
      continue;
    }
    if (one.mutates() || one.attempts >= attempts_max) {
      one.owner->fail(one, code);
      complete(one);
      continue;
    }
    ++shared_.counted.requests_retried;
    one.start_over();
    messages_.backlog.push_front(&one);
  }
}

void connection::watch_message_deadlines(std::int64_t now_ns) {
  const auto is_late = [&](const request* one) {
    return one->owner != nullptr && one->deadline_ns <= now_ns;
  };
  std::vector<request*> late;
  if (std::any_of(messages_.open.begin(), messages_.open.end(), is_late)) {
    // What was sent may still be carried out or answered; only the end of the queue pair makes an end of
    // that.
    end_messages(true);
    std::vector<request*> sent = std::exchange(messages_.open, {});
    const auto others = std::stable_partition(sent.begin(), sent.end(), is_late);
    late.assign(sent.begin(), others);
    sent.erase(sent.begin(), others);
    for (std::size_t i = 0; i < late.size(); ++i) {
      shared_.rdma->note_deadline();
    }
    ask_again_or_fail(std::move(sent), errc::connection_lost);
  }
  const auto waiting = std::stable_partition(messages_.backlog.begin(), messages_.backlog.end(),
                                             [&](const request* one) { return !is_late(one); });
  late.insert(late.end(), waiting, messages_.backlog.end());
  messages_.backlog.erase(waiting, messages_.backlog.end());
  for (request* const one : late) {
    one->owner->fail(*one, errc::deadline_exceeded);
    complete(*one);
  }
}

// ---- sending ----

bool connection::send_message(request& one, std::int64_t now_ns) {
  std::vector<wire::bytes_view> no_payload;
  one.by_message = true;
  messages_.frame.clear();
  encode(one, now_ns, {messages_.frame, messages_.tag, ++messages_.last_id, messages_.session_id},
         no_payload);
  if (messages_.frame.size() > messages_.bytes_max) {
    one.by_message = false;
    return true;
  }
  wire::seal(messages_.frame, wall_ns(), shared_.frame_mac);
  if (!messages_.pair->add(messages_.frame)) {
    one.by_message = false;
    return false;
  }
  ++one.attempts;
  one.sent_ns = now_ns;
  last_io_ns_ = now_ns;
  messages_.quiet_since_ns = now_ns;
  messages_.open.push_back(&one);
  shared_.rdma->messages_sent += one.owner != nullptr ? 1 : 0;
  shared_.counted.bytes_sent.fetch_add(messages_.frame.size(), std::memory_order_relaxed);
  return true;
}

std::int64_t connection::ping_due_ns() const noexcept {
  const bool waits = messages_.state == session_state::ready && !messages_.open.empty() &&
                     !messages_.pinged && messages_.open_max > 1;
  return waits ? messages_.quiet_since_ns + messages_quiet_ns : std::numeric_limits<std::int64_t>::max();
}

void connection::ping_by_message(std::int64_t now_ns) {
  auto ping = std::make_unique<request>();
  ping->deadline_ns = now_ns + ping_deadline_ns; // for the server: what comes of it is all that counts here
  if (!send_message(*ping, now_ns)) {
    messages_.quiet_since_ns = now_ns;
    return;
  }
  static_cast<void>(ping.release());
  queue_.count_made();
  messages_.pinged = true;
  messages_.pair->post();
}

void connection::write_messages(std::int64_t now_ns) {
  bool area_full = false;
  for (std::size_t next = 0; next < messages_.backlog.size();) {
    if (!may_use_messages(now_ns)) {
      backlog_.insert(backlog_.end(), messages_.backlog.begin(), messages_.backlog.end());
      messages_.backlog.clear();
      break;
    }
    if (messages_.state == session_state::none) {
      begin_connect();
      continue;
    }
    if (!device().holds(messages_.session)) {
      fail_messages("the RDMA device " + device().name() + " is gone or its port is down");
      next = 0;
      continue;
    }
    // One place is left for a Ping, where there is more than one.
    const std::size_t places = messages_.open_max - (messages_.open_max > 1 && !messages_.pinged ? 1 : 0);
    if (messages_.state == session_state::attaching || messages_.open.size() >= places) {
      break;
    }
    request& one = *messages_.backlog[next];
    if (one.staged && one.run.slots == 0) {
      std::uint64_t staged_bytes = 0;
      for (const std::uint32_t item : one.items) {
        staged_bytes += staged_bytes_of(one.owner->room_of(item));
      }
      area_full = area_full || !shared_.rdma->staging()->acquire(
                                   one, *this, static_cast<std::size_t>(staged_bytes), one.run);
      if (area_full) {
        ++next;
        continue;
      }
    }
    if (!send_message(one, now_ns)) {
      break; // there will be room, or it is broken, which is seen when messages are looked for
    }
    if (!one.by_message) {
      backlog_.push_back(&one); // the server's receives are smaller
    }
    messages_.backlog.erase(messages_.backlog.begin() + static_cast<std::ptrdiff_t>(next));
  }
  if (messages_.pair != nullptr) {
    messages_.pair->post();
  }
}

// ---- receiving ----

void connection::read_messages(bool told) {
  // It outlives what its messages do.
  const std::shared_ptr<message_pair> pair = messages_.pair;
  if (told) {
    pair->acknowledge();
  } else if (!awaits_message()) {
    return;
  }
  static_cast<void>(pair->look());
  message_pair::arrival one;
  while (pair->take(one)) {
    shared_.counted.bytes_received.fetch_add(one.bytes.size(), std::memory_order_relaxed);
    const bool right = accept_message(one.bytes);
    if (messages_.pair != pair) {
      return;
    }
    if (!right) {
      fail_messages("an answer on its queue pair of messages failed a check");
      return;
    }
    pair->give_back(one.receive);
  }
  if (pair->broken()) {
    if (socket_is_closed()) {
      // The server is gone, with all it had. That is no failure of RDMA.
      ++shared_.counted.connections_lost;
      lose(errc::connection_lost);
    } else {
      fail_messages(pair->problem());
    }
  }
}

bool connection::accept_message(wire::bytes_view bytes) {
  const wire::reply_reader::result taken = messages_.reader->consume(bytes, wall_ns());
  if (taken.event != wire::reply_event::header || taken.consumed != bytes.size() ||
      messages_.reader->payload_bytes() != 0) {
    return false;
  }
  const wire::frame_header header = messages_.reader->header(); // the reader may end with what follows
  const wire::bytes_view variable = messages_.reader->variable_part();
  const auto place = std::find_if(messages_.open.begin(), messages_.open.end(), [&](const request* each) {
    return each->open.request_id == header.request_id;
  });
  if (place == messages_.open.end() || (*place)->open.accept(header) != wire::refusal::none ||
      !header.last()) {
    return false;
  }
  request& found = **place;
  const std::int64_t now_ns = steady_ns();
  messages_.answer_ns += (now_ns - found.sent_ns - messages_.answer_ns) / answers_remembered;
  messages_.quiet_since_ns = now_ns;
  messages_.pinged = messages_.pinged && found.owner != nullptr;
  last_io_ns_ = now_ns;
  const wire::status status = header.status();
  if (status == wire::status::unsupported || status == wire::status::session_ended) {
    // Nothing was done. It stays open, to be asked again where that may be.
    if (!found.uses_rdma() && found.owner != nullptr) {
      found.by_message = false;
      messages_.open.erase(place);
      messages_.backlog.push_front(&found);
      fail_messages("a message is refused: " + std::string(wire::explain(status)));
      return true;
    }
  } else if (!found.uses_rdma()) {
    shared_.rdma->note_success();
  }
  messages_.open.erase(place);
  bool right = true;
  if (status != wire::status::ok) {
    accept_refusal(found, header);
  } else if (found.kind == request_kind::batch_write) {
    right = accept_batch_write(found, header, variable);
  } else if (found.kind == request_kind::batch_read) {
    right = accept_batch_read(found, header, variable);
  } else {
    right = accept_results(found, header, variable);
  }
  if (!right) {
    messages_.open.push_back(&found); // it has no answer yet
  }
  return right;
}

} // namespace memkv::client
