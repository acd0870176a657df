// A simulated drive: deterministic by its seed, with every fault that drives are known for, and power cuts.
//
// Operation. Time is a counter of the world that all its devices share. An operation becomes ready after a
// random delay and is done by the first poll after that; so completions come reordered. What a write carries
// is copied when it is submitted, and compared with the caller's buffer when it completes: a buffer that was
// changed or freed in between is counted. Every event is logged; after the run, or inside it, the legal
// states that a power cut may leave can be listed or drawn (crash_states).
//
// Faults are planned for one operation, counted from 0 in order of submission, or happen at given rates.
//
// Threading: one thread. Ownership: the world outlives its devices. Errors: as block_device says.
#pragma once

#include "engine/block_device.hpp"
#include "test/sim/image.hpp"
#include "test/sim/random.hpp"

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace memkv::sim {

class sim_device;

/// What the devices of one simulation share.
struct world {
  explicit world(std::uint64_t seed_value) noexcept : seed(seed_value), chance(seed_value) {}
  std::uint64_t seed = 0;
  random chance;
  std::uint64_t now = 0; // ticks
};

struct fault {
  enum class kind : std::uint8_t {
    none,
    io_error,          // nothing done; errc::io_error
    no_space,          // nothing done; errc::no_space
    short_transfer,    // the first half is done; errc::io_error
    never_completes,   // until release_stuck()
    lost_write,        // says ok, nothing done
    torn_write,        // says ok, only some sectors done
    misdirected_write, // says ok, done at `offset` of `device` instead
    misdirected_read,  // says ok, from `offset` of `device`
    flipped_bit,       // says ok; one bit of what is read or written is wrong
    flipped_byte,
    flipped_sector, // 512 bytes of noise
  };
  kind what = kind::none;
  std::uint64_t offset = 0;
  sim_device* device = nullptr; // none: the same
};

/// Shares of the operations that are hit at random.
struct fault_rates {
  double read_error = 0, write_error = 0, flush_error = 0;
  double lost_write = 0, torn_write = 0, misdirected_write = 0, misdirected_read = 0;
  double flipped_on_read = 0, flipped_on_write = 0;
};

/// What reads see where something was discarded.
enum class discarded : std::uint8_t { old_bytes, zeros, ones, noise };

struct sim_options {
  std::uint64_t size_bytes = 16 << 20;
  std::uint32_t depth_max = 32;
  std::uint64_t delay_ticks_max = 16; // 0: completes at the next poll, in order
  /// After a failed write or flush everything later fails, as block_device promises. False: as raw hardware
  /// behaves.
  bool stays_failed = true;
  bool survives_process = true;
  discarded after_discard = discarded::old_bytes;
  std::string name = "simulated";
};

/// One thing that happened to a device, in order of `submitted`.
struct log_record {
  engine::io_operation::kind what = engine::io_operation::kind::write;
  std::uint64_t offset = 0;
  std::shared_ptr<const std::vector<std::byte>> data; // writes; what really went to the medium
  bool durable = false;
  std::uint64_t submitted = 0;                 // number of the event
  std::uint64_t completed = ~std::uint64_t{0}; // the same; all ones: not yet
  bool failed = false;                         // never reaches the medium, or promises nothing (flush)
  bool doubtful = false; // a flush that covered it failed: no later flush makes it certain
};

class sim_device final : public engine::block_device {
public:
  sim_device(world& in, const sim_options& options);
  sim_device(world& in, const sim_options& options, image start);

  [[nodiscard]] const engine::device_information& information() const noexcept override {
    return information_;
  }
  void submit(engine::io_operation& operation) override;
  std::size_t poll(bool wait) override;
  [[nodiscard]] std::size_t in_flight() const noexcept override { return flying_.size() + stuck_.size(); }
  void close() noexcept override;

  /// Operations submitted so far: the injection points of a run.
  [[nodiscard]] std::uint64_t submitted() const noexcept { return submitted_; }
  /// Hits operation number `operation`.
  void plan(std::uint64_t operation, fault what) { planned_[operation] = what; }
  /// Planned faults that were met.
  [[nodiscard]] std::uint64_t met() const noexcept { return met_; }
  void set_rates(const fault_rates& rates) { rates_ = rates; }
  /// Operations that never completed do so now, well or with the given error.
  void release_stuck(engine::errc result);

  /// What reads see now.
  [[nodiscard]] image& now() noexcept { return now_; }
  [[nodiscard]] const image& now() const noexcept { return now_; }

  /// The power goes: nothing in flight has an effect any more, and everything ends with io_error.
  void cut_power() noexcept;
  /// Cuts it right before operation number `operation` is submitted.
  void cut_power_before(std::uint64_t operation) { cut_before_ = operation; }
  [[nodiscard]] bool is_cut() const noexcept { return cut_; }

  [[nodiscard]] const image& start() const noexcept { return start_; }
  [[nodiscard]] const std::vector<log_record>& log() const noexcept { return log_; }
  [[nodiscard]] std::uint64_t events() const noexcept { return events_; }
  /// Forgets the past: what reads see now becomes the start. Only with nothing in flight.
  void forget_log();

  // Misuse by the caller, each a defect in it.
  /// Buffers of writes that changed before their completion.
  [[nodiscard]] std::uint64_t changed_buffers() const noexcept { return changed_buffers_; }
  /// Writes submitted while another operation on the same bytes was in flight.
  [[nodiscard]] std::uint64_t overlaps() const noexcept { return overlaps_; }

private:
  struct flight {
    engine::io_operation* operation = nullptr;
    std::uint64_t number = 0;
    std::uint64_t ready = 0;
    std::size_t record = 0; // in the log; writes and flushes
    fault hit;
    std::shared_ptr<const std::vector<std::byte>> sent; // as submitted
  };

  [[nodiscard]] fault choose_fault(const engine::io_operation& operation, std::uint64_t number);
  [[nodiscard]] bool is_outside(const engine::io_operation& operation) const noexcept;
  [[nodiscard]] engine::errc perform(const flight& what);
  void finish(const flight& what, engine::errc result);
  void discard(const engine::io_operation& operation);
  void spoil(std::vector<std::byte>& data, fault::kind how);

  world& world_;
  sim_options options_;
  engine::device_information information_;
  image start_;
  image now_;
  std::vector<flight> flying_;
  std::vector<flight> stuck_;
  std::map<std::uint64_t, fault> planned_;
  fault_rates rates_;
  std::vector<log_record> log_;
  std::uint64_t submitted_ = 0;
  std::uint64_t events_ = 0;
  std::uint64_t met_ = 0;
  std::uint64_t cut_before_ = ~std::uint64_t{0};
  std::uint64_t changed_buffers_ = 0;
  std::uint64_t overlaps_ = 0;
  bool failed_ = false;
  bool cut_ = false;
};

/// The states in which a power cut at one moment may leave a drive: every write completed before a flush that
/// completed was submitted, and every completed durable write, is there; each other one is whole, torn or
/// absent.
class crash_states {
public:
  /// At event number `moment` (events before it have happened); all ones: now.
  explicit crash_states(const sim_device& device, std::uint64_t moment = ~std::uint64_t{0});

  /// Writes that may be there or not.
  [[nodiscard]] std::size_t open_writes() const noexcept { return open_.size(); }
  /// How many states list() knows: absent, whole and torn at each chosen place for each open write.
  /// Saturates.
  [[nodiscard]] std::uint64_t count() const noexcept;
  /// State number 0 ... count() - 1. 0 is the one in which all open writes are absent.
  [[nodiscard]] image list(std::uint64_t number) const;
  /// A random one; torn writes are any set of their 512- or 4,096-byte sectors.
  [[nodiscard]] image draw(random& chance) const;

  crash_states(const crash_states&) = delete;
  crash_states& operator=(const crash_states&) = delete;

private:
  struct step {
    const log_record* record = nullptr;
    bool open = false;
  };
  [[nodiscard]] static std::vector<std::uint64_t> tears(const log_record& record);

  image start_;
  std::vector<log_record> records_;
  std::vector<step> steps_; // in order of taking effect
  std::vector<const log_record*> open_;
};

} // namespace memkv::sim
