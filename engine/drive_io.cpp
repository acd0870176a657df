#include "engine/drive_io.hpp"

#include "engine/page.hpp"
#include "wire/assert.hpp"

#include <algorithm>
#include <new>

namespace memkv::engine {

aligned_bytes::aligned_bytes(std::size_t size)
    : bytes_(static_cast<std::byte*>(std::aligned_alloc(page_bytes, align_up(size, page_bytes)))),
      size_(size) {
  if (bytes_ == nullptr)
    throw std::bad_alloc();
}

std::unique_ptr<aligned_bytes> aligned_pool::take() {
  if (free_.empty())
    return std::make_unique<aligned_bytes>(size_);
  auto taken = std::move(free_.back());
  free_.pop_back();
  return taken;
}

void aligned_pool::give(std::unique_ptr<aligned_bytes> bytes) {
  if (free_.size() < kept_max)
    free_.push_back(std::move(bytes));
}

void drive_io::drain() {
  silent_ = true;
  for (slot* each : waiting_)
    if (--each->of->left == 0)
      delete each->of;
  waiting_.clear();
  while (in_device_ > 0 && device_.in_flight() > 0)
    device_.poll(true);
}

void drive_io::read(std::uint64_t offset, std::span<std::byte> to, done callback) {
  start(io_operation::kind::read, offset, to, std::move(callback));
}

void drive_io::write(std::uint64_t offset, std::span<std::byte> from, done callback) {
  start(io_operation::kind::write, offset, from, std::move(callback));
}

void drive_io::write_first(std::uint64_t offset, std::span<std::byte> from, done callback) {
  start(io_operation::kind::write, offset, from, std::move(callback), true);
}

void drive_io::flush(done callback) {
  start(io_operation::kind::flush, 0, {}, std::move(callback));
}

void drive_io::start(io_operation::kind what, std::uint64_t offset, std::span<std::byte> bytes, done callback,
                     bool first) {
  auto* made = new group;
  made->callback = std::move(callback);
  made->left = std::max<std::size_t>(1, (bytes.size() + io_bytes_max - 1) / io_bytes_max);
  for (std::size_t at = 0, i = 0; i < made->left; ++i) {
    const std::size_t length = std::min<std::size_t>(bytes.size() - at, io_bytes_max);
    slot* used = nullptr;
    if (free_.empty()) {
      slots_.push_back(std::make_unique<slot>());
      used = slots_.back().get();
    } else {
      used = free_.back();
      free_.pop_back();
    }
    used->owner = this;
    used->of = made;
    used->operation = {};
    used->operation.what = what;
    used->operation.offset = offset + at;
    used->operation.length = length;
    used->operation.data = length == 0 ? nullptr : bytes.data() + at;
    used->operation.done = &drive_io::on_done;
    used->operation.context = used;
    if (first)
      waiting_.push_front(used);
    else
      waiting_.push_back(used);
    at += length;
  }
  submit_waiting();
}

void drive_io::submit_waiting() {
  const std::size_t depth = std::max<std::uint32_t>(1, device_.information().depth_max);
  while (!waiting_.empty() && in_device_ < depth) {
    slot* next = waiting_.front();
    waiting_.pop_front();
    ++in_device_;
    device_.submit(next->operation);
  }
}

void drive_io::on_done(io_operation& operation) {
  auto* finished = static_cast<slot*>(operation.context);
  finished->owner->complete(*finished);
}

void drive_io::complete(slot& finished) {
  --in_device_;
  group* of = finished.of;
  const errc result = finished.operation.result;
  if (result != errc::ok) {
    of->result = result;
    if (finished.operation.what != io_operation::kind::read)
      failed_ = true;
  }
  free_.push_back(&finished);
  if (--of->left > 0)
    return;
  const std::unique_ptr<group> ended(of);
  if (!silent_ && ended->callback)
    ended->callback(ended->result);
}

std::size_t drive_io::poll(bool wait) {
  submit_waiting();
  const bool waits = wait && in_device_ > 0;
  if (waits && since_ns_ != nullptr)
    since_ns_->store(time_->steady_ns(), std::memory_order_relaxed);
  const std::size_t completed = device_.poll(waits);
  if (waits && since_ns_ != nullptr)
    since_ns_->store(0, std::memory_order_relaxed);
  submit_waiting();
  return completed;
}

errc drive_io::wait_for(const std::function<void(done)>& begin) {
  bool finished = false;
  errc result = errc::io_error;
  begin([&](errc code) {
    finished = true;
    result = code;
  });
  while (!finished)
    poll(true);
  return result;
}

errc drive_io::read_now(std::uint64_t offset, std::span<std::byte> to) {
  return wait_for([&](done callback) { read(offset, to, std::move(callback)); });
}

errc drive_io::write_now(std::uint64_t offset, std::span<std::byte> from) {
  return wait_for([&](done callback) { write(offset, from, std::move(callback)); });
}

errc drive_io::flush_now() {
  return wait_for([&](done callback) { flush(std::move(callback)); });
}

} // namespace memkv::engine
