#include "engine/uring_device.hpp"

#include "engine/device_counters.hpp"
#include "engine/page.hpp"
#include "engine/system_call.hpp"
#include "wire/assert.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <deque>
#include <fcntl.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#include <utility>
#include <vector>

namespace memkv::engine {

namespace {

/// How often one request is handed to the kernel again before it counts as failed.
constexpr std::uint32_t resubmissions_max = 64;
/// The kernel takes registered buffers of at most this size.
constexpr std::size_t registered_bytes_max = std::size_t{1} << 30;

std::uint64_t now_ns() noexcept {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                        std::chrono::steady_clock::now().time_since_epoch())
                                        .count());
}

std::string because(int error) {
  return std::string(": ") + std::strerror(error) + ".";
}

/// The ring of a device that nobody lends one.
class own_ring final : public ring_host {
public:
  ~own_ring() {
    if (open_)
      io_uring_queue_exit(&ring_);
  }

  [[nodiscard]] int open(unsigned entries) {
    io_uring_params parameters{};
    parameters.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
    const int rc = io_uring_queue_init_params(entries, &ring_, &parameters);
    open_ = rc == 0;
    return rc == -1 ? -EPERM : rc;
  }

  [[nodiscard]] io_uring_sqe* next_sqe(ring_operation* operation) override {
    auto* sqe = io_uring_get_sqe(&ring_);
    while (sqe == nullptr) {
      turn_ring(false);
      sqe = io_uring_get_sqe(&ring_);
    }
    io_uring_sqe_set_data(sqe, operation);
    return sqe;
  }

  void turn_ring(bool wait) override {
    // Interrupted or short of memory: what was prepared is still there and is handed over the next time.
    const int rc = wait ? io_uring_submit_and_wait(&ring_, 1) : io_uring_submit_and_get_events(&ring_);
    MEMKV_ASSERT(rc >= 0 || rc == -EINTR || rc == -EAGAIN || rc == -EBUSY, "the ring accepts submissions");
    io_uring_cqe* cqe = nullptr;
    while (io_uring_peek_cqe(&ring_, &cqe) == 0 && cqe != nullptr) {
      auto* operation = static_cast<ring_operation*>(io_uring_cqe_get_data(cqe));
      const auto result = cqe->res;
      const auto flags = cqe->flags;
      io_uring_cqe_seen(&ring_, cqe);
      operation->completed(result, flags);
    }
  }

  [[nodiscard]] io_uring* ring() noexcept override { return &ring_; }

private:
  io_uring ring_{};
  bool open_ = false;
};

class range_discarder final : public discarder {
public:
  range_discarder(int file, bool is_device) : file_(file), is_device_(is_device) {}
  ~range_discarder() override { ::close(file_); }

  [[nodiscard]] errc discard(std::uint64_t offset, std::uint64_t length) override {
    if (!supported_ || length == 0)
      return errc::ok;
    int rc = 0;
    if (is_device_) {
      std::array<std::uint64_t, 2> range{offset, length};
      rc = repeated_if_interrupted([&] { return ::ioctl(file_, BLKDISCARD, range.data()); });
    } else {
      rc = repeated_if_interrupted([&] {
        return ::fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                           static_cast<off_t>(length));
      });
    }
    if (rc == 0)
      return errc::ok;
    if (errno == EOPNOTSUPP || errno == ENOTTY) {
      supported_ = false;
      return errc::ok;
    }
    return errc::io_error;
  }

  [[nodiscard]] bool supported() const noexcept override { return supported_; }

private:
  const int file_;
  const bool is_device_;
  std::atomic<bool> supported_{true};
};

class uring_device final : public block_device {
public:
  uring_device(int file, bool is_device, const uring_device_options& options, std::uint64_t size_bytes,
               std::unique_ptr<own_ring> own, ring_host& host)
      : file_(file), is_device_(is_device), own_(std::move(own)), host_(host), read_only_(options.read_only),
        request_bytes_max_(options.request_bytes_max), depth_max_(options.depth_max) {
    information_.size_bytes = size_bytes;
    information_.depth_max = depth_max_;
    information_.survives_process = true;
    information_.survives_power_loss = true;
    information_.name = options.path;
  }

  ~uring_device() override { close(); }

  /// What of files and buffers could not be registered, or nothing.
  std::string enroll(std::span<std::byte> memory) {
    std::string problem;
    fixed_file_ = io_uring_register_files(host_.ring(), &file_, 1) == 0;
    if (memory.empty())
      return problem;
    std::vector<iovec> pieces;
    for (std::size_t at = 0; at < memory.size(); at += registered_bytes_max)
      pieces.push_back({memory.data() + at, std::min(registered_bytes_max, memory.size() - at)});
    const int rc =
        io_uring_register_buffers(host_.ring(), pieces.data(), static_cast<unsigned>(pieces.size()));
    if (rc == 0)
      registered_ = memory;
    else
      problem = "the pool's buffers could not be registered for " + information_.name + " (" +
                std::strerror(-rc) + "): raise the limit on locked memory (ulimit -l); going on without";
    return problem;
  }

  [[nodiscard]] const device_information& information() const noexcept override { return information_; }

  void submit(io_operation& operation) override {
    ++in_flight_;
    if (const errc refused = check(operation); refused != errc::ok) {
      operation.result = refused;
      finished_.push_back(&operation);
      return;
    }
    const std::uint64_t length = operation.what == io_operation::kind::flush ? 0 : operation.length;
    auto& made = take_pending();
    made.operation = &operation;
    made.left = static_cast<std::uint32_t>(
        std::max<std::uint64_t>(1, (length + request_bytes_max_ - 1) / request_bytes_max_));
    made.result = errc::ok;
    for (std::uint64_t at = 0, i = 0; i < made.left; ++i) {
      auto& part = take_request();
      part.of = &made;
      part.offset = operation.offset + at;
      part.data = operation.data == nullptr ? nullptr : operation.data + at;
      part.length = static_cast<std::uint32_t>(std::min<std::uint64_t>(length - at, request_bytes_max_));
      part.resubmissions = 0;
      waiting_.push_back(&part);
      at += part.length;
    }
    start_waiting();
  }

  std::size_t poll(bool wait) override {
    if (own_ != nullptr && !closed_)
      host_.turn_ring(wait && finished_.empty() && in_kernel_ > 0);
    while (wait && finished_.empty() && in_kernel_ > 0)
      host_.turn_ring(true);
    // What `done` submits and refuses waits for the next poll.
    const std::size_t count = finished_.size();
    for (std::size_t i = 0; i < count; ++i) {
      io_operation& operation = *finished_.front();
      finished_.pop_front();
      --in_flight_;
      operation.done(operation);
    }
    return count;
  }

  [[nodiscard]] std::size_t in_flight() const noexcept override { return in_flight_; }

  [[nodiscard]] device_statistics statistics() const noexcept override { return counted_.value(); }

  [[nodiscard]] std::uint64_t oldest_request_ns() const noexcept override {
    std::uint64_t oldest = 0;
    for (const auto& each : requests_)
      if (each->begun_ns != 0 && (oldest == 0 || each->begun_ns < oldest))
        oldest = each->begun_ns;
    return oldest == 0 ? 0 : now_ns() - oldest;
  }

  [[nodiscard]] std::shared_ptr<discarder> make_discarder() override {
    if (closed_ || read_only_)
      return nullptr;
    // The same open file: the claim and the lock live until the last of both descriptors is closed.
    const int file = ::fcntl(file_, F_DUPFD_CLOEXEC, 3);
    return file < 0 ? nullptr : std::make_shared<range_discarder>(file, is_device_);
  }

  void close() noexcept override {
    if (closed_)
      return;
    // The kernel owns the buffers until it has given every request back.
    while (in_flight_ > 0)
      poll(true);
    closed_ = true;
    // A ring that lives on must not hold the device; one that goes is taken apart by the kernel later, and
    // the claim on the device must be gone when this returns.
    if (!registered_.empty())
      io_uring_unregister_buffers(host_.ring());
    if (fixed_file_)
      io_uring_unregister_files(host_.ring());
    own_.reset();
    ::close(file_);
  }

private:
  struct pending {
    io_operation* operation = nullptr;
    std::uint32_t left = 0;
    errc result = errc::ok;
  };

  struct request final : ring_operation {
    explicit request(uring_device& of_device) : owner(of_device) {}
    void completed(std::int32_t result, std::uint32_t) override { owner.came_back(*this, result); }
    uring_device& owner;
    pending* of = nullptr;
    std::uint64_t offset = 0;
    std::byte* data = nullptr;
    std::uint32_t length = 0;
    std::uint32_t resubmissions = 0;
    std::uint64_t begun_ns = 0; // 0: not in the kernel
  };

  [[nodiscard]] errc check(const io_operation& operation) const noexcept {
    using kind = io_operation::kind;
    if (closed_)
      return errc::offline;
    const bool changes = operation.what != kind::read;
    if (changes && read_only_)
      return errc::invalid_argument;
    // After a failure nobody knows what of the device's cache is lost, so nothing written later can be relied
    // on.
    if (changes && failed_)
      return errc::io_error;
    if (operation.what == kind::flush)
      return errc::ok;
    const std::uint64_t size = information_.size_bytes;
    const std::uint64_t alignment = information_.alignment;
    const bool aligned = operation.offset % alignment == 0 && operation.length % alignment == 0 &&
                         reinterpret_cast<std::uintptr_t>(operation.data) % alignment == 0;
    if (operation.what == kind::discard || !aligned || operation.length == 0 ||
        operation.length > io_bytes_max || operation.offset > size ||
        operation.length > size - operation.offset)
      return errc::invalid_argument;
    return errc::ok;
  }

  [[nodiscard]] pending& take_pending() {
    if (free_pendings_.empty()) {
      pendings_.push_back(std::make_unique<pending>());
      return *pendings_.back();
    }
    auto* taken = free_pendings_.back();
    free_pendings_.pop_back();
    return *taken;
  }

  [[nodiscard]] request& take_request() {
    if (free_requests_.empty()) {
      requests_.push_back(std::make_unique<request>(*this));
      return *requests_.back();
    }
    auto* taken = free_requests_.back();
    free_requests_.pop_back();
    return *taken;
  }

  void start_waiting() {
    while (!waiting_.empty() && in_kernel_ < depth_max_) {
      request& next = *waiting_.front();
      waiting_.pop_front();
      // One that waited while another failed is not tried any more.
      if (failed_ && next.of->operation->what != io_operation::kind::read) {
        next.of->result = errc::io_error;
        part_done(next);
        continue;
      }
      start(next);
    }
  }

  /// The registered buffer that holds all of [data, data + length), or -1.
  [[nodiscard]] int buffer_of(const std::byte* data, std::size_t length) const noexcept {
    if (data < registered_.data() || data + length > registered_.data() + registered_.size())
      return -1;
    const auto first = static_cast<std::size_t>(data - registered_.data());
    if (first / registered_bytes_max != (first + length - 1) / registered_bytes_max)
      return -1;
    return static_cast<int>(first / registered_bytes_max);
  }

  void start(request& next) {
    using kind = io_operation::kind;
    const io_operation& operation = *next.of->operation;
    auto* sqe = host_.next_sqe(&next);
    const int file = fixed_file_ ? 0 : file_;
    const int buffer = buffer_of(next.data, next.length);
    switch (operation.what) {
    case kind::read:
      if (buffer >= 0)
        io_uring_prep_read_fixed(sqe, file, next.data, next.length, next.offset, buffer);
      else
        io_uring_prep_read(sqe, file, next.data, next.length, next.offset);
      break;
    case kind::write:
      if (buffer >= 0)
        io_uring_prep_write_fixed(sqe, file, next.data, next.length, next.offset, buffer);
      else
        io_uring_prep_write(sqe, file, next.data, next.length, next.offset);
      if (operation.durable)
        sqe->rw_flags |= RWF_DSYNC;
      break;
    case kind::flush:
    case kind::discard:
      io_uring_prep_fsync(sqe, file, IORING_FSYNC_DATASYNC);
      break;
    }
    if (fixed_file_)
      sqe->flags |= IOSQE_FIXED_FILE;
    next.begun_ns = now_ns();
    counted_.begun(operation.what, next.length, ++in_kernel_);
  }

  void came_back(request& part, std::int32_t result) {
    --in_kernel_;
    counted_.ended(part.of->operation->what, now_ns() - std::exchange(part.begun_ns, 0));
    const bool moves = part.of->operation->what != io_operation::kind::flush;
    const bool again = result == -EAGAIN || result == -EINTR;
    if (again || (moves && result >= 0 && static_cast<std::uint32_t>(result) < part.length)) {
      // Of what was done only whole pages count: the device writes no smaller pieces.
      const auto done = again ? 0U : static_cast<std::uint32_t>(result) / page_bytes * page_bytes;
      part.offset += done;
      part.data += done;
      part.length -= done;
      counted_.resubmitted();
      if (++part.resubmissions <= resubmissions_max) {
        waiting_.push_back(&part);
        start_waiting();
        return;
      }
      result = -EIO;
    }
    if (result < 0) {
      counted_.failed();
      part.of->result = result == -ENOSPC ? errc::no_space : errc::io_error;
      if (part.of->operation->what != io_operation::kind::read)
        failed_ = true;
    }
    part_done(part);
    start_waiting();
  }

  void part_done(request& part) {
    pending& of = *part.of;
    free_requests_.push_back(&part);
    if (--of.left > 0)
      return;
    of.operation->result = of.result;
    finished_.push_back(of.operation);
    free_pendings_.push_back(&of);
  }

  device_counters counted_;
  device_information information_;
  const int file_;
  const bool is_device_;
  std::unique_ptr<own_ring> own_;
  ring_host& host_;
  const bool read_only_;
  const std::uint32_t request_bytes_max_;
  const std::uint32_t depth_max_;
  bool fixed_file_ = false;
  std::span<std::byte> registered_;
  std::vector<std::unique_ptr<pending>> pendings_;
  std::vector<pending*> free_pendings_;
  std::vector<std::unique_ptr<request>> requests_;
  std::vector<request*> free_requests_;
  std::deque<request*> waiting_;
  std::deque<io_operation*> finished_;
  std::size_t in_flight_ = 0; // operations taken and not yet done
  std::uint32_t in_kernel_ = 0;
  bool failed_ = false;
  bool closed_ = false;
};

/// Opens, claims and locks. The descriptor is the caller's.
status claim(const uring_device_options& options, int& out, bool& is_device, std::uint64_t& size_bytes) {
  const std::string& path = options.path;
  struct stat found = {};
  if (::stat(path.c_str(), &found) != 0) {
    if (errno == ENOENT)
      return {errc::not_found, "Drive " + path + " does not exist."};
    return {errc::io_error, "Cannot look at drive " + path + because(errno)};
  }
  is_device = S_ISBLK(found.st_mode);
  if (!is_device && !(options.allow_file && S_ISREG(found.st_mode)))
    return {errc::invalid_argument, "Drive " + path + " is not a block device."};
  const int access = options.read_only ? O_RDONLY : O_RDWR;
  // O_EXCL without O_CREAT claims a block device; on a file it would mean nothing.
  const int flags = access | O_CLOEXEC | O_NONBLOCK | O_DIRECT | (is_device ? O_EXCL : 0);
  int file = repeated_if_interrupted([&] { return ::open(path.c_str(), flags); });
  if (file < 0 && errno == EINVAL && !is_device)
    file = repeated_if_interrupted([&] { return ::open(path.c_str(), flags & ~O_DIRECT); });
  if (file < 0) {
    if (errno == EBUSY)
      return {errc::in_use, "Drive " + path +
                                " is in use: it is mounted, part of another device, or a memkv server has "
                                "it open; stop that first."};
    if (errno == EACCES || errno == EPERM)
      return {errc::io_error,
              "No permission to open drive " + path +
                  (is_device ? ": run as root." : ": run as its owner, or let this user read and write it.")};
    return {errc::io_error, "Cannot open drive " + path + because(errno)};
  }
  const auto refuse = [&](status why) {
    ::close(file);
    return why;
  };
  // The path may have become something else since it was looked at.
  struct stat opened = {};
  if (::fstat(file, &opened) != 0 || (opened.st_mode & S_IFMT) != (found.st_mode & S_IFMT) ||
      opened.st_rdev != found.st_rdev)
    return refuse({errc::io_error, "Drive " + path + " changed while it was opened; try again."});
  if (repeated_if_interrupted([&] { return ::flock(file, LOCK_EX | LOCK_NB); }) != 0)
    return refuse(
        errno == EWOULDBLOCK
            ? status{errc::in_use,
                     "Drive " + path + " is in use by another process (or named twice); stop that one first."}
            : status{errc::io_error, "Cannot lock drive " + path + because(errno)});
  if (!is_device) {
    // Drives of file mode carry this lock too: a server that has one open is seen.
    struct flock whole = {};
    whole.l_type = options.read_only ? F_RDLCK : F_WRLCK;
    whole.l_whence = SEEK_SET;
    if (repeated_if_interrupted([&] { return ::fcntl(file, F_OFD_SETLK, &whole); }) != 0)
      return refuse({errc::in_use, "Drive " + path + " is in use by another process; stop that one first."});
    size_bytes = static_cast<std::uint64_t>(opened.st_size);
  } else if (::ioctl(file, BLKGETSIZE64, &size_bytes) != 0) {
    return refuse({errc::io_error, "Cannot read the size of drive " + path + because(errno)});
  } else {
    int logical = 0;
    if (::ioctl(file, BLKSSZGET, &logical) != 0 || logical <= 0 ||
        page_bytes % static_cast<std::uint32_t>(logical) != 0)
      return refuse(
          {errc::invalid_argument,
           "Drive " + path + " has blocks of " + std::to_string(logical) +
               " bytes; only sizes that divide 4096 can be used: format it with another LBA size."});
    int read_only_device = 0;
    if (!options.read_only && ::ioctl(file, BLKROGET, &read_only_device) == 0 && read_only_device != 0)
      return refuse({errc::io_error, "Drive " + path + " is read-only."});
  }
  size_bytes = size_bytes / page_bytes * page_bytes;
  if (size_bytes == 0)
    return refuse({errc::wrong_size, "Drive " + path + " has no medium, or is empty."});
  out = file;
  return {};
}

} // namespace

status open_uring_device(const uring_device_options& options, std::unique_ptr<block_device>& out) {
  out.reset();
  MEMKV_ASSERT(options.request_bytes_max % page_bytes == 0 && options.request_bytes_max > 0 &&
                   options.depth_max > 0,
               "requests are whole pages and may be in flight");
  if (options.path.empty())
    return {errc::invalid_argument, "A drive needs a path."};
  int file = -1;
  bool is_device = false;
  std::uint64_t size_bytes = 0;
  status claimed = claim(options, file, is_device, size_bytes);
  for (const auto end = now_ns() + std::uint64_t{options.claim_ms} * 1'000'000;
       claimed.code == errc::in_use && now_ns() < end; claimed = claim(options, file, is_device, size_bytes))
    ::usleep(20'000);
  if (!claimed.ok())
    return claimed;
  std::unique_ptr<own_ring> own;
  ring_host* host = options.host;
  if (host == nullptr) {
    own = std::make_unique<own_ring>();
    if (const int rc = own->open(options.depth_max * 2); rc < 0) {
      ::close(file);
      return {errc::io_error, std::string("io_uring is not available (") + std::strerror(-rc) +
                                  "): allow io_uring_setup in the container's seccomp profile and check "
                                  "/proc/sys/kernel/io_uring_disabled."};
    }
    host = own.get();
  }
  auto made = std::make_unique<uring_device>(file, is_device, options, size_bytes, std::move(own), *host);
  std::string note = made->enroll(options.registered);
  out = std::move(made);
  return {errc::ok, std::move(note)};
}

status open_discarder(const std::string& path, std::unique_ptr<discarder>& out) {
  out.reset();
  struct stat found = {};
  const int file = repeated_if_interrupted([&] { return ::open(path.c_str(), O_RDWR | O_CLOEXEC); });
  if (file < 0)
    return {errc::io_error, "Cannot open drive " + path + " for trimming" + because(errno)};
  if (::fstat(file, &found) != 0 || !(S_ISBLK(found.st_mode) || S_ISREG(found.st_mode))) {
    ::close(file);
    return {errc::invalid_argument, "Drive " + path + " is neither a block device nor a file."};
  }
  out = std::make_unique<range_discarder>(file, S_ISBLK(found.st_mode));
  return {};
}

} // namespace memkv::engine
