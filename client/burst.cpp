#include "client/burst.hpp"

#include "wire/frame_writer.hpp"

#include <algorithm>

namespace memkv::client {

void burst::begin(std::int64_t now_ns) noexcept {
  clear();
  headers_.clear();
  headers_taken_ = 0;
  payload_bytes_ = 0;
  piece_ = 0;
  piece_offset_ = 0;
  written_ = 0;
  sealed_ns_ = now_ns;
}

void burst::clear() noexcept {
  frames_.clear();
  pieces_.clear();
}

void burst::add(request& owner, std::span<const wire::bytes_view> payload) {
  const std::uint64_t begin = frames_.empty() ? 0 : frames_.back().end;
  const std::size_t header_bytes = headers_.size() - headers_taken_;
  std::uint64_t end = begin + header_bytes;
  pieces_.push_back({nullptr, headers_taken_, header_bytes});
  headers_taken_ = headers_.size();
  for (const wire::bytes_view value : payload) {
    pieces_.push_back({value.data(), 0, value.size()});
    payload_bytes_ += value.size();
    end += value.size();
  }
  frames_.push_back({&owner, begin, end, false});
}

void burst::seal(std::uint64_t wall_clock_ns, const wire::mac& signer) noexcept {
  for (const piece& one : pieces_) {
    if (one.payload == nullptr) {
      wire::seal(wire::bytes_span(headers_).subspan(one.header_offset, one.length), wall_clock_ns, signer);
    }
  }
}

bool burst::is_unstarted(const request& owner) const noexcept {
  return std::any_of(frames_.begin(), frames_.end(),
                     [&](const frame& one) { return one.owner == &owner && !one.started; });
}

bool burst::is_unfinished(const request& owner) const noexcept {
  return std::any_of(frames_.begin(), frames_.end(),
                     [&](const frame& one) { return one.owner == &owner && one.end > written_; });
}

burst::gathered burst::gather(std::span<iovec> pieces) const noexcept {
  gathered result;
  for (std::size_t i = piece_; i < pieces_.size() && result.pieces < pieces.size(); ++i) {
    const piece& one = pieces_[i];
    const std::size_t offset = i == piece_ ? piece_offset_ : 0;
    const std::byte* const bytes = one.payload != nullptr ? one.payload : headers_.data() + one.header_offset;
    pieces[result.pieces++] = {const_cast<std::byte*>(bytes + offset), one.length - offset};
    result.bytes += one.length - offset;
  }
  return result;
}

void burst::advance(std::uint64_t bytes) noexcept {
  written_ += bytes;
  for (frame& one : frames_) {
    if (!one.started && one.begin < written_) {
      one.started = true;
      ++one.owner->attempts;
    }
  }
  while (bytes > 0) {
    const std::uint64_t rest = pieces_[piece_].length - piece_offset_;
    if (bytes < rest) {
      piece_offset_ += bytes;
      break;
    }
    bytes -= rest;
    ++piece_;
    piece_offset_ = 0;
  }
  if (piece_ == pieces_.size()) {
    clear();
  }
}

} // namespace memkv::client
