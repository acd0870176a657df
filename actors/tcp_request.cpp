#include "actors/tcp_request.hpp"

#include "actors/reactor.hpp"
#include "actors/tcp_connection.hpp"
#include "actors/value_reader.hpp"
#include "actors/value_writer.hpp"
#include "wire/assert.hpp"
#include "wire/messages.hpp"
#include "wire/payload_digest.hpp"

#include <algorithm>
#include <deque>
#include <optional>

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
/// Vectors that one frame's payload may need.
constexpr std::size_t pieces_max = 900;

bool kind_allowed(const reactor_shared& shared, const frame_header& header) noexcept {
  return !shared.options.require_keyed_digest || header.kind == digest_kind::keyed;
}

} // namespace

// --- what all have in common ---

tcp_request::tcp_request(tcp_connection& connection, reactor& owner, const frame_header& header)
    : connection_(connection), owner_(owner), header_(header) {
  if (header.deadline_ms != 0)
    deadline_ns_ = owner.now_ns() + std::uint64_t{header.deadline_ms} * 1'000'000;
}

tcp_request::~tcp_request() {
  if (serial_ != 0)
    owner_.delist(serial_);
}

std::uint64_t tcp_request::serial() {
  if (serial_ == 0)
    serial_ = owner_.enlist(*this);
  return serial_;
}

payload_step tcp_request::next_payload(std::uint64_t left) {
  return {{}, nullptr, left};
}

outgoing tcp_request::next_part() {
  return {};
}

frame_header tcp_request::reply(status code, bool last) const {
  return wire::reply_header(header_, connection_.tag(), code, last);
}

template <class Body>
void tcp_request::send_reply(const frame_header& header, const Body& body) {
  outgoing frame;
  wire::append_frame(frame.frame, header, body);
  connection_.queue(std::move(frame));
}

void tcp_request::send_status(status code) {
  send_reply(reply(code), wire::empty_message{});
}

void tcp_request::end() {
  if (serial_ != 0) {
    owner_.delist(serial_);
    serial_ = 0;
  }
  connection_.ended(*this);
}

namespace {

// --- TcpPut ---

class put_request final : public tcp_request {
public:
  using tcp_request::tcp_request;

  void begin(wire::bytes_view variable) override {
    wire::key_request message;
    if (const auto decoded = wire::key_request::decode(variable, message); decoded != status::ok) {
      answer(decoded);
      return;
    }
    const auto& shared = owner_.shared();
    if (header_.payload_length > shared.options.limits.value_bytes_max) {
      answer(status::too_large);
      return;
    }
    writer_ = std::make_unique<value_writer>(owner_, serial(), 0);
    if (deadline_ns_ != 0)
      owner_.expire_at(serial(), deadline_ns_);
    if (header_.kind == digest_kind::keyed)
      digest_ = connection_.digest();
    if (digest_.has_value())
      digest_->begin(digest_kind::keyed, wire::direction::request, header_.request_id, 0, 0);
    if (const auto begun =
            writer_->begin(header_.ns.text(), message.key, header_.payload_length, header_.if_absent());
        begun != status::ok)
      answer(begun);
  }

  payload_step next_payload(std::uint64_t left) override {
    if (writer_->failed()) {
      look();
      return {{}, nullptr, left};
    }
    payload_step step;
    step.room = writer_->room();
    if (step.room.empty()) {
      if (writer_->failed())
        look();
      else
        owner_.wait_for_buffers(connection_);
      return step;
    }
    step.keep = writer_->keep();
    return step;
  }

  void payload_arrived(std::uint32_t bytes) override {
    if (writer_->failed())
      return;
    const auto arrived = writer_->arrived(bytes);
    if (digest_.has_value())
      digest_->update(arrived);
  }

  void payload_complete() override {
    if (over() || writer_ == nullptr)
      return;
    if (writer_->failed()) {
      look();
      return;
    }
    if (!digest_matches()) {
      owner_.counters().digest_mismatches.add();
      writer_->abort(status::digest_mismatch);
      look();
      return;
    }
    committing_ = true;
    const auto latest =
        owner_.now_ns() + std::uint64_t{owner_.shared().options.limits.request_ms} * 1'000'000;
    writer_->commit(deadline_ns_ != 0 ? std::min(deadline_ns_, latest) : latest);
    look();
  }

  void allocated(const extent_put_ptr& put) override {
    writer_->allocated(put);
    look();
    if (!over())
      connection_.pump_input();
  }

  void stored(const extent_put_ptr& put) override {
    writer_->stored(put);
    look();
  }

  void drive_down(std::uint32_t drive) override {
    writer_->drive_down(drive);
    look();
  }

  void expire() override {
    if (committing_ || over())
      return; // the drive does not commit after the deadline either
    owner_.counters().deadlines_exceeded.add();
    writer_->abort(status::deadline_exceeded);
    look();
  }

  void abandon() override {
    if (committing_)
      return; // all of it had arrived: it may still take effect
    if (writer_ != nullptr)
      writer_->abort(status::internal);
    if (!over())
      end();
  }

private:
  [[nodiscard]] bool digest_matches() {
    if (header_.payload_length == 0)
      return wire::all_zero(header_.digest);
    if (digest_.has_value())
      return digest_->matches(header_.digest);
    return wire::equal_in_constant_time(wire::crc32c_digest(writer_->crc32c()), header_.digest);
  }

  void look() {
    if (over() || !writer_->finished())
      return;
    auto& counters = owner_.counters();
    if (writer_->result() == status::ok) {
      counters.writes.add();
      counters.write_bytes.add(header_.payload_length);
      send_reply(reply(status::ok), wire::generation_reply{writer_->generation()});
      end();
    } else {
      counters.write_failures.add();
      answer(writer_->result());
    }
  }

  void answer(status code) {
    send_status(code);
    end();
  }

  std::unique_ptr<value_writer> writer_;
  std::optional<wire::payload_digest> digest_;
  bool committing_ = false;
};

// --- TcpBatchPut ---

class batch_put_request final : public tcp_request {
public:
  using tcp_request::tcp_request;

  void begin(wire::bytes_view variable) override {
    wire::batch_put_view items;
    auto decoded = wire::batch_put_view::decode(variable, items);
    if (decoded == status::ok && items.payload_bytes() != header_.payload_length)
      decoded = status::bad_request;
    if (decoded != status::ok) {
      send_status(decoded);
      end();
      return;
    }
    if (header_.kind == digest_kind::keyed)
      digest_ = connection_.digest();
    if (deadline_ns_ != 0)
      owner_.expire_at(serial(), deadline_ns_);
    items_.reserve(items.size());
    open_ = items.size();
    for (const auto& given : items) {
      auto& added = items_.emplace_back();
      added.length = given.value_length;
      added.if_absent = given.if_absent;
      added.digest = given.digest;
      added.key.assign(given.key.begin(), given.key.end());
    }
    if (header_.payload_length == 0)
      take_empty_items();
  }

  payload_step next_payload(std::uint64_t) override {
    take_empty_items();
    if (over() || current_ == items_.size())
      return {};
    auto& item = items_[current_];
    if (item.writer == nullptr && !item.decided)
      start(item);
    payload_step step;
    if (item.decided || item.writer->failed()) {
      step.skip = item.length - item.arrived;
      return step;
    }
    step.room = item.writer->room();
    if (step.room.empty())
      owner_.wait_for_buffers(connection_);
    else
      step.keep = item.writer->keep();
    return step;
  }

  void payload_arrived(std::uint32_t bytes) override {
    auto& item = items_[current_];
    item.arrived += bytes;
    if (!item.decided && !item.writer->failed()) {
      const auto arrived = item.writer->arrived(bytes);
      if (digest_.has_value())
        digest_->update(arrived);
    }
    if (item.arrived == item.length)
      item_complete();
  }

  void payload_skipped(std::uint64_t bytes) override {
    auto& item = items_[current_];
    item.arrived += static_cast<std::uint32_t>(bytes);
    if (item.arrived == item.length)
      item_complete();
  }

  void payload_complete() override {
    if (!over())
      take_empty_items();
  }

  void allocated(const extent_put_ptr& put) override {
    auto& item = items_[put->item];
    if (item.writer != nullptr && !item.decided)
      item.writer->allocated(put);
    look(item);
    if (!over())
      connection_.pump_input();
  }

  void stored(const extent_put_ptr& put) override {
    auto& item = items_[put->item];
    if (item.writer != nullptr && !item.decided)
      item.writer->stored(put);
    look(item);
  }

  void drive_down(std::uint32_t drive) override {
    for (auto& item : items_) {
      if (item.writer != nullptr && !item.decided)
        item.writer->drive_down(drive);
      if (over())
        return;
      look(item);
    }
  }

  void expire() override {
    // Items that are being committed are decided by their drives.
    expired_ = true;
    for (auto& item : items_)
      if (!item.decided && !item.committing) {
        if (item.writer != nullptr)
          item.writer->abort(status::deadline_exceeded);
        decide(item, status::deadline_exceeded, 0);
        if (over())
          return;
      }
  }

  void abandon() override {
    for (auto& item : items_)
      if (item.writer != nullptr && !item.decided && !item.committing)
        item.writer->abort(status::internal);
    const bool any = std::any_of(items_.begin(), items_.end(),
                                 [](const auto& item) { return item.committing && !item.decided; });
    abandoned_ = true;
    if (!any && !over())
      end();
  }

private:
  struct item_state {
    std::vector<std::byte> key;
    std::uint32_t length = 0, arrived = 0;
    bool if_absent = false;
    bool committing = false;
    bool decided = false;
    wire::digest16 digest{};
    std::unique_ptr<value_writer> writer;
    wire::batch_put_result result;
  };

  void start(item_state& item) {
    const auto index = static_cast<std::uint32_t>(&item - items_.data());
    if (expired_ || item.length > owner_.shared().options.limits.value_bytes_max) {
      decide(item, expired_ ? status::deadline_exceeded : status::too_large, 0);
      return;
    }
    item.writer = std::make_unique<value_writer>(owner_, serial(), index);
    if (digest_.has_value())
      digest_->begin(digest_kind::keyed, wire::direction::request, header_.request_id, 0, index);
    if (const auto begun = item.writer->begin(header_.ns.text(), item.key, item.length, item.if_absent);
        begun != status::ok)
      decide(item, begun, 0);
  }

  /// Items without payload need no byte to be complete.
  void take_empty_items() {
    while (!over() && current_ < items_.size() && items_[current_].length == 0) {
      auto& item = items_[current_];
      if (item.writer == nullptr && !item.decided)
        start(item);
      item_complete();
    }
  }

  void item_complete() {
    auto& item = items_[current_];
    ++current_;
    if (item.decided)
      return;
    if (item.writer->failed()) {
      look(item);
      return;
    }
    bool matches = wire::all_zero(item.digest);
    if (item.length > 0)
      matches = digest_.has_value()
                    ? digest_->matches(item.digest)
                    : wire::equal_in_constant_time(wire::crc32c_digest(item.writer->crc32c()), item.digest);
    if (!matches) {
      owner_.counters().digest_mismatches.add();
      item.writer->abort(status::digest_mismatch);
    } else {
      item.committing = true;
      const auto latest =
          owner_.now_ns() + std::uint64_t{owner_.shared().options.limits.request_ms} * 1'000'000;
      item.writer->commit(deadline_ns_ != 0 ? std::min(deadline_ns_, latest) : latest);
    }
    look(item);
  }

  void look(item_state& item) {
    if (over() || item.decided || item.writer == nullptr || !item.writer->finished())
      return;
    decide(item, item.writer->result(), item.writer->generation());
  }

  void decide(item_state& item, status code, std::uint64_t generation) {
    item.decided = true;
    item.result = {code, generation};
    auto& counters = owner_.counters();
    if (code == status::ok) {
      counters.writes.add();
      counters.write_bytes.add(item.length);
    } else {
      counters.write_failures.add();
    }
    if (--open_ > 0)
      return;
    if (!abandoned_) {
      std::vector<wire::batch_put_result> results;
      results.reserve(items_.size());
      for (const auto& each : items_)
        results.push_back(each.result);
      send_reply(reply(status::ok), wire::batch_put_reply{results});
    }
    end();
  }

  std::vector<item_state> items_;
  std::optional<wire::payload_digest> digest_;
  std::size_t current_ = 0; // item whose payload is being received
  std::size_t open_ = 0;    // items without an outcome
  bool expired_ = false;
  bool abandoned_ = false;
};

// --- TcpGet ---

/// The digest of a piece for a reply.
wire::digest16 digest_of(tcp_connection& connection, const frame_header& request,
                         const value_reader::piece& piece, std::uint32_t part_number, std::uint32_t item) {
  if (piece.bytes == 0)
    return {};
  if (request.kind == digest_kind::crc32c)
    return wire::crc32c_digest(piece.crc32c);
  auto& digest = connection.digest();
  digest.begin(digest_kind::keyed, wire::direction::reply, request.request_id, part_number, item);
  for (const auto& span : piece.spans)
    digest.update(span);
  return digest.finish();
}

class get_request final : public tcp_request {
public:
  using tcp_request::tcp_request;

  void begin(wire::bytes_view variable) override {
    wire::get_request message;
    auto code = wire::get_request::decode(variable, message);
    if (code != status::ok) {
      send_status(code);
      end();
      return;
    }
    if (deadline_ns_ != 0)
      owner_.expire_at(serial(), deadline_ns_);
    reader_ = std::make_unique<value_reader>(owner_, serial(), 0);
    code = reader_->open(header_.ns.text(), message.key, message.range_offset, message.range_length,
                         message.capacity, wire::limits::part_bytes_max);
    if (code != status::ok) {
      refuse(code);
      return;
    }
    connection_.stream(*this);
  }

  [[nodiscard]] bool part_ready() const override { return reader_->ready(); }

  outgoing next_part() override {
    const auto piece = reader_->next();
    outgoing out;
    auto code = piece.status;
    if (code == status::corrupt && part_ == 0)
      code = status::not_found; // a bad block is a miss
    auto answer = reply(code, piece.last);
    answer.part_number = part_;
    if (code == status::ok) {
      answer.payload_length = piece.bytes;
      answer.value_length = reader_->value_length();
      answer.value_offset = piece.offset;
      answer.digest = digest_of(connection_, header_, piece, part_, 0);
      wire::append_frame(out.frame, answer, wire::generation_reply{reader_->generation()});
      out.payload = piece.spans;
      out.payload_bytes = piece.bytes;
      out.keep = reader_->keep_alive();
    } else {
      wire::append_frame(out.frame, answer, wire::empty_message{});
    }
    auto& counters = owner_.counters();
    counters.read_bytes.add(piece.bytes);
    ++part_;
    if (piece.last) {
      if (code == status::ok)
        counters.reads.add();
      else if (code == status::not_found)
        counters.read_misses.add();
      if (piece.status == status::corrupt)
        counters.corrupt_blocks.add();
      end();
    }
    return out;
  }

  void was_read(const extent_read_ptr& read) override {
    reader_->was_read(read);
    if (reader_->ready())
      connection_.pump_output();
  }

  void drive_down(std::uint32_t drive) override {
    reader_->drive_down(drive);
    connection_.pump_output();
  }

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

private:
  void refuse(status code) {
    auto answer = reply(code == status::corrupt ? status::not_found : code);
    if (code == status::out_of_range || code == status::buffer_too_small)
      answer.value_length = reader_->value_length();
    if (code == status::not_found || code == status::corrupt)
      owner_.counters().read_misses.add();
    if (code == status::corrupt)
      owner_.counters().corrupt_blocks.add();
    send_reply(answer, wire::empty_message{});
    end();
  }

  std::unique_ptr<value_reader> reader_;
  std::uint32_t part_ = 0;
};

// --- TcpBatchGet ---

class batch_get_request final : public tcp_request {
public:
  using tcp_request::tcp_request;

  void begin(wire::bytes_view variable) override {
    wire::batch_get_view items;
    auto code = wire::batch_get_view::decode(variable, items);
    if (code != status::ok) {
      send_status(code);
      end();
      return;
    }
    if (deadline_ns_ != 0)
      owner_.expire_at(serial(), deadline_ns_);
    items_.reserve(items.size());
    for (const auto& given : items) {
      auto& added = items_.emplace_back();
      added.wanted = given;
      added.key.assign(given.key.begin(), given.key.end());
    }
    open_more();
    connection_.stream(*this);
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

  outgoing next_part() override {
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
          if (item.refused == status::out_of_range || item.refused == status::buffer_too_small)
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
        slice.status = piece.status;
        slice.last = piece.last;
        if (piece.status == status::corrupt) {
          owner_.counters().corrupt_blocks.add();
          if (!item.begun)
            slice.status = status::not_found;
        }
        item.begun = true;
        if (piece.status == status::ok) {
          slice.value_length = item.reader->value_length();
          slice.value_offset = piece.offset;
          slice.length = piece.bytes;
          slice.digest = digest_of(connection_, header_, piece, part_, slice.item);
          out.payload_bytes += piece.bytes;
          out.payload.insert(out.payload.end(), piece.spans.begin(), piece.spans.end());
        }
        slices.push_back(slice);
        if (piece.last) {
          over_item = true;
          keep.push_back(item.reader->keep_alive());
          break;
        }
        full = slices.size() >= slices_max || out.payload.size() >= pieces_max ||
               out.payload_bytes >= wire::limits::part_bytes_max;
      }
      if (over_item) {
        count(item);
        item.reader.reset();
        at = reading_.erase(at);
        --left_;
      } else {
        if (item.reader != nullptr && item.begun)
          keep.push_back(item.reader->keep_alive());
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
    if (last)
      end();
    return out;
  }

  void was_read(const extent_read_ptr& read) override {
    if (auto& item = items_[read->item]; item.reader != nullptr)
      item.reader->was_read(read);
    if (part_ready())
      connection_.pump_output();
  }

  void drive_down(std::uint32_t drive) override {
    for (const auto index : reading_)
      if (items_[index].reader != nullptr && items_[index].refused == status::ok)
        items_[index].reader->drive_down(drive);
    connection_.pump_output();
  }

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
      if (item.refused == status::corrupt) {
        owner_.counters().corrupt_blocks.add();
        item.refused = status::not_found;
      }
      reading_.push_back(opened_);
      ++opened_;
      ++left_;
    }
    if (opened_ < items_.size() && left_ == 0)
      MEMKV_ASSERT(false, "a batch is read on until its last item");
  }

  void count(const item_state& item) {
    if (item.refused == status::ok)
      owner_.counters().reads.add();
    else if (item.refused == status::not_found)
      owner_.counters().read_misses.add();
  }

  std::vector<item_state> items_;
  std::deque<std::size_t> reading_; // items that are open, in order
  std::size_t opened_ = 0;          // items looked up so far
  std::size_t left_ = 0;            // open items
  std::uint32_t part_ = 0;
};

// --- Lookup ---

class lookup_request final : public tcp_request {
public:
  using tcp_request::tcp_request;

  void begin(wire::bytes_view variable) override {
    wire::key_request message;
    auto code = wire::key_request::decode(variable, message);
    if (code == status::ok) {
      if (deadline_ns_ != 0)
        owner_.expire_at(serial(), deadline_ns_);
      reader_ = std::make_unique<value_reader>(owner_, serial(), 0);
      code = reader_->open(header_.ns.text(), message.key, 0, 0, 0, wire::limits::part_bytes_max);
    }
    if (code != status::ok) {
      send_status(code == status::corrupt ? status::not_found : code);
      end();
      return;
    }
    go_on();
  }

  void was_read(const extent_read_ptr& read) override {
    reader_->was_read(read);
    go_on();
  }
  void drive_down(std::uint32_t drive) override {
    reader_->drive_down(drive);
    go_on();
  }
  void expire() override {
    if (!over()) {
      send_status(status::deadline_exceeded);
      end();
    }
  }
  void abandon() override { end(); }

private:
  void go_on() {
    while (!over() && reader_->ready()) {
      const auto piece = reader_->next();
      if (piece.status != status::ok) {
        send_status(piece.status == status::corrupt ? status::not_found : piece.status);
        end();
        return;
      }
      sum_ = wire::crc32c_combine(sum_, piece.crc32c, piece.bytes);
      if (piece.last) {
        auto answer = reply(status::ok);
        answer.value_length = reader_->value_length();
        send_reply(answer, wire::lookup_reply{reader_->generation(), sum_, 0});
        end();
        return;
      }
    }
  }

  std::unique_ptr<value_reader> reader_;
  std::uint32_t sum_ = 0;
};

// --- TcpDelete, Delete, TcpBatchDelete ---

class delete_request final : public tcp_request {
public:
  using tcp_request::tcp_request;

  void begin(wire::bytes_view variable) override {
    const bool batch = header_.opcode == opcode::tcp_batch_delete;
    wire::key_request one;
    wire::batch_keys_view many;
    const auto code =
        batch ? wire::batch_keys_view::decode(variable, many) : wire::key_request::decode(variable, one);
    if (code != status::ok) {
      send_status(code);
      end();
      return;
    }
    const auto count = batch ? many.size() : 1;
    results_.assign(count, status::ok);
    striped_.resize(count);
    left_ = count;
    if (batch) {
      std::uint32_t item = 0;
      std::vector<wire::key_id> ids;
      ids.reserve(count);
      for (const auto& each : many)
        ids.push_back(wire::make_key_id(header_.ns.text(), each.key));
      for (const auto& id : ids)
        if (!over())
          erase(item++, id);
    } else {
      erase(0, wire::make_key_id(header_.ns.text(), one.key));
    }
  }

  void erased(const block_erase_ptr& erase) override {
    auto code = status::internal;
    switch (erase->result) {
    case engine::errc::ok:
      code = status::ok;
      break;
    case engine::errc::not_found:
      code = status::not_found;
      break;
    case engine::errc::offline:
    case engine::errc::io_error:
      code = status::unavailable;
      break;
    case engine::errc::busy:
      code = status::busy;
      break;
    default:
      break;
    }
    if (code == status::ok)
      erase_parts(erase->item, erase->id);
    decide(erase->item, code);
  }

  void drive_down(std::uint32_t drive) override {
    for (std::uint32_t item = 0; item < waiting_.size() && !over(); ++item)
      if (waiting_[item] == static_cast<std::int64_t>(drive))
        decide(item, status::internal);
  }

  void abandon() override {
    abandoned_ = true;
    if (left_ == 0 && !over())
      end();
  }

private:
  struct striped {
    std::uint64_t put_id = 0;
    std::uint32_t parts = 1;
  };

  void erase(std::uint32_t item, const wire::key_id& id) {
    auto& drives = owner_.drives();
    const auto home = drives.home(id);
    waiting_.resize(results_.size(), -1);
    auto& seat = drives.at(home);
    if (seat.drive == nullptr) {
      decide(item, status::unavailable);
      return;
    }
    if (const auto pin = seat.body->store->index().find_and_pin(id);
        pin && (pin->flags & engine::entry_striped) != 0) {
      striped_[item].put_id = pin->put_id;
      striped_[item].parts = static_cast<std::uint32_t>((pin->value_length + owner_.extent_bytes_max() - 1) /
                                                        owner_.extent_bytes_max());
    }
    auto message = std::make_shared<block_erase>();
    message->request = serial();
    message->item = item;
    message->reply_to = owner_.as_actor();
    message->id = id;
    waiting_[item] = home;
    owner_.send_to_drive(home, erase_block{std::move(message)});
  }

  void erase_parts(std::uint32_t item, const wire::key_id& id) {
    const auto& [put_id, parts] = striped_[item];
    for (std::uint32_t part = 1; part < parts; ++part) {
      auto message = std::make_shared<block_erase>();
      message->id = engine::part_id(id, put_id, part);
      owner_.send_to_drive(owner_.drives().home(message->id), erase_block{std::move(message)});
    }
  }

  void decide(std::uint32_t item, status code) {
    waiting_[item] = -1;
    results_[item] = code;
    if (code == status::ok)
      owner_.counters().deletes.add();
    if (--left_ > 0)
      return;
    if (!abandoned_) {
      if (header_.opcode == opcode::tcp_batch_delete)
        send_reply(reply(status::ok), wire::batch_delete_reply{results_});
      else
        send_status(results_.front());
    }
    end();
  }

  std::vector<status> results_;
  std::vector<striped> striped_;
  std::vector<std::int64_t> waiting_; // drive that each item waits for, or -1
  std::size_t left_ = 0;
  bool abandoned_ = false;
};

// --- what is answered at once ---

/// Whether a block is there, from the index alone; its length and generation.
bool present(reactor& owner, std::string_view name_space, wire::bytes_view key, std::uint32_t& length,
             std::uint64_t& generation, bool touch) {
  const auto id = wire::make_key_id(name_space, key);
  const auto& seat = owner.drives().at(owner.drives().home(id));
  return seat.body != nullptr && seat.body->store->index().contains(id, length, generation, touch);
}

template <class Body>
void answer(tcp_connection& connection, const frame_header& header, const Body& body) {
  outgoing out;
  wire::append_frame(out.frame, header, body);
  connection.queue(std::move(out));
}

void answer_exists(tcp_connection& connection, reactor& owner, const frame_header& header,
                   wire::bytes_view variable) {
  wire::key_request message;
  auto code = wire::key_request::decode(variable, message);
  std::uint32_t length = 0;
  std::uint64_t generation = 0;
  owner.counters().exists_keys.add();
  if (code == status::ok && !present(owner, header.ns.text(), message.key, length, generation, true))
    code = status::not_found;
  auto reply = wire::reply_header(header, connection.tag(), code);
  if (code != status::ok) {
    answer(connection, reply, wire::empty_message{});
    return;
  }
  reply.value_length = length;
  answer(connection, reply, wire::generation_reply{generation});
}

void answer_batch_exists(tcp_connection& connection, reactor& owner, const frame_header& header,
                         wire::bytes_view variable) {
  wire::batch_keys_view keys;
  const auto code = wire::batch_keys_view::decode(variable, keys);
  const auto reply = wire::reply_header(header, connection.tag(), code);
  if (code != status::ok) {
    answer(connection, reply, wire::empty_message{});
    return;
  }
  std::vector<wire::batch_exists_result> results;
  results.reserve(keys.size());
  for (const auto& each : keys) {
    std::uint32_t length = 0;
    std::uint64_t generation = 0;
    const bool there = present(owner, header.ns.text(), each.key, length, generation, true);
    results.push_back({there ? status::ok : status::not_found, there ? length : 0});
  }
  owner.counters().exists_keys.add(keys.size());
  answer(connection, reply, wire::batch_exists_reply{results});
}

void answer_prefix(tcp_connection& connection, reactor& owner, const frame_header& header,
                   wire::bytes_view variable) {
  wire::batch_keys_view keys;
  const auto code = wire::batch_keys_view::decode(variable, keys);
  const auto reply = wire::reply_header(header, connection.tag(), code);
  if (code != status::ok) {
    answer(connection, reply, wire::empty_message{});
    return;
  }
  std::vector<std::uint64_t> lengths;
  for (const auto& each : keys) {
    std::uint32_t length = 0;
    std::uint64_t generation = 0;
    if (!present(owner, header.ns.text(), each.key, length, generation, true))
      break;
    lengths.push_back(length);
  }
  owner.counters().prefixes.add();
  answer(connection, reply, wire::prefix_reply{lengths});
}

} // namespace

std::unique_ptr<tcp_request> make_request(tcp_connection& connection, reactor& owner,
                                          const frame_header& header, wire::bytes_view variable) {
  const bool unknown = !wire::known(header.opcode);
  if (!unknown && !kind_allowed(owner.shared(), header)) {
    answer(connection, wire::reply_header(header, connection.tag(), status::keyed_digest_required),
           wire::empty_message{});
    return nullptr;
  }
  switch (header.opcode) {
  case opcode::tcp_put:
    return std::make_unique<put_request>(connection, owner, header);
  case opcode::tcp_batch_put:
    return std::make_unique<batch_put_request>(connection, owner, header);
  case opcode::tcp_get:
    return std::make_unique<get_request>(connection, owner, header);
  case opcode::tcp_batch_get:
    return std::make_unique<batch_get_request>(connection, owner, header);
  case opcode::lookup:
    return std::make_unique<lookup_request>(connection, owner, header);
  case opcode::tcp_delete:
  case opcode::erase:
  case opcode::tcp_batch_delete:
    return std::make_unique<delete_request>(connection, owner, header);
  case opcode::exists:
    answer_exists(connection, owner, header, variable);
    return nullptr;
  case opcode::batch_exists:
    answer_batch_exists(connection, owner, header, variable);
    return nullptr;
  case opcode::prefix:
    answer_prefix(connection, owner, header, variable);
    return nullptr;
  case opcode::ping:
  case opcode::stat: {
    const auto code = variable.empty() ? status::ok : status::bad_request;
    const auto reply = wire::reply_header(header, connection.tag(), code);
    if (code == status::ok && header.opcode == opcode::stat)
      answer(connection, reply, owner.stat());
    else
      answer(connection, reply, wire::empty_message{});
    return nullptr;
  }
  default:
    answer(connection, wire::reply_header(header, connection.tag(), status::unsupported),
           wire::empty_message{});
    return nullptr;
  }
}

} // namespace memkv::actors
