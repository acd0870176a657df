#include "test/images/format_image.hpp"

#include "wire/bytes.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <string_view>

namespace memkv::images {

namespace {

constexpr std::string_view magic{"memkv-image\0", 12};
constexpr std::size_t repeated_least = 16;

} // namespace

const std::vector<stored_value>& values() {
  static const std::vector<stored_value> all{{"empty", 0, 0},
                                             {"one byte", 1, 10},
                                             {"small", 5'000, 11},
                                             {"whole unit", 65'536, 12},
                                             {"pieces", 130'000, 13},
                                             {"overwritten", 777, 14},
                                             {"in the journal", 3'000, 15},
                                             {"last", 100, 16}};
  return all;
}

const std::vector<std::string>& removed() {
  static const std::vector<std::string> all{"filler-0", "filler-2", "filler-1"};
  return all;
}

const stored_part& part() {
  static const stored_part one{"striped", 4711, 300'000, 1, 2, 37'856, 17};
  return one;
}

engine::store_options options() {
  engine::store_options result;
  result.identity.set_id.fill(std::byte{0x5E});
  result.identity.drive_index = 1;
  result.identity.drive_count = 2;
  result.unit_bytes = 64 << 10;
  result.extent_bytes_max = 256 << 10;
  result.sync = engine::sync_policy::always;
  result.eviction = false;
  result.boot_id.fill(std::byte{0xB0});
  return result;
}

std::vector<std::byte> bytes_of(std::uint32_t length, std::uint8_t seed) {
  // Few different bytes, so that the file is small; another one in each stretch, so that none is another's.
  std::vector<std::byte> bytes((length + 4095) / 4096 * 4096);
  for (std::uint32_t at = 0; at < length; ++at)
    bytes[at] = static_cast<std::byte>(seed * 7 + at / 1000);
  return bytes;
}

std::string save(const sim::image& drive, const std::string& path) {
  const std::vector<std::byte> bytes = drive.bytes();
  std::string out(magic);
  const auto number = [&](auto value) {
    std::array<std::byte, sizeof(value)> raw{};
    wire::store_le(raw.data(), value);
    out.append(reinterpret_cast<const char*>(raw.data()), raw.size());
  };
  const auto repeated = [&](std::size_t from) {
    std::size_t end = from + 1;
    while (end < bytes.size() && bytes[end] == bytes[from])
      ++end;
    return end - from;
  };
  number(static_cast<std::uint64_t>(bytes.size()));
  std::size_t plain = 0; // first byte that was not written
  const auto write_plain = [&](std::size_t end) {
    if (end == plain)
      return;
    out += '\0';
    number(static_cast<std::uint32_t>(end - plain));
    out.append(reinterpret_cast<const char*>(bytes.data() + plain), end - plain);
  };
  for (std::size_t at = 0; at < bytes.size();) {
    const std::size_t count = repeated(at);
    if (count >= repeated_least) {
      write_plain(at);
      out += '\1';
      number(static_cast<std::uint32_t>(count));
      out += static_cast<char>(bytes[at]);
      plain = at + count;
    }
    at += count;
  }
  write_plain(bytes.size());
  std::ofstream file(path, std::ios::binary);
  file.write(out.data(), static_cast<std::streamsize>(out.size()));
  file.close();
  return file ? "" : path + ": cannot be written";
}

std::string load(const std::string& path, sim::image& out) {
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file || !text.starts_with(magic))
    return path + ": is not an image";
  wire::byte_reader reader(wire::as_bytes_view(text).subspan(magic.size()));
  sim::image drive(reader.read<std::uint64_t>());
  std::uint64_t at = 0;
  while (reader.remaining() > 0) {
    const bool fill = reader.read<std::uint8_t>() == 1;
    const auto length = reader.read<std::uint32_t>();
    const auto bytes = reader.read_bytes(fill ? 1 : length);
    if (reader.failed() || bytes.empty() || length > drive.size() - at)
      return path + ": is cut short";
    if (!fill)
      drive.write(at, bytes);
    else if (bytes.front() != std::byte{0})
      drive.fill(at, length, bytes.front());
    at += length;
  }
  out = std::move(drive);
  return at == out.size() ? "" : path + ": is cut short";
}

} // namespace memkv::images
