// The queue pairs of a connection that carry messages: requests that came as one, and their answers.
#include "actors/log.hpp"
#include "actors/tcp_connection.hpp"
#include "wire/assert.hpp"

#include <caf/send.hpp>

#include <algorithm>

namespace memkv::actors {

namespace {

constexpr const char* target = "memkv::connection";
/// A queue pair whose last answer says that its version is not spoken ends so much later.
constexpr std::uint64_t linger_ns = 1'000'000'000;

/// What carries no payload in either direction. Sessions are made and ended on the socket only.
bool travels(wire::opcode what) noexcept {
  switch (what) {
  case wire::opcode::allocate:
  case wire::opcode::lookup:
  case wire::opcode::commit:
  case wire::opcode::read:
  case wire::opcode::write:
  case wire::opcode::erase:
  case wire::opcode::batch_read:
  case wire::opcode::batch_write:
  case wire::opcode::exists:
  case wire::opcode::prefix:
  case wire::opcode::ping:
  case wire::opcode::stat:
  case wire::opcode::tcp_delete:
  case wire::opcode::tcp_batch_delete:
  case wire::opcode::batch_exists:
    return true;
  default:
    return false;
  }
}

/// The longest variable part of an answer. It is known before anything is done: an outcome that could not be
/// told would be worse than a refusal.
std::uint64_t answer_bytes_max(wire::opcode what, wire::bytes_view variable) noexcept {
  const std::uint64_t count = variable.size() < 4 ? 0 : wire::load_le<std::uint32_t>(variable.data());
  switch (what) {
  case wire::opcode::batch_read:
    return 8 + wire::batch_read_result::size * count;
  case wire::opcode::batch_write:
    return 8 + 16 * count;
  case wire::opcode::tcp_batch_delete:
    return 8 + count;
  case wire::opcode::batch_exists:
    return 8 + 9 * count;
  case wire::opcode::prefix:
    return 16 + 8 * count;
  default:
    return 64; // fixed, and less
  }
}

} // namespace

void tcp_connection::queue_pair_made(std::uint32_t rail, const wire::connect_request& asked,
                                     const wire::connect_reply& given) {
  const auto tag = wire::derive_queue_pair_tag(key(), keys_.tag, given.nonce,
                                               {asked.client.number, asked.client.packet_number},
                                               {given.server.number, given.server.packet_number});
  queue_pairs_.try_emplace(given.session_id, queue_pair{rail, asked.message_bytes_max,
                                                        std::min(asked.messages_max, messages_max),
                                                        wire::message_reader{reader_.verifier(), tag}});
}

void tcp_connection::take_message(std::uint64_t session, wire::bytes_view bytes) {
  const auto found = queue_pairs_.find(session);
  // Of a session that is ending, or whose version was refused, nothing more is taken.
  if (closing_ || found == queue_pairs_.end() || found->second.reader.closed() ||
      owner_.rails().find(session, id_) == nullptr)
    return;
  MEMKV_ASSERT(!taking_, "a message comes by itself");
  auto& pair = found->second;
  const auto event = pair.reader.judge(bytes, owner_.wall_now_ns());
  last_frame_ns_ = owner_.now_ns();
  if (event == wire::request_event::close) {
    refuse_queue_pair(session, pair.reader.reason() == wire::refusal::too_many_drops
                                   ? queue_pair_refusal::too_many_drops
                                   : queue_pair_refusal::protocol);
    return;
  }
  owner_.counters().frames.add();
  if (event == wire::request_event::drop) {
    (pair.reader.reason() == wire::refusal::old_id ? owner_.counters().dropped_replayed
                                                   : owner_.counters().dropped_stale)
        .add();
    return;
  }
  if (++pair.open > pair.open_max) {
    refuse_queue_pair(session, queue_pair_refusal::too_many_open);
    return;
  }
  // The socket is not read meanwhile, so that what is queued without a request is for this frame.
  taking_ = true;
  carrier_ = session;
  if (event == wire::request_event::refuse_version) {
    owner_.counters().wrong_version.add();
    count_refusal(queue_pair_refusal::version);
    outgoing answer;
    wire::append_version_refusal(answer.frame, pair.reader.header(), pair.reader.variable_part());
    send_message(session, std::move(answer), false);
    pair.ends_at_ns = owner_.now_ns() + linger_ns;
  } else if (event == wire::request_event::malformed) {
    owner_.counters().malformed.add();
    answer_message(pair.reader.header(), wire::status::bad_request);
  } else {
    handle_message(pair);
  }
  carrier_ = 0;
  taking_ = false;
  pump_input();
}

void tcp_connection::handle_message(queue_pair& pair) {
  const auto& header = pair.reader.header();
  const auto variable = pair.reader.variable_part();
  const bool weak = owner_.shared().options.require_keyed_digest && header.kind != wire::digest_kind::keyed;
  if (owner_.finishing()) {
    answer_message(header, wire::status::shutting_down);
  } else if (!travels(header.opcode)) {
    answer_message(header, wire::status::unsupported);
  } else if (!weak && wire::frame_bytes(answer_bytes_max(header.opcode, variable)) > pair.reply_bytes_max) {
    answer_message(header, wire::status::too_large);
  } else if (auto* which = admit(header, variable); which != nullptr) {
    which->begin(variable);
    if (!which->over())
      which->payload_complete();
  }
}

void tcp_connection::answer_message(const wire::frame_header& header, wire::status code) {
  outgoing answer;
  wire::append_frame(answer.frame, wire::reply_header(header, keys_.tag, code), wire::empty_message{});
  queue(std::move(answer));
}

void tcp_connection::send_message(std::uint64_t session, outgoing frame, bool tagged) {
  const auto found = queue_pairs_.find(session);
  if (found == queue_pairs_.end())
    return; // nobody is there to read it
  auto& pair = found->second;
  MEMKV_ASSERT(pair.open > 0 && frame.payload_bytes == 0 && frame.frame.size() <= pair.reply_bytes_max,
               "an answer to a message is one frame that its reader has room for");
  --pair.open;
  if (tagged)
    wire::set_connection_tag(frame.frame, pair.reader.tag());
  wire::seal(frame.frame, owner_.wall_now_ns(), reader_.verifier());
  if (frame.clock.runs())
    frame.clock.note(owner_.counters(), owner_.now_ns());
  owner_.rails().send(pair.rail, {session, handle_.id(), std::move(frame.frame)});
}

void tcp_connection::count_refusal(queue_pair_refusal why) {
  owner_.counters().queue_pairs_refused[static_cast<std::size_t>(why)].add();
  if (log::enabled(log::level::debug, target))
    log::debug(target, "a queue pair is ended for what came on it",
               {{"peer", to_string(slot_->peer())}, {"reason", name_of(why)}});
}

void tcp_connection::refuse_queue_pair(std::uint64_t session, queue_pair_refusal why) {
  count_refusal(why);
  end_queue_pair(session);
}

void tcp_connection::end_queue_pair(std::uint64_t session) {
  auto* known = owner_.rails().find(session, id_);
  if (known == nullptr)
    return; // it is ending
  known->ending = true;
  caf::anon_send(handle_, detach_session{detach_session::nobody_asked, session, nullptr});
}

token_table* tcp_connection::tokens(std::uint64_t session) noexcept {
  const auto found = queue_pairs_.find(session);
  return found == queue_pairs_.end() ? nullptr : &found->second.tokens;
}

void tcp_connection::queue_pair_ended(std::uint64_t session) {
  if (queue_pairs_.erase(session) == 0)
    return;
  std::vector<tcp_request*> open;
  for (const auto& [which, owned] : requests_)
    if (which->carrier() == session)
      open.push_back(which);
  for (auto* which : open)
    if (requests_.contains(which))
      which->abandon();
}

} // namespace memkv::actors
