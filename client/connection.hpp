// One connection to one server: its socket, its requests on their way. Internal to client/.
//
// Two carriers take requests there: the socket, and for small ones a queue pair of messages, which is made
// through the socket and dies with it (docs/decisions/0032).
//
// Operation. Requests come by request_queue, which also says who drives: that thread alone connects, writes,
// reads, checks answers and watches deadlines.
//
// Threading: as request_queue has it; the rest by the driver.
// Ownership: the socket. Requests belong to their operations, which live until their last request is
// complete. Errors: set in the results of the requests. Limits: requests_queued_max open requests,
// frames_in_flight_max on their way on the socket, messages_open_max on the queue pair. Does not do: choose
// servers, wait (the caller polls wanted() and comes back with pump()).
#pragma once

#include "client/burst.hpp"
#include "client/dialer.hpp"
#include "client/operation.hpp"
#include "client/payload_receiver.hpp"
#include "client/request_queue.hpp"
#include "client/shared.hpp"
#include "wire/messages.hpp"
#include "wire/payload_digest.hpp"
#include "wire/reply_reader.hpp"

#include <cerrno>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <vector>

struct pollfd;

namespace memkv::client {

/// Receives that are kept posted for messages, and the room of each: what is longer uses the socket.
constexpr std::uint32_t messages_open_max = 32;
constexpr std::uint32_t message_bytes_max = 4096;
/// Values of one batch that goes as a message, together: an answer waits for those that were placed before
/// it.
constexpr std::uint64_t message_values_bytes_max = 64U << 10U;
/// After so long without an answer a Ping shows whether the server still has its end of the queue pair: who
/// took a request, and lost the queue pair then, says nothing.
constexpr std::int64_t messages_quiet_ns = 200'000'000;
/// Until a server that had no room for a queue pair of messages is asked again.
constexpr std::int64_t messages_refused_ns = 10'000'000'000;

/// How often a request that only reads is sent.
constexpr std::uint8_t attempts_max = 2;
/// How long the connection waits for answers to what it asks for itself.
constexpr std::int64_t ping_deadline_ns = 5'000'000'000;

/// After so much has been received or written in one go, the other direction and the deadlines have their
/// turn.
constexpr std::uint64_t turn_bytes_max = 8U << 20U;

/// Whether a call on a socket only found it not ready.
[[nodiscard]] inline bool would_block(int error) noexcept {
  return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

class connection {
public:
  /// `number` is its position among the connections to this server: they use the RDMA devices in turn.
  connection(shared_state& shared, server& peer, std::uint32_t number) noexcept;
  ~connection();
  connection(const connection&) = delete;
  connection& operator=(const connection&) = delete;

  // Any thread: as in request_queue.

  [[nodiscard]] bool enqueue(request& wanted, const waiter* here) { return queue_.enqueue(wanted, here); }
  [[nodiscard]] bool try_drive(const std::shared_ptr<waiter>& self) { return queue_.try_drive(self); }
  [[nodiscard]] bool drive_if_free(const std::shared_ptr<waiter>& self) { return queue_.drive_if_free(self); }
  [[nodiscard]] bool leave(const waiter* self) { return queue_.leave(self); }
  [[nodiscard]] std::uint32_t outstanding() const noexcept { return queue_.outstanding(); }
  [[nodiscard]] bool driven() const noexcept { return queue_.driven(); }
  [[nodiscard]] bool wanted_by_others() const noexcept { return queue_.wanted_by_others(); }
  /// Lets the driver, if there is one, look again at what it could not send.
  void poke() { queue_.poke(); }

  // The driver.

  /// What wanted() fills in: the socket, and where the queue pair tells of messages.
  static constexpr std::size_t descriptors = 2;
  using polled = std::span<pollfd, descriptors>;

  /// Does what can be done without waiting. `ready` as wanted() made it and poll() answered it; none: nothing
  /// is known.
  void pump(std::span<const pollfd> ready);
  /// What to poll for; descriptors are -1 for what is not there.
  void wanted(polled out) const noexcept;
  /// Whether an answer is to come as a message.
  [[nodiscard]] bool awaits_message() const noexcept;
  /// How long answers that are messages took lately.
  [[nodiscard]] std::int64_t message_answer_ns() const noexcept { return messages_.answer_ns; }
  /// Looks for messages: true when there is something for pump().
  [[nodiscard]] bool message_came() { return messages_.pair->look(); }
  /// Has the descriptor tell of the next message. False: there is something for pump(), do not sleep.
  [[nodiscard]] bool arm_messages() { return messages_.pair->arm(); }
  /// When pump() must be called again at the latest, steady clock.
  [[nodiscard]] std::int64_t wake_ns() const noexcept;
  /// Closes the socket and ends every request with `code`.
  void shut(errc code);
  /// Asks an idle connection that is open for a sign of life, if it has been silent for a third of the
  /// server's idle time.
  void keep_alive();

private:
  enum class state : std::uint8_t { closed, dialing, greeting, ready };
  enum class session_state : std::uint8_t { none, attaching, ready };

  /// What a frame needs to know of the way it takes.
  struct carrier {
    std::vector<std::byte>& frames; // it is appended there
    wire::connection_tag tag{};
    std::uint64_t request_id = 0;
    std::uint64_t session_id = 0; // of BatchRead and BatchWrite
  };
  /// The queue pair of messages, and what goes there.
  struct message_carrier {
    session_state state = session_state::none;
    rdma_device::session session; // ours, unless none, as all below
    std::shared_ptr<message_pair> pair;
    std::uint64_t session_id = 0; // the server's, once ready, as all below
    wire::connection_tag tag{};
    std::optional<wire::reply_reader> reader;
    std::uint64_t last_id = 0;
    std::uint32_t open_max = 0;
    std::uint32_t bytes_max = 0; // of a request
    std::int64_t quiet_since_ns = 0;
    bool pinged = false; // an answer to our Ping is to come; it has a place of its own in open_max
    // Always:
    std::deque<request*> backlog;      // not sent
    std::vector<request*> open;        // sent
    std::vector<std::byte> frame;      // being encoded
    std::int64_t refused_until_ns = 0; // no room at the server before
    std::int64_t answer_ns = 0;        // what an answer lately took
  };

  void take_queue();
  void watch_deadlines(std::int64_t now_ns);
  /// Ends the socket: what may be sent again waits for the next one.
  void lose(errc code);
  void complete(request& done);
  /// It is on its way no more: takes it out of what is open, and gives back its room in the staging area.
  void let_go(request& done);

  // Opening and closing: connection_opening.cpp.
  void open(std::int64_t now_ns);
  void take_socket(dialer::progress now, std::int64_t now_ns);
  void await_greeting(short revents, std::int64_t now_ns);
  void send_hello(std::int64_t now_ns);
  void fail_to_open(errc reason, std::int64_t now_ns);
  [[nodiscard]] bool accept_greeting();
  [[nodiscard]] bool was_closed_while_idle(std::int64_t now_ns) const noexcept;
  /// By the other side; unread bytes hide it.
  [[nodiscard]] bool socket_is_closed() const noexcept;
  void close_socket() noexcept;

  // RDMA: connection_rdma.cpp.
  [[nodiscard]] rdma_device& device() const noexcept { return *shared_.rdma->devices()[rail_]; }
  /// Makes a queue pair or target, and asks the server to attach to it.
  void begin_attach();
  void accept_attach(request& wanted);
  /// Ends the server's access to memory: when it returns no byte is touched any more through this
  /// connection. `tell`: the server hears of it too.
  void end_session(bool tell) noexcept;
  /// At the end of the connection: what goes out at once.
  void say_detach();
  /// RDMA does not work here: with auto it is over for the client, with rdma for the waiting requests.
  void fail_rdma(const std::string& why);
  /// After RDMA was turned off: ends the session as soon as nothing uses it.
  void leave_rdma();
  /// The first request of the backlog that can be sent now; the end, if there is none.
  [[nodiscard]] std::deque<request*>::iterator find_sendable();
  void encode_rdma(request& wanted, wire::frame_header& header, const carrier& by);
  [[nodiscard]] wire::digest16 digest_of_memory(wire::digest_kind kind, wire::direction from,
                                                std::uint64_t id, std::uint32_t index, const std::byte* data,
                                                std::size_t length, const registration* memory);
  [[nodiscard]] bool accept_batch_write(request& wanted, const wire::frame_header& header,
                                        wire::bytes_view variable);
  [[nodiscard]] bool accept_batch_read(request& wanted, const wire::frame_header& header,
                                       wire::bytes_view variable);
  /// The whole request was refused.
  void refuse_rdma(request& wanted, errc code);
  /// What the request used does not work.
  void fail_carrier(const request& used, const std::string& why);
  /// Sends a request of the connection's own, before all others or behind them.
  void ask_for(request_kind kind, std::uint64_t session_id, bool first);
  /// Puts requests over TCP in the place of one over RDMA, for these items of it; the caller completes that.
  void use_tcp(request& wanted, const std::vector<std::uint32_t>& items);

  // Messages: connection_messages.cpp.
  [[nodiscard]] bool travels_as_message(const request& one) const noexcept;
  /// Sends what may be sent; gives what cannot go this way to the socket.
  void write_messages(std::int64_t now_ns);
  [[nodiscard]] bool may_use_messages(std::int64_t now_ns) const noexcept;
  /// Makes a queue pair, and asks the server to connect to it.
  void begin_connect();
  void accept_connect(request& wanted);
  void read_messages(bool told);
  [[nodiscard]] bool accept_message(wire::bytes_view bytes);
  /// As end_session().
  void end_messages(bool tell) noexcept;
  /// As fail_rdma(), for the queue pair of messages.
  void fail_messages(const std::string& why);
  void watch_message_deadlines(std::int64_t now_ns);
  /// When the queue pair has to be asked whether it is alive.
  [[nodiscard]] std::int64_t ping_due_ns() const noexcept;
  void ping_by_message(std::int64_t now_ns);
  /// False: no room now.
  [[nodiscard]] bool send_message(request& one, std::int64_t now_ns);
  /// After the queue pair was ended: what only reads waits for another one, what may have taken effect fails.
  void ask_again_or_fail(std::vector<request*> sent, errc code);

  // Writing: connection_writing.cpp.
  void write_requests(std::int64_t now_ns);
  void build_burst(std::int64_t now_ns);
  void encode(request& wanted, std::int64_t now_ns, const carrier& by,
              std::vector<wire::bytes_view>& payload);
  /// The next frame on the socket.
  [[nodiscard]] carrier socket_carrier() noexcept {
    return {burst_.headers(), tag_, ++last_id_, session_id_};
  }
  void put_burst_back();
  [[nodiscard]] std::uint64_t payload_bytes(const request& wanted) const noexcept;

  // Reading: connection_reading.cpp.
  void read_replies();
  /// Uses up the buffered bytes. False: the connection is closed now.
  [[nodiscard]] bool take_buffered();
  /// Receives once. False: nothing more can be received now, or the connection is closed now.
  [[nodiscard]] bool receive();
  /// Where the payload of the next answer goes, when that is certain before its header came: then both are
  /// received at once. Empty: not known.
  [[nodiscard]] std::span<std::byte> expected_payload() const noexcept;
  /// Takes the header in the buffer, and the bytes that came behind it and lie in their target. False: the
  /// connection is closed now.
  [[nodiscard]] bool take_early(std::span<const std::byte> bytes);
  /// Counts `length` bytes that lie in their targets now. False: a digest is wrong.
  [[nodiscard]] bool advance_payload(std::uint64_t length);

  // Answers: connection_answers.cpp.
  [[nodiscard]] request* find_open(std::uint64_t id) const noexcept;
  /// Takes the header that was read. False: it is no answer to what was asked.
  [[nodiscard]] bool accept_reply();
  [[nodiscard]] bool accept_single_get(request& wanted);
  [[nodiscard]] bool accept_batch_get(request& wanted);
  /// A whole request was refused.
  void accept_refusal(request& wanted, const wire::frame_header& header);
  /// All other replies: one frame without payload.
  [[nodiscard]] bool accept_results(request& wanted, const wire::frame_header& header,
                                    wire::bytes_view variable);
  /// The targets are known to payload_.
  [[nodiscard]] bool begin_payload(request& wanted);
  /// After the last byte of a frame's payload. False: the reply ended too early.
  [[nodiscard]] bool end_frame();

  // What the server was too busy for: connection_busy.cpp.
  /// After a whole answer: completes the request, or puts off the items of it that were answered Busy.
  void finish(request& answered);
  [[nodiscard]] bool ask_again_later(request& answered);
  /// Requests whose pause is over wait to be sent again.
  void end_pauses(std::int64_t now_ns);

  shared_state& shared_;
  server& server_;

  request_queue queue_;

  // The driver's from here on.
  state state_ = state::closed;
  dialer dialer_;
  int fd_ = -1; // since it is connected
  bool wants_write_ = false;
  std::int64_t last_io_ns_ = 0;
  std::int64_t next_deadline_ns_ = 0;

  std::deque<request*> backlog_;   // taken from the queue, not written
  std::vector<request*> open_;     // in the burst or written, without a complete answer
  std::vector<request*> pausing_;  // answered Busy; none pauses beyond its deadline
  std::int64_t pause_over_ns_ = 0; // the first of these pauses; 0: none
  std::uint64_t last_id_ = 0;
  wire::nonce client_nonce_{};
  wire::connection_tag tag_{};
  wire::digest_kind digest_kind_ = wire::digest_kind::crc32c;
  std::optional<wire::reply_reader> reader_;        // since the socket is open
  std::optional<wire::payload_digest> send_digest_; // since the Hello was answered
  std::uint32_t in_flight_max_ = wire::limits::frames_in_flight_max;
  std::uint32_t idle_timeout_ms_ = wire::limits::idle_timeout_ms;

  const std::uint32_t rail_; // position of the device
  bool server_has_rdma_ = false;
  session_state session_state_ = session_state::none;
  rdma_device::session session_;        // ours, unless none
  std::uint64_t session_id_ = 0;        // the server's, once ready
  std::vector<std::byte> device_bytes_; // of device memory, for checksums
  message_carrier messages_;

  burst burst_;

  std::vector<std::byte> buffer_; // received and not yet looked at: [buffer_begin_, buffer_end_)
  std::size_t buffer_begin_ = 0;
  std::size_t buffer_end_ = 0;
  std::int64_t turn_ns_ = 0;     // when pump() was called last
  bool drained_ = false;         // the socket gave less than was asked for
  request* receiving_ = nullptr; // whose payload comes now
  payload_receiver payload_;
};

} // namespace memkv::client
