// The part of a connection that has to do with RDMA: its session, and the requests that name memory.
#include "client/connection.hpp"
#include "client/planner.hpp"
#include "wire/frame_writer.hpp"
#include "wire/rdma_messages.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <cstring>

namespace memkv::client {
namespace {

// Device memory is fetched in such pieces for its checksum.
constexpr std::size_t device_step_bytes = 1U << 20U;

/// What an item is answered that RDMA could not serve, and TCP perhaps can.
[[nodiscard]] bool is_rdma_failure(errc code) noexcept {
  return code == errc::memory_refused || code == errc::session_ended;
}

/// No digest of a message is one of the socket.
[[nodiscard]] std::uint64_t digest_id(const request& one) noexcept {
  return one.open.request_id | std::uint64_t{one.by_message} << 63U;
}

[[nodiscard]] std::uint64_t address_of(const std::byte* data) noexcept {
  return reinterpret_cast<std::uintptr_t>(data);
}

} // namespace

// ---- the session ----

void connection::begin_attach() {
  if (!server_has_rdma_) {
    fail_rdma("the server has no RDMA, or has lost it for the moment");
    return;
  }
  const bool dc = device().dc() && !server_.rdma_dc_refused.load();
  if (const verbs::status opened = device().open_session(dc, session_); !opened.ok()) {
    fail_rdma(opened.text);
    return;
  }
  session_state_ = session_state::attaching;
  ask_for(request_kind::attach, session_.id, true);
}

void connection::ask_for(request_kind kind, std::uint64_t session_id, bool first) {
  auto* const asked = new request;
  asked->kind = kind;
  asked->session_id = session_id;
  asked->deadline_ns = steady_ns() + ping_deadline_ns;
  backlog_.insert(first ? backlog_.begin() : backlog_.end(), asked);
  queue_.count_made();
  next_deadline_ns_ =
      next_deadline_ns_ == 0 ? asked->deadline_ns : std::min(next_deadline_ns_, asked->deadline_ns);
}

void connection::accept_attach(request& wanted) {
  const wire::status answer = reader_->header().status();
  if (session_state_ != session_state::attaching || wanted.session_id != session_.id) {
    // Ours was ended meanwhile, so the server's is of no use.
    wire::attach_reply late;
    if (answer == wire::status::ok &&
        wire::attach_reply::decode(reader_->variable_part(), late) == wire::status::ok) {
      ask_for(request_kind::detach, late.session_id, false);
    }
    complete(wanted);
    return;
  }
  const bool offered_dc = session_.address.kind == wire::rdma_kind::dc;
  wire::attach_reply reply;
  std::string problem;
  if (answer == wire::status::unsupported && offered_dc) {
    // The next request wants a session again, and offers a queue pair.
    server_.rdma_dc_refused = true;
    end_session(false);
    complete(wanted);
    return;
  }
  if (answer != wire::status::ok) {
    problem = "it refuses a session: " + std::string(wire::explain(answer));
  } else if (wire::attach_reply::decode(reader_->variable_part(), reply) != wire::status::ok ||
             reply.session_id == 0) {
    problem = "its answer to the request for a session is malformed";
  } else {
    session_id_ = reply.session_id;
    if (const verbs::status connected = device().connect(session_.id, reply.server); !connected.ok()) {
      problem = connected.text;
    }
  }
  if (problem.empty()) {
    session_state_ = session_state::ready;
    ++shared_.rdma->sessions_opened;
  } else {
    fail_rdma(problem);
  }
  complete(wanted);
}

void connection::end_session(bool tell) noexcept {
  if (session_state_ == session_state::none) {
    return;
  }
  device().close_session(session_.id);
  session_state_ = session_state::none;
  const std::uint64_t ended = std::exchange(session_id_, 0);
  if (tell && ended != 0 && state_ == state::ready) {
    ask_for(request_kind::detach, ended, false);
  }
}

void connection::say_detach() {
  if (session_state_ != session_state::ready || state_ != state::ready || !burst_.empty()) {
    return;
  }
  request detach;
  detach.kind = request_kind::detach;
  detach.session_id = session_id_;
  end_session(false);
  std::vector<std::byte> frame;
  std::vector<wire::bytes_view> no_payload;
  detach.deadline_ns = steady_ns() + ping_deadline_ns;
  encode(detach, steady_ns(), {frame, tag_, ++last_id_, 0}, no_payload);
  wire::seal(frame, wall_ns(), shared_.frame_mac);
  // If it does not go out now, the end of the connection says the same.
  static_cast<void>(::send(fd_, frame.data(), frame.size(), MSG_NOSIGNAL | MSG_DONTWAIT));
}

void connection::fail_rdma(const std::string& why) {
  end_session(true);
  shared_.rdma->note_failure(server_.name + ": " + why);
  if (!shared_.rdma->strict()) {
    return; // find_sendable() turns what waits into requests over TCP
  }
  std::vector<request*> failed;
  for (request* const one : backlog_) {
    if (one->uses_rdma()) {
      failed.push_back(one);
    }
  }
  std::erase_if(backlog_, [](const request* one) { return one->uses_rdma(); });
  for (request* const one : failed) {
    one->owner->fail(*one, errc::rdma_failed);
    complete(*one);
  }
}

void connection::leave_rdma() {
  if (shared_.rdma == nullptr || shared_.rdma->in_use()) {
    return;
  }
  const bool used =
      std::any_of(open_.begin(), open_.end(), [](const request* one) { return one->uses_rdma(); });
  if (session_state_ == session_state::ready && !used) {
    end_session(true);
  }
  if (messages_.state == session_state::ready && messages_.open.empty()) {
    end_messages(true);
  }
}

// ---- sending ----

std::deque<request*>::iterator connection::find_sendable() {
  for (auto place = backlog_.begin(); place != backlog_.end();) {
    request& one = **place;
    if (!one.uses_rdma()) {
      return place;
    }
    if (!shared_.rdma->in_use()) {
      backlog_.erase(place);
      use_tcp(one, one.items);
      complete(one);
      place = backlog_.begin();
      continue;
    }
    if (session_state_ != session_state::none && !device().holds(session_)) {
      fail_rdma("the RDMA device " + device().name() + " is gone or its port is down");
      place = backlog_.begin();
      continue;
    }
    if (session_state_ == session_state::none) {
      begin_attach();
      place = backlog_.begin();
      continue;
    }
    if (session_state_ == session_state::ready) {
      std::uint64_t staged_bytes = 0;
      for (const std::uint32_t item : one.items) {
        staged_bytes += one.staged ? staged_bytes_of(one.owner->room_of(item)) : 0;
      }
      if (!one.staged || one.run.slots != 0 ||
          shared_.rdma->staging()->acquire(one, *this, static_cast<std::size_t>(staged_bytes), one.run)) {
        return place;
      }
    }
    ++place;
  }
  return backlog_.end();
}

wire::digest16 connection::digest_of_memory(wire::digest_kind kind, wire::direction from, std::uint64_t id,
                                            std::uint32_t index, const std::byte* data, std::size_t length,
                                            const registration* memory) {
  wire::payload_digest& digest = *send_digest_;
  digest.begin(kind, from, id, 0, index);
  if (memory == nullptr || !memory->is_device_memory()) {
    digest.update({data, length});
    return digest.finish();
  }
  device_bytes_.resize(device_step_bytes);
  for (std::size_t done = 0; done < length;) {
    const std::span<std::byte> piece(device_bytes_.data(), std::min(length - done, device_step_bytes));
    if (!memory->copy_out(address_of(data) + done, piece)) {
      // The item fails with a wrong digest, here or at the server.
      wire::digest16 wrong = digest.finish();
      for (std::byte& one : wrong) {
        one = ~one;
      }
      return wrong;
    }
    digest.update(piece);
    done += piece.size();
  }
  return digest.finish();
}

void connection::encode_rdma(request& wanted, wire::frame_header& header, const carrier& by) {
  const auto add_frame = [&](const auto& body) {
    [[maybe_unused]] const std::size_t begin = wire::append_frame(by.frames, header, body);
  };
  if (wanted.kind == request_kind::connect) {
    add_frame(wire::connect_request{messages_open_max, message_bytes_max, messages_.session.address});
    return;
  }
  if (wanted.kind == request_kind::attach) {
    add_frame(wire::attach_request{rail_, session_.address});
    return;
  }
  if (wanted.kind == request_kind::detach) {
    std::array<std::byte, 8> body{};
    wire::store_le(body.data(), wanted.session_id);
    add_frame(wire::raw_message{body});
    return;
  }
  const operation& owner = *wanted.owner;
  staging_area* const area = shared_.rdma->staging();
  std::byte* staged = wanted.staged ? area->at(wanted.run) : nullptr;
  struct place {
    std::byte* data = nullptr;
    std::uint32_t rkey = 0;
  };
  const auto place_of = [&](std::uint32_t item) -> place {
    if (wanted.staged) {
      const place here{staged, shared_.rdma->staging_rkey(rail_)};
      staged += staged_bytes_of(owner.room_of(item));
      return here;
    }
    const registration* const memory = owner.memory_at(item);
    if (memory == nullptr) {
      return {};
    }
    return {const_cast<std::byte*>(owner.data_of(item)), memory->on_device[rail_].rkey()};
  };
  if (wanted.kind == request_kind::batch_write) {
    std::vector<wire::batch_write_item> items;
    items.reserve(wanted.items.size());
    for (const std::uint32_t item : wanted.items) {
      const put_item& put = owner.puts[item];
      const place from = place_of(item);
      if (wanted.staged && !put.value.empty()) {
        std::memcpy(from.data, put.value.data(), put.value.size());
      }
      items.push_back({put.if_absent, from.rkey, address_of(from.data),
                       static_cast<std::uint32_t>(put.value.size()),
                       digest_of_memory(header.kind, wire::direction::request, digest_id(wanted),
                                        static_cast<std::uint32_t>(items.size()), from.data, put.value.size(),
                                        wanted.staged ? nullptr : owner.memory_at(item)),
                       wire::as_bytes_view(put.key)});
    }
    add_frame(wire::session_batch_request<wire::batch_write_item>{by.session_id, items});
    return;
  }
  std::vector<wire::batch_read_item> items;
  items.reserve(wanted.items.size());
  for (const std::uint32_t item : wanted.items) {
    const get_item& get = owner.gets[item];
    const place to = place_of(item);
    items.push_back({to.rkey, address_of(to.data), get.range_offset, get.range_length, owner.room_of(item),
                     wire::as_bytes_view(get.key)});
  }
  add_frame(wire::session_batch_request<wire::batch_read_item>{by.session_id, items});
}

void connection::use_tcp(request& wanted, const std::vector<std::uint32_t>& items) {
  operation& owner = *wanted.owner;
  std::vector<std::uint32_t> reachable;
  for (const std::uint32_t item : items) {
    if (owner.in_device_memory(item)) {
      owner.set_result(item, errc::unsupported);
    } else {
      owner.results[item] = {};
      reachable.push_back(item);
    }
  }
  plan_for_tcp(owner, server_, true, reachable, [&](request_kind kind, std::vector<std::uint32_t> group) {
    request& made = *wanted.replacements.emplace_back(std::make_unique<request>());
    made.owner = &owner;
    made.kind = kind;
    made.items = std::move(group);
    made.deadline_ns = wanted.deadline_ns;
    made.server_index = wanted.server_index;
    owner.pending.fetch_add(1, std::memory_order_acq_rel);
    queue_.count_made();
    ++shared_.counted.requests_retried;
    backlog_.push_back(&made);
  });
}

// ---- answers ----

void connection::refuse_rdma(request& wanted, errc code) {
  const bool failed = is_rdma_failure(code) || code == errc::unsupported;
  if (failed) {
    fail_carrier(wanted, "a request is refused: " + std::string(sentence(code)));
  }
  if (!shared_.rdma->strict() && (failed || code == errc::unavailable)) {
    use_tcp(wanted, wanted.items);
  } else {
    if (code == errc::deadline_exceeded) {
      shared_.rdma->note_deadline();
    }
    wanted.owner->fail(wanted, code == errc::unsupported ? errc::rdma_failed : code);
  }
  finish(wanted);
}

void connection::fail_carrier(const request& used, const std::string& why) {
  used.by_message ? fail_messages(why) : fail_rdma(why);
}

bool connection::accept_batch_write(request& wanted, const wire::frame_header& header,
                                    wire::bytes_view variable) {
  wire::batch_put_reply_view body;
  if (!header.last() || header.payload_length != 0 ||
      wire::batch_put_reply_view::decode(variable, body) != wire::status::ok ||
      body.size() != wanted.items.size()) {
    return false;
  }
  operation& owner = *wanted.owner;
  std::vector<std::uint32_t> again;
  errc failure = errc::ok;
  std::uint64_t bytes = 0;
  for (std::uint32_t i = 0; i < body.size(); ++i) {
    const std::uint32_t item = wanted.items[i];
    const errc code = code_of(body[i].status);
    failure = is_rdma_failure(code) ? code : failure;
    // A transfer that failed is answered `unavailable`, as is a drive that is away. Neither stored anything.
    if (!shared_.rdma->strict() && (is_rdma_failure(code) || code == errc::unavailable)) {
      again.push_back(item);
      continue;
    }
    bytes += code == errc::ok ? owner.puts[item].value.size() : 0;
    owner.results[item].generation = body[i].generation;
    owner.set_result(item, code);
  }
  (wanted.staged ? shared_.rdma->staged_bytes : shared_.rdma->registered_bytes) += bytes;
  if (failure != errc::ok) {
    fail_carrier(wanted, std::string(sentence(failure)));
  } else if (again.empty()) {
    shared_.rdma->note_success();
  }
  use_tcp(wanted, again);
  finish(wanted);
  return true;
}

bool connection::accept_batch_read(request& wanted, const wire::frame_header& header,
                                   wire::bytes_view variable) {
  wire::batch_read_reply_view body;
  if (!header.last() || header.payload_length != 0 ||
      wire::batch_read_reply_view::decode(variable, body) != wire::status::ok ||
      body.size() != wanted.items.size()) {
    return false;
  }
  operation& owner = *wanted.owner;
  // Nothing is given before all of the answer was found plausible.
  for (std::uint32_t i = 0; i < body.size(); ++i) {
    const wire::batch_read_result got = body[i];
    const get_item& get = owner.gets[wanted.items[i]];
    if (got.status == wire::status::ok &&
        (got.value_length < get.range_offset || got.length != wanted_bytes(get, got.value_length) ||
         got.length > owner.room_of(wanted.items[i]))) {
      return false;
    }
  }
  std::vector<std::uint32_t> again;
  std::string failure;
  std::uint64_t bytes = 0;
  const std::byte* staged = wanted.staged ? shared_.rdma->staging()->at(wanted.run) : nullptr;
  for (std::uint32_t i = 0; i < body.size(); ++i) {
    const std::uint32_t item = wanted.items[i];
    const wire::batch_read_result got = body[i];
    item_result& result = owner.results[item];
    const std::byte* const placed = wanted.staged ? staged : owner.data_of(item);
    staged += wanted.staged ? staged_bytes_of(owner.room_of(item)) : 0;
    errc code = code_of(got.status);
    const bool right = code != errc::ok || got.length == 0 ||
                       wire::equal_in_constant_time(
                           digest_of_memory(header.kind, wire::direction::reply, digest_id(wanted), i, placed,
                                            got.length, wanted.staged ? nullptr : owner.memory_at(item)),
                           got.digest);
    if (!right) {
      code = errc::digest_mismatch;
      failure = "the bytes that arrived do not match their digest";
    } else if (is_rdma_failure(code)) {
      failure = sentence(code);
    }
    if (!shared_.rdma->strict() && (!right || is_rdma_failure(code) || code == errc::unavailable)) {
      again.push_back(item);
      continue;
    }
    if (code == errc::ok) {
      if (wanted.staged && got.length != 0) {
        std::memcpy(owner.gets[item].target.data(), placed, got.length);
      }
      bytes += got.length;
      result.length = got.length;
    }
    if (code == errc::ok || code == errc::out_of_range || code == errc::buffer_too_small) {
      result.value_length = got.value_length;
    }
    owner.set_result(item, code);
  }
  (wanted.staged ? shared_.rdma->staged_bytes : shared_.rdma->registered_bytes) += bytes;
  if (!failure.empty()) {
    fail_carrier(wanted, failure);
  } else if (again.empty()) {
    shared_.rdma->note_success();
  }
  use_tcp(wanted, again);
  finish(wanted);
  return true;
}

} // namespace memkv::client
