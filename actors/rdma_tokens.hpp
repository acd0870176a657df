// What a queue pair of messages holds from one request to the next, each under a token: values that are being
// written (from Allocate to Commit), and blocks that are pinned (Lookup with LEASE).
//
// Operation. The request that made a token is answered and lives on in its connection, so that the answers of
// drives and of DCI POOL, deadlines and ends find it as they find any request. Write, Commit and Read find it
// in the table of their queue pair.
//
// Threading: REACTOR's thread. Ownership: a token belongs to the request that made it, which takes it out of
// the table before it ends. Limits: tokens_max for each queue pair; those of token_budget for each reactor.
#pragma once

#include "wire/limits.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>

namespace memkv::actors {

class value_reader;
class value_step; // rdma_value.cpp

/// From the answer to Allocate until the value is stored or given up. Each step is answered once, by its
/// answer(), unless it was forgotten.
class open_value {
public:
  /// Worked on when those before it have been answered.
  virtual void take(value_step& one) = 0;
  /// Its deadline has come.
  virtual void expired(value_step& one) = 0;
  /// Nobody will read its answer.
  virtual void forget(value_step& one) = 0;

protected:
  ~open_value() = default;
};

class block_lease {
public:
  /// What is pinned, for as long as anybody holds it; value_reader::open_as().
  [[nodiscard]] virtual const std::shared_ptr<value_reader>& block() const noexcept = 0;
  [[nodiscard]] virtual std::uint64_t ends_at_ns() const noexcept = 0;
  virtual void release() = 0;

protected:
  ~block_lease() = default;
};

/// Of one queue pair.
class token_table {
public:
  static constexpr std::size_t tokens_max = wire::limits::tokens_max;

  [[nodiscard]] bool full() const noexcept { return tokens_.size() >= tokens_max; }
  /// Never 0, and never one that was there before; only while it is not full.
  [[nodiscard]] std::uint64_t add(open_value& value) { return add({&value, nullptr}); }
  [[nodiscard]] std::uint64_t add(block_lease& lease) { return add({nullptr, &lease}); }
  void drop(std::uint64_t token) { tokens_.erase(token); }
  /// Null: it is none of this queue pair, or void, or of the other kind.
  [[nodiscard]] open_value* value(std::uint64_t token) const noexcept { return find(token).first; }
  [[nodiscard]] block_lease* lease(std::uint64_t token) const noexcept { return find(token).second; }

private:
  using entry = std::pair<open_value*, block_lease*>;
  [[nodiscard]] std::uint64_t add(entry what);
  [[nodiscard]] entry find(std::uint64_t token) const noexcept {
    const auto found = tokens_.find(token);
    return found == tokens_.end() ? entry{} : found->second;
  }
  std::unordered_map<std::uint64_t, entry> tokens_;
};

/// Of one reactor: what all its tokens hold together.
class token_budget {
public:
  enum class kind : std::uint8_t { value, lease };
  static constexpr std::uint64_t tokens_max = 1024;
  /// A value has one for each `storage.block_size`: about 1.5 KiB of memory each. One value of any length
  /// fits.
  static constexpr std::uint64_t extents_max = 16'384;

  /// `buffers_max`: values that wait for their next bytes with some in a chunk of the pool.
  explicit token_budget(std::uint64_t buffers_max) noexcept : buffers_max_(buffers_max) {}
  token_budget(const token_budget&) = delete;
  token_budget& operator=(const token_budget&) = delete;

  /// What one token has of it; gives it back when it dies. The budget outlives it.
  class share {
  public:
    share() noexcept = default;
    share(share&& other) noexcept { *this = std::move(other); }
    share& operator=(share&& other) noexcept;
    ~share() { give_back(); }

    [[nodiscard]] explicit operator bool() const noexcept { return of_ != nullptr; }
    /// False: as many others as may hold a buffer do. True if this one does already.
    [[nodiscard]] bool hold_buffer() noexcept;
    void let_go_of_buffer() noexcept;
    void give_back() noexcept;

  private:
    friend class token_budget;
    token_budget* of_ = nullptr;
    kind what_ = kind::value;
    std::uint64_t extents_ = 0;
    bool buffer_ = false;
  };

  /// Empty: there is not so much left.
  [[nodiscard]] share take(kind what, std::uint64_t extents) noexcept;
  [[nodiscard]] std::uint64_t open(kind what) const noexcept { return open_[static_cast<std::size_t>(what)]; }
  [[nodiscard]] std::uint64_t buffers() const noexcept { return buffers_; }

private:
  const std::uint64_t buffers_max_;
  std::array<std::uint64_t, 2> open_{}; // by kind
  std::uint64_t extents_ = 0, buffers_ = 0;
};

} // namespace memkv::actors
