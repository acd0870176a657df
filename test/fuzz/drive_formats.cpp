// The structures on a drive, as bytes that somebody else wrote. The first byte chooses the decoder; the
// checksum is made right, so that what is behind it is reached.
#include "engine/bitmap_page.hpp"
#include "engine/extent_header.hpp"
#include "engine/journal_batch.hpp"
#include "engine/superblock.hpp"
#include "engine/tree_page.hpp"

#include <cstdint>
#include <cstdlib>
#include <vector>

namespace {

using namespace memkv::engine;

constexpr identity format_id{};

const layout& places() {
  static const layout made = [] {
    layout result;
    if (!compute_layout(std::uint64_t{64} << 20, 64 << 10, 4 << 20, result).ok())
      std::abort();
    return result;
  }();
  return made;
}

/// `size` bytes with magic and a right checksum, the rest, version included, from the input.
std::vector<std::byte> structure(std::span<const std::byte> input, std::size_t size, std::string_view magic) {
  std::vector<std::byte> bytes(size);
  std::copy_n(input.begin(), std::min(input.size(), size - version_offset), bytes.begin() + version_offset);
  store_magic(bytes, magic);
  seal(bytes);
  return bytes;
}

std::span<const std::byte, page_bytes> as_page(const std::vector<std::byte>& bytes) {
  return std::span<const std::byte, page_bytes>(bytes.data(), std::size_t{page_bytes});
}

void require(bool condition) {
  if (!condition)
    std::abort();
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0)
    return 0;
  const auto input = std::as_bytes(std::span(data, size)).subspan(1);
  switch (data[0] % 5) {
  case 0: {
    superblock block;
    const auto bytes = structure(input, page_bytes, superblock_magic);
    if (decode(as_page(bytes), 0, block) == errc::ok) {
      std::vector<std::byte> again(page_bytes);
      encode(block, std::span<std::byte, page_bytes>(again.data(), std::size_t{page_bytes}));
      // An older version is written as today's, and that one says the same.
      if (bytes[version_offset] == std::byte{superblock_version}) {
        require(again == bytes);
      } else {
        superblock newer;
        require(decode(as_page(again), 0, newer) == errc::ok);
        std::vector<std::byte> once_more(page_bytes);
        encode(newer, std::span<std::byte, page_bytes>(once_more.data(), std::size_t{page_bytes}));
        require(once_more == again);
      }
      (void)check_against(block, std::uint64_t{64} << 20);
    }
    break;
  }
  case 1: {
    bitmap_page_header header;
    std::span<const std::byte> bits;
    const auto bytes = structure(input, page_bytes, bitmap_magic);
    (void)decode(as_page(bytes), format_id, 0, 20, header, bits);
    break;
  }
  case 2: {
    journal_batch batch;
    const auto bytes = structure(input, page_bytes, journal_magic);
    if (decode(bytes, format_id, 8192, places(), batch) == errc::ok) {
      journal_batch_writer writer;
      writer.start(2 * page_bytes, batch.echo);
      for (const auto& record : batch.records)
        require(writer.add(record));
      std::vector<std::byte> again(writer.length());
      writer.finish(batch.header, again);
      require(again == bytes);
    }
    break;
  }
  case 3: {
    tree_page page;
    const auto bytes = structure(input, tree_page_bytes, tree_magic);
    (void)decode(bytes, format_id, 0, places(), page);
    break;
  }
  default: {
    extent_header header;
    const auto bytes = structure(input, page_bytes, extent_magic);
    if (decode(as_page(bytes), header) == errc::ok) {
      for (std::size_t i = 0; i < header.run_count(); ++i)
        (void)header.run_at(i);
      require(header.chunk_crc32c.size() == chunk_count(header.length) * 4);
    }
  }
  }
  return 0;
}
