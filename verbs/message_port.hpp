// Short messages between two ends of an RC connection, by SEND and RECV; what they mean is the owner's
// affair. docs/formats/wire.md section 17 (Connect) uses it for control messages.
//
// Operation. A session is attached with what each side keeps posted: how many receives, and the room of each.
// send_message copies the message, which goes out with the next run() of the engine, before the transfers
// that wait there. What came in is handed out by take_messages, and only then is its receive posted again: an
// owner that does not take stops the peer, and no queue grows. Messages of one session keep their order.
//
// A message has no outcome of its own. One that cannot be sent, or is not taken by the peer in time, breaks
// the session, as an error of a transfer does; what was on the way then may have arrived or not.
//
// Threading, ownership and errors: as transfer_engine.hpp, of which this is another side.
#pragma once

#include "verbs/transfer_engine.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace memkv::verbs {

/// What one side keeps posted for messages of the other.
struct message_room {
  std::uint32_t messages_max = 0;      // receives; 1 to 1,024
  std::uint32_t message_bytes_max = 0; // of each; 512 to 65,536
};

struct message {
  client_id client = 0;
  std::vector<std::byte> bytes;
};

class message_port {
public:
  virtual ~message_port() = default;

  /// What start_attach_with_messages() says of the rooms alone, however much of them is taken.
  [[nodiscard]] virtual status check_rooms(const message_room& theirs, const message_room& ours) const = 0;
  /// As transfer_engine::start_attach, for a session that carries messages as well. `ours` is posted when
  /// finish_attach has returned. queue_full also when no room is left for the messages of another session.
  virtual status start_attach_with_messages(const peer_address& peer, const message_room& theirs,
                                            const message_room& ours, std::unique_ptr<attachment>& out) = 0;
  /// not_found; wrong_state when the session is broken or ending; invalid_argument when it carries no
  /// messages, or this one is empty or longer than the peer has room for; queue_full when as many are on the
  /// way as may be, or the peer was sent messages_max more than it has sent itself.
  virtual status send_message(client_id client, std::span<const std::byte> bytes) = 0;
  /// Appends what run() found, and lets the peers send as many again. What came before a session broke is
  /// among it; nothing is of sessions that have ended.
  virtual void take_messages(std::vector<message>& out) = 0;
};

} // namespace memkv::verbs
