// What a REACTOR knows of DCI POOLs and of the sessions that its connections opened with them.
//
// Operation. Transfers are gathered while the reactor works and go to their pools at the end of its turn, all
// of one rail in one message; so do answers to messages of sessions. A session that ended is remembered for
// as long as requests on it are open, so that a detach is answered after them.
//
// Threading: REACTOR's thread. Ownership: by its REACTOR, which clears it before it ends, since it holds
// actors. Limits: sessions as many as CONNECTIONs and pools allow; transfers that are with a pool as below,
// so that a pool never refuses one: a request that finds no room waits for its turn.
#pragma once

#include "actors/messages.hpp"

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace memkv::actors {

class rdma_rails {
public:
  /// With a pool at one time: of one session, and of all that all REACTORs of the server give it. Less than
  /// its engines take, since a piece of a value may bring 16 where there is room for one.
  static constexpr std::uint32_t transfers_session_max = 4096 - 16;
  static constexpr std::uint32_t transfers_pool_max = 65'536 - 1024;
  /// Items of batches that are open beyond rdma_batch_request::items_open_max of each, of all REACTORs.
  static constexpr std::uint32_t small_items_all_max = 32'768;

  struct session {
    std::uint64_t connection = 0; // the only one that may use it
    std::uint32_t rail = 0;
    std::uint32_t transfer_bytes_max = 0;
    std::uint32_t requests = 0;  // open on it
    std::uint32_t transfers = 0; // with the pool
    bool ending = false;         // it takes no more of them
    bool ended = false;
  };

  /// Rails that this server has; 0: it has no RDMA.
  [[nodiscard]] std::uint32_t size() const noexcept { return static_cast<std::uint32_t>(rails_.size()); }
  /// Some rail has a pool at the moment.
  [[nodiscard]] bool any_pool() const noexcept;
  /// Null: there is none at the moment.
  [[nodiscard]] const caf::actor& pool(std::uint32_t rail) const noexcept { return rails_[rail].pool; }
  /// size() when it is, or is not any more, the pool of no rail.
  [[nodiscard]] std::uint32_t rail_of(const caf::actor& pool) const noexcept;
  /// Whether the rail's device can read and write all of `range`.
  [[nodiscard]] bool reaches(std::uint32_t rail, std::span<const std::byte> range) const noexcept;

  /// True: it is another pool than before; the sessions that were with that one are then in `lost`.
  [[nodiscard]] bool change(const dci_pool_changed& change, std::vector<std::uint64_t>& lost);

  void add(std::uint64_t id, std::uint64_t connection, std::uint32_t rail, std::uint32_t transfer_bytes_max);
  /// Null: not one of this connection, or not any more.
  [[nodiscard]] session* find(std::uint64_t id, std::uint64_t connection) noexcept;
  /// Of a session that has not ended; 0: unknown.
  [[nodiscard]] std::uint64_t connection_of(std::uint64_t id) const noexcept;
  /// False: it was unknown, or had ended.
  [[nodiscard]] bool end(std::uint64_t id);
  [[nodiscard]] std::vector<std::uint64_t> of_connection(std::uint64_t connection) const;
  /// Open requests on it, also after it ended.
  [[nodiscard]] std::uint32_t requests_on(std::uint64_t id) const noexcept;
  /// One request less. True: it was the last one, and the session has ended.
  [[nodiscard]] bool leave(std::uint64_t id) noexcept;
  /// That have not ended.
  [[nodiscard]] std::size_t sessions() const noexcept;

  /// How many REACTORs share what a pool takes; 1 unless said otherwise.
  void share_between(std::uint32_t reactors) noexcept;
  /// Whether the pool takes another transfer of this session.
  [[nodiscard]] bool has_room(const session& of) const noexcept {
    return of.transfers < transfers_session_max && rails_[of.rail].transfers < transfers_max_;
  }
  /// What is left of small_items_all_max here.
  [[nodiscard]] std::uint32_t& small_items_free() noexcept { return small_items_free_; }
  /// The request is among those of take_turns() when there is room again. Once each.
  void wait_for_turn(std::uint64_t request, std::uint64_t session) { turns_.push_back({request, session}); }
  /// Appends the requests whose turn has come, in the order in which they began to wait.
  void take_turns(std::vector<std::uint64_t>& out);
  /// To be sent with the next flush(); `of` is found and has room.
  void move(session& of, memory_transfer_ptr one);
  /// The pool has answered it.
  void moved(const memory_transfer& one) noexcept;
  /// An answer to a message of a session; the same.
  void send(std::uint32_t rail, session_message one) { rails_[rail].messages.push_back(std::move(one)); }
  void flush();
  /// Lets go of everything.
  void clear();

private:
  struct rail {
    caf::actor pool;
    std::vector<std::span<std::byte>> reachable;
    std::vector<memory_transfer_ptr> waiting;
    std::vector<session_message> messages;
    std::uint64_t pool_number = 0; // another for each pool
    std::uint32_t transfers = 0;   // with the pool, those that wait to be sent included
  };
  struct turn {
    std::uint64_t request = 0;
    std::uint64_t session = 0;
  };
  std::vector<rail> rails_;
  std::unordered_map<std::uint64_t, session> sessions_;
  std::uint32_t transfers_max_ = transfers_pool_max;
  std::uint32_t small_items_free_ = small_items_all_max;
  std::vector<turn> turns_;
};

} // namespace memkv::actors
