#include "client/payload_receiver.hpp"

#include <algorithm>
#include <cstring>

namespace memkv::client {

void payload_receiver::stop() noexcept {
  clear();
  digest_.reset();
}

void payload_receiver::clear() noexcept {
  segments_.clear();
  segment_ = 0;
  done_ = 0;
  left_ = 0;
}

void payload_receiver::begin(const wire::frame_header& header) noexcept {
  header_ = header;
  left_ = header.payload_length;
  if (left_ != 0) {
    begin_segment();
  }
}

void payload_receiver::begin_segment() noexcept {
  done_ = 0;
  digest_->begin(header_.kind, wire::direction::reply, header_.request_id, header_.part_number,
                 segments_[segment_].item_index);
}

payload_receiver::gathered payload_receiver::gather(std::span<iovec> pieces,
                                                    std::uint64_t bytes_max) const noexcept {
  gathered result;
  if (left_ == 0) {
    return result;
  }
  for (std::size_t i = segment_; i < segments_.size() && result.pieces < pieces.size(); ++i) {
    const std::uint64_t done = i == segment_ ? done_ : 0;
    const std::uint64_t length = std::min(segments_[i].length - done, bytes_max - result.bytes);
    if (length == 0) {
      break;
    }
    pieces[result.pieces++] = {segments_[i].target + done, static_cast<std::size_t>(length)};
    result.bytes += length;
  }
  return result;
}

std::uint64_t payload_receiver::copy_in(wire::bytes_view bytes) const noexcept {
  const segment& to = segments_[segment_];
  const std::uint64_t length = std::min<std::uint64_t>(bytes.size(), to.length - done_);
  std::memcpy(to.target + done_, bytes.data(), static_cast<std::size_t>(length));
  return length;
}

bool payload_receiver::advance(std::uint64_t bytes) noexcept {
  while (bytes > 0) {
    const segment& to = segments_[segment_];
    const std::uint64_t step = std::min(bytes, to.length - done_);
    digest_->update({to.target + done_, static_cast<std::size_t>(step)});
    done_ += step;
    left_ -= step;
    bytes -= step;
    if (done_ < to.length) {
      break;
    }
    if (!digest_->matches(to.digest)) {
      return false;
    }
    if (to.completes != nullptr) {
      to.completes->code = errc::ok;
    }
    if (++segment_ < segments_.size()) {
      begin_segment();
    }
  }
  return true;
}

} // namespace memkv::client
