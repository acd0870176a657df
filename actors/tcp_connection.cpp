#include "actors/tcp_connection.hpp"

#include "actors/log.hpp"
#include "wire/assert.hpp"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace memkv::actors {

namespace {

constexpr const char* target = "memkv::connection";
constexpr std::size_t vectors_max = 1000; // the kernel takes 1,024
/// Answers that wait to be written hold at most about this much besides stored payload; then no more requests
/// are read.
constexpr std::uint64_t ready_bytes_max = 256 << 10;
/// What the requests of one connection hold before no more are read.
constexpr std::uint64_t held_bytes_max = 1 << 20;
/// What a frame costs besides its bytes.
constexpr std::uint64_t frame_overhead_bytes = 128;
/// A request that costs more counts among the large ones, which have one limit for the whole server.
constexpr std::uint64_t large_request_bytes = 16 << 10;

/// About how much memory a request will hold. Measured, rounded up.
std::uint64_t cost_of(wire::opcode opcode, wire::bytes_view variable) noexcept {
  constexpr std::uint64_t one = 2048;
  std::uint64_t item = 0;
  switch (opcode) {
  case wire::opcode::tcp_batch_put:
    item = 768;
    break;
  case wire::opcode::tcp_batch_get:
  case wire::opcode::tcp_batch_delete:
    item = 192;
    break;
  case wire::opcode::batch_write:
    item = 128;
    break;
  case wire::opcode::batch_read:
    item = 240;
    break;
  default:
    return one;
  }
  std::uint64_t count = variable.size() < 4 ? 0 : wire::load_le<std::uint32_t>(variable.data());
  count = std::min<std::uint64_t>(count, wire::limits::batch_items_max);
  // Some dozens of a batch's items are being read at a time; what more RDMA has is bounded for all together.
  return one + variable.size() + count * item + std::min<std::uint64_t>(count, 64) * 1024;
}
/// After a last answer the peer gets this long to take it before the connection is cut.
constexpr std::uint64_t linger_ns = 1'000'000'000;
/// Frames are gathered into one send up to about this much, so that small answers do not cost a system call
/// each.
constexpr std::uint64_t gathered_bytes_max = 1 << 20;
constexpr std::uint64_t skip_bytes_max = 1 << 20;
/// What the send buffer of a socket usually has room for.
constexpr std::uint64_t sent_at_once_bytes_max = 128 << 10;

} // namespace

/// The receive that is with the kernel. It holds the memory that the kernel may write to.
class tcp_connection::receive_operation final : public ring_operation {
public:
  explicit receive_operation(tcp_connection& owner) : owner_(owner) {}
  void completed(std::int32_t result, std::uint32_t flags) override {
    busy = false;
    owner_.received(result, flags);
  }
  enum class into : std::uint8_t { header_buffer, room, nowhere };
  into where = into::header_buffer;
  std::shared_ptr<void> keep;
  bool busy = false;

private:
  tcp_connection& owner_;
};

/// The send that is with the kernel, and the frames it is made of.
class tcp_connection::send_operation final : public ring_operation {
public:
  explicit send_operation(tcp_connection& owner) : owner_(owner) {}
  void completed(std::int32_t result, std::uint32_t) override {
    busy = false;
    owner_.sent(result);
  }
  std::vector<outgoing> frames;
  std::vector<iovec> vectors;
  std::size_t first_vector = 0;
  std::uint64_t bytes_left = 0;
  msghdr message{};
  bool busy = false;

private:
  tcp_connection& owner_;
};

tcp_connection::tcp_connection(reactor& owner, std::uint64_t id, std::shared_ptr<admission_slot> slot,
                               connection_actor handle)
    : owner_(owner), id_(id), slot_(std::move(slot)), handle_(std::move(handle)),
      file_(owner.files().add(slot_->descriptor())),
      reader_(owner.shared().mac, owner.shared().budget,
              owner.shared().previous_mac ? &*owner.shared().previous_mac : nullptr),
      receiving_(std::make_unique<receive_operation>(*this)),
      sending_(std::make_unique<send_operation>(*this)), begun_ns_(owner.now_ns()),
      last_frame_ns_(begun_ns_) {
  const int one = 1;
  ::setsockopt(slot_->descriptor(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

tcp_connection::~tcp_connection() {
  owner_.files().remove(file_);
  owner_.shared().let_go_large(large_held_bytes_);
  let_go(held_bytes_);
}

void tcp_connection::address(io_uring_sqe& operation) const noexcept {
  if (file_ == file_table::nowhere)
    return;
  operation.fd = file_;
  operation.flags |= IOSQE_FIXED_FILE;
}

void tcp_connection::hold(std::uint64_t bytes) noexcept {
  held_bytes_ += bytes;
  owner_.hold(bytes);
}

void tcp_connection::let_go(std::uint64_t bytes) noexcept {
  MEMKV_ASSERT(bytes <= held_bytes_, "no more is let go than was held");
  held_bytes_ -= bytes;
  owner_.let_go(bytes);
}

void tcp_connection::let_go_of(const tcp_request& which) noexcept {
  if (which.held_bytes() <= large_request_bytes) {
    let_go(which.held_bytes());
    return;
  }
  large_held_bytes_ -= which.held_bytes();
  owner_.shared().let_go_large(which.held_bytes());
}

// --- reading ---

bool tcp_connection::may_read() const noexcept {
  if (input_ended_ || close_when_sent_ || ready_bytes_ >= ready_bytes_max ||
      requests_.size() - carried_ >= wire::limits::frames_in_flight_max)
    return false;
  // Where all connections together hold much, one that holds nothing is still served: an honest client does
  // not wait for the others to read their answers.
  const auto held = held_bytes_ + large_held_bytes_;
  if (held >= held_bytes_max || (held > 0 && !owner_.has_room()))
    return false;
  return !(owner_.finishing() && payload_left_ == 0);
}

void tcp_connection::pump_input() {
  if (closing_ || receiving_->busy || taking_)
    return;
  if (read_after_ns_ > owner_.now_ns()) {
    if (payload_left_ > 0 && payload_paused_ns_ == 0)
      payload_paused_ns_ = paused_since_ns_ = owner_.now_ns();
    return;
  }
  if (lingering_) {
    // Unread bytes would make the close a reset, and the peer might lose the answer.
    payload_left_ = skip_bytes_max;
    skip_payload(skip_bytes_max);
    return;
  }
  if (!stash_.empty()) {
    auto held = std::move(stash_);
    stash_.clear();
    take(held);
    if (closing_ || receiving_->busy || !stash_.empty())
      return;
  }
  if (payload_left_ > 0) {
    if (payload_of_ == nullptr) {
      skip_payload(payload_left_);
      return;
    }
    auto step = payload_of_->next_payload(payload_left_);
    if (payload_of_ == nullptr) { // it ended while it was asked
      pump_input();
      return;
    }
    if (!step.room.empty()) {
      payload_paused_ns_ = 0;
      receive_payload(step.room, std::move(step.keep));
    } else if (step.skip > 0) {
      skip_payload(step.skip);
    } else if (payload_paused_ns_ == 0) {
      payload_paused_ns_ = paused_since_ns_ = owner_.now_ns();
    }
    return;
  }
  if (may_read())
    receive_header();
}

void tcp_connection::receive_header() {
  receiving_->where = receive_operation::into::header_buffer;
  receiving_->busy = true;
  auto* sqe = owner_.sqe_for(receiving_.get());
  io_uring_prep_recv(sqe, slot_->descriptor(), nullptr, reactor::header_buffer_bytes, 0);
  sqe->flags |= IOSQE_BUFFER_SELECT;
  sqe->buf_group = reactor::header_buffer_group;
  // The next request is usually not there yet: to try would be in vain.
  if (!more_arrived_)
    sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
  address(*sqe);
}

void tcp_connection::receive_payload(std::span<std::byte> room, std::shared_ptr<void> keep) {
  receiving_->where = receive_operation::into::room;
  receiving_->keep = std::move(keep);
  receiving_->busy = true;
  auto* sqe = owner_.sqe_for(receiving_.get());
  io_uring_prep_recv(sqe, slot_->descriptor(), room.data(), room.size(), MSG_WAITALL);
  address(*sqe);
}

void tcp_connection::skip_payload(std::uint64_t bytes) {
  // TCP gives bytes up without copying them when told to truncate.
  receiving_->where = receive_operation::into::nowhere;
  receiving_->busy = true;
  payload_paused_ns_ = 0;
  auto* sqe = owner_.sqe_for(receiving_.get());
  io_uring_prep_recv(sqe, slot_->descriptor(), nullptr, std::min({bytes, payload_left_, skip_bytes_max}),
                     MSG_TRUNC);
  address(*sqe);
}

void tcp_connection::received(std::int32_t result, std::uint32_t flags) {
  const auto where = receiving_->where;
  const bool buffered = (flags & IORING_CQE_F_BUFFER) != 0;
  const auto buffer = static_cast<std::uint16_t>(flags >> IORING_CQE_BUFFER_SHIFT);
  auto keep = std::move(receiving_->keep);
  receiving_->keep = nullptr;
  more_arrived_ = (flags & IORING_CQE_F_SOCK_NONEMPTY) != 0;
  if (result <= 0 || closing_) {
    if (buffered)
      owner_.give_back_header_buffer(buffer);
    if (closing_) {
      maybe_end();
    } else if (result == -ENOBUFS || result == -EINTR || result == -EAGAIN) {
      owner_.wait_for_buffers(*this);
    } else if (result == 0) {
      // The peer sends no more. What it asked for completely is still answered.
      input_ended_ = true;
      if (lingering_ || payload_left_ > 0 || reader_.mid_header() ||
          (no_requests() && ready_.empty() && !sending_->busy))
        close(close_reason::peer_closed);
    } else {
      close(result == -ECONNRESET || result == -EPIPE ? close_reason::peer_closed
                                                      : close_reason::socket_error);
    }
    return;
  }
  if (const auto delay = owner_.network_delay_ns(); delay != 0) {
    read_after_ns_ = write_after_ns_ = owner_.now_ns() + delay;
    owner_.wake_later(*this, read_after_ns_);
  }
  const auto bytes = static_cast<std::uint32_t>(result);
  switch (where) {
  case receive_operation::into::header_buffer:
    take(owner_.header_buffer(buffer, bytes));
    owner_.give_back_header_buffer(buffer);
    break;
  case receive_operation::into::room:
    payload_received_ += bytes;
    payload_left_ -= bytes;
    if (payload_of_ != nullptr)
      payload_of_->payload_arrived(bytes);
    if (payload_left_ == 0)
      payload_done();
    break;
  case receive_operation::into::nowhere:
    payload_received_ += bytes;
    payload_left_ -= bytes;
    if (payload_of_ != nullptr)
      payload_of_->payload_skipped(bytes);
    if (payload_left_ == 0)
      payload_done();
    break;
  }
  pump_input();
}

/// Takes bytes that are in memory already: headers, and payload that came in the same receive.
void tcp_connection::take(std::span<const std::byte> bytes) {
  taking_ = true;
  while (!bytes.empty() && !closing_ && !close_when_sent_) {
    const bool moved = payload_left_ > 0 ? take_payload(bytes) : take_header(bytes);
    if (!moved) {
      stash_.assign(bytes.begin(), bytes.end());
      break;
    }
  }
  taking_ = false;
}

bool tcp_connection::take_payload(std::span<const std::byte>& bytes) {
  std::uint64_t count = std::min<std::uint64_t>(bytes.size(), payload_left_);
  if (payload_of_ != nullptr) {
    const auto step = payload_of_->next_payload(payload_left_);
    if (payload_of_ != nullptr && step.room.empty() && step.skip == 0)
      return false;
    if (payload_of_ != nullptr && !step.room.empty()) {
      count = std::min<std::uint64_t>(count, step.room.size());
      std::memcpy(step.room.data(), bytes.data(), count);
      payload_received_ += count;
      payload_left_ -= count;
      bytes = bytes.subspan(count);
      payload_of_->payload_arrived(static_cast<std::uint32_t>(count));
      if (payload_left_ == 0)
        payload_done();
      return true;
    }
    if (payload_of_ != nullptr)
      count = std::min(count, step.skip);
  }
  payload_received_ += count;
  payload_left_ -= count;
  bytes = bytes.subspan(count);
  if (payload_of_ != nullptr)
    payload_of_->payload_skipped(count);
  if (payload_left_ == 0)
    payload_done();
  return true;
}

void tcp_connection::payload_done() {
  payload_begun_ns_ = 0;
  payload_paused_ns_ = 0;
  auto* which = payload_of_;
  payload_of_ = nullptr;
  if (which != nullptr)
    which->payload_complete();
  auto held = std::move(held_);
  held_.clear();
  for (auto& frame : held)
    queue(std::move(frame));
}

bool tcp_connection::take_header(std::span<const std::byte>& bytes) {
  if (!may_read())
    return false;
  const auto [consumed, event] = reader_.consume(bytes, owner_.wall_now_ns());
  bytes = bytes.subspan(consumed);
  const auto now = owner_.now_ns();
  if (event == wire::request_event::need_more) {
    if (header_begun_ns_ == 0 && reader_.mid_header())
      header_begun_ns_ = now;
    return true;
  }
  waits_for_budget_ = event == wire::request_event::wait_for_budget;
  if (waits_for_budget_) {
    if (header_begun_ns_ == 0)
      header_begun_ns_ = now;
    owner_.wait_for_buffers(*this);
    return false;
  }
  header_begun_ns_ = 0;
  last_frame_ns_ = now;
  if (event == wire::request_event::close) {
    close(reader_.reason() == wire::refusal::too_many_drops ? close_reason::too_many_drops
                                                            : close_reason::protocol);
    return true;
  }
  owner_.counters().frames.add();
  payload_left_ = reader_.payload_bytes();
  payload_received_ = 0;
  payload_begun_ns_ = payload_left_ > 0 ? now : 0;
  payload_of_ = nullptr;
  taking_header_ = true;
  switch (event) {
  case wire::request_event::header:
    if (reader_.authenticated())
      slot_->authenticated();
    if (reader_.header().opcode == wire::opcode::hello)
      handle_hello();
    else
      handle_request();
    break;
  case wire::request_event::malformed:
    if (reader_.authenticated())
      slot_->authenticated();
    answer_malformed();
    break;
  case wire::request_event::drop:
    (reader_.reason() == wire::refusal::old_id ? owner_.counters().dropped_replayed
                                               : owner_.counters().dropped_stale)
        .add();
    if (reader_.reason() == wire::refusal::stale_time)
      slot_->note(door_event::other_time);
    break;
  case wire::request_event::refuse_version: {
    owner_.counters().wrong_version.add();
    outgoing answer;
    wire::append_version_refusal(answer.frame, reader_.header(), reader_.variable_part());
    close_when_sent_ = true;
    queue(std::move(answer));
    break;
  }
  default:
    break;
  }
  taking_header_ = false;
  reader_.release_header();
  return true;
}

void tcp_connection::handle_hello() {
  const auto& options = owner_.shared().options;
  wire::hello_reply own;
  own.server_id = options.store.identity.set_id;
  own.capabilities = options.require_keyed_digest ? wire::server_capabilities::keyed_digest_required : 0;
  if (owner_.rails().any_pool())
    own.capabilities |= wire::server_capabilities::rdma;
  own.value_bytes_max = options.limits.value_bytes_max;
  own.idle_timeout_ms = options.limits.idle_timeout_ms;
  const auto answer = wire::answer_hello(key(), reader_.variable_part(), wire::random_nonce(), own);
  outgoing frame;
  if (answer.status != wire::status::ok || owner_.finishing()) {
    const auto why = answer.status != wire::status::ok ? answer.status : wire::status::shutting_down;
    wire::append_hello_refusal(frame.frame, reader_.header(), reader_.variable_part(), why);
    close_when_sent_ = true;
  } else {
    wire::append_hello_answer(frame.frame, reader_.header(), answer);
    if (reader_.uses_second_key())
      owner_.counters().previous_key_connections.add();
    keys_ = answer.keys;
    digest_.emplace(keys_.payload_key);
    reader_.accept_hello(keys_.tag);
  }
  queue(std::move(frame));
}

void tcp_connection::answer_malformed() {
  owner_.counters().malformed.add();
  outgoing answer;
  if (reader_.header().opcode == wire::opcode::hello) {
    wire::append_hello_refusal(answer.frame, reader_.header(), reader_.variable_part(),
                               wire::status::bad_request);
    close_when_sent_ = true;
    queue(std::move(answer));
    return;
  }
  wire::append_frame(answer.frame, wire::reply_header(reader_.header(), keys_.tag, wire::status::bad_request),
                     wire::empty_message{});
  queue(std::move(answer));
}

void tcp_connection::handle_request() {
  auto* which = admit(reader_.header(), reader_.variable_part());
  if (which == nullptr)
    return; // a payload, if there is one, is skipped
  if (payload_left_ > 0)
    payload_of_ = which;
  which->begin(reader_.variable_part());
  if (payload_left_ == 0 && !which->over())
    which->payload_complete();
}

const wire::shared_key& tcp_connection::key() const {
  const auto& options = owner_.shared().options;
  return reader_.uses_second_key() ? *options.previous_key : *options.key;
}

tcp_request* tcp_connection::admit(const wire::frame_header& header, wire::bytes_view variable) {
  const auto cost = cost_of(header.opcode, variable);
  const bool large = cost > large_request_bytes;
  // The socket is not read while much is held. Messages come whether we want them or not.
  const auto held = held_bytes_ + large_held_bytes_;
  const bool full = carrier_ != 0 && (held >= held_bytes_max || (held > 0 && !owner_.has_room()));
  if (full || (large && !owner_.shared().hold_large(cost))) {
    outgoing answer;
    owner_.counters().busy.add();
    wire::append_frame(answer.frame, wire::reply_header(header, keys_.tag, wire::status::busy),
                       wire::empty_message{});
    queue(std::move(answer));
    return nullptr;
  }
  auto made = make_request(*this, owner_, header, variable);
  if (made == nullptr) {
    if (large)
      owner_.shared().let_go_large(cost);
    return nullptr;
  }
  auto* which = made.get();
  which->set_held_bytes(cost);
  if (large)
    large_held_bytes_ += cost;
  else
    hold(cost);
  requests_.emplace(which, std::move(made));
  carried_ += carrier_ != 0 ? 1 : 0;
  return which;
}

// --- writing ---

void tcp_connection::queue(outgoing frame, const tcp_request* from) {
  if (closing_)
    return;
  if (const auto carrier = from != nullptr ? from->carrier() : carrier_; carrier != 0) {
    send_message(carrier, std::move(frame));
    return;
  }
  const bool of_current_frame = from != nullptr ? from == payload_of_ : taking_header_;
  if (payload_left_ > 0 && of_current_frame && !close_when_sent_) {
    held_.push_back(std::move(frame));
    return;
  }
  ready_bytes_ += frame.frame.size();
  hold(frame.frame.size() + frame_overhead_bytes);
  ready_.push_back(std::move(frame));
  pump_output();
}

void tcp_connection::stream(tcp_request& which) {
  streams_.push_back(&which);
  pump_output();
}

void tcp_connection::unstream(tcp_request& which) {
  streams_.remove(&which);
}

void tcp_connection::pump_output() {
  while (gather_output()) {
    if (!send_at_once()) {
      submit_send();
      return;
    }
    frames_sent();
    // Reading may have had to stop for what has been answered now; its request ends when its code returns.
    if (!receiving_->busy && !taking_)
      owner_.wait_for_buffers(*this);
  }
}

/// Takes what is to be written next into `sending_`. False: nothing, or not now.
bool tcp_connection::gather_output() {
  auto& out = *sending_;
  if (closing_ || out.busy || write_after_ns_ > owner_.now_ns())
    return false;
  std::uint64_t bytes = 0;
  std::size_t vectors = 0;
  const auto add = [&](outgoing frame) {
    vectors += 1 + frame.payload.size();
    bytes += frame.frame.size() + frame.payload_bytes;
    out.frames.push_back(std::move(frame));
  };
  const auto fits = [&](const outgoing& next) {
    return out.frames.empty() ||
           (vectors + 1 + next.payload.size() <= vectors_max && bytes < gathered_bytes_max);
  };
  while (!ready_.empty() && fits(ready_.front())) {
    add(std::move(ready_.front()));
    ready_.pop_front();
  }
  // Making a part may end its request, and with the last request of a peer that sends no more the
  // connection. Meanwhile it counts as sending, so that nobody else sends, or buries it.
  out.busy = true;
  // One part a turn: what becomes ready meanwhile goes before the next part.
  if (ready_.empty() && bytes < gathered_bytes_max / 4) {
    for (auto at = streams_.begin(); at != streams_.end(); ++at) {
      auto* which = *at;
      if (!which->part_ready()) {
        which->now_in(which->waits_for());
        continue;
      }
      streams_.erase(at);
      streams_.push_back(which);
      auto part = which->next_part(); // may end the request and take it out of streams_
      ready_bytes_ += part.frame.size();
      hold(part.frame.size() + frame_overhead_bytes);
      if (vectors + 1 + part.payload.size() <= vectors_max)
        add(std::move(part));
      else
        ready_.push_front(std::move(part));
      break;
    }
  }
  out.busy = false;
  if (closing_)
    out.frames.clear();
  if (out.frames.empty()) {
    maybe_end();
    return false;
  }
  const auto now = owner_.wall_now_ns();
  out.vectors.clear();
  out.first_vector = 0;
  for (auto& frame : out.frames) {
    wire::seal(frame.frame, now, reader_.verifier());
    out.vectors.push_back({frame.frame.data(), frame.frame.size()});
    for (const auto& piece : frame.payload) {
      if (piece.empty())
        continue;
      out.vectors.push_back({const_cast<std::byte*>(piece.data()), piece.size()});
    }
  }
  MEMKV_ASSERT(out.vectors.size() <= 1024, "what is sent at once has few enough pieces");
  out.bytes_left = bytes;
  send_progress_ns_ = owner_.now_ns();
  return true;
}

/// Where nobody else waits for this turn of the ring, a small answer goes out without it, and the next wait
/// is not interrupted by its completion. False: nothing was sent.
bool tcp_connection::send_at_once() {
  auto& out = *sending_;
  if (out.bytes_left > sent_at_once_bytes_max || !owner_.turn_is_idle())
    return false;
  msghdr message{};
  message.msg_iov = out.vectors.data();
  message.msg_iovlen = out.vectors.size();
  const auto sent = ::sendmsg(slot_->descriptor(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent == static_cast<ssize_t>(out.bytes_left))
    return true;
  // An error is seen by the ring's attempt, too.
  if (sent > 0)
    skip_sent(static_cast<std::uint64_t>(sent));
  return false;
}

void tcp_connection::skip_sent(std::uint64_t bytes) {
  auto& out = *sending_;
  out.bytes_left -= bytes;
  while (bytes >= out.vectors[out.first_vector].iov_len) {
    bytes -= out.vectors[out.first_vector].iov_len;
    ++out.first_vector;
  }
  auto& first = out.vectors[out.first_vector];
  first.iov_base = static_cast<std::byte*>(first.iov_base) + bytes;
  first.iov_len -= bytes;
}

/// All of `sending_` is with the kernel.
void tcp_connection::frames_sent() {
  auto& out = *sending_;
  for (auto& frame : out.frames) {
    ready_bytes_ -= frame.frame.size();
    let_go(frame.frame.size() + frame_overhead_bytes);
    if (frame.clock.runs())
      frame.clock.note(owner_.counters(), owner_.now_ns());
  }
  out.frames.clear();
  if (out.vectors.capacity() > 64)
    out.vectors = {};
}

void tcp_connection::submit_send() {
  auto& out = *sending_;
  out.message = {};
  out.message.msg_iov = out.vectors.data() + out.first_vector;
  out.message.msg_iovlen = out.vectors.size() - out.first_vector;
  out.busy = true;
  auto* sqe = owner_.sqe_for(&out);
  io_uring_prep_sendmsg(sqe, slot_->descriptor(), &out.message, MSG_NOSIGNAL | MSG_WAITALL);
  address(*sqe);
}

void tcp_connection::sent(std::int32_t result) {
  auto& out = *sending_;
  if (closing_) {
    out.frames.clear();
    maybe_end();
    return;
  }
  if (result == -EINTR || result == -EAGAIN) {
    submit_send();
    return;
  }
  if (result <= 0) {
    out.frames.clear();
    close(result == -EPIPE || result == -ECONNRESET ? close_reason::peer_closed : close_reason::socket_error);
    return;
  }
  send_progress_ns_ = owner_.now_ns();
  if (static_cast<std::uint64_t>(result) < out.bytes_left) {
    skip_sent(static_cast<std::uint64_t>(result));
    submit_send();
    return;
  }
  frames_sent();
  pump_output();
  // A place among the frames in flight may have become free.
  pump_input();
}

// --- the end ---

void tcp_connection::ended(tcp_request& which) {
  if (which.over())
    return;
  which.mark_over();
  streams_.remove(&which);
  const bool skips = payload_of_ == &which;
  if (skips)
    payload_of_ = nullptr; // the rest of it is skipped
  const auto found = requests_.find(&which);
  MEMKV_ASSERT(found != requests_.end(), "a request ends on its own connection");
  let_go_of(which);
  carried_ -= which.carrier() != 0 ? 1 : 0;
  living_on_ -= which.lives_on() ? 1 : 0;
  owner_.bury(std::move(found->second));
  requests_.erase(found);
  if (closing_)
    maybe_end();
  else if (input_ended_ || close_when_sent_ || owner_.finishing())
    pump_output();
  if (skips)
    pump_input();
}

void tcp_connection::lives_on(tcp_request& which) noexcept {
  let_go_of(which);
  which.set_held_bytes(0);
  which.mark_living_on();
  ++living_on_;
}

void tcp_connection::finish() {
  if (payload_left_ == 0 && no_requests() && ready_.empty() && !sending_->busy)
    close(close_reason::stopping);
}

void tcp_connection::maybe_end() {
  if (ended_)
    return;
  if (!closing_) {
    const bool quiet = no_requests() && ready_.empty() && held_.empty() && !sending_->busy;
    if (!quiet || lingering_)
      return;
    if (close_when_sent_ && !input_ended_) {
      lingering_ = true;
      lingering_since_ns_ = owner_.now_ns();
      ::shutdown(slot_->descriptor(), SHUT_WR);
      pump_input();
    } else if (input_ended_ || (owner_.finishing() && payload_left_ == 0)) {
      close(input_ended_ ? close_reason::peer_closed : close_reason::stopping);
    }
    return;
  }
  if (receiving_->busy || sending_->busy)
    return;
  if (!requests_.empty() && !owner_.dying())
    return; // drives still work for them
  ended_ = true;
  if (owner_.dying())
    requests_.clear();
  owner_.bury(*this);
}

void tcp_connection::close(close_reason why) {
  if (closing_)
    return;
  closing_ = true;
  owner_.counters().closed[static_cast<std::size_t>(why)].add();
  if (const auto event = door_event_of(why, reader_.reason(), slot_->is_authenticated()))
    slot_->note(*event);
  if (log::enabled(log::level::debug, target))
    log::debug(target, "connection closed",
               {{"peer", to_string(slot_->peer())},
                {"reason", name_of(why)},
                {"refusal", wire::name(reader_.reason())}});
  if (why == close_reason::slow_reader) {
    // Else the kernel would hold what it has not taken, and go on offering it to who does not take it.
    const linger at_once{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(slot_->descriptor(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  }
  // Makes a receive and a send that are with the kernel come back.
  ::shutdown(slot_->descriptor(), SHUT_RDWR);
  ready_.clear();
  held_.clear();
  ready_bytes_ = 0;
  streams_.clear();
  stash_.clear();
  payload_of_ = nullptr;
  std::vector<tcp_request*> open;
  for (const auto& [which, owned] : requests_)
    open.push_back(which);
  for (auto* which : open)
    if (requests_.contains(which))
      which->abandon();
  maybe_end();
}

void tcp_connection::check_time(std::uint64_t now) {
  if (closing_)
    return;
  const auto& limits = owner_.shared().options.limits;
  const auto older = [now](std::uint64_t since_ns, std::uint64_t ms) {
    return now > since_ns && now - since_ns > ms * 1'000'000;
  };
  if (lingering_ && now - lingering_since_ns_ > linger_ns) {
    close(close_reason::version);
    return;
  }
  if (!reader_.authenticated() && older(begun_ns_, limits.handshake_ms)) {
    close(close_reason::handshake_timeout);
    return;
  }
  // While nothing is received we keep it waiting, and that is not the peer's fault. But where headers of
  // which a part is there have taken all memory that headers get, some have to go: each waits for the others.
  if (header_begun_ns_ != 0 && !receiving_->busy && !waits_for_budget_)
    header_begun_ns_ = now;
  if (header_begun_ns_ != 0 && older(header_begun_ns_, limits.header_ms)) {
    close(close_reason::header_timeout);
    return;
  }
  if (payload_paused_ns_ != 0) {
    // We keep it waiting; that is not the peer's fault.
    payload_begun_ns_ += std::min(now - payload_paused_ns_, now - payload_begun_ns_);
    payload_paused_ns_ = now;
    if (older(paused_since_ns_, limits.request_ms) && payload_of_ != nullptr) {
      // There is no room for it and there may be none for long. Who waits does not even see its peer leave,
      // and holds what others wait for.
      paused_since_ns_ = now;
      payload_of_->expire();
      if (closing_)
        return;
    }
  } else if (payload_begun_ns_ != 0 && older(payload_begun_ns_, limits.payload_grace_ms)) {
    const auto seconds = static_cast<double>(now - payload_begun_ns_) / 1e9;
    // What is in the step that is being received is not known: it counts in the peer's favour.
    if (static_cast<double>(payload_received_ + value_writer::step_bytes_max) <
        seconds * wire::limits::payload_bytes_per_second_min) {
      close(close_reason::slow_payload);
      return;
    }
  }
  for (auto& [session, pair] : queue_pairs_)
    if (pair.ends_at_ns != 0 && now > pair.ends_at_ns)
      end_queue_pair(session);
  if (sending_->busy) {
    tcp_info info{};
    socklen_t bytes = sizeof info;
    if (::getsockopt(slot_->descriptor(), IPPROTO_TCP, TCP_INFO, &info, &bytes) == 0 &&
        info.tcpi_bytes_acked != send_acknowledged_) {
      send_acknowledged_ = info.tcpi_bytes_acked;
      send_progress_ns_ = now;
    }
    if (older(send_progress_ns_, limits.write_ms)) {
      close(close_reason::slow_reader);
      return;
    }
  }
  if (no_requests() && payload_left_ == 0 && !sending_->busy && older(last_frame_ns_, limits.idle_timeout_ms))
    close(close_reason::idle);
}

} // namespace memkv::actors
