#include "actors/get_requests.hpp"

#include "actors/reactor.hpp"
#include "actors/tcp_connection.hpp"
#include "actors/value_reader.hpp"
#include "engine/guarded_read.hpp"
#include "wire/assert.hpp"
#include "wire/crc32c.hpp"
#include "wire/messages.hpp"
#include "wire/payload_digest.hpp"

#include <algorithm>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

namespace memkv::actors {

using wire::digest_kind;
using wire::frame_header;
using wire::opcode;
using wire::status;

namespace {

/// Slices of one part of a batch's answer.
constexpr std::size_t slices_max = 500;
/// Items of a batch that are being read from drives at a time.
constexpr std::size_t items_open_max = 64;
constexpr std::size_t digest_step_bytes = 64 << 10;
/// Vectors that one frame's payload may need.
constexpr std::size_t pieces_max = 900;

// --- what both have in common ---

/// The digest of a piece for a reply. A keyed one is made from the bytes as they are now: it would vouch for
/// damage, so they are compared with the stored checksum first. False: they are not what was stored, or can
/// no longer be read.
[[nodiscard]] bool make_digest(tcp_connection& connection, const frame_header& request,
                               const value_reader::piece& piece, std::uint32_t part_number,
                               std::uint32_t item, wire::digest16& out) {
  out = {};
  if (piece.bytes == 0)
    return true;
  if (request.kind == digest_kind::crc32c) {
    out = wire::crc32c_digest(piece.crc32c);
    return true;
  }
  auto& digest = connection.digest();
  digest.begin(digest_kind::keyed, wire::direction::reply, request.request_id, part_number, item);
  std::uint32_t sum = 0;
  for (auto span : piece.spans) {
    while (!span.empty()) {
      // In steps that stay in the processor's cache between the two.
      const auto step = span.first(std::min<std::size_t>(span.size(), digest_step_bytes));
      if (!engine::guarded_read(step, [&] {
            sum = wire::crc32c(step, sum);
            digest.update(step);
          }))
        return false;
      span = span.subspan(step.size());
    }
  }
  if (sum != piece.crc32c)
    return false;
  out = digest.finish();
  return true;
}

/// A request that is answered with what is read, part by part.
class reading_request : public tcp_request {
public:
  using tcp_request::tcp_request;

  void expire() override {
    if (over())
      return;
    owner_.counters().deadlines_exceeded.add();
    auto answer = reply(status::deadline_exceeded);
    answer.part_number = part_;
    send_reply(answer, wire::empty_message{});
    end();
  }

  void abandon() override { end(); }

protected:
  /// False: the frame was malformed or above a limit, and is answered.
  [[nodiscard]] bool accept(status decoded) {
    if (decoded == status::ok)
      return true;
    send_status(decoded);
    end();
    return false;
  }

  void begin_to_stream() {
    now_in(part_ready() ? request_stage::network : waits_for());
    connection_.stream(*this);
    if (deadline_ns_ != 0 && !over())
      owner_.expire_at(serial(), deadline_ns_);
  }

  /// After a reader heard of what it waited for.
  void look_for_part() {
    if (!part_ready())
      return;
    now_in(request_stage::network);
    connection_.pump_output();
  }

  /// What reading a value has come to, as it is answered, and counted. A bad block, which its reader counts,
  /// is a miss, unless bytes of it were sent.
  [[nodiscard]] status conclude(status code, bool begun) {
    auto& counters = owner_.counters();
    if (code == status::corrupt && !begun)
      code = status::not_found;
    if (code == status::ok)
      counters.reads.add();
    else if (code == status::not_found)
      counters.read_misses.add();
    return code;
  }

  /// Whether the answer names the length of the value although there are no bytes.
  [[nodiscard]] static bool tells_length(status code) noexcept {
    return code == status::out_of_range || code == status::buffer_too_small;
  }

  std::uint32_t part_ = 0; // the next one
};

// --- TcpGet ---

class get_request final : public reading_request {
public:
  using reading_request::reading_request;

  void begin(wire::bytes_view variable) override {
    wire::get_request message;
    if (!accept(wire::get_request::decode(variable, message)))
      return;
    reader_ = std::make_unique<value_reader>(owner_, serial(), 0);
    auto code = reader_->open(header_.ns.text(), message.key, message.range_offset, message.range_length,
                              message.capacity, wire::limits::part_bytes_max);
    if (code == status::ok) {
      begin_to_stream();
      return;
    }
    code = conclude(code, false);
    auto answer = reply(code);
    if (tells_length(code))
      answer.value_length = reader_->value_length();
    send_reply(answer, wire::empty_message{});
    end();
  }

  [[nodiscard]] bool part_ready() const override { return reader_->ready(); }
  [[nodiscard]] request_stage waits_for() const override {
    return reader_->waits_for_room() ? request_stage::queue : request_stage::drive;
  }

  outgoing next_part() override {
    now_in(request_stage::network);
    auto piece = reader_->next();
    outgoing out;
    wire::digest16 digest{};
    if (piece.status == status::ok && !make_digest(connection_, header_, piece, part_, 0, digest))
      piece = reader_->spoil();
    const auto code = piece.last ? conclude(piece.status, part_ > 0) : piece.status;
    auto answer = reply(code, piece.last);
    answer.part_number = part_;
    if (code == status::ok) {
      answer.payload_length = piece.bytes;
      answer.value_length = reader_->value_length();
      answer.value_offset = piece.offset;
      answer.digest = digest;
      wire::append_frame(out.frame, answer, wire::generation_reply{reader_->generation()});
      out.payload = piece.spans;
      out.payload_bytes = piece.bytes;
      out.keep = std::move(piece.keep);
    } else {
      wire::append_frame(out.frame, answer, wire::empty_message{});
    }
    owner_.counters().read_bytes.add(piece.bytes);
    ++part_;
    if (piece.last) {
      hand_clock_to(out);
      end();
    }
    return out;
  }

  void was_read(const extent_read_ptr& read) override {
    reader_->was_read(read);
    look_for_part();
  }

  void buffers_there() override {
    reader_->buffers_there();
    now_in(part_ready() ? request_stage::network : waits_for());
    if (part_ready())
      connection_.pump_output();
  }

  void drive_down(std::uint32_t drive) override {
    reader_->drive_down(drive);
    connection_.pump_output();
  }

private:
  std::unique_ptr<value_reader> reader_;
};

// --- TcpBatchGet ---

class batch_get_request final : public reading_request {
public:
  using reading_request::reading_request;

  void begin(wire::bytes_view variable) override {
    wire::batch_get_view items;
    if (!accept(wire::batch_get_view::decode(variable, items)))
      return;
    items_.reserve(items.size());
    for (const auto& given : items) {
      auto& added = items_.emplace_back();
      added.wanted = given;
      added.key.assign(given.key.begin(), given.key.end());
    }
    open_more();
    begin_to_stream();
  }

  [[nodiscard]] bool part_ready() const override {
    // A part is worth sending when it is full, or when nothing more is being read.
    if (opened_ == items_.size() && left_ == 0)
      return true;
    std::size_t waiting = 0;
    std::uint64_t bytes = 0;
    for (const auto index : reading_) {
      const auto& item = items_[index];
      if (item.refused != status::ok || item.reader->ready())
        bytes += item.refused != status::ok
                     ? 0
                     : std::min<std::uint64_t>(item.reader->bytes_left(), wire::limits::part_bytes_max);
      else
        ++waiting;
    }
    return !reading_.empty() && (waiting == 0 || bytes >= wire::limits::part_bytes_max);
  }

  [[nodiscard]] request_stage waits_for() const override {
    const bool asked = std::ranges::any_of(reading_, [this](std::size_t index) {
      const auto& item = items_[index];
      return item.refused == status::ok && !item.reader->ready() && !item.reader->waits_for_room();
    });
    return asked ? request_stage::drive : request_stage::queue;
  }

  outgoing next_part() override {
    now_in(request_stage::network);
    outgoing out;
    std::vector<wire::batch_slice> slices;
    std::vector<std::shared_ptr<void>> keep;
    for (auto at = reading_.begin(); at != reading_.end();) {
      auto& item = items_[*at];
      bool full = slices.size() >= slices_max || out.payload.size() >= pieces_max;
      bool over_item = false;
      while (!full) {
        wire::batch_slice slice;
        slice.item = static_cast<std::uint32_t>(*at);
        if (item.refused != status::ok) {
          slice.status = item.refused;
          slice.last = true;
          if (tells_length(item.refused))
            slice.value_length = item.reader->value_length();
          slices.push_back(slice);
          over_item = true;
          break;
        }
        if (!item.reader->ready())
          break;
        // A slice never has to be divided: pieces of batches are small enough, and a part begins with one at
        // least.
        if (!slices.empty() &&
            out.payload_bytes + std::min<std::uint64_t>(item.reader->bytes_left(), slice_bytes_max) >
                wire::limits::part_bytes_max) {
          full = true;
          break;
        }
        auto piece = item.reader->next();
        if (piece.status == status::ok &&
            !make_digest(connection_, header_, piece, part_, slice.item, slice.digest))
          piece = item.reader->spoil();
        slice.status = piece.last ? conclude(piece.status, item.begun) : piece.status;
        slice.last = piece.last;
        item.begun = true;
        if (piece.status == status::ok) {
          slice.value_length = item.reader->value_length();
          slice.value_offset = piece.offset;
          slice.length = piece.bytes;
          out.payload_bytes += piece.bytes;
          out.payload.insert(out.payload.end(), piece.spans.begin(), piece.spans.end());
          keep.push_back(std::move(piece.keep));
        }
        slices.push_back(slice);
        if (piece.last) {
          over_item = true;
          break;
        }
        full = slices.size() >= slices_max || out.payload.size() >= pieces_max ||
               out.payload_bytes >= wire::limits::part_bytes_max;
      }
      if (over_item) {
        item.reader.reset();
        at = reading_.erase(at);
        --left_;
      } else {
        ++at;
      }
      if (full)
        break;
    }
    open_more();
    const bool last = left_ == 0;
    auto answer = reply(status::ok, last);
    answer.part_number = part_++;
    answer.payload_length = out.payload_bytes;
    wire::append_frame(out.frame, answer, wire::batch_get_reply{slices});
    out.keep = std::make_shared<std::vector<std::shared_ptr<void>>>(std::move(keep));
    owner_.counters().read_bytes.add(out.payload_bytes);
    if (last) {
      hand_clock_to(out);
      end();
    }
    return out;
  }

  void was_read(const extent_read_ptr& read) override {
    if (auto& item = items_[read->item]; item.reader != nullptr)
      item.reader->was_read(read);
    look_for_part();
  }

  void buffers_there() override {
    for (const auto index : reading_)
      if (items_[index].reader != nullptr && items_[index].refused == status::ok)
        items_[index].reader->buffers_there();
    now_in(part_ready() ? request_stage::network : waits_for());
    if (part_ready())
      connection_.pump_output();
  }

  void drive_down(std::uint32_t drive) override {
    for (const auto index : reading_)
      if (items_[index].reader != nullptr && items_[index].refused == status::ok)
        items_[index].reader->drive_down(drive);
    connection_.pump_output();
  }

private:
  /// Pieces of a value within a part: two full ones fit beside small ones.
  static constexpr std::uint32_t slice_bytes_max = 512 << 10;

  struct item_state {
    wire::get_request wanted;
    std::vector<std::byte> key;
    std::unique_ptr<value_reader> reader;
    status refused = status::ok;
    bool begun = false;
  };

  void open_more() {
    while (opened_ < items_.size() && reading_.size() < items_open_max) {
      auto& item = items_[opened_];
      item.reader = std::make_unique<value_reader>(owner_, serial(), static_cast<std::uint32_t>(opened_));
      item.refused = item.reader->open(header_.ns.text(), item.key, item.wanted.range_offset,
                                       item.wanted.range_length, item.wanted.capacity, slice_bytes_max);
      if (item.refused != status::ok)
        item.refused = conclude(item.refused, false);
      reading_.push_back(opened_);
      ++opened_;
      ++left_;
    }
    if (opened_ < items_.size() && left_ == 0)
      MEMKV_ASSERT(false, "a batch is read on until its last item");
  }

  std::vector<item_state> items_;
  std::deque<std::size_t> reading_; // items that are open, in order
  std::size_t opened_ = 0;          // items looked up so far
  std::size_t left_ = 0;            // open items
};

} // namespace

std::unique_ptr<tcp_request> make_get_request(tcp_connection& connection, reactor& owner,
                                              const frame_header& header) {
  return std::make_unique<get_request>(connection, owner, header);
}

std::unique_ptr<tcp_request> make_batch_get_request(tcp_connection& connection, reactor& owner,
                                                    const frame_header& header) {
  return std::make_unique<batch_get_request>(connection, owner, header);
}

} // namespace memkv::actors
