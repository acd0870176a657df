// One TCP connection as its REACTOR sees it: bytes in, requests, frames out.
//
// Operation. At most one receive and one send are with the kernel. Headers are received into buffers lent by
// the ring; payload goes to where its request wants it, in steps, or is skipped. Answers that are complete
// wait in `ready_`; those of more than one part stand in `streams_` and get one part at a time in turn, so
// that a small answer waits behind at most one part. Frames are stamped and signed when they are handed to
// the kernel.
//
// Queue pairs. A session that carries messages (Connect) is another way for requests to come and for their
// answers to go; tcp_connection_messages.cpp. Everything else of a request is the same, but that none of them
// has a payload. What a failed check ends is the queue pair.
//
// Life: open -> closing (socket shut down, operations and requests run out) -> buried. The descriptor is
// closed when the last operation came back, the CONNECTION actor is told when the last request has ended.
// Threading: REACTOR's thread.
#pragma once

#include "actors/admission.hpp"
#include "actors/interfaces.hpp"
#include "actors/rdma_tokens.hpp"
#include "actors/reactor.hpp"
#include "actors/server_counters.hpp"
#include "actors/tcp_request.hpp"
#include "wire/message_reader.hpp"
#include "wire/payload_digest.hpp"
#include "wire/rdma_messages.hpp"
#include "wire/request_reader.hpp"

#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <deque>
#include <list>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

namespace memkv::actors {

class tcp_connection {
public:
  tcp_connection(reactor& owner, std::uint64_t id, std::shared_ptr<admission_slot> slot,
                 connection_actor handle);
  ~tcp_connection();

  [[nodiscard]] std::uint64_t id() const noexcept { return id_; }
  [[nodiscard]] const connection_actor& handle() const noexcept { return handle_; }
  [[nodiscard]] bool closing() const noexcept { return closing_; }

  /// Goes on reading, as far as that is possible now.
  void pump_input();
  /// Goes on writing.
  void pump_output();
  /// What the server keeps posted on a queue pair that carries messages.
  static constexpr std::uint32_t messages_max = 32;
  static constexpr std::uint32_t message_bytes_max = 8192;
  /// A session with messages has been made for the Connect that is about to be answered with `given`.
  void queue_pair_made(std::uint32_t rail, const wire::connect_request& asked,
                       const wire::connect_reply& given);
  /// One frame came on it.
  void take_message(std::uint64_t session, wire::bytes_view bytes);
  /// The session is over. One that carries no messages is none of ours.
  void queue_pair_ended(std::uint64_t session);
  /// Ends it without another byte.
  void close(close_reason why);
  /// Ends it after what is open has been answered.
  void finish();
  /// Closes it if it broke a time limit.
  void check_time(std::uint64_t now_ns);

  // For requests.
  [[nodiscard]] const peer_address& host() const noexcept { return slot_->peer(); }
  [[nodiscard]] wire::payload_digest& digest() noexcept { return *digest_; }
  /// Of the socket; frames for a queue pair get theirs when they are sent.
  [[nodiscard]] const wire::connection_tag& tag() const noexcept { return keys_.tag; }
  /// Of the frame being taken: the session that it came through, or 0 for the socket.
  [[nodiscard]] std::uint64_t carrier() const noexcept { return carrier_; }
  /// Puts an answer among those to be written; `from` is the request it answers, or null for the frame being
  /// taken. An answer to a frame whose payload is still on its way waits until that has been received or
  /// skipped.
  void queue(outgoing frame, const tcp_request* from = nullptr);
  /// From now on the request is asked for parts in turn.
  void stream(tcp_request& which);
  void unstream(tcp_request& which);
  /// The request is over: nothing more will come from it.
  void ended(tcp_request& which);
  /// It has been answered and stays for a token: from now on it is none of the open requests, and what it
  /// holds is accounted for by the token.
  void lives_on(tcp_request& which) noexcept;
  /// Of a queue pair with messages; null: there is none, or it has ended.
  [[nodiscard]] token_table* tokens(std::uint64_t session) noexcept;

private:
  /// A session that carries messages.
  struct queue_pair {
    std::uint32_t rail = 0;
    std::uint32_t reply_bytes_max = 0; // the client's room for one
    std::uint32_t open_max = 0;        // requests
    wire::message_reader reader;
    std::uint32_t open = 0;
    std::uint64_t ends_at_ns = 0; // 0: not by itself
    token_table tokens{};
  };

  class receive_operation;
  class send_operation;

  void received(std::int32_t result, std::uint32_t flags);
  void sent(std::int32_t result);
  [[nodiscard]] bool gather_output();
  [[nodiscard]] bool send_at_once();
  void skip_sent(std::uint64_t bytes);
  void frames_sent();
  void submit_send();
  /// The operation is one on the socket.
  void address(io_uring_sqe& operation) const noexcept;
  void take(std::span<const std::byte> bytes);
  [[nodiscard]] bool take_payload(std::span<const std::byte>& bytes);
  [[nodiscard]] bool take_header(std::span<const std::byte>& bytes);
  void handle_hello();
  void handle_request();
  /// Makes the request of an accepted header and accounts for it. Null: it has been answered.
  [[nodiscard]] tcp_request* admit(const wire::frame_header& header, wire::bytes_view variable);
  [[nodiscard]] const wire::shared_key& key() const;
  void handle_message(queue_pair& pair);
  void answer_message(const wire::frame_header& header, wire::status code);
  void send_message(std::uint64_t session, outgoing frame, bool tagged = true);
  /// Counts it, and ends the queue pair.
  void refuse_queue_pair(std::uint64_t session, queue_pair_refusal why);
  void count_refusal(queue_pair_refusal why);
  void end_queue_pair(std::uint64_t session);
  void answer_malformed();
  void receive_header();
  void receive_payload(std::span<std::byte> room, std::shared_ptr<void> keep);
  void skip_payload(std::uint64_t bytes);
  void payload_done();
  void maybe_end();
  [[nodiscard]] bool may_read() const noexcept;
  /// None that somebody waits for.
  [[nodiscard]] bool no_requests() const noexcept { return requests_.size() == living_on_; }
  void hold(std::uint64_t bytes) noexcept;
  void let_go(std::uint64_t bytes) noexcept;
  void let_go_of(const tcp_request& which) noexcept;

  reactor& owner_;
  std::uint64_t id_;
  std::shared_ptr<admission_slot> slot_;
  connection_actor handle_;
  std::int32_t file_; // place of the socket in the ring's table
  wire::request_reader reader_;
  wire::session_keys keys_;
  std::optional<wire::payload_digest> digest_;

  std::unique_ptr<receive_operation> receiving_;
  std::unique_ptr<send_operation> sending_;
  std::vector<std::byte> stash_; // bytes that came behind a header and cannot be taken yet
  std::uint64_t payload_left_ = 0;
  tcp_request* payload_of_ = nullptr; // null: skipped
  std::unordered_map<tcp_request*, std::unique_ptr<tcp_request>> requests_;
  std::unordered_map<std::uint64_t, queue_pair> queue_pairs_; // by session
  std::size_t carried_ = 0;   // of requests_: those that came through a queue pair
  std::size_t living_on_ = 0; // of requests_: those that were answered and stay for a token
  std::uint64_t carrier_ = 0; // see carrier()
  std::deque<outgoing> ready_;
  std::vector<outgoing> held_; // answers to the frame whose payload is being received or skipped
  bool taking_header_ = false;
  std::list<tcp_request*> streams_;
  std::uint64_t ready_bytes_ = 0;      // of headers in `ready_` and of those with the kernel
  std::uint64_t held_bytes_ = 0;       // memory that open requests and unsent answers take, about
  std::uint64_t large_held_bytes_ = 0; // the same for large requests, which the whole server counts together
  bool waits_for_budget_ = false; // the header that has begun finds no memory
  bool more_arrived_ = true; // behind what was received last, as far as is known
  bool taking_ = false; // within take(): bytes are in hand that come before those on the socket
  bool lingering_ = false;
  std::uint64_t lingering_since_ns_ = 0;
  bool close_when_sent_ = false;
  bool input_ended_ = false;
  bool closing_ = false;
  bool ended_ = false;

  std::uint64_t begun_ns_ = 0; // accept
  std::uint64_t last_frame_ns_ = 0;
  std::uint64_t header_begun_ns_ = 0;  // 0: not within a header
  std::uint64_t payload_begun_ns_ = 0; // 0: not within a payload
  std::uint64_t payload_received_ = 0;
  std::uint64_t payload_paused_ns_ = 0; // up to when our own pause is accounted for; 0: not paused
  std::uint64_t paused_since_ns_ = 0;   // since when we, not the peer, keep the payload waiting
  // Injected: nothing is read, and nothing written, before then.
  std::uint64_t read_after_ns_ = 0;
  std::uint64_t write_after_ns_ = 0;
  std::uint64_t send_progress_ns_ = 0;
  std::uint64_t send_acknowledged_ = 0;
};

} // namespace memkv::actors
