// Loaded before other libraries, it lets a program see a wall clock that is MEMKV_TEST_CLOCK_SHIFT_S seconds
// ahead. Clocks that only measure stay as they are.
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <ctime>

extern "C" int clock_gettime(clockid_t which, timespec* out) noexcept {
  const auto rc = static_cast<int>(::syscall(SYS_clock_gettime, which, out));
  const char* shift = std::getenv("MEMKV_TEST_CLOCK_SHIFT_S");
  if (rc == 0 && which == CLOCK_REALTIME && shift != nullptr)
    out->tv_sec += std::strtol(shift, nullptr, 10);
  return rc;
}
