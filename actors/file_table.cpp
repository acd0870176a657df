#include "actors/file_table.hpp"

#include <liburing.h>
#include <sys/utsname.h>

#include <cstdio>

namespace memkv::actors {

namespace {

/// Before Linux 6.13 what was removed from the table stayed open until every operation that had begun before
/// was over: one idle connection would keep all sockets that were closed after its receive was handed over,
/// and no limit on connections would bound them.
bool removed_files_are_closed() noexcept {
  utsname about{};
  int major = 0, minor = 0;
  return ::uname(&about) == 0 && std::sscanf(about.release, "%d.%d", &major, &minor) == 2 &&
         (major > 6 || (major == 6 && minor >= 13));
}

} // namespace

void file_table::open(io_uring& ring, std::uint32_t files) {
  if (!removed_files_are_closed() || io_uring_register_files_sparse(&ring, files) != 0)
    return;
  ring_ = &ring;
  free_.reserve(files);
  for (auto place = static_cast<std::int32_t>(files); place > 0; --place)
    free_.push_back(place - 1);
}

std::int32_t file_table::add(int descriptor) noexcept {
  if (ring_ == nullptr || free_.empty())
    return nowhere;
  const auto place = free_.back();
  if (io_uring_register_files_update(ring_, static_cast<unsigned>(place), &descriptor, 1) != 1)
    return nowhere;
  free_.pop_back();
  return place;
}

void file_table::remove(std::int32_t place) noexcept {
  if (ring_ == nullptr || place == nowhere)
    return;
  const int none = -1;
  // Where even this fails the place stays taken until the ring ends; there are others.
  if (io_uring_register_files_update(ring_, static_cast<unsigned>(place), &none, 1) == 1)
    free_.push_back(place); // within what was reserved
}

void file_table::close() noexcept {
  ring_ = nullptr;
  free_.clear();
}

} // namespace memkv::actors
