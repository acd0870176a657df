// A value on its way to memory drives: what happens when the drives answer at once, later, or not at all; and
// what becomes of a striped one that lost a part.
#define CAF_SUITE value_writer
#include "actors/value_writer.hpp"

#include "actors/value_reader.hpp"
#include "engine/memory_device.hpp"
#include "wire/crc32c.hpp"

#include <caf/test/dsl.hpp>

#include <algorithm>
#include <cstring>
#include <functional>
#include <random>
#include <string>

using namespace memkv;
using namespace memkv::actors;
using engine::errc;
using wire::status;

namespace {

constexpr std::uint32_t kib = 1024, mib = 1024 * 1024;

drive_actor::behavior_type silent_drive(drive_actor::pointer, int) {
  return {[](const store_extent&) {},  [](const allocate_extent&) {},  [](const write_extent&) {},
          [](const commit_extent&) {}, [](const abandon_extent&) {},   [](const read_extent&) {},
          [](const erase_block&) {},   [](const evict_blocks&) {},     [](const ranges_discarded&) {},
          [](const sweep_blocks&) {},  [](const enter_epoch&) {},      [](const trim_batcher_changed&) {},
          [](const close_drive&) {},   [](const describe_yourself&) {}};
}

/// A REACTOR and its memory drives, of which the test decides when they answer.
class scripted_client final : public drive_client {
public:
  explicit scripted_client(std::vector<drive_actor> actors) : table_(actors.size()) {
    for (std::uint32_t index = 0; index < actors.size(); ++index) {
      auto body = std::make_shared<drive_body>();
      body->index = index;
      body->memory = true;
      CAF_REQUIRE(engine::open_memory_device(16 * mib, "memory", body->device).ok());
      engine::store_options options;
      options.persistent = false;
      options.eviction = false;
      CAF_REQUIRE(engine::drive_store::open(*body->device, options, time_, body->store).ok());
      table_.at(index) = {actors[index], body};
    }
  }

  drive_table& drives() noexcept override { return table_; }
  caf::actor as_actor() override { return nullptr; }
  bool allocate(std::uint32_t drive, const extent_put_ptr& put) override {
    return now_or_later(
        allocations_at_once, [this, drive, put] { table_.at(drive).body->allocate(put); },
        [this, put] { writer->allocated(put); });
  }
  bool commit(std::uint32_t drive, const extent_put_ptr& put) override {
    order.push_back(put->part);
    if (fail_commit_of_part == static_cast<int>(put->part)) {
      put->result = errc::io_error;
      return true;
    }
    return now_or_later(
        commits_at_once, [this, drive, put] { table_.at(drive).body->commit(put); },
        [this, put] { writer->stored(put); });
  }
  void send_to_drive(std::uint32_t, const read_extent&) override {}
  void send_to_drive(std::uint32_t drive, const store_extent& message) override {
    table_.at(drive).body->store_whole(message.put);
    later.push_back([this, put = message.put] { writer->stored(put); });
  }
  void send_to_drive(std::uint32_t, const write_extent&) override { CAF_FAIL("memory is filled directly"); }
  void send_to_drive(std::uint32_t, const abandon_extent&) override { ++abandoned; }
  void send_to_drive(std::uint32_t, const erase_block& message) override {
    erased.push_back(message.erase->id);
    erased_generations.push_back(message.erase->generation);
  }
  payload_slice small_slice(std::uint32_t) override { return {}; }
  std::uint32_t slice_bytes_max() const noexcept override { return mib; }
  payload_slice chunk() override { return {}; }
  payload_slice read_room(std::uint32_t) override { return {}; }
  std::uint32_t read_room_max() const noexcept override { return mib; }
  bool recall(std::uint64_t, extent_read&) override { return false; }
  void remember(std::uint64_t, const extent_read&) override {}
  void wait_for_room(std::uint64_t) override {}
  std::uint32_t extent_bytes_max() const noexcept override { return 4 * mib; }
  std::uint64_t next_put_id() noexcept override { return ++put_ids_; }
  void note_change(const wire::key_id& id) noexcept override { changed.push_back(id); }
  void count_incomplete_block() noexcept override { ++incomplete; }

  /// A part of the value that is stored goes, as if its drive had lost it; the drive it was on, which is not
  /// the head's.
  std::uint32_t lose_part(const wire::key_id& head) {
    auto number = 1U;
    if (table_.home(part_of(head, number)) == table_.home(head))
      number = 2;
    const auto home = table_.home(part_of(head, number));
    CAF_REQUIRE(home != table_.home(head));
    lose_part(head, number);
    return home;
  }
  void lose_part(const wire::key_id& head, std::uint32_t number) {
    const auto part = part_of(head, number);
    auto result = errc::cancelled;
    table_.at(table_.home(part)).body->store->erase(part, 0, [&](errc code) { result = code; });
    CAF_REQUIRE(result == errc::ok);
  }
  wire::key_id part_of(const wire::key_id& head, std::uint32_t number) {
    const auto pin = table_.at(table_.home(head)).body->store->index().find_and_pin(head);
    CAF_REQUIRE(static_cast<bool>(pin));
    return engine::part_id(head, pin->put_id, number);
  }
  [[nodiscard]] std::uint64_t used_bytes() {
    std::uint64_t sum = 0;
    for (std::uint32_t index = 0; index < table_.size(); ++index)
      sum += table_.at(index).body->store->counters().used_bytes;
    return sum;
  }

  void answer_all() {
    while (!later.empty()) {
      const auto next = std::move(later.front());
      later.erase(later.begin());
      next();
    }
  }
  [[nodiscard]] std::uint64_t blocks() {
    std::uint64_t count = 0;
    for (std::uint32_t index = 0; index < table_.size(); ++index)
      count += table_.at(index).body->store->counters().blocks;
    return count;
  }

  value_writer* writer = nullptr;
  bool allocations_at_once = true, commits_at_once = true;
  int fail_commit_of_part = -1;
  int abandoned = 0;
  std::vector<std::uint32_t> order; // parts, as they were committed
  int incomplete = 0;
  std::vector<wire::key_id> erased;
  std::vector<std::uint64_t> erased_generations;
  std::vector<std::function<void()>> later;
  std::vector<wire::key_id> changed;

private:
  bool now_or_later(bool now, const std::function<void()>& work, std::function<void()> answer) {
    if (now) {
      work();
      return true;
    }
    later.push_back([work, answer = std::move(answer)] {
      work();
      answer();
    });
    return false;
  }

  engine::system_clock time_;
  drive_table table_;
  std::uint64_t put_ids_ = 5; // with the next one a part lies on another drive than the head
};

struct fixture : test_coordinator_fixture<> {
  drive_actor drive = sys.spawn(silent_drive, 0);
  scripted_client client{{drive, drive, drive}};
  value_writer writer{client, 1, 0};
  std::vector<std::byte> value;

  fixture() {
    run();
    client.writer = &writer;
  }

  status begin(std::uint32_t bytes, bool if_absent = false) {
    std::mt19937 random{bytes};
    value.resize(bytes);
    std::ranges::generate(value, [&] { return static_cast<std::byte>(random()); });
    return writer.begin("", wire::as_bytes_view(std::string_view{"key"}), bytes, if_absent);
  }

  const wire::key_id id = wire::make_key_id("", wire::as_bytes_view(std::string_view{"key"}));

  void store_striped() {
    CAF_REQUIRE(begin(10 * mib) == status::ok);
    receive();
    writer.commit(0);
    CAF_REQUIRE(writer.finished() && writer.result() == status::ok);
  }
  status read() {
    value_reader reader(client, 1, 0);
    return reader.open("", wire::as_bytes_view(std::string_view{"key"}), 0, 0, 0, mib);
  }
  /// Stores another value if none is there.
  status put_if_absent() {
    value_writer other(client, 2, 0);
    CAF_REQUIRE(other.begin("", wire::as_bytes_view(std::string_view{"key"}), 0, true) == status::ok);
    client.writer = &other;
    other.commit(0);
    client.answer_all();
    CAF_REQUIRE(other.finished());
    return other.result();
  }

  /// Fills whatever room there is.
  void receive() {
    for (;;) {
      const auto room = writer.room();
      if (room.empty())
        return;
      std::memcpy(room.data(), value.data() + (value.size() - writer.bytes_left()), room.size());
      writer.arrived(static_cast<std::uint32_t>(room.size()));
    }
  }
};

} // namespace

CAF_TEST_FIXTURE_SCOPE(value_writer_tests, fixture)

CAF_TEST(a value whose drives answer at once is stored without waiting for anything) {
  CAF_REQUIRE(begin(300 * kib) == status::ok);
  receive();
  CAF_CHECK_EQUAL(writer.bytes_left(), 0u);
  CAF_CHECK_EQUAL(writer.crc32c(), wire::crc32c(value));
  writer.commit(0);
  CAF_CHECK(writer.finished());
  CAF_CHECK(writer.result() == status::ok);
  CAF_CHECK(writer.generation() > 0);
  CAF_CHECK_EQUAL(client.blocks(), 1u);
}

CAF_TEST(a value that arrives in pieces of any size has the checksums of the whole) {
  // The first with the header, the next ones short, long, and short again, over the ends of chunks.
  for (const std::uint32_t first : {1U, 3'900U, 16U * 1024 - 1, 16U * 1024, 65'535U}) {
    fixture fresh;
    CAF_REQUIRE(fresh.begin(300 * kib + 77) == status::ok);
    std::uint32_t size = first;
    while (fresh.writer.bytes_left() > 0) {
      const auto room = fresh.writer.room();
      CAF_REQUIRE(!room.empty());
      const auto piece = room.first(std::min<std::size_t>(room.size(), size));
      std::memcpy(piece.data(), fresh.value.data() + (fresh.value.size() - fresh.writer.bytes_left()),
                  piece.size());
      fresh.writer.arrived(static_cast<std::uint32_t>(piece.size()));
      size = size * 7 % 90'001 + 1;
    }
    CAF_CHECK_EQUAL(fresh.writer.crc32c(), wire::crc32c(fresh.value));
    fresh.writer.commit(0);
    CAF_CHECK(fresh.writer.result() == status::ok);
    CAF_CHECK(fresh.read() == status::ok);
  }
}

CAF_TEST(a value waits for space and for its commit when the turn was not free) {
  client.allocations_at_once = client.commits_at_once = false;
  CAF_REQUIRE(begin(300 * kib) == status::ok);
  receive();
  CAF_CHECK_EQUAL(writer.bytes_left(), 300u * kib);
  client.answer_all();
  receive();
  CAF_REQUIRE_EQUAL(writer.bytes_left(), 0u);
  writer.commit(0);
  CAF_CHECK(!writer.finished());
  client.answer_all();
  CAF_CHECK(writer.finished());
  CAF_CHECK(writer.result() == status::ok);
  CAF_CHECK_EQUAL(client.blocks(), 1u);
}

CAF_TEST(an empty value is stored) {
  CAF_REQUIRE(begin(0) == status::ok);
  writer.commit(0);
  client.answer_all();
  CAF_CHECK(writer.finished());
  CAF_CHECK(writer.result() == status::ok);
  CAF_CHECK_EQUAL(client.blocks(), 1u);
}

CAF_TEST(the head of a striped value is committed after all other parts) {
  CAF_REQUIRE(begin(10 * mib) == status::ok);
  receive();
  writer.commit(0);
  CAF_CHECK(writer.finished());
  CAF_CHECK(writer.result() == status::ok);
  CAF_CHECK_EQUAL(client.order, (std::vector<std::uint32_t>{1, 2, 0}));
  CAF_CHECK_EQUAL(client.blocks(), 3u);
}

CAF_TEST(the head of a striped value waits for parts that are answered later) {
  client.commits_at_once = false;
  CAF_REQUIRE(begin(10 * mib) == status::ok);
  receive();
  writer.commit(0);
  CAF_CHECK_EQUAL(client.order, (std::vector<std::uint32_t>{1, 2}));
  client.answer_all();
  CAF_CHECK_EQUAL(client.order, (std::vector<std::uint32_t>{1, 2, 0}));
  CAF_CHECK(writer.finished());
  CAF_CHECK(writer.result() == status::ok);
}

CAF_TEST(a part that cannot be stored takes the whole value with it) {
  client.fail_commit_of_part = 2;
  CAF_REQUIRE(begin(10 * mib) == status::ok);
  receive();
  writer.commit(0);
  CAF_CHECK(writer.finished());
  CAF_CHECK(writer.result() == status::unavailable);
  CAF_CHECK_EQUAL(client.order, (std::vector<std::uint32_t>{1, 2})); // never the head
  CAF_CHECK_EQUAL(client.erased.size(), 1u);                         // part 1, which was stored
}

CAF_TEST(a value whose key or a part of it belongs elsewhere by the time it has arrived is not stored) {
  for (const bool head_moves : {true, false}) {
    fixture fresh;
    auto& drives = fresh.client.drives();
    CAF_REQUIRE(fresh.begin(10 * mib) == status::ok);
    fresh.receive();
    // Drives left and joined meanwhile; the drive that has what arrived is there all the time.
    auto members = engine::all_members(3);
    const auto head = drives.home(fresh.id);
    for (std::uint32_t drive = 0; drive < 3; ++drive)
      if ((drive == head) == head_moves)
        engine::remove_member(members, drive);
    drives.set_members(members);
    fresh.client.changed.clear();
    fresh.writer.commit(0);
    CAF_CHECK(fresh.writer.finished());
    CAF_CHECK(fresh.writer.result() == status::unavailable);
    CAF_CHECK_EQUAL(fresh.client.blocks(), 0u);
    // Whoever is away has it among what it must not bring back.
    CAF_REQUIRE_EQUAL(fresh.client.changed.size(), 1u);
    CAF_CHECK(fresh.client.changed.front() == fresh.id);
  }
}

CAF_TEST(a value for which there is no space is refused at once) {
  // 48 MiB in three drives; eviction is off.
  CAF_CHECK(begin(60 * mib) == status::no_space);
  CAF_CHECK(writer.failed());
  CAF_CHECK(writer.finished());
  CAF_CHECK(writer.result() == status::no_space);
  CAF_CHECK_EQUAL(client.blocks(), 0u);
}

CAF_TEST(a range holds the head of a value and the parts that it lies in and no other) {
  struct wanted {
    std::uint64_t offset, length;
    std::vector<std::uint32_t> parts; // without the head
  };
  for (const auto& [offset, length, parts] : std::vector<wanted>{{0, 1, {}},
                                                                 {4 * mib - 1, 1, {}},
                                                                 {4 * mib, 1, {1}},
                                                                 {5 * mib, 3 * mib, {1}},
                                                                 {8 * mib - 1, 2, {1, 2}},
                                                                 {8 * mib, 0, {2}},
                                                                 {10 * mib - 1, 1, {2}},
                                                                 {10 * mib, 0, {}},
                                                                 {3 * mib, 6 * mib, {1, 2}}}) {
    fixture fresh;
    auto& client = fresh.client;
    fresh.store_striped();
    value_reader reader(client, 1, 0);
    const auto open = [&](value_reader& with) {
      return with.open("", wire::as_bytes_view(std::string_view{"key"}), offset, length, 0, mib);
    };
    CAF_REQUIRE(open(reader) == status::ok);
    CAF_CHECK_EQUAL(reader.value_length(), 10 * mib);
    // What is not held is free as soon as it is erased.
    std::vector<std::uint32_t> held;
    for (const std::uint32_t part : {1U, 2U}) {
      const auto before = client.used_bytes();
      client.lose_part(fresh.id, part);
      if (client.used_bytes() == before)
        held.push_back(part);
      value_reader later(client, 2, 0);
      const bool wants = std::ranges::find(parts, part) != parts.end();
      const bool lacks = wants || (part == 2 && !held.empty());
      CAF_CHECK(open(later) == (lacks ? status::not_found : status::ok));
    }
    CAF_CHECK_EQUAL(held, parts);
    // And what is held is read, whatever has become of it since.
    std::uint64_t at = offset;
    while (reader.ready()) {
      const auto piece = reader.next();
      CAF_REQUIRE(piece.status == status::ok);
      for (const auto& span : piece.spans) {
        CAF_CHECK(std::memcmp(span.data(), fresh.value.data() + at, span.size()) == 0);
        at += span.size();
      }
      if (piece.last)
        break;
    }
    CAF_CHECK_EQUAL(at, length == 0 ? 10 * mib : offset + length);
  }
}

CAF_TEST(a range is checked against the value before its parts are looked for) {
  store_striped();
  const auto open = [&](std::uint64_t offset, std::uint64_t length, std::uint64_t capacity) {
    value_reader reader(client, 1, 0);
    return reader.open("", wire::as_bytes_view(std::string_view{"key"}), offset, length, capacity, mib);
  };
  CAF_CHECK(open(10 * mib + 1, 0, 0) == status::out_of_range);
  CAF_CHECK(open(9 * mib, 2 * mib, mib) == status::ok);
  CAF_CHECK(open(8 * mib, 2 * mib, mib) == status::buffer_too_small);
  client.lose_part(id, 2);
  CAF_CHECK(open(10 * mib + 1, 0, 0) == status::out_of_range);
  CAF_CHECK(client.erased.empty());
  CAF_CHECK(open(9 * mib, 1, 0) == status::not_found);
  CAF_CHECK_EQUAL(client.erased.size(), 1u);
}

CAF_TEST(a get drops a block of which a part is gone for good) {
  store_striped();
  CAF_CHECK(read() == status::ok);
  CAF_CHECK(client.erased.empty());
  client.lose_part(id);
  CAF_CHECK(read() == status::not_found);
  CAF_REQUIRE_EQUAL(client.erased.size(), 1u);
  CAF_CHECK(client.erased.front() == id);
  CAF_CHECK_EQUAL(client.erased_generations.front(), writer.generation()); // and nothing that came later
  CAF_CHECK_EQUAL(client.incomplete, 1);
}

CAF_TEST(a get leaves a block alone whose part may come back with its drive) {
  store_striped();
  const auto home = client.lose_part(id);
  const auto head = client.drives().home(id);
  const auto other = 3 - home - head;
  const auto all = engine::all_members(3);
  // The drive has ended, and this REACTOR does not know yet.
  client.drives().at(home).body->ended = true;
  CAF_CHECK(read() == status::not_found);
  client.drives().at(home).body->ended = false;
  // It is away; it is left out; another one is away, and others may know already who has the block now.
  auto seat = std::exchange(client.drives().at(home), {});
  CAF_CHECK(read() == status::not_found);
  client.drives().at(home) = seat;
  auto without = all;
  engine::remove_member(without, other);
  client.drives().set_members(without);
  CAF_CHECK(read() == status::not_found);
  client.drives().set_members(all);
  seat = std::exchange(client.drives().at(other), {});
  CAF_CHECK(read() == status::not_found);
  CAF_CHECK(put_if_absent() == status::already_exists);
  client.drives().at(other) = seat;
  CAF_CHECK(client.erased.empty());
  CAF_CHECK_EQUAL(client.incomplete, 0);
  CAF_CHECK(read() == status::not_found);
  CAF_CHECK_EQUAL(client.erased.size(), 1u);
}

CAF_TEST(a put if absent takes the place of a block of which a part is gone for good) {
  store_striped();
  CAF_CHECK(put_if_absent() == status::already_exists);
  CAF_CHECK_EQUAL(client.incomplete, 0);
  client.lose_part(id);
  CAF_CHECK(put_if_absent() == status::ok);
  CAF_CHECK_EQUAL(client.incomplete, 1);
  CAF_CHECK(read() == status::ok);
  CAF_CHECK(put_if_absent() == status::already_exists);
}

// --- places that are filled in any order ---

CAF_TEST(the places of a value are filled in any order and its checksums are taken in order) {
  for (const std::uint32_t seed : {1U, 2U, 3U}) {
    value_writer placed{client, 1, 0};
    client.writer = &placed;
    std::mt19937 random{seed};
    std::vector<std::byte> bytes(9 * mib + 12'345);
    std::ranges::generate(bytes, [&] { return static_cast<std::byte>(random()); });
    CAF_REQUIRE(placed.begin("", wire::as_bytes_view(std::string_view{"key"}), bytes.size(), false) ==
                status::ok);
    std::vector<value_writer::place> out;
    std::uint64_t given = 0, taken = 0;
    while (taken < bytes.size()) {
      while (out.size() < 7) {
        auto next = placed.next_place(100'000);
        if (next.bytes.empty())
          break;
        CAF_REQUIRE_EQUAL(next.offset, given);
        CAF_CHECK(next.keep != nullptr);
        given += next.bytes.size();
        out.push_back(std::move(next));
      }
      CAF_REQUIRE(!out.empty());
      const auto at = out.begin() + static_cast<std::ptrdiff_t>(random() % out.size());
      CAF_CHECK(placed.place_of(at->number).data() == at->bytes.data());
      std::memcpy(at->bytes.data(), bytes.data() + at->offset, at->bytes.size());
      placed.filled(at->number);
      out.erase(at);
      for (auto next = placed.take_filled(); !next.bytes.empty(); next = placed.take_filled()) {
        CAF_REQUIRE_EQUAL(next.offset, taken);
        taken += next.bytes.size();
      }
    }
    CAF_CHECK_EQUAL(placed.bytes_left(), 0u);
    CAF_CHECK_EQUAL(placed.crc32c(), wire::crc32c(bytes));
    placed.commit(0);
    CAF_CHECK(placed.finished());
    CAF_CHECK(placed.result() == status::ok);
    CAF_CHECK_EQUAL(client.order, (std::vector<std::uint32_t>{1, 2, 0}));
    client.order.clear();
  }
}

CAF_TEST(places wait for space and none are given behind a failure) {
  client.allocations_at_once = false;
  CAF_REQUIRE(begin(300 * kib) == status::ok);
  CAF_CHECK(writer.next_place(mib).bytes.empty());
  CAF_CHECK(!writer.waits_for_buffer());
  client.answer_all();
  const auto first = writer.next_place(128 * kib);
  const auto second = writer.next_place(mib);
  CAF_CHECK_EQUAL(first.bytes.size(), 128u * kib);
  CAF_CHECK_EQUAL(second.offset, 128u * kib);
  CAF_CHECK_EQUAL(second.bytes.size(), 172u * kib);
  writer.filled(second.number);
  CAF_CHECK(writer.take_filled().bytes.empty());
  writer.abort(status::memory_refused);
  CAF_CHECK(writer.finished());
  writer.filled(first.number); // its transfer was under way; the memory is still there
  std::memset(first.bytes.data(), 1, first.bytes.size());
  CAF_CHECK(writer.take_filled().bytes.empty());
  CAF_CHECK(writer.next_place(mib).bytes.empty());
  CAF_CHECK(writer.result() == status::memory_refused);
}

CAF_TEST_FIXTURE_SCOPE_END()
