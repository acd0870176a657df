// What a drive actor works on: the device, the store on it, and what outlives the actor.
#pragma once

#include "actors/lease_ledger.hpp"
#include "actors/messages.hpp"
#include "engine/block_device.hpp"
#include "engine/drive_store.hpp"

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>
#include <unordered_map>
#include <vector>

namespace memkv::actors {

/// Ownership: shared by DRIVE and by every request that reads or fills memory of this drive, so that a
/// mapping stays where it is while anybody may touch it. A new incarnation of the same device is opened only
/// after the last holder has let go, except for memory, whose body itself is handed to the next incarnation.
///
/// Threading: whoever holds `turn` owns everything here, except the functions of `store` that are marked *any
/// thread*. DRIVE takes the turn for each message and each round. On memory drives a REACTOR may take it for
/// one put, if it is free: nothing there waits, and a message to DRIVE and back costs more than the work
/// (docs/decisions/0014). A REACTOR never waits for the turn; it sends the message instead.
struct drive_body {
  std::mutex turn;
  std::uint32_t index = 0;
  bool memory = false;               // payload is placed and read directly
  bool needs_buffers = false;        // payload is read into buffers: the device is not mapped
  /// *Any thread.* No DRIVE serves it any more. Set before SERVER can hear of that, so that whoever still has
  /// this body sees it earlier than anything that is stored without the drive.
  std::atomic<bool> ended{false};
  lease_ledger leases;               // *any thread*
  std::shared_ptr<void> pool_keeper; // keeps what the device has registered; outlives it
  // The store refers to the device: destroyed first.
  std::unique_ptr<engine::block_device> device;
  std::unique_ptr<engine::drive_store> store;
  /// Space that was handed out, by token. It outlives the actor for memory only.
  std::map<std::uint64_t, extent_put_ptr> reserved;

  /// Writes of one reservation that have not come back.
  struct writing_state {
    std::uint32_t pending = 0;
    engine::errc failed = engine::errc::ok;
    bool committed = false; // nothing more will be written
    std::vector<payload_slice> held; // payload stays until its write is done
  };
  std::unordered_map<std::uint64_t, writing_state> writing; // by token

  /// Reads of raw drives that are under way, by generation and range, and who else wants the same.
  struct same_read {
    extent_read_ptr first;
    std::vector<extent_read_ptr> others;
  };
  std::map<std::tuple<std::uint64_t, std::uint32_t, std::uint32_t>, same_read> reading;

  /// Reads that are done, of one REACTOR: it is told of small ones together, since a message and what a
  /// REACTOR does for each turn cost more than the look at one. Larger ones are not held up by their
  /// neighbours' checksums.
  struct done_reads {
    static constexpr std::size_t bytes_max = 256 << 10;
    caf::actor to;
    std::vector<extent_read_ptr> reads;
    std::size_t bytes = 0;
  };
  std::vector<done_reads> done;

  // The messages of the same names, as the holder of the turn carries them out. The outcome is in the object
  // when `answered` is set; then `reply_to`, if there is one, was sent the answer.
  void store_whole(const extent_put_ptr& put);
  void allocate(const extent_put_ptr& put);
  void write(const extent_put_ptr& put, const payload_slice& piece);
  void commit(const extent_put_ptr& put);
  void abandon(std::uint64_t token);
  void read(const extent_read_ptr& read);
  void erase(const block_erase_ptr& erase);
  /// Tells of the reads that are done. To be called before the turn is given away.
  void send_reads();
  /// Gives back reservations that nobody else holds: they can never be committed, since their request ended
  /// or their reactor died.
  void sweep();

private:
  void commit_now(const extent_put_ptr& put);
  void was_read(const extent_read_ptr& read);
  void tell_of(const extent_read_ptr& read);
  void finish(const extent_put_ptr& put, engine::errc result, std::uint64_t generation);
};

} // namespace memkv::actors
