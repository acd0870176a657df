// Which set the given drives belong to, found out before any of them is opened.
//
// Threading: one thread, before the drives are opened; peek_superblock() any, it waits for the drive. Errors:
// foreign_drive when the drives name different sets or the wrong places in one. Does not: write, lock, or
// judge a drive whose superblocks are unreadable: opening it does.
#pragma once

#include "engine/drive_members.hpp"
#include "engine/errc.hpp"
#include "engine/open_drive.hpp"
#include "engine/superblock.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace memkv::engine {

/// Each start of a server enters the next multiple of this; changes while it runs count on from there. So
/// what a start has begun is never outranked by what an earlier server had left half-written.
constexpr std::uint64_t epochs_of_a_start = 1'000'000;

[[nodiscard]] constexpr std::uint64_t epoch_of_next_start(std::uint64_t epoch) noexcept {
  return (epoch / epochs_of_a_start + 1) * epochs_of_a_start;
}

/// A start enters it, and may be cut short before it is durable everywhere and anything was stored in it. The
/// other epochs are those of a server that had begun to serve.
[[nodiscard]] constexpr bool is_epoch_of_start(std::uint64_t epoch) noexcept {
  return epoch % epochs_of_a_start == 0;
}

/// The lowest epoch with which a member of `epoch` may keep what it holds. It missed no more than the writing
/// of an epoch, before anything was stored in it: the last one of the same server; or that of a start, which
/// had looked at each of its members.
[[nodiscard]] constexpr std::uint64_t epoch_least_of_member(std::uint64_t epoch) noexcept {
  return is_epoch_of_start(epoch) ? 0 : epoch - 1;
}

/// The lowest epoch of a drive that may keep nothing, whatever epoch it says it was in.
constexpr std::uint64_t no_epoch_will_do = UINT64_MAX;

/// What a drive says of who takes part.
struct epoch_claim {
  std::uint32_t index = 0;
  std::uint64_t epoch = 0;
  drive_members members{};
};

/// What the drives of a set say of it.
struct set_facts {
  std::array<std::byte, 16> set_id{}; // the one on the drives that are ours already, else a random one
  std::uint64_t epoch = 0;            // the highest
  drive_members members{};            // of that epoch, without those in doubt; all, if no drive is ours yet
  drive_members named{};              // what belongs to its drive belongs there with these members, too
  bool agreed = true;                 // all that were found are in that epoch with the same members

  /// The lowest epoch with which a drive may take part with what it holds. Numbers say nothing of one that
  /// is not among the members: a start that was cut short may have given it a high one before others served.
  [[nodiscard]] std::uint64_t epoch_least(std::uint32_t index) const noexcept {
    return is_member(members, index) ? epoch_least_of_member(epoch) : no_epoch_will_do;
  }
};

/// Who took part last, by what the drives of one set say that were found.
///
/// The highest epoch counts. Starts with different drives that were cut short may have made two of one
/// number: the one is right that none of its members contradicts. If that is none or more than one, nobody
/// can know what is old: there are no members, and all drives are stale.
///
/// The epoch of a start may never have been served in, and may outrank one that was, of which its start did
/// not hear. A drive that the latter left out is then as stale as its own epoch is high. So whoever is left
/// out by any drive that was found is no member (docs/decisions/0025).
void judge_epochs(const std::vector<epoch_claim>& claims, std::uint32_t drives, set_facts& out);

/// The newer valid superblock of a file or a raw drive; none: it is memory, or new, or cannot be read.
[[nodiscard]] std::optional<superblock> peek_superblock(const drive_description& drive);

/// From what was found on each drive. With an id other than zeros in `out`, the drives must have that one.
status find_set(const std::vector<drive_description>& drives,
                const std::vector<std::optional<superblock>>& superblocks, set_facts& out);
/// Looks for itself.
status find_set(const std::vector<drive_description>& drives, set_facts& out);

/// Identity of the running kernel's boot, to tell the death of a process from a power cut. False: unknown.
[[nodiscard]] bool read_boot_id(std::array<std::byte, 16>& out);

} // namespace memkv::engine
