// One request of a connection, from its header to its last frame.
//
// Threading: REACTOR's thread. Ownership: by its tcp_connection, until ended() or the connection's end.
// A request answers exactly once, in one or more frames, unless its connection is gone.
#pragma once

#include "actors/messages.hpp"
#include "actors/request_clock.hpp"
#include "wire/frame_writer.hpp"
#include "wire/header.hpp"

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace memkv::actors {

class reactor;
class tcp_connection;

/// A frame that waits to be written; unsealed.
struct outgoing {
  std::vector<std::byte> frame; // header, variable part, trailer
  std::vector<std::span<const std::byte>> payload;
  std::uint64_t payload_bytes = 0;
  std::shared_ptr<void> keep; // what the payload points into
  request_clock clock;        // of the request whose last frame this is
};

/// What a request wants done with the next bytes of its payload: received into `room`, or `skip` of them
/// skipped; neither: it waits.
struct payload_step {
  std::span<std::byte> room;
  std::shared_ptr<void> keep;
  std::uint64_t skip = 0;
};

class tcp_request {
public:
  tcp_request(tcp_connection& connection, reactor& owner, const wire::frame_header& header);
  virtual ~tcp_request();
  tcp_request(const tcp_request&) = delete;
  tcp_request& operator=(const tcp_request&) = delete;

  /// Begins; `variable` is valid only during the call. May end the request.
  virtual void begin(wire::bytes_view variable) = 0;

  [[nodiscard]] virtual payload_step next_payload(std::uint64_t left);
  /// `bytes` have been put where next_payload said.
  virtual void payload_arrived(std::uint32_t bytes) { static_cast<void>(bytes); }
  /// `bytes` have been skipped, as next_payload said.
  virtual void payload_skipped(std::uint64_t bytes) { static_cast<void>(bytes); }
  virtual void payload_complete() {}

  [[nodiscard]] virtual bool part_ready() const { return false; }
  [[nodiscard]] virtual outgoing next_part();
  /// What a request that streams waits for while no part is ready.
  [[nodiscard]] virtual request_stage waits_for() const { return request_stage::drive; }

  virtual void allocated(const extent_put_ptr&) {}
  virtual void stored(const extent_put_ptr&) {}
  virtual void was_read(const extent_read_ptr&) {}
  virtual void erased(const block_erase_ptr&) {}
  virtual void drive_down(std::uint32_t drive) { static_cast<void>(drive); }
  virtual void attached(const session_attached&) {}
  /// In answer to this request.
  virtual void detached(const session_ended&) {}
  virtual void moved(const memory_transfer_ptr&) {}
  /// The session is gone, or its pool with all that it had been asked for.
  virtual void session_lost(std::uint64_t session) { static_cast<void>(session); }
  /// No request is open any more on a session that has ended.
  virtual void session_unused(std::uint64_t session) { static_cast<void>(session); }
  /// What the pool of this rail had been asked for will not be answered.
  virtual void pool_lost(std::uint32_t rail) { static_cast<void>(rail); }
  /// It asked for room to read into, found none, and there may be some again.
  virtual void buffers_there() {}
  /// Its deadline has come.
  virtual void expire() {}
  /// The connection is closing: nobody will read an answer, no more payload will come.
  virtual void abandon() = 0;

  [[nodiscard]] const wire::frame_header& header() const noexcept { return header_; }
  [[nodiscard]] tcp_connection& connection() noexcept { return connection_; }
  /// The session in a message of which it came; 0: it came on the socket. Its answer goes the same way.
  [[nodiscard]] std::uint64_t carrier() const noexcept { return carrier_; }
  /// Its time belongs to that stage from now on.
  void now_in(request_stage stage) noexcept;
  [[nodiscard]] bool over() const noexcept { return over_; }
  void mark_over() noexcept { over_ = true; }
  /// About how much memory it takes while it is open; accounted for by its connection.
  void set_held_bytes(std::uint64_t bytes) noexcept { held_bytes_ = bytes; }
  /// It has been answered and stays for its token (rdma_tokens.hpp): nobody waits for its end.
  void mark_living_on() noexcept { lives_on_ = true; }
  [[nodiscard]] bool lives_on() const noexcept { return lives_on_; }
  [[nodiscard]] std::uint64_t held_bytes() const noexcept { return held_bytes_; }

protected:
  [[nodiscard]] std::uint64_t serial();
  /// The request's id in keyed digests: those of messages are never those of the socket.
  [[nodiscard]] std::uint64_t digest_id() const noexcept {
    return header_.request_id | (carrier_ == 0 ? 0 : std::uint64_t{1} << 63U);
  }
  /// The reply's header; one frame unless `last` is false.
  [[nodiscard]] wire::frame_header reply(wire::status code, bool last = true) const;
  template <wire::message Body>
  void send_reply(const wire::frame_header& header, const Body& body) {
    outgoing frame;
    wire::append_frame(frame.frame, header, body);
    queue(std::move(frame));
  }
  /// The one frame, or the last one, of the answer.
  void queue(outgoing frame);
  /// For the last part that next_part() gives.
  void hand_clock_to(outgoing& frame) noexcept;
  void send_status(wire::status code);
  /// From now on expire() comes at that time, and at no other.
  void move_deadline(std::uint64_t deadline_ns);
  /// Ends the request; it must have answered.
  void end();

  tcp_connection& connection_;
  reactor& owner_;
  wire::frame_header header_;
  std::uint64_t deadline_ns_ = 0; // steady; 0 = none given

private:
  request_clock clock_;
  std::uint64_t serial_ = 0;
  std::uint64_t carrier_ = 0;
  std::uint64_t held_bytes_ = 0;
  bool over_ = false;
  bool lives_on_ = false;
};

/// The request of a header that was accepted, or null: it was answered at once.
[[nodiscard]] std::unique_ptr<tcp_request> make_request(tcp_connection& connection, reactor& owner,
                                                        const wire::frame_header& header,
                                                        wire::bytes_view variable);

} // namespace memkv::actors
