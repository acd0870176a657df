// A drive of many terabytes that costs only its metadata: what is written into the data region is forgotten.
//
// Operation. Metadata goes to a device below, which takes memory or disk only where it was written (a memory
// device, a sparse file). Of the data region the pages written last are kept, enough for what recovery reads
// of the last journal batch; everything else there reads as zeros. So the payload of a block is best not
// written at all, and its checksums are those of zeros.
//
// Writes to the tree can be held: they complete only after release_tree(). That is a checkpoint which does
// not get on while the journal fills.
//
// Threading: one thread. Ownership: owns the device below. Errors: as block_device says.
// Limits: pages_kept of the data region. Does not: have faults (sim_device.hpp does), or a mapping.
#pragma once

#include "engine/block_device.hpp"
#include "engine/layout.hpp"

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <unordered_map>
#include <utility>

namespace memkv::sim {

class sparse_device final : public engine::block_device {
public:
  static constexpr std::size_t pages_kept = 16'384;

  /// `places` of the store that will be opened on it.
  sparse_device(std::unique_ptr<engine::block_device> below, const engine::layout& places);
  ~sparse_device() override;

  [[nodiscard]] const engine::device_information& information() const noexcept override {
    return information_;
  }
  void submit(engine::io_operation& operation) override;
  std::size_t poll(bool wait) override;
  [[nodiscard]] std::size_t in_flight() const noexcept override {
    return below_->in_flight() + finished_.size() + held_.size();
  }
  void close() noexcept override;

  void hold_tree() noexcept { holding_ = true; }
  /// What was held is submitted now.
  void release_tree();
  [[nodiscard]] std::size_t held() const noexcept { return held_.size(); }

private:
  using page = std::array<std::byte, engine::page_bytes>;

  void read(const engine::io_operation& operation) const;
  void write(const engine::io_operation& operation);

  std::unique_ptr<engine::block_device> below_;
  engine::layout places_;
  engine::device_information information_;
  std::deque<engine::io_operation*> finished_; // in the data region: done by the next poll
  std::deque<engine::io_operation*> held_;
  bool holding_ = false;
  struct kept_page {
    std::unique_ptr<page> bytes;
    std::uint64_t written = 0; // number of the write
  };
  std::uint64_t written_ = 0;
  std::unordered_map<std::uint64_t, kept_page> kept_;         // by offset
  std::deque<std::pair<std::uint64_t, std::uint64_t>> order_; // offset and number of each write, oldest first
};

/// A drive of `size_bytes` in memory, laid out for these settings.
[[nodiscard]] engine::status open_sparse_device(std::uint64_t size_bytes, std::uint32_t unit_bytes,
                                                std::uint32_t extent_bytes_max,
                                                std::unique_ptr<sparse_device>& out);

} // namespace memkv::sim
