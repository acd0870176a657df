#include "engine/file_device.hpp"

#include "engine/device_counters.hpp"
#include "engine/page.hpp"
#include "engine/superblock.hpp"
#include "engine/system_call.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <deque>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>
#include <utility>

namespace memkv::engine {

namespace {

/// Closes when it goes out of scope, which also gives the locks back.
class descriptor {
public:
  explicit descriptor(int number = -1) noexcept : number_(number) {}
  descriptor(descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  descriptor& operator=(descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~descriptor() { reset(); }
  void reset() noexcept {
    if (number_ >= 0)
      ::close(std::exchange(number_, -1));
  }
  [[nodiscard]] int number() const noexcept { return number_; }
  [[nodiscard]] explicit operator bool() const noexcept { return number_ >= 0; }

private:
  int number_ = -1;
};

class file_device final : public block_device {
public:
  file_device(descriptor file, std::span<const std::byte> mapped, const std::string& path)
      : file_(std::move(file)), mapped_(mapped) {
    information_.size_bytes = mapped.size();
    information_.depth_max = 32;
    information_.survives_process = true;
    information_.survives_power_loss = true;
    information_.name = path;
  }

  ~file_device() override { close(); }

  [[nodiscard]] const device_information& information() const noexcept override { return information_; }

  void submit(io_operation& operation) override { waiting_.push_back(&operation); }

  std::size_t poll(bool) override {
    // What `done` submits waits for the next poll, so that a caller that always has more cannot hold us here.
    const std::size_t count = waiting_.size();
    for (std::size_t i = 0; i < count; ++i) {
      io_operation& operation = *waiting_.front();
      waiting_.pop_front();
      operation.result = perform(operation);
      operation.done(operation);
    }
    return count;
  }

  [[nodiscard]] std::size_t in_flight() const noexcept override { return waiting_.size(); }
  [[nodiscard]] bool needs_poll() const noexcept override { return !waiting_.empty(); }
  [[nodiscard]] device_statistics statistics() const noexcept override { return counted_.value(); }
  [[nodiscard]] std::span<const std::byte> mapping() const noexcept override { return mapped_; }

  void close() noexcept override {
    while (!waiting_.empty())
      poll(true);
    if (!mapped_.empty())
      ::munmap(const_cast<std::byte*>(mapped_.data()), mapped_.size());
    mapped_ = {};
    file_.reset();
  }

private:
  [[nodiscard]] errc perform(const io_operation& operation) noexcept {
    using kind = io_operation::kind;
    if (!file_)
      return errc::offline;
    const std::uint64_t size = information_.size_bytes;
    const std::uint64_t alignment = information_.alignment;
    if (operation.what != kind::flush &&
        (operation.offset > size || operation.length > size - operation.offset ||
         operation.offset % alignment != 0 || operation.length % alignment != 0))
      return errc::invalid_argument;
    switch (operation.what) {
    case kind::read:
      return operation.length > io_bytes_max ? errc::invalid_argument
                                             : counted(operation, [&] { return read(operation); });
    case kind::discard:
      return errc::ok;
    case kind::write:
      if (operation.length > io_bytes_max)
        return errc::invalid_argument;
      [[fallthrough]];
    case kind::flush:
      break;
    }
    // After a failure nobody knows which pages the kernel has dropped, so nothing written later can be relied
    // on.
    if (failed_)
      return errc::io_error;
    const errc result =
        counted(operation, [&] { return operation.what == kind::write ? write(operation) : flush(); });
    failed_ = result != errc::ok;
    return result;
  }

  /// Carries a request out, one at a time, and counts it.
  template <class Work>
  [[nodiscard]] errc counted(const io_operation& operation, Work&& work) noexcept {
    counted_.begun(operation.what, operation.length, 1);
    const auto begun = std::chrono::steady_clock::now();
    const errc result = work();
    const auto took = std::chrono::steady_clock::now() - begun;
    counted_.ended(operation.what, static_cast<std::uint64_t>(
                                       std::chrono::duration_cast<std::chrono::nanoseconds>(took).count()));
    if (result != errc::ok)
      counted_.failed();
    return result;
  }

  [[nodiscard]] errc read(const io_operation& operation) const noexcept {
    for (std::uint64_t done = 0; done < operation.length;) {
      const ssize_t count = repeated_if_interrupted([&] {
        return ::pread(file_.number(), operation.data + done, operation.length - done,
                       static_cast<off_t>(operation.offset + done));
      });
      if (count <= 0) // 0: the file was cut short under our feet
        return errc::io_error;
      done += static_cast<std::uint64_t>(count);
    }
    return errc::ok;
  }

  [[nodiscard]] errc write(const io_operation& operation) noexcept {
    for (std::uint64_t done = 0; done < operation.length;) {
      const ssize_t count = repeated_if_interrupted([&] {
        return ::pwrite(file_.number(), operation.data + done, operation.length - done,
                        static_cast<off_t>(operation.offset + done));
      });
      if (count <= 0)
        return count < 0 && errno == ENOSPC ? errc::no_space : errc::io_error;
      done += static_cast<std::uint64_t>(count);
    }
    return operation.durable ? flush() : errc::ok;
  }

  [[nodiscard]] errc flush() const noexcept {
    return repeated_if_interrupted([&] { return ::fdatasync(file_.number()); }) == 0 ? errc::ok
                                                                                     : errc::io_error;
  }

  device_information information_;
  descriptor file_;
  std::span<const std::byte> mapped_;
  std::deque<io_operation*> waiting_;
  device_counters counted_;
  bool failed_ = false;
};

std::string because(int error) {
  return std::string(": ") + std::strerror(error) + ".";
}

/// Room for somebody without privileges in the file system of `file`.
std::uint64_t available_bytes(int file) {
  struct statvfs system = {};
  if (repeated_if_interrupted([&] { return ::fstatvfs(file, &system); }) != 0)
    return 0;
  return std::uint64_t{system.f_bavail} * system.f_frsize;
}

status no_room(const std::string& path, std::uint64_t needed, std::uint64_t available) {
  return {errc::no_space, "No room for drive " + path + ": it needs " + std::to_string(needed) +
                              " bytes more and its file system has " + std::to_string(available) +
                              " available; free some, choose another place or lower max_size."};
}

/// Both kinds of lock: the first is seen by flock(1) and by forks of ourselves, the second over network file
/// systems.
status lock(int file, const std::string& path) {
  struct flock whole = {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  if (repeated_if_interrupted([&] { return ::flock(file, LOCK_EX | LOCK_NB); }) != 0 ||
      repeated_if_interrupted([&] { return ::fcntl(file, F_OFD_SETLK, &whole); }) != 0) {
    if (errno == EWOULDBLOCK || errno == EACCES)
      return {errc::in_use,
              "Drive " + path + " is in use by another process (or named twice); stop that one first."};
    return {errc::io_error, "Cannot lock drive " + path + because(errno)};
  }
  return {};
}

/// Reserves every block of the file. What is there already stays.
status reserve(int file, const std::string& path, std::uint64_t size_bytes, std::uint64_t present_bytes) {
  const std::uint64_t needed = size_bytes - std::min(size_bytes, present_bytes);
  const std::uint64_t available = available_bytes(file);
  // Asked first, because trying fills the file system for everybody else until it is given up.
  if (available < needed)
    return no_room(path, needed, available);
  int error = 0;
  do
    error = ::posix_fallocate(file, 0, static_cast<off_t>(size_bytes));
  while (error == EINTR);
  if (error == ENOSPC || error == EDQUOT)
    return no_room(path, needed, available_bytes(file));
  if (error == EFBIG)
    return {errc::invalid_argument, "The file system of drive " + path + " allows no file of " +
                                        std::to_string(size_bytes) + " bytes; use several smaller drives."};
  if (error != 0)
    return {errc::io_error,
            "Cannot reserve " + std::to_string(size_bytes) + " bytes for drive " + path + because(error)};
  return {};
}

std::string directory_of(const std::string& path) {
  const auto slash = path.rfind('/');
  if (slash == std::string::npos)
    return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

/// A new file, reserved and locked, under its final name.
status create(const file_device_options& options, descriptor& out) {
  const std::string temporary = options.path + ".creating";
  descriptor file(repeated_if_interrupted([&] {
    return ::open(temporary.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
  }));
  if (!file)
    return {errc::io_error, "Cannot create drive " + options.path + because(errno)};
  // A remainder of an earlier attempt is taken over, unless that attempt still runs or it is no remainder of
  // ours.
  struct stat found = {};
  if (::fstat(file.number(), &found) != 0 || !S_ISREG(found.st_mode) || found.st_nlink != 1)
    return {errc::invalid_argument,
            "Cannot create drive " + options.path + ": " + temporary + " is in the way; remove it."};
  if (status result = lock(file.number(), options.path); !result.ok())
    return result;
  if (::ftruncate(file.number(), 0) != 0)
    return {errc::io_error, "Cannot empty " + temporary + because(errno)};
  status result = reserve(file.number(), options.path, options.size_bytes, 0);
  if (result.ok() && repeated_if_interrupted([&] { return ::fsync(file.number()); }) != 0)
    result = {errc::io_error, "Cannot write drive " + options.path + because(errno)};
  // RENAME_NOREPLACE: whoever made a file of that name meanwhile keeps it.
  if (result.ok() &&
      ::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, options.path.c_str(), RENAME_NOREPLACE) != 0) {
    const bool unsupported = errno == EINVAL || errno == ENOSYS;
    if (!unsupported || ::link(temporary.c_str(), options.path.c_str()) != 0)
      result = {errno == EEXIST ? errc::in_use : errc::io_error,
                "Cannot give drive " + options.path + " its name" + because(errno)};
    else
      ::unlink(temporary.c_str());
  }
  if (!result.ok()) {
    ::unlink(temporary.c_str());
    return result;
  }
  const descriptor directory(::open(directory_of(options.path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory || repeated_if_interrupted([&] { return ::fsync(directory.number()); }) != 0)
    return {errc::io_error, "Cannot make the name of drive " + options.path + " durable" + because(errno)};
  out = std::move(file);
  return {};
}

enum class page_owner : std::uint8_t { nobody, us, later_release, somebody_else, unreadable };

/// Who has written the superblock's place at `offset`. Blank, or behind the end: nobody.
page_owner owner_of(const descriptor& file, std::uint64_t offset, std::uint8_t copy) {
  std::array<std::byte, page_bytes> page{};
  const auto got = repeated_if_interrupted(
      [&] { return ::pread(file.number(), page.data(), page.size(), static_cast<off_t>(offset)); });
  if (got < 0)
    return page_owner::unreadable;
  if (std::ranges::all_of(page, [](std::byte each) { return each == std::byte{0}; }))
    return page_owner::nobody;
  superblock super;
  switch (decode(std::span<const std::byte, page_bytes>{page}, copy, super)) {
  case errc::bad_format:
    return page_owner::somebody_else;
  case errc::newer_version:
    return page_owner::later_release;
  default:
    return page_owner::us;
  }
}

/// A file that is somebody else's is left as it is, and nobody is told to remove it: so this comes first.
status look_whose(const descriptor& file, const std::string& path, std::uint64_t bytes) {
  page_owner owner = owner_of(file, 0, 0);
  const std::uint64_t used = std::min(bytes / page_bytes * page_bytes, drive_bytes_max);
  int error = errno;
  // Where the first copy is lost, or cannot be read, the other one knows.
  if ((owner == page_owner::somebody_else || owner == page_owner::unreadable) && used >= 2 * page_bytes)
    if (const auto mirror = owner_of(file, used - page_bytes, 1); mirror != page_owner::nobody) {
      owner = mirror;
      error = errno;
    }
  if (owner == page_owner::unreadable)
    return {errc::io_error, "Cannot read drive " + path + because(error)};
  if (owner == page_owner::somebody_else)
    return {errc::bad_format, "File " + path + " holds something that is not memkv's: name another one."};
  if (owner == page_owner::later_release)
    return {errc::newer_version, "Drive " + path + " was written by a later release: upgrade memkv."};
  return {};
}

/// A file of another size than the configured one.
status of_other_size(const std::string& path, std::uint64_t bytes, std::uint64_t configured_bytes) {
  return {errc::wrong_size, "Drive " + path + " has " + std::to_string(bytes) +
                                " bytes and is configured with " + std::to_string(configured_bytes) +
                                "; set max_size to the former, or remove the file to start empty."};
}

status open_existing(const file_device_options& options, descriptor& out) {
  const std::string& path = options.path;
  descriptor file(repeated_if_interrupted(
      [&] { return ::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK); }));
  if (!file) {
    if (errno == ENOENT)
      return {errc::not_found, "Drive " + path + " does not exist."};
    if (errno == ELOOP)
      return {errc::invalid_argument,
              "Drive " + path + " is a symbolic link; name the file that it leads to."};
    if (errno == EISDIR)
      return {errc::invalid_argument, "Drive " + path + " is a directory; name a file in it."};
    if (errno == ENXIO)
      return {errc::invalid_argument, "Drive " + path + " is not a regular file."};
    return {errc::io_error, "Cannot open drive " + path + because(errno)};
  }
  struct stat found = {};
  if (::fstat(file.number(), &found) != 0)
    return {errc::io_error, "Cannot look at drive " + path + because(errno)};
  if (!S_ISREG(found.st_mode))
    return {errc::invalid_argument, "Drive " + path + " is not a regular file."};
  if (status result = lock(file.number(), path); !result.ok())
    return result;
  const auto bytes = static_cast<std::uint64_t>(found.st_size);
  if (bytes != options.size_bytes) {
    status whose = look_whose(file, path, bytes);
    return whose.ok() ? of_other_size(path, bytes, options.size_bytes) : whose;
  }
  // A copy may have become sparse; a write into a hole could fail later for lack of room.
  const std::uint64_t present = static_cast<std::uint64_t>(found.st_blocks) * 512;
  if (present < options.size_bytes) {
    status result = look_whose(file, path, bytes);
    if (result.ok())
      result = reserve(file.number(), path, options.size_bytes, present);
    if (!result.ok())
      return result;
  }
  out = std::move(file);
  return {};
}

} // namespace

status open_file_device(const file_device_options& options, std::unique_ptr<block_device>& out) {
  out.reset();
  if (options.path.empty())
    return {errc::invalid_argument, "A drive needs a path."};
  if (options.size_bytes == 0 || options.size_bytes % 4096 != 0 || options.size_bytes > INT64_MAX)
    return {errc::invalid_argument, "The size of drive " + options.path + " is " +
                                        std::to_string(options.size_bytes) +
                                        " bytes; it must be a multiple of 4096 and not 0."};
  descriptor file;
  status result = open_existing(options, file);
  if (result.code == errc::not_found && options.create)
    result = create(options, file);
  if (!result.ok())
    return result;
  void* const mapped = ::mmap(nullptr, options.size_bytes, PROT_READ, MAP_SHARED, file.number(), 0);
  if (mapped == MAP_FAILED)
    return {errc::io_error, "Cannot map drive " + options.path + because(errno)};
  out = std::make_unique<file_device>(
      std::move(file), std::span(static_cast<const std::byte*>(mapped), options.size_bytes), options.path);
  return {};
}

} // namespace memkv::engine
