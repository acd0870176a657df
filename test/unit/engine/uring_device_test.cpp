#define CAF_SUITE uring_device

#include "engine/drive_store.hpp"
#include "engine/uring_device.hpp"
#include "wire/crc32c.hpp"

#include <caf/test/dsl.hpp>

#include <liburing.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <deque>
#include <fcntl.h>
#include <memory>
#include <numeric>
#include <string>
#include <unistd.h>
#include <vector>

using namespace memkv;
using namespace memkv::engine;

namespace {

constexpr std::uint64_t mib = 1 << 20;

/// An image in a file of its own, gone afterwards. On the working directory's file system: that of /tmp may
/// have no O_DIRECT.
class image {
public:
  explicit image(std::uint64_t bytes) : path_("uring_device_test." + std::to_string(::getpid()) + ".image") {
    const int file = ::open(path_.c_str(), O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
    CAF_REQUIRE(file >= 0);
    CAF_REQUIRE(::ftruncate(file, static_cast<off_t>(bytes)) == 0);
    ::close(file);
  }
  ~image() { ::unlink(path_.c_str()); }
  [[nodiscard]] const std::string& path() const { return path_; }

private:
  std::string path_;
};

struct page_memory {
  explicit page_memory(std::size_t bytes)
      : data(static_cast<std::byte*>(std::aligned_alloc(4096, bytes))), size(bytes) {}
  ~page_memory() { std::free(data); }
  page_memory(const page_memory&) = delete;
  page_memory& operator=(const page_memory&) = delete;
  [[nodiscard]] std::span<std::byte> span() const { return {data, size}; }
  void fill(unsigned seed) const {
    for (std::size_t i = 0; i < size; ++i)
      data[i] = static_cast<std::byte>((i * 2654435761U + seed) >> 7);
  }
  std::byte* data;
  std::size_t size;
};

/// A ring that gives completions other results than the kernel's, as told.
class unreliable_ring final : public ring_host {
public:
  unreliable_ring() { CAF_REQUIRE(io_uring_queue_init(128, &ring_, 0) == 0); }
  ~unreliable_ring() { io_uring_queue_exit(&ring_); }

  io_uring_sqe* next_sqe(ring_operation* operation) override {
    auto* sqe = io_uring_get_sqe(&ring_);
    CAF_REQUIRE(sqe != nullptr);
    io_uring_sqe_set_data(sqe, operation);
    ++taken;
    return sqe;
  }
  void turn_ring(bool wait) override {
    CAF_REQUIRE(io_uring_submit_and_wait(&ring_, wait ? 1 : 0) >= 0);
    io_uring_cqe* cqe = nullptr;
    while (io_uring_peek_cqe(&ring_, &cqe) == 0) {
      auto* operation = static_cast<ring_operation*>(io_uring_cqe_get_data(cqe));
      auto result = cqe->res;
      io_uring_cqe_seen(&ring_, cqe);
      if (!lies.empty()) {
        const auto lie = lies.front();
        lies.pop_front();
        if (lie < 0)
          result = lie;
        else if (lie > 0)
          result = std::min(result, lie);
      }
      operation->completed(result, 0);
    }
  }
  io_uring* ring() noexcept override { return &ring_; }

  std::deque<std::int32_t> lies; // 0: the truth; negative: this error; positive: at most so many bytes
  std::size_t taken = 0;

private:
  io_uring ring_{};
};

/// Runs one operation to its end.
errc run(block_device& device, io_operation::kind what, std::uint64_t offset, std::span<std::byte> bytes) {
  io_operation operation;
  operation.what = what;
  operation.offset = offset;
  operation.data = bytes.data();
  operation.length = bytes.size();
  bool finished = false;
  operation.context = &finished;
  operation.done = [](io_operation& of) { *static_cast<bool*>(of.context) = true; };
  device.submit(operation);
  while (!finished)
    device.poll(true);
  return operation.result;
}

std::unique_ptr<block_device> open_image(const image& of, ring_host* host = nullptr,
                                         std::span<std::byte> registered = {}) {
  uring_device_options options;
  options.path = of.path();
  options.allow_file = true;
  options.host = host;
  options.registered = registered;
  std::unique_ptr<block_device> device;
  const auto opened = open_uring_device(options, device);
  CAF_REQUIRE_EQUAL(opened.text, "");
  return device;
}

using kind = io_operation::kind;

} // namespace

CAF_TEST(what was written is read back with registered memory and without) {
  const image drive(16 * mib);
  const page_memory pool(8 * mib);
  const page_memory plain(4 * mib);
  const auto device = open_image(drive, nullptr, pool.span());
  CAF_CHECK_EQUAL(device->information().size_bytes, 16 * mib);
  const auto from = pool.span().first(4 * mib);
  pool.fill(1);
  CAF_CHECK(run(*device, kind::write, 8 * mib, from) == errc::ok);
  CAF_CHECK(run(*device, kind::flush, 0, {}) == errc::ok);
  CAF_CHECK(run(*device, kind::read, 8 * mib, plain.span()) == errc::ok);
  CAF_CHECK(std::equal(from.begin(), from.end(), plain.data));
  const auto counted = device->statistics();
  CAF_CHECK_EQUAL(counted.writes, 4u); // a MiB each
  CAF_CHECK_EQUAL(counted.written_bytes, 4 * mib);
  CAF_CHECK_EQUAL(counted.flushes, 1u);
  CAF_CHECK_EQUAL(counted.depth_most, 4u);
  const auto all_of = [](const latency_counts& times) {
    return std::accumulate(times.counts.begin(), times.counts.end(), std::uint64_t{0});
  };
  CAF_CHECK_EQUAL(all_of(counted.write_times), 4u);
  CAF_CHECK_EQUAL(all_of(counted.flush_times), 1u);
  CAF_CHECK_EQUAL(all_of(counted.read_times), counted.reads);
  CAF_CHECK(counted.write_times.sum_ns > 0);
}

CAF_TEST(operations outside of the device or not aligned are refused and nothing else is hurt) {
  const image drive(4 * mib);
  const page_memory memory(mib);
  const auto device = open_image(drive);
  const auto page = memory.span().first(4096);
  CAF_CHECK(run(*device, kind::write, 4 * mib, page) == errc::invalid_argument);
  CAF_CHECK(run(*device, kind::write, 4 * mib - 4096, memory.span().first(8192)) == errc::invalid_argument);
  CAF_CHECK(run(*device, kind::write, 512, page) == errc::invalid_argument);
  CAF_CHECK(run(*device, kind::write, 0, memory.span().subspan(512, 4096)) == errc::invalid_argument);
  CAF_CHECK(run(*device, kind::write, 0, memory.span().first(100)) == errc::invalid_argument);
  CAF_CHECK(run(*device, kind::discard, 0, page) == errc::invalid_argument);
  CAF_CHECK(run(*device, kind::write, ~std::uint64_t{0} - 4095, page) == errc::invalid_argument);
  CAF_CHECK(run(*device, kind::write, 0, page) == errc::ok);
}

CAF_TEST(requests that come back short or to be tried again are completed) {
  const image drive(4 * mib);
  const page_memory memory(mib);
  const page_memory back(mib);
  unreliable_ring ring;
  const auto device = open_image(drive, &ring);
  memory.fill(7);
  ring.lies = {-EAGAIN, 100'000, 5'000, -EINTR, 0};
  CAF_CHECK(run(*device, kind::write, mib, memory.span()) == errc::ok);
  CAF_CHECK_EQUAL(device->statistics().resubmitted, 4u);
  ring.lies = {300'000, -EAGAIN};
  CAF_CHECK(run(*device, kind::read, mib, back.span()) == errc::ok);
  CAF_CHECK(std::equal(back.span().begin(), back.span().end(), memory.data));
  CAF_CHECK_EQUAL(device->statistics().errors, 0u);
}

CAF_TEST(a request that never gets anywhere ends with an error after a bounded number of attempts) {
  const image drive(4 * mib);
  const page_memory memory(4096);
  unreliable_ring ring;
  const auto device = open_image(drive, &ring);
  ring.lies.assign(10'000, -EAGAIN);
  CAF_CHECK(run(*device, kind::read, 0, memory.span()) == errc::io_error);
  CAF_CHECK(ring.lies.size() > 9'900);
  ring.lies.clear();
  CAF_CHECK(run(*device, kind::read, 0, memory.span()) == errc::ok);
}

CAF_TEST(after a failed flush nothing is written any more and reading goes on) {
  const image drive(4 * mib);
  const page_memory memory(4096);
  unreliable_ring ring;
  const auto device = open_image(drive, &ring);
  ring.lies = {0, -EIO};
  CAF_CHECK(run(*device, kind::write, 0, memory.span()) == errc::ok);
  CAF_CHECK(run(*device, kind::flush, 0, {}) == errc::io_error);
  const auto before = ring.taken;
  CAF_CHECK(run(*device, kind::flush, 0, {}) == errc::io_error);
  CAF_CHECK(run(*device, kind::write, 0, memory.span()) == errc::io_error);
  CAF_CHECK_EQUAL(ring.taken, before);
  CAF_CHECK(run(*device, kind::read, 0, memory.span()) == errc::ok);
}

CAF_TEST(a failed read costs that read only) {
  const image drive(4 * mib);
  const page_memory memory(4096);
  unreliable_ring ring;
  const auto device = open_image(drive, &ring);
  ring.lies = {-EIO};
  CAF_CHECK(run(*device, kind::read, 0, memory.span()) == errc::io_error);
  CAF_CHECK(run(*device, kind::write, 0, memory.span()) == errc::ok);
  CAF_CHECK_EQUAL(device->statistics().errors, 1u);
}

CAF_TEST(no more requests than the depth are in the kernel at one time) {
  const image drive(64 * mib);
  const page_memory memory(4 * mib);
  uring_device_options options;
  options.path = drive.path();
  options.allow_file = true;
  options.depth_max = 8;
  options.request_bytes_max = 256 << 10;
  std::unique_ptr<block_device> device;
  CAF_REQUIRE(open_uring_device(options, device).ok());
  std::vector<io_operation> operations(12);
  std::size_t finished = 0;
  for (std::size_t i = 0; i < operations.size(); ++i) {
    auto& each = operations[i];
    each.what = kind::write;
    each.offset = i * 4 * mib;
    each.data = memory.data;
    each.length = 4 * mib;
    each.context = &finished;
    each.done = [](io_operation& of) {
      CAF_CHECK(of.result == errc::ok);
      ++*static_cast<std::size_t*>(of.context);
    };
    device->submit(each);
  }
  CAF_CHECK_EQUAL(device->in_flight(), 12u);
  CAF_CHECK(device->oldest_request_ns() > 0);
  while (finished < operations.size())
    device->poll(true);
  CAF_CHECK_EQUAL(device->statistics().depth_most, 8u);
  CAF_CHECK_EQUAL(device->statistics().writes, 12u * 16u);
  CAF_CHECK_EQUAL(device->oldest_request_ns(), 0u);
}

CAF_TEST(closing waits for what the kernel has and afterwards everything is refused) {
  const image drive(16 * mib);
  const page_memory memory(4 * mib);
  const auto device = open_image(drive);
  io_operation operation;
  operation.what = kind::write;
  operation.data = memory.data;
  operation.length = memory.size;
  bool finished = false;
  operation.context = &finished;
  operation.done = [](io_operation& of) { *static_cast<bool*>(of.context) = of.result == errc::ok; };
  device->submit(operation);
  device->close();
  CAF_CHECK(finished);
  CAF_CHECK(run(*device, kind::read, 0, memory.span()) == errc::offline);
  device->close();
}

CAF_TEST(one device is opened once) {
  const image drive(4 * mib);
  uring_device_options options;
  options.path = drive.path();
  options.allow_file = true;
  options.claim_ms = 0;
  std::unique_ptr<block_device> first;
  std::unique_ptr<block_device> second;
  CAF_REQUIRE(open_uring_device(options, first).ok());
  const auto refused = open_uring_device(options, second);
  CAF_CHECK(refused.code == errc::in_use);
  CAF_CHECK(refused.text.find("in use by another process") != std::string::npos);
  first.reset();
  CAF_CHECK(open_uring_device(options, second).ok());
}

CAF_TEST(what is no block device is refused with a sentence) {
  const image drive(4 * mib);
  uring_device_options options;
  std::unique_ptr<block_device> device;
  const auto refusal = [&](const std::string& path) {
    options.path = path;
    return open_uring_device(options, device);
  };
  CAF_CHECK(refusal("").code == errc::invalid_argument);
  CAF_CHECK(refusal("/nonexistent/drive").code == errc::not_found);
  CAF_CHECK(refusal("/dev/null").code == errc::invalid_argument);
  CAF_CHECK(refusal("/tmp").code == errc::invalid_argument);
  const auto file = refusal(drive.path());
  CAF_CHECK(file.code == errc::invalid_argument);
  CAF_CHECK(file.text.find("is not a block device") != std::string::npos);
}

CAF_TEST(a device that was opened for reading cannot be changed) {
  const image drive(4 * mib);
  const page_memory memory(4096);
  uring_device_options options;
  options.path = drive.path();
  options.allow_file = true;
  options.read_only = true;
  std::unique_ptr<block_device> device;
  CAF_REQUIRE(open_uring_device(options, device).ok());
  CAF_CHECK(run(*device, kind::write, 0, memory.span()) == errc::invalid_argument);
  CAF_CHECK(run(*device, kind::flush, 0, {}) == errc::invalid_argument);
  CAF_CHECK(run(*device, kind::read, 0, memory.span()) == errc::ok);
}

CAF_TEST(a store lives on the device and outlasts it) {
  const image drive(16 * mib);
  store_options options;
  options.sync = sync_policy::always;
  options.format_if_new = false;
  system_clock time;
  {
    const auto device = open_image(drive);
    std::unique_ptr<drive_store> store;
    const auto refused = drive_store::open(*device, options, time, store);
    CAF_CHECK(refused.code == errc::not_formatted);
    CAF_CHECK(refused.text.find("memkv setup") != std::string::npos);
    CAF_REQUIRE(drive_store::format(*device, options).ok());
  }
  const page_memory value(mib);
  value.fill(3);
  std::array<std::byte, 3> key{std::byte{'k'}, std::byte{'e'}, std::byte{'y'}};
  const auto id = wire::make_key_id("", key);
  {
    const auto device = open_image(drive);
    std::unique_ptr<drive_store> store;
    CAF_REQUIRE(drive_store::open(*device, options, time, store).ok());
    put_description what;
    what.id = id;
    what.key = key;
    what.length = mib;
    what.value_length = mib;
    std::vector<std::uint32_t> sums;
    for (std::size_t at = 0; at < mib; at += chunk_bytes)
      sums.push_back(wire::crc32c(value.span().subspan(at, chunk_bytes)));
    errc result = errc::busy;
    store->allocate(what, [&](errc given, reservation space) {
      CAF_REQUIRE(given == errc::ok);
      store->write(space.token, 0, value.span(), [&, token = space.token](errc written) {
        CAF_REQUIRE(written == errc::ok);
        store->commit(token, sums, false, 0, [&](errc stored, std::uint64_t) { result = stored; });
      });
    });
    while (result == errc::busy)
      store->poll(true);
    CAF_CHECK(result == errc::ok);
    // Not closed in order: what was answered is durable.
  }
  const auto device = open_image(drive);
  std::unique_ptr<drive_store> store;
  CAF_REQUIRE(drive_store::open(*device, options, time, store).ok());
  const auto pin = store->index().find_and_pin(id);
  CAF_REQUIRE(static_cast<bool>(pin));
  const page_memory back(mib);
  const auto reads_before = device->statistics().reads;
  for (int times = 0; times < 2; ++times) {
    bool finished = false;
    store->read(pin, "", key, 0, mib, back.span(), [&](errc result, extent_view view) {
      finished = true;
      CAF_CHECK(result == errc::ok);
      CAF_CHECK_EQUAL(view.chunk_crc32c.size(), 16u * 4);
      CAF_CHECK(std::equal(back.span().begin(), back.span().end(), value.data));
    });
    while (!finished)
      store->poll(true);
  }
  // The header page is read once, the data each time.
  CAF_CHECK_EQUAL(device->statistics().reads - reads_before, 3u);
  CAF_CHECK(store->close().ok());
}

CAF_TEST(a discarded range of a file is a hole) {
  const image drive(16 * mib);
  {
    const page_memory value(4 * mib);
    value.fill(9);
    const auto device = open_image(drive);
    CAF_REQUIRE(run(*device, kind::write, 4 * mib, value.span()) == errc::ok);
    CAF_REQUIRE(run(*device, kind::flush, 0, {}) == errc::ok);
  }
  std::unique_ptr<discarder> discards;
  CAF_REQUIRE(open_discarder(drive.path(), discards).ok());
  CAF_CHECK(discards->discard(4 * mib, 2 * mib) == errc::ok);
  if (!discards->supported())
    return;
  const page_memory back(4 * mib);
  const auto device = open_image(drive);
  CAF_REQUIRE(run(*device, kind::read, 4 * mib, back.span()) == errc::ok);
  CAF_CHECK(std::all_of(back.data, back.data + 2 * mib, [](std::byte b) { return b == std::byte{0}; }));
  CAF_CHECK(back.data[2 * mib + 12345] != std::byte{0} || back.data[2 * mib + 12346] != std::byte{0});
}
