// One connection to one server: its queue, its socket, its requests on their way. Internal to client/.
//
// Operation. At any moment at most one thread drives a connection: it alone connects, writes, reads, checks
// answers and watches deadlines. Everybody else only queues requests and, if they wait for one, registers to
// drive next. The role moves under the lock, so what belongs to the driver needs no lock of its own.
//
// Threading: enqueue, try_drive, leave, outstanding and the flags by any thread; the rest by the driver.
// Ownership: the socket. Requests belong to their operations, which live until their last request is
// complete. Errors: set in the results of the requests. Limits: requests_queued_max waiting requests,
// frames_in_flight_max on their way. Does not do: choose servers, wait (the caller polls wanted() and comes
// back with pump()).
#pragma once

#include "client/operation.hpp"
#include "client/shared.hpp"
#include "wire/messages.hpp"
#include "wire/payload_digest.hpp"
#include "wire/reply_reader.hpp"

#include <sys/uio.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

struct pollfd;

namespace memkv::client {

/// How long the connection waits for answers to what it asks for itself.
constexpr std::int64_t ping_deadline_ns = 5'000'000'000;

/// How many bytes of a value of this length a get wants.
[[nodiscard]] inline std::uint64_t wanted_bytes(const get_item& item, std::uint64_t value_length) noexcept {
  const std::uint64_t rest = value_length - item.range_offset;
  return item.range_length == 0 ? rest : std::min(rest, item.range_length);
}

class connection {
public:
  /// `number` is its position among the connections to this server: they use the RDMA devices in turn.
  connection(shared_state& shared, server& peer, std::uint32_t number) noexcept;
  ~connection();
  connection(const connection&) = delete;
  connection& operator=(const connection&) = delete;

  // Any thread.

  /// False: the queue is full and the request was not taken. Wakes the driver if that is somebody else than
  /// `here`.
  [[nodiscard]] bool enqueue(request& wanted, const waiter* here);
  /// True: the caller drives now (or did already). False: somebody else does, and will wake `self` when
  /// leaving.
  [[nodiscard]] bool try_drive(const std::shared_ptr<waiter>& self);
  /// Gives up driving or waiting. True: requests are open and nobody is left to drive.
  [[nodiscard]] bool leave(const waiter* self);
  [[nodiscard]] std::uint32_t outstanding() const noexcept { return outstanding_.load(); }
  [[nodiscard]] bool driven() const noexcept { return driven_.load(); }
  [[nodiscard]] bool wanted_by_others() const noexcept { return waiting_count_.load() != 0; }
  /// Lets the driver, if there is one, look again at what it could not send.
  void poke();

  // The driver.

  /// Does what can be done without waiting. `revents` as poll() reported them for wanted().
  void pump(short revents);
  /// What to poll for. The descriptor is -1 when there is no socket.
  [[nodiscard]] pollfd wanted() const noexcept;
  /// When pump() must be called again at the latest, steady clock.
  [[nodiscard]] std::int64_t wake_ns() const noexcept;
  /// Closes the socket and ends every request with `code`.
  void shut(errc code);
  /// Asks an idle connection that is open for a sign of life, if it has been silent for a third of the
  /// server's idle time.
  void keep_alive();

private:
  enum class state : std::uint8_t { closed, resolving, connecting, greeting, ready };
  enum class session_state : std::uint8_t { none, attaching, ready };

  /// A run of payload bytes with one digest and one place to go to.
  struct segment {
    std::byte* target = nullptr;
    std::uint64_t length = 0;
    std::uint32_t item_index = 0; // for keyed digests: position in the request
    wire::digest16 digest{};
    bool ends_item = false; // batch gets: the item is complete after it
  };
  /// A frame of the burst being written: where its bytes lie in the burst.
  struct burst_frame {
    request* owner = nullptr;
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
    bool started = false;
  };
  /// A piece of the burst: `header_offset` into burst_headers_ or a view of the caller's memory.
  struct burst_piece {
    const std::byte* payload = nullptr; // none: a piece of burst_headers_
    std::size_t header_offset = 0;
    std::size_t length = 0;
  };

  void take_queue();
  void watch_deadlines(std::int64_t now_ns);

  void open(std::int64_t now_ns);
  void look_up(std::int64_t now_ns);
  void try_next_address(std::int64_t now_ns);
  void finish_connecting(short revents, std::int64_t now_ns);
  void send_hello(std::int64_t now_ns);
  void fail_to_open(errc reason, std::int64_t now_ns);
  [[nodiscard]] bool was_closed_while_idle(std::int64_t now_ns) const noexcept;
  void close_socket() noexcept;
  void lose(errc code);

  // RDMA: connection_rdma.cpp.
  [[nodiscard]] rdma_device& device() const noexcept { return *shared_.rdma->devices()[rail_]; }
  /// Makes a queue pair or target, and asks the server to attach to it.
  void begin_attach();
  void accept_attach(request& wanted);
  /// Ends the server's access to memory: when it returns no byte is touched any more through this
  /// connection. `tell`: the server hears of it too.
  void end_session(bool tell) noexcept;
  void ask_to_detach(std::uint64_t session_id);
  /// At the end of the connection: what goes out at once.
  void say_detach();
  /// RDMA does not work here: with auto it is over for the client, with rdma for the waiting requests.
  void fail_rdma(const std::string& why);
  /// After RDMA was turned off: ends the session as soon as nothing uses it.
  void leave_rdma();
  /// The first request of the backlog that can be sent now; the end, if there is none.
  [[nodiscard]] std::deque<request*>::iterator find_sendable();
  void encode_rdma(request& wanted, wire::frame_header& header);
  [[nodiscard]] wire::digest16 digest_of_memory(wire::digest_kind kind, wire::direction from,
                                                std::uint64_t id, std::uint32_t index, const std::byte* data,
                                                std::size_t length, const registration* memory);
  [[nodiscard]] bool accept_batch_write(request& wanted);
  [[nodiscard]] bool accept_batch_read(request& wanted);
  /// The whole request was refused.
  void refuse_rdma(request& wanted, errc code);
  /// Puts requests over TCP in the place of one over RDMA, for these items of it; the caller completes that.
  void use_tcp(request& wanted, const std::vector<std::uint32_t>& items);

  void write_requests(std::int64_t now_ns);
  void build_burst(std::int64_t now_ns);
  void encode(request& wanted, std::int64_t now_ns, std::vector<burst_piece>& payload);
  void put_burst_back();
  [[nodiscard]] std::uint64_t payload_bytes(const request& wanted) const noexcept;

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
  [[nodiscard]] bool accept_greeting();
  [[nodiscard]] bool accept_reply();
  [[nodiscard]] bool accept_single_get(request& wanted);
  [[nodiscard]] bool accept_batch_get(request& wanted);
  /// All other replies: one frame without payload.
  [[nodiscard]] bool accept_results(request& wanted);
  void begin_segment();
  /// Counts `length` bytes that lie in their segments now. False: a digest is wrong.
  [[nodiscard]] bool advance_payload(std::uint64_t length);
  /// After the last byte of a frame's payload. False: the reply ended too early.
  [[nodiscard]] bool end_frame();
  void complete(request& done);
  /// It is on its way no more: takes it out of what is open, and gives back its room in the staging area.
  void let_go(request& done);

  // What the server was too busy for: connection_busy.cpp.
  /// After a whole answer: completes the request, or puts off the items of it that were answered Busy.
  void finish(request& answered);
  [[nodiscard]] bool ask_again_later(request& answered);
  /// Requests whose pause is over wait to be sent again.
  void end_pauses(std::int64_t now_ns);
  [[nodiscard]] request* find_open(std::uint64_t id) const noexcept;

  shared_state& shared_;
  server& server_;

  std::mutex mutex_;
  std::deque<request*> queue_;                   // mutex_
  std::shared_ptr<waiter> driver_;               // mutex_
  std::vector<std::shared_ptr<waiter>> waiting_; // mutex_
  std::atomic<std::uint32_t> outstanding_{0};
  std::atomic<std::uint32_t> queued_{0};
  std::atomic<std::uint32_t> waiting_count_{0};
  std::atomic<bool> driven_{false};

  // The driver's from here on.
  std::atomic<const waiter*> self_{nullptr}; // the driver's; changed under the lock
  state state_ = state::closed;
  int fd_ = -1;
  bool wants_write_ = false;
  std::int64_t opening_until_ns_ = 0;
  std::int64_t last_io_ns_ = 0;
  std::int64_t next_deadline_ns_ = 0;
  std::vector<socket_address> addresses_;
  std::size_t next_address_ = 0;

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
  std::optional<wire::payload_digest> receive_digest_;
  std::uint32_t in_flight_max_ = wire::limits::frames_in_flight_max;
  std::uint32_t idle_timeout_ms_ = wire::limits::idle_timeout_ms;

  const std::uint32_t rail_; // position of the device
  bool server_has_rdma_ = false;
  session_state session_state_ = session_state::none;
  rdma_device::session session_;        // ours, unless none
  std::uint64_t session_id_ = 0;        // the server's, once ready
  std::vector<std::byte> device_bytes_; // of device memory, for checksums

  std::vector<std::byte> burst_headers_;
  std::vector<burst_piece> burst_pieces_;
  std::vector<burst_frame> burst_frames_;
  std::size_t burst_piece_ = 0; // first one not written completely
  std::size_t burst_piece_offset_ = 0;
  std::uint64_t burst_written_ = 0;
  std::int64_t burst_sealed_ns_ = 0;

  std::vector<std::byte> buffer_; // received and not yet looked at: [buffer_begin_, buffer_end_)
  std::size_t buffer_begin_ = 0;
  std::size_t buffer_end_ = 0;
  std::int64_t turn_ns_ = 0;     // when pump() was called last
  request* receiving_ = nullptr; // whose payload comes now
  wire::frame_header receiving_header_;
  std::uint64_t payload_left_ = 0;
  bool drained_ = false; // the socket gave less than was asked for
  std::vector<segment> segments_;
  std::size_t segment_ = 0;
  std::uint64_t segment_done_ = 0;
};

} // namespace memkv::client
