#include "engine/failure_registry.hpp"

#include "wire/bytes.hpp"

#include <algorithm>
#include <limits>

namespace memkv::engine {

void failure_registry::note_failure(std::uint64_t at_ns) noexcept {
  if (failure_count < std::numeric_limits<std::uint32_t>::max())
    ++failure_count;
  if (first_failed_at_ns == 0)
    first_failed_at_ns = at_ns;
  last_failed_at_ns = at_ns;
}

void encode(const failure_registry& registry, std::span<std::byte, failure_registry_bytes> to) noexcept {
  const std::size_t length = std::min(registry.device_id.size(), device_id_bytes_max);
  wire::byte_writer writer(to);
  writer.write(failure_registry_version);
  writer.write(static_cast<std::uint8_t>(registry.blacklisted ? 1 : 0));
  writer.write(static_cast<std::uint8_t>(length));
  writer.write_zeros(1);
  writer.write(registry.failure_count);
  writer.write(registry.first_failed_at_ns);
  writer.write(registry.last_failed_at_ns);
  writer.write_bytes(wire::as_bytes_view(std::string_view(registry.device_id).substr(0, length)));
  writer.write_zeros(writer.remaining());
}

errc decode(std::span<const std::byte, failure_registry_bytes> from, failure_registry& out) {
  wire::byte_reader reader(from);
  const auto version = reader.read<std::uint8_t>();
  if (version == 0)
    return errc::bad_format;
  if (version > failure_registry_version)
    return errc::newer_version;
  failure_registry registry;
  const auto blacklisted = reader.read<std::uint8_t>();
  const auto length = reader.read<std::uint8_t>();
  reader.read_zeros(1);
  registry.failure_count = reader.read<std::uint32_t>();
  registry.first_failed_at_ns = reader.read<std::uint64_t>();
  registry.last_failed_at_ns = reader.read<std::uint64_t>();
  if (blacklisted > 1 || length > device_id_bytes_max)
    return errc::bad_format;
  registry.blacklisted = blacklisted == 1;
  registry.device_id = std::string(wire::as_text(reader.read_bytes(length)));
  reader.read_zeros(reader.remaining());
  if (!reader.finished())
    return errc::bad_format;
  out = std::move(registry);
  return errc::ok;
}

} // namespace memkv::engine
