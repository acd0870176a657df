#include "engine/drive_set.hpp"

#include "engine/layout.hpp"
#include "engine/superblock.hpp"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

namespace memkv::engine {

std::optional<superblock> peek_superblock(const drive_description& drive) {
  if (drive.memory)
    return {};
  const int file = ::open(drive.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); // a pipe would keep us
  if (file < 0)
    return {};
  struct stat about {};
  std::optional<superblock> found;
  const bool looked_at = ::fstat(file, &about) == 0;
  off_t size = 0;
  if (looked_at && S_ISREG(about.st_mode))
    size = about.st_size;
  else if (looked_at && drive.raw && S_ISBLK(about.st_mode))
    size = ::lseek(file, 0, SEEK_END);
  if (size >= static_cast<off_t>(2) * page_bytes) {
    const std::uint64_t used =
        std::min(static_cast<std::uint64_t>(size) / page_bytes * page_bytes, drive_bytes_max);
    const std::array<off_t, 2> places{0, static_cast<off_t>(used - page_bytes)};
    for (std::uint8_t copy = 0; copy < 2; ++copy) {
      std::array<std::byte, page_bytes> page{};
      superblock read;
      if (::pread(file, page.data(), page.size(), places[copy]) == static_cast<ssize_t>(page.size()) &&
          decode(std::span<const std::byte, page_bytes>{page}, copy, read) == errc::ok &&
          (!found || read.sequence > found->sequence))
        found = read;
    }
  }
  ::close(file);
  return found;
}

void judge_epochs(const std::vector<epoch_claim>& claims, std::uint32_t drives, set_facts& out) {
  out.epoch = 0;
  out.members = out.named = all_members(drives);
  out.agreed = true;
  if (claims.empty())
    return;
  for (const auto& claim : claims) {
    out.epoch = std::max(out.epoch, claim.epoch);
    out.agreed = out.agreed && claim.epoch == claims.front().epoch && claim.members == claims.front().members;
  }
  const epoch_claim* right = nullptr;
  bool one_is_right = true;
  for (const auto& claim : claims) {
    if (claim.epoch != out.epoch || (right != nullptr && claim.members == right->members))
      continue;
    const bool contradicted = std::any_of(claims.begin(), claims.end(), [&](const epoch_claim& other) {
      return other.epoch == out.epoch && is_member(claim.members, other.index) &&
             other.members != claim.members;
    });
    if (contradicted)
      continue;
    one_is_right = right == nullptr;
    right = &claim;
    if (!one_is_right)
      break;
  }
  if (right == nullptr || !one_is_right) {
    out.members = {};
    return;
  }
  out.members = out.named = right->members;
  if (!is_epoch_of_start(out.epoch))
    return;
  for (const auto& claim : claims)
    for (std::size_t byte = 0; byte < out.members.size(); ++byte) {
      out.named[byte] |= claim.members[byte];
      if (claim.epoch < out.epoch)
        out.members[byte] &= claim.members[byte];
    }
}

status find_set(const std::vector<drive_description>& drives, set_facts& out) {
  std::vector<std::optional<superblock>> found;
  for (const auto& drive : drives)
    found.push_back(peek_superblock(drive));
  return find_set(drives, found, out);
}

status find_set(const std::vector<drive_description>& drives,
                const std::vector<std::optional<superblock>>& superblocks, set_facts& out) {
  const std::array<std::byte, 16> none{};
  const drive_description* first = nullptr;
  std::array<std::byte, 16> known = out.set_id;
  std::vector<epoch_claim> claims;
  for (std::size_t index = 0; index < drives.size(); ++index) {
    const auto& drive = drives[index];
    if (!superblocks[index])
      continue;
    const superblock& found = *superblocks[index];
    if (known != none && found.set.set_id != known)
      return {errc::foreign_drive,
              drive.path + ": belongs to another drive set than " +
                  (first != nullptr ? first->path : std::string{"this server's"}) +
                  "; name only drives of one set in storage.drives, or " +
                  (drive.raw ? "set it up anew (memkv setup --force)" : "remove the file to start it empty")};
    if (found.set.drive_index != index || found.set.drive_count != drives.size())
      return {errc::foreign_drive, drive.path + ": is drive " + std::to_string(found.set.drive_index) +
                                       " of " + std::to_string(found.set.drive_count) +
                                       ", but storage.drives names it as drive " + std::to_string(index) +
                                       " of " + std::to_string(drives.size()) +
                                       "; keep the order and number of the drives"};
    known = found.set.set_id;
    claims.push_back({static_cast<std::uint32_t>(index), found.set_epoch, found.members});
    first = &drive;
  }
  if (known == none && ::getrandom(known.data(), known.size(), 0) != static_cast<ssize_t>(known.size()))
    return {errc::io_error, "the system gave no random bytes for the set's identity"};
  out.set_id = known;
  judge_epochs(claims, static_cast<std::uint32_t>(drives.size()), out);
  return {};
}

bool read_boot_id(std::array<std::byte, 16>& out) {
  const int file = ::open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
  if (file < 0)
    return false;
  std::array<char, 64> text{};
  const auto count = ::read(file, text.data(), text.size());
  ::close(file);
  std::size_t digits = 0;
  out = {};
  for (ssize_t at = 0; at < count && digits < 32; ++at) {
    const char c = text[static_cast<std::size_t>(at)];
    int value = -1;
    if (c >= '0' && c <= '9')
      value = c - '0';
    else if (c >= 'a' && c <= 'f')
      value = c - 'a' + 10;
    else if (c == '-')
      continue;
    else
      return false;
    out[digits / 2] |= static_cast<std::byte>(value << (digits % 2 == 0 ? 4 : 0));
    ++digits;
  }
  return digits == 32;
}

} // namespace memkv::engine
