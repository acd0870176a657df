#define CAF_SUITE engine_device
#include <caf/test/unit_test.hpp>

#include "engine/file_device.hpp"
#include "engine/guarded_read.hpp"
#include "engine/memory_device.hpp"
#include "engine/superblock.hpp"
#include "test/unit/engine_leaves/support.hpp"

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

using namespace memkv;
using namespace memkv::engine;

namespace {

/// Reads of a page at this place fail as those of a bad sector do; -1: none does.
std::atomic<off_t> bad_page{-1};

} // namespace

/// In place of the library's.
extern "C" ssize_t pread(int file, void* to, size_t bytes, off_t offset) {
  if (bytes == page_bytes && offset == bad_page) {
    errno = EIO;
    return -1;
  }
  return ::syscall(SYS_pread64, file, to, bytes, offset);
}

namespace {

/// A directory that goes with everything in it.
struct scratch {
  std::string path;
  scratch() {
    const char* const parent = std::getenv("TMPDIR");
    path = std::string(parent == nullptr ? "/tmp" : parent) + "/memkv_device_test_XXXXXX";
    CAF_REQUIRE(::mkdtemp(path.data()) != nullptr);
  }
  ~scratch() {
    for (const char* name :
         {"/drive", "/drive.creating", "/link", "/pipe", "/other", "/image", "/notes", "/later"})
      ::unlink((path + name).c_str());
    ::rmdir((path + "/directory").c_str());
    ::rmdir(path.c_str());
  }
  [[nodiscard]] std::string operator/(const char* name) const { return path + "/" + name; }
};

/// One operation that remembers that it was done.
struct operation : io_operation {
  std::vector<std::byte> buffer;
  int times_done = 0;

  operation(kind k, std::uint64_t at, std::uint64_t bytes, std::byte filled = std::byte{0}) {
    what = k;
    offset = at;
    length = bytes;
    if (k == kind::read || k == kind::write)
      buffer.assign(bytes, filled);
    data = buffer.data();
    done = [](io_operation& self) { ++static_cast<operation&>(self).times_done; };
  }
  errc run(block_device& device) {
    device.submit(*this);
    CAF_REQUIRE_EQUAL(times_done, 0);
    CAF_REQUIRE_EQUAL(device.in_flight(), 1u);
    while (times_done == 0)
      device.poll(true);
    CAF_REQUIRE_EQUAL(times_done, 1);
    CAF_REQUIRE_EQUAL(device.in_flight(), 0u);
    return result;
  }
};

using kind = io_operation::kind;

std::unique_ptr<block_device> open_file(const std::string& path, std::uint64_t size) {
  std::unique_ptr<block_device> device;
  const status result = open_file_device({path, size, true}, device);
  if (!result.ok())
    CAF_FAIL(result.text);
  return device;
}

status try_file(const std::string& path, std::uint64_t size, bool create = true) {
  std::unique_ptr<block_device> device;
  status result = open_file_device({path, size, create}, device);
  CAF_CHECK_EQUAL(device == nullptr, !result.ok());
  if (!result.ok()) {
    CAF_MESSAGE(result.text);
    CAF_CHECK_EQUAL(result.text.back(), '.');
    CAF_CHECK(result.text.find(path) != std::string::npos);
  }
  return result;
}

std::unique_ptr<block_device> open_memory(std::uint64_t size) {
  std::unique_ptr<block_device> device;
  CAF_REQUIRE(open_memory_device(size, "memory", device).ok());
  return device;
}

void check_reads_what_was_written(block_device& device) {
  operation write(kind::write, 8192, 12288, std::byte{0x5A});
  CAF_CHECK(write.run(device) == errc::ok);
  CAF_CHECK(operation(kind::flush, 0, 0).run(device) == errc::ok);
  operation durable(kind::write, 4096, 4096, std::byte{0x11});
  durable.durable = true;
  CAF_CHECK(durable.run(device) == errc::ok);
  operation read(kind::read, 4096, 20480);
  CAF_CHECK(read.run(device) == errc::ok);
  CAF_CHECK_EQUAL(std::count(read.buffer.begin(), read.buffer.begin() + 4096, std::byte{0x11}), 4096);
  CAF_CHECK_EQUAL(std::count(read.buffer.begin() + 4096, read.buffer.end(), std::byte{0x5A}), 12288);
  CAF_CHECK(device.mapping()[4096] == std::byte{0x11});
  CAF_CHECK(device.mapping()[20480] == std::byte{0});
  CAF_CHECK(operation(kind::discard, 4096, 8192).run(device) == errc::ok);
  CAF_CHECK(device.mapping()[4096] == std::byte{0x11});
}

void check_refuses_what_lies_outside(block_device& device) {
  const std::uint64_t size = device.information().size_bytes;
  CAF_CHECK(operation(kind::write, size, 4096).run(device) == errc::invalid_argument);
  CAF_CHECK(operation(kind::read, size - 4096, 8192).run(device) == errc::invalid_argument);
  CAF_CHECK(operation(kind::write, 100, 4096).run(device) == errc::invalid_argument);
  CAF_CHECK(operation(kind::read, 0, 100).run(device) == errc::invalid_argument);
  CAF_CHECK(operation(kind::read, ~std::uint64_t{4095}, 8192).run(device) == errc::invalid_argument);
  CAF_CHECK(operation(kind::discard, size, 4096).run(device) == errc::invalid_argument);
  if (size > io_bytes_max) {
    CAF_CHECK(operation(kind::write, 0, io_bytes_max + 4096).run(device) == errc::invalid_argument);
    CAF_CHECK(operation(kind::read, 0, io_bytes_max + 4096).run(device) == errc::invalid_argument);
  }
  // None of that counts as a failure of the device.
  CAF_CHECK(operation(kind::write, 0, 4096).run(device) == errc::ok);
}

/// Runs `body` in a child; says how it ended.
template <class Body>
int in_child(Body&& body) {
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    body();
    ::_exit(0);
  }
  int how = 0;
  CAF_REQUIRE_EQUAL(::waitpid(child, &how, 0), child);
  return how;
}

/// Two mapped pages of a file of one: touching the second raises SIGBUS.
struct cut_short {
  scratch directory;
  std::byte* memory = nullptr;
  cut_short() {
    const int file = ::open((directory / "drive").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CAF_REQUIRE(file >= 0 && ::ftruncate(file, 4096) == 0);
    memory = static_cast<std::byte*>(::mmap(nullptr, 8192, PROT_READ, MAP_SHARED, file, 0));
    CAF_REQUIRE(memory != MAP_FAILED);
    ::close(file);
  }
  ~cut_short() { ::munmap(memory, 8192); }
  [[nodiscard]] std::span<const std::byte> all() const { return {memory, 8192}; }
};

/// The handler that is there before the guard's: installed before anybody can have used a guard.
constexpr int met_foreign = 99;
volatile std::sig_atomic_t expects_foreign = 0;
const auto earlier_handler = ::signal(SIGBUS, [](int) { ::_exit(expects_foreign != 0 ? met_foreign : 98); });

thread_local volatile int sink = 0;

int touch(const std::byte* where) {
  return std::to_integer<int>(*static_cast<const volatile std::byte*>(where));
}

} // namespace

CAF_TEST(a memory device keeps what is written until it is closed) {
  const auto device = open_memory(8 << 20);
  CAF_CHECK(!device->information().survives_process);
  check_reads_what_was_written(*device);
  check_refuses_what_lies_outside(*device);
  device->writable_mapping()[5] = std::byte{9};
  CAF_CHECK(device->mapping()[5] == std::byte{9});
  operation late(kind::write, 0, 4096);
  device->submit(late);
  device->close();
  CAF_CHECK_EQUAL(late.times_done, 1);
  device->close();
  CAF_CHECK(operation(kind::read, 0, 4096).run(*device) == errc::offline);
  CAF_CHECK(device->mapping().empty());
}

CAF_TEST(a memory device larger than the machine costs nothing until it is touched) {
  const auto device = open_memory(std::uint64_t{1} << 38);
  device->writable_mapping().back() = std::byte{1};
  CAF_CHECK(device->mapping().back() == std::byte{1});
}

CAF_TEST(a memory device of an impossible size is refused in a sentence) {
  std::unique_ptr<block_device> device;
  for (const std::uint64_t size : {std::uint64_t{0}, std::uint64_t{4095}}) {
    const status result = open_memory_device(size, "m", device);
    CAF_CHECK(result.code == errc::invalid_argument && result.text.back() == '.');
  }
  const status result = open_memory_device(std::uint64_t{1} << 62, "m", device);
  CAF_CHECK(result.code == errc::io_error && !result.text.empty());
}

CAF_TEST(a file device is reserved in full and keeps its bytes) {
  const scratch directory;
  {
    const auto device = open_file(directory / "drive", 8 << 20);
    CAF_CHECK(device->information().survives_process);
    struct stat found = {};
    CAF_REQUIRE_EQUAL(::stat((directory / "drive").c_str(), &found), 0);
    CAF_CHECK_EQUAL(found.st_size, 8 << 20);
    CAF_CHECK_GREATER_OR_EQUAL(found.st_blocks * 512, 8 << 20);
    CAF_CHECK_EQUAL(found.st_mode & 0777, 0600u);
    CAF_CHECK(::access((directory / "drive.creating").c_str(), F_OK) != 0);
    check_reads_what_was_written(*device);
    check_refuses_what_lies_outside(*device);
    // Never punched.
    CAF_REQUIRE_EQUAL(::stat((directory / "drive").c_str(), &found), 0);
    CAF_CHECK_GREATER_OR_EQUAL(found.st_blocks * 512, 8 << 20);
  }
  const auto again = open_file(directory / "drive", 8 << 20);
  CAF_CHECK(again->mapping()[8192] == std::byte{0x5A});
  again->close();
  CAF_CHECK(operation(kind::write, 0, 4096).run(*again) == errc::offline);
}

CAF_TEST(a remainder of an interrupted creation is taken over) {
  const scratch directory;
  std::ofstream(directory / "drive.creating") << "rest";
  const auto device = open_file(directory / "drive", 1 << 20);
  CAF_CHECK(device->mapping()[0] == std::byte{0});
}

CAF_TEST(a second opener is told that the drive is in use) {
  const scratch directory;
  const auto device = open_file(directory / "drive", 1 << 20);
  CAF_CHECK(try_file(directory / "drive", 1 << 20).code == errc::in_use);
  const int how = in_child([&] {
    std::unique_ptr<block_device> other;
    ::_exit(open_file_device({directory / "drive", 1 << 20, true}, other).code == errc::in_use ? 7 : 8);
  });
  CAF_CHECK(WIFEXITED(how) && WEXITSTATUS(how) == 7);
  device->close();
  CAF_CHECK(try_file(directory / "drive", 1 << 20).ok());
}

CAF_TEST(a file of another size is refused with both sizes) {
  const scratch directory;
  open_file(directory / "drive", 1 << 20)->close();
  const status result = try_file(directory / "drive", 2 << 20);
  CAF_CHECK(result.code == errc::wrong_size);
  CAF_CHECK(result.text.find("1048576") != std::string::npos);
  CAF_CHECK(result.text.find("2097152") != std::string::npos);
}

CAF_TEST(nobody is told to remove a file of another size that holds something else) {
  const scratch directory;
  std::ofstream(directory / "notes") << "Not a drive.";
  const status foreign = try_file(directory / "notes", 1 << 20);
  CAF_CHECK(foreign.code == errc::bad_format);
  CAF_CHECK(foreign.text.find("remove") == std::string::npos);
  // Of a later release: what it holds is known to that one only.
  std::array<std::byte, page_bytes> page{};
  encode(superblock{}, std::span<std::byte, page_bytes>{page});
  page[8] = std::byte{superblock_version + 1};
  (void)seal(page);
  std::ofstream(directory / "later", std::ios::binary)
      .write(reinterpret_cast<const char*>(page.data()), static_cast<std::streamsize>(page.size()));
  const status later = try_file(directory / "later", 1 << 20);
  CAF_CHECK(later.code == errc::newer_version);
  CAF_CHECK(later.text.find("remove") == std::string::npos);
}

CAF_TEST(a sparse file is reserved when it is opened) {
  const scratch directory;
  const int file = ::open((directory / "drive").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  CAF_REQUIRE(file >= 0 && ::ftruncate(file, 1 << 20) == 0 && ::pwrite(file, "x", 1, 5000) == 1);
  ::close(file);
  const auto device = open_file(directory / "drive", 1 << 20);
  CAF_CHECK(device->mapping()[5000] == std::byte{'x'});
  struct stat found = {};
  CAF_REQUIRE_EQUAL(::stat((directory / "drive").c_str(), &found), 0);
  CAF_CHECK_GREATER_OR_EQUAL(found.st_blocks * 512, 1 << 20);
}

CAF_TEST(a sparse file that holds something else is not reserved) {
  const scratch directory;
  const auto allocated = [&] {
    struct stat found = {};
    CAF_REQUIRE_EQUAL(::stat((directory / "image").c_str(), &found), 0);
    return found.st_blocks;
  };
  const int file = ::open((directory / "image").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  CAF_REQUIRE(file >= 0 && ::ftruncate(file, 1 << 20) == 0 && ::pwrite(file, "x", 1, 500) == 1);
  const auto before = allocated();
  CAF_CHECK(try_file(directory / "image", 1 << 20).code == errc::bad_format);
  CAF_CHECK_EQUAL(allocated(), before);
  // A drive of ours whose first superblock was lost is one all the same.
  std::array<std::byte, page_bytes> page{};
  superblock mirror;
  mirror.copy = 1;
  encode(mirror, std::span<std::byte, page_bytes>{page});
  CAF_REQUIRE_EQUAL(::pwrite(file, page.data(), page.size(), (1 << 20) - page_bytes), page_bytes);
  ::close(file);
  CAF_CHECK(try_file(directory / "image", 1 << 20).ok());
  CAF_CHECK_GREATER_OR_EQUAL(allocated() * 512, 1 << 20);
}

CAF_TEST(a file whose first superblock cannot be read is judged by the other one) {
  const scratch directory;
  constexpr off_t size = 1 << 20;
  const int file = ::open((directory / "drive").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  CAF_REQUIRE(file >= 0 && ::ftruncate(file, size) == 0);
  bad_page = 0;
  const auto alone = try_file(directory / "drive", size);
  CAF_CHECK(alone.code == errc::io_error);
  CAF_CHECK(alone.text.find(std::strerror(EIO)) != std::string::npos);
  const auto with_mirror = [&](std::span<const std::byte> page) {
    CAF_REQUIRE_EQUAL(::pwrite(file, page.data(), page.size(), size - page_bytes), page_bytes);
    return try_file(directory / "drive", size).code;
  };
  std::array<std::byte, page_bytes> page{};
  page[0] = std::byte{'x'};
  CAF_CHECK(with_mirror(page) == errc::bad_format);
  superblock mirror;
  mirror.copy = 1;
  encode(mirror, std::span<std::byte, page_bytes>{page});
  CAF_CHECK(with_mirror(page) == errc::ok);
  bad_page = -1;
  ::close(file);
}

CAF_TEST(anything but a regular file is refused) {
  const scratch directory;
  CAF_REQUIRE_EQUAL(::mkdir((directory / "directory").c_str(), 0700), 0);
  CAF_REQUIRE_EQUAL(::mkfifo((directory / "pipe").c_str(), 0600), 0);
  open_file(directory / "other", 1 << 20)->close();
  CAF_REQUIRE_EQUAL(::symlink("other", (directory / "link").c_str()), 0);
  CAF_CHECK(try_file(directory / "directory", 1 << 20).code == errc::invalid_argument);
  CAF_CHECK(try_file(directory / "pipe", 1 << 20).code == errc::invalid_argument);
  CAF_CHECK(try_file(directory / "link", 1 << 20).code == errc::invalid_argument);
  CAF_CHECK(try_file("/dev/null", 1 << 20).code == errc::invalid_argument);
  CAF_CHECK(try_file(directory / "drive", 1000).code == errc::invalid_argument);
  CAF_CHECK(try_file(directory / "drive", 0).code == errc::invalid_argument);
  CAF_CHECK(try_file("", 1 << 20).code == errc::invalid_argument);
  CAF_CHECK(try_file(directory / "absent", 1 << 20, false).code == errc::not_found);
  CAF_CHECK(try_file(directory / "absent/drive", 1 << 20).code == errc::io_error);
  // A link where the new file is prepared must not lead the reservation elsewhere.
  CAF_REQUIRE_EQUAL(::symlink("other", (directory / "drive.creating").c_str()), 0);
  CAF_CHECK(try_file(directory / "drive", 4096).code != errc::ok);
  struct stat found = {};
  CAF_REQUIRE_EQUAL(::stat((directory / "other").c_str(), &found), 0);
  CAF_CHECK_EQUAL(found.st_size, 1 << 20);
}

CAF_TEST(no room is one sentence with the path and what is needed and available) {
  const scratch directory;
  const status result = try_file(directory / "drive", std::uint64_t{1} << 60);
  CAF_CHECK(result.code == errc::no_space);
  CAF_CHECK(result.text.find(std::to_string(std::uint64_t{1} << 60)) != std::string::npos);
  CAF_CHECK(result.text.find("available") != std::string::npos);
  CAF_CHECK(::access((directory / "drive").c_str(), F_OK) != 0);
  CAF_CHECK(::access((directory / "drive.creating").c_str(), F_OK) != 0);
}

CAF_TEST(after a failed write a file takes no more writes and still reads) {
  const scratch directory;
  const int how = in_child([&] {
    const auto device = open_file(directory / "drive", 1 << 20);
    // Beyond the limit the kernel refuses with EFBIG, or writes short at it.
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{512 << 10, 512 << 10};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    operation before(kind::write, 0, 4096, std::byte{1});
    operation across(kind::write, (512 << 10) - 4096, 8192, std::byte{2});
    operation after(kind::write, 0, 4096, std::byte{3});
    operation flush(kind::flush, 0, 0);
    operation read(kind::read, 0, 4096);
    if (before.run(*device) != errc::ok)
      ::_exit(1);
    if (across.run(*device) != errc::io_error)
      ::_exit(2);
    if (after.run(*device) != errc::io_error)
      ::_exit(3);
    if (flush.run(*device) != errc::io_error)
      ::_exit(4);
    if (read.run(*device) != errc::ok || read.buffer[0] != std::byte{1})
      ::_exit(5);
  });
  CAF_CHECK(WIFEXITED(how));
  CAF_CHECK_EQUAL(WEXITSTATUS(how), 0);
  const auto again = open_file(directory / "drive", 1 << 20);
  CAF_CHECK(operation(kind::write, 0, 4096).run(*again) == errc::ok);
}

CAF_TEST(a file cut short under us fails reads instead of the process) {
  const scratch directory;
  const auto device = open_file(directory / "drive", 1 << 20);
  CAF_REQUIRE_EQUAL(::truncate((directory / "drive").c_str(), 4096), 0);
  CAF_CHECK(operation(kind::read, 8192, 4096).run(*device) == errc::io_error);
  CAF_CHECK(!guarded_read(device->mapping(), [&] { sink = touch(&device->mapping()[8192]); }));
  CAF_CHECK(guarded_read(device->mapping(), [&] { sink = touch(&device->mapping()[0]); }));
}

CAF_TEST(a guarded read ends with false at an unreadable page and works again afterwards) {
  const cut_short file;
  for (int i = 0; i < 3; ++i) {
    int reached = 0;
    CAF_CHECK(!guarded_read(file.all(), [&] {
      reached = 1;
      sink = touch(&file.memory[4096]);
      reached = 2;
    }));
    CAF_CHECK_EQUAL(reached, 1);
    CAF_CHECK(guarded_read(file.all(), [&] { reached = 3 + touch(&file.memory[0]); }));
    CAF_CHECK_EQUAL(reached, 3);
  }
}

CAF_TEST(nested guards each catch what is theirs) {
  const cut_short outer, inner;
  bool inner_result = true, behind = false;
  CAF_CHECK(guarded_read(outer.all(), [&] {
    inner_result = guarded_read(inner.all(), [&] { sink = touch(&inner.memory[4096]); });
    behind = true;
  }));
  CAF_CHECK(!inner_result && behind);
  behind = false;
  CAF_CHECK(!guarded_read(outer.all(), [&] {
    inner_result = guarded_read(inner.all(), [&] { sink = touch(&outer.memory[4096]); });
    behind = true;
  }));
  CAF_CHECK(!behind);
  CAF_CHECK(guarded_read(outer.all(), [&] { sink = touch(&outer.memory[1]); }));
}

CAF_TEST(guards of threads are their own) {
  const cut_short file;
  std::array<int, 4> caught{};
  std::vector<std::thread> threads;
  for (std::size_t me = 0; me < caught.size(); ++me)
    threads.emplace_back([&, me] {
      for (int i = 0; i < 200; ++i)
        caught[me] += !guarded_read(
            file.all(), [&] { sink = touch(&file.memory[4096 * ((me + static_cast<std::size_t>(i)) % 2)]); });
    });
  for (std::thread& one : threads)
    one.join();
  for (const int count : caught)
    CAF_CHECK_EQUAL(count, 100);
}

CAF_TEST(foreign bus errors go to the handler that was there before) {
  const cut_short file;
  // An unguarded read, a read of another range than the guarded one, and a signal that somebody sent.
  const int unguarded = in_child([&] {
    expects_foreign = 1;
    CAF_REQUIRE(guarded_read(file.all(), [] {}));
    sink = touch(&file.memory[4096]);
  });
  const int other_range = in_child([&] {
    expects_foreign = 1;
    static_cast<void>(guarded_read(file.all().first(4096), [&] { sink = touch(&file.memory[4096]); }));
  });
  const int sent = in_child([] {
    expects_foreign = 1;
    CAF_REQUIRE(guarded_read({}, [] {}));
    ::raise(SIGBUS);
  });
  for (const int how : {unguarded, other_range, sent})
    CAF_CHECK(WIFEXITED(how) && WEXITSTATUS(how) == met_foreign);
}
