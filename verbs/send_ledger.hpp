// Turns the completions of one queue, of which a device writes only some, into one report for each request.
//
// Requests are numbered as they are posted. A completion with success vouches for all before it. One with an
// error does not: what was unsignalled before it is reported as flushed, which promises nothing, though it
// may have been carried out. Threading: one thread. Limits: the size given; adding beyond it is a broken
// invariant.
#pragma once

#include "verbs/fabric.hpp"
#include "wire/assert.hpp"

#include <bit>
#include <vector>

namespace memkv::verbs {

class send_ledger {
public:
  explicit send_ledger(std::uint32_t size)
      : entries_(std::bit_ceil(size == 0 ? 1U : size)) {} // a power of two, so that numbers may wrap around

  [[nodiscard]] std::uint32_t count() const noexcept { return next_ - first_; }
  /// The number that the next request added will get.
  [[nodiscard]] std::uint32_t next() const noexcept { return next_; }
  void add(std::uint64_t id, operation kind) {
    MEMKV_ASSERT(count() < entries_.size(), "a ledger has room for what its queue takes");
    entries_[next_ % entries_.size()] = {id, kind};
    ++next_;
  }
  /// Calls give(id, kind, status) for each request that ended with the completion of this number, in order.
  /// Nothing when the number is not among those that are out.
  template <class function>
  void complete(std::uint32_t number, completion_status status, function give) {
    if (number - first_ >= count()) {
      return;
    }
    const bool good = status == completion_status::success;
    while (first_ != number) {
      const entry& one = entries_[first_++ % entries_.size()];
      give(one.id, one.kind, good ? completion_status::success : completion_status::flushed);
    }
    const entry& one = entries_[first_++ % entries_.size()];
    give(one.id, one.kind, status);
  }

private:
  struct entry {
    std::uint64_t id = 0;
    operation kind = operation::write;
  };
  std::vector<entry> entries_;
  std::uint32_t first_ = 0;
  std::uint32_t next_ = 0;
};

} // namespace memkv::verbs
