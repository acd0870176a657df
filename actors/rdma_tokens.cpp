#include "actors/rdma_tokens.hpp"

#include "wire/assert.hpp"

#include <atomic>
#include <random>

namespace memkv::actors {

namespace {

/// Begins anywhere, so that a client that still names a token of an earlier process hardly ever meets one.
std::uint64_t next_token() {
  static std::atomic<std::uint64_t> next{[] {
    std::random_device chance;
    return (std::uint64_t{chance()} << 32U | chance()) >> 1U;
  }()};
  std::uint64_t token = 0;
  while (token == 0)
    token = next.fetch_add(1, std::memory_order_relaxed);
  return token;
}

} // namespace

std::uint64_t token_table::add(entry what) {
  MEMKV_ASSERT(!full(), "a queue pair has no more tokens than it may have");
  const auto token = next_token();
  tokens_.emplace(token, what);
  return token;
}

token_budget::share token_budget::take(kind what, std::uint64_t extents) noexcept {
  share out;
  if (open_[0] + open_[1] >= tokens_max || extents > extents_max - extents_)
    return out;
  ++open_[static_cast<std::size_t>(what)];
  extents_ += extents;
  out.of_ = this;
  out.what_ = what;
  out.extents_ = extents;
  return out;
}

token_budget::share& token_budget::share::operator=(share&& other) noexcept {
  if (this == &other)
    return *this;
  give_back();
  of_ = std::exchange(other.of_, nullptr);
  what_ = other.what_;
  extents_ = other.extents_;
  buffer_ = std::exchange(other.buffer_, false);
  return *this;
}

bool token_budget::share::hold_buffer() noexcept {
  MEMKV_ASSERT(of_ != nullptr, "a buffer is held for a token");
  if (buffer_)
    return true;
  if (of_->buffers_ >= of_->buffers_max_)
    return false;
  ++of_->buffers_;
  buffer_ = true;
  return true;
}

void token_budget::share::let_go_of_buffer() noexcept {
  if (std::exchange(buffer_, false))
    --of_->buffers_;
}

void token_budget::share::give_back() noexcept {
  if (of_ == nullptr)
    return;
  let_go_of_buffer();
  of_->extents_ -= extents_;
  --of_->open_[static_cast<std::size_t>(what_)];
  of_ = nullptr;
}

} // namespace memkv::actors
