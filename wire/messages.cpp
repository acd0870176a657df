#include "wire/messages.hpp"

#include <algorithm>

namespace memkv::wire {

namespace {

template <std::size_t N>
void take(byte_reader& in, std::array<std::byte, N>& out) noexcept {
  const bytes_view bytes = in.read_bytes(N);
  std::copy(bytes.begin(), bytes.end(), out.begin());
}

status outcome(const byte_reader& in) noexcept {
  return in.finished() ? status::ok : status::bad_request;
}

// The key that fills the rest of a variable part.
status take_key(byte_reader& in, std::size_t key_length, bytes_view& key) noexcept {
  if (in.failed() || key_length == 0 || in.remaining() != key_length)
    return status::bad_request;
  if (key_length > limits::key_bytes_max)
    return status::too_large;
  key = in.read_bytes(key_length);
  return outcome(in);
}

// "count, four zero bytes" in front of a batch's answer. A server never sends an empty one.
bool take_count(byte_reader& in, std::uint32_t& count) noexcept {
  count = in.read<std::uint32_t>();
  in.read_zeros(4);
  return !in.failed() && count >= 1 && count <= limits::batch_items_max;
}

void put_count(byte_writer& out, std::size_t count) noexcept {
  out.write(static_cast<std::uint32_t>(count));
  out.write_zeros(4);
}

} // namespace

void hello_request::encode(byte_writer& out) const noexcept {
  out.write_bytes(client_nonce);
  out.write(highest_version);
  out.write_zeros(7);
  out.write(capabilities);
}

status hello_request::decode(bytes_view variable, hello_request& out) noexcept {
  byte_reader in(variable);
  take(in, out.client_nonce);
  out.highest_version = in.read<std::uint8_t>();
  in.read_zeros(7);
  out.capabilities = in.read<std::uint64_t>();
  return out.highest_version == 0 ? status::bad_request : outcome(in);
}

void hello_reply::encode(byte_writer& out) const noexcept {
  out.write_bytes(client_nonce);
  out.write_bytes(server_nonce);
  out.write(version);
  out.write_zeros(7);
  out.write_bytes(server_id);
  out.write(capabilities);
  out.write(value_bytes_max);
  out.write(header_bytes_max);
  out.write(batch_items_max);
  out.write(batch_payload_bytes_max);
  out.write(part_bytes_max);
  out.write(frames_in_flight_max);
  out.write(idle_timeout_ms);
}

status hello_reply::decode(bytes_view variable, hello_reply& out) noexcept {
  byte_reader in(variable);
  take(in, out.client_nonce);
  take(in, out.server_nonce);
  out.version = in.read<std::uint8_t>();
  in.read_zeros(7);
  take(in, out.server_id);
  out.capabilities = in.read<std::uint64_t>();
  out.value_bytes_max = in.read<std::uint64_t>();
  out.header_bytes_max = in.read<std::uint32_t>();
  out.batch_items_max = in.read<std::uint32_t>();
  out.batch_payload_bytes_max = in.read<std::uint32_t>();
  out.part_bytes_max = in.read<std::uint32_t>();
  out.frames_in_flight_max = in.read<std::uint32_t>();
  out.idle_timeout_ms = in.read<std::uint32_t>();
  return out.version == 0 ? status::bad_request : outcome(in);
}

status hello_refusal::decode(bytes_view variable, hello_refusal& out) noexcept {
  byte_reader in(variable);
  take(in, out.client_nonce);
  return outcome(in);
}

void key_request::encode(byte_writer& out) const noexcept {
  out.write(static_cast<std::uint16_t>(key.size()));
  out.write_zeros(6);
  out.write_bytes(key);
}

status key_request::decode(bytes_view variable, key_request& out) noexcept {
  byte_reader in(variable);
  const auto key_length = in.read<std::uint16_t>();
  in.read_zeros(6);
  return take_key(in, key_length, out.key);
}

void get_request::encode(byte_writer& out) const noexcept {
  out.write(static_cast<std::uint16_t>(key.size()));
  out.write_zeros(6);
  out.write(range_offset);
  out.write(range_length);
  out.write(capacity);
  out.write_bytes(key);
}

status get_request::decode(bytes_view variable, get_request& out) noexcept {
  byte_reader in(variable);
  const auto key_length = in.read<std::uint16_t>();
  in.read_zeros(6);
  out.range_offset = in.read<std::uint64_t>();
  out.range_length = in.read<std::uint64_t>();
  out.capacity = in.read<std::uint64_t>();
  return take_key(in, key_length, out.key);
}

status generation_reply::decode(bytes_view variable, generation_reply& out) noexcept {
  byte_reader in(variable);
  out.generation = in.read<std::uint64_t>();
  return outcome(in);
}

void lookup_reply::encode(byte_writer& out) const noexcept {
  out.write(generation);
  out.write(value_crc32c);
  out.write_zeros(4);
  out.write(lease_token);
  out.write(lease_ms);
  out.write_zeros(4);
}

status lookup_reply::decode(bytes_view variable, lookup_reply& out) noexcept {
  byte_reader in(variable);
  out.generation = in.read<std::uint64_t>();
  out.value_crc32c = in.read<std::uint32_t>();
  in.read_zeros(4);
  out.lease_token = in.read<std::uint64_t>();
  out.lease_ms = in.read<std::uint32_t>();
  in.read_zeros(4);
  return outcome(in);
}

void stat_reply::encode(byte_writer& out) const noexcept {
  out.write(blocks);
  out.write(used_bytes);
  out.write(usable_bytes);
  out.write(uptime_ms);
  out.write(drives_online);
  out.write(drives_total);
}

status stat_reply::decode(bytes_view variable, stat_reply& out) noexcept {
  byte_reader in(variable);
  out.blocks = in.read<std::uint64_t>();
  out.used_bytes = in.read<std::uint64_t>();
  out.usable_bytes = in.read<std::uint64_t>();
  out.uptime_ms = in.read<std::uint64_t>();
  out.drives_online = in.read<std::uint32_t>();
  out.drives_total = in.read<std::uint32_t>();
  return outcome(in);
}

void batch_key::encode(byte_writer& out) const noexcept {
  out.write(static_cast<std::uint16_t>(key.size()));
  out.write_bytes(key);
}

void batch_put_item::encode(byte_writer& out) const noexcept {
  out.write(static_cast<std::uint16_t>(key.size()));
  out.write(static_cast<std::uint8_t>(if_absent ? 1 : 0));
  out.write_zeros(1);
  out.write(value_length);
  out.write_bytes(digest);
  out.write_bytes(key);
}

status batch_put_item::check(const std::byte* at) noexcept {
  const bool flags_known = (at[2] & ~std::byte{1}) == std::byte{0};
  const bool reserved_zero = at[3] == std::byte{0};
  const bool digest_fits = load_le<std::uint32_t>(at + 4) != 0 || all_zero(bytes_view(at + 8, 16));
  return flags_known && reserved_zero && digest_fits ? status::ok : status::bad_request;
}

batch_put_item batch_put_item::load(const std::byte* at, std::size_t key_length) noexcept {
  batch_put_item item;
  item.if_absent = at[2] == std::byte{1};
  item.value_length = load_le<std::uint32_t>(at + 4);
  std::copy_n(at + 8, item.digest.size(), item.digest.begin());
  item.key = bytes_view(at + fixed_size, key_length);
  return item;
}

status batch_put_view::decode(bytes_view variable, batch_put_view& out) noexcept {
  if (const status decoded = batch_view::decode(variable, out); decoded != status::ok)
    return decoded;
  // At most 4,096 values below 4 GiB: the sum cannot overflow.
  std::uint64_t total = 0;
  for (const batch_put_item item : out)
    total += item.value_length;
  out.payload_bytes_ = total;
  return total > limits::batch_payload_bytes_max ? status::too_large : status::ok;
}

void batch_put_reply::encode(byte_writer& out) const noexcept {
  put_count(out, results.size());
  for (const batch_put_result& result : results) {
    out.write(static_cast<std::uint8_t>(result.status));
    out.write_zeros(7);
    out.write(result.status == status::ok ? result.generation : 0);
  }
}

status batch_put_reply_view::decode(bytes_view variable, batch_put_reply_view& out) noexcept {
  byte_reader in(variable);
  if (!take_count(in, out.count_))
    return status::bad_request;
  out.results_ = in.read_bytes(std::size_t{16} * out.count_);
  for (std::size_t at = 0; at < out.results_.size(); at += 16)
    if (!all_zero(out.results_.subspan(at + 1, 7)) ||
        (out.results_[at] != std::byte{0} && !all_zero(out.results_.subspan(at + 8, 8))))
      return status::bad_request;
  return outcome(in);
}

void batch_get_reply::encode(byte_writer& out) const noexcept {
  put_count(out, slices.size());
  for (const batch_slice& slice : slices) {
    out.write(slice.item);
    out.write(static_cast<std::uint8_t>(slice.status));
    out.write(static_cast<std::uint8_t>(slice.last ? 1 : 0));
    out.write_zeros(2);
    out.write(slice.value_length);
    out.write(slice.value_offset);
    out.write(slice.length);
    out.write_zeros(4);
    out.write_bytes(slice.digest);
  }
}

batch_slice batch_get_reply_view::operator[](std::uint32_t i) const noexcept {
  const std::byte* at = slices_.data() + batch_slice::size * i;
  batch_slice slice;
  slice.item = load_le<std::uint32_t>(at);
  slice.status = status_from(std::to_integer<std::uint8_t>(at[4]));
  slice.last = at[5] == std::byte{1};
  slice.value_length = load_le<std::uint64_t>(at + 8);
  slice.value_offset = load_le<std::uint64_t>(at + 16);
  slice.length = load_le<std::uint32_t>(at + 24);
  std::copy_n(at + 32, slice.digest.size(), slice.digest.begin());
  return slice;
}

status batch_get_reply_view::decode(bytes_view variable, batch_get_reply_view& out) noexcept {
  byte_reader in(variable);
  if (!take_count(in, out.count_))
    return status::bad_request;
  out.slices_ = in.read_bytes(batch_slice::size * out.count_);
  if (!in.finished())
    return status::bad_request;
  out.payload_bytes_ = 0;
  for (std::uint32_t i = 0; i < out.count_; ++i) {
    const std::byte* at = out.slices_.data() + batch_slice::size * i;
    if ((at[5] & ~std::byte{1}) != std::byte{0} || load_le<std::uint16_t>(at + 6) != 0 ||
        load_le<std::uint32_t>(at + 28) != 0)
      return status::bad_request;
    const batch_slice slice = out[i];
    if (slice.item >= limits::batch_items_max)
      return status::bad_request;
    if (slice.status != status::ok && (slice.length != 0 || !slice.last))
      return status::bad_request;
    if (slice.length == 0 && !all_zero(slice.digest))
      return status::bad_request;
    // The slice lies within its value; written so that nothing can wrap around.
    if (slice.length != 0 &&
        (slice.value_offset > slice.value_length || slice.length > slice.value_length - slice.value_offset))
      return status::bad_request;
    out.payload_bytes_ += slice.length;
  }
  return out.payload_bytes_ > limits::part_bytes_max ? status::bad_request : status::ok;
}

void batch_delete_reply::encode(byte_writer& out) const noexcept {
  put_count(out, results.size());
  for (const status result : results)
    out.write(static_cast<std::uint8_t>(result));
}

status batch_delete_reply_view::decode(bytes_view variable, batch_delete_reply_view& out) noexcept {
  byte_reader in(variable);
  std::uint32_t count = 0;
  if (!take_count(in, count))
    return status::bad_request;
  out.results_ = in.read_bytes(count);
  return outcome(in);
}

void batch_exists_reply::encode(byte_writer& out) const noexcept {
  put_count(out, results.size());
  for (const batch_exists_result& result : results)
    out.write(static_cast<std::uint8_t>(result.status));
  for (const batch_exists_result& result : results)
    out.write(result.status == status::ok ? result.value_length : 0);
}

status batch_exists_reply_view::decode(bytes_view variable, batch_exists_reply_view& out) noexcept {
  byte_reader in(variable);
  if (!take_count(in, out.count_))
    return status::bad_request;
  out.bytes_ = in.read_bytes(std::size_t{9} * out.count_);
  if (!in.finished())
    return status::bad_request;
  for (std::uint32_t i = 0; i < out.count_; ++i)
    if (const batch_exists_result result = out[i]; result.status != status::ok && result.value_length != 0)
      return status::bad_request;
  return status::ok;
}

void prefix_reply::encode(byte_writer& out) const noexcept {
  put_count(out, value_lengths.size());
  std::uint64_t total = 0;
  for (const std::uint64_t length : value_lengths)
    total += length;
  out.write(total);
  for (const std::uint64_t length : value_lengths)
    out.write(length);
}

status prefix_reply_view::decode(bytes_view variable, prefix_reply_view& out) noexcept {
  byte_reader in(variable);
  out.matched_ = in.read<std::uint32_t>();
  in.read_zeros(4);
  out.total_bytes_ = in.read<std::uint64_t>();
  if (in.failed() || out.matched_ > limits::batch_items_max)
    return status::bad_request;
  out.lengths_ = in.read_bytes(std::size_t{8} * out.matched_);
  if (!in.finished())
    return status::bad_request;
  std::uint64_t total = 0;
  for (std::uint32_t i = 0; i < out.matched_; ++i)
    total += out.value_length(i);
  return total == out.total_bytes_ ? status::ok : status::bad_request;
}

void allocate_request::encode(byte_writer& out) const noexcept {
  out.write(static_cast<std::uint16_t>(key.size()));
  out.write_zeros(6);
  out.write(value_length);
  out.write(lease_ms);
  out.write_zeros(4);
  out.write_bytes(key);
}

status allocate_request::decode(bytes_view variable, allocate_request& out) noexcept {
  byte_reader in(variable);
  const auto key_length = in.read<std::uint16_t>();
  in.read_zeros(6);
  out.value_length = in.read<std::uint64_t>();
  out.lease_ms = in.read<std::uint32_t>();
  in.read_zeros(4);
  if (const status taken = take_key(in, key_length, out.key); taken != status::ok)
    return taken;
  return out.value_length > limits::value_bytes_max ? status::too_large : status::ok;
}

void allocate_reply::encode(byte_writer& out) const noexcept {
  out.write(token);
  out.write(lease_ms);
  out.write_zeros(4);
}

status allocate_reply::decode(bytes_view variable, allocate_reply& out) noexcept {
  byte_reader in(variable);
  out.token = in.read<std::uint64_t>();
  out.lease_ms = in.read<std::uint32_t>();
  in.read_zeros(4);
  return outcome(in);
}

void transfer_request::encode(byte_writer& out) const noexcept {
  out.write(token);
  out.write(value_offset);
  out.write(length);
  out.write(client_address);
  out.write(rkey);
  out.write_zeros(4);
}

status transfer_request::decode(bytes_view variable, transfer_request& out) noexcept {
  byte_reader in(variable);
  out.token = in.read<std::uint64_t>();
  out.value_offset = in.read<std::uint64_t>();
  out.length = in.read<std::uint64_t>();
  out.client_address = in.read<std::uint64_t>();
  out.rkey = in.read<std::uint32_t>();
  in.read_zeros(4);
  if (!in.finished() || out.client_address + out.length < out.client_address)
    return status::bad_request;
  const bool fits =
      out.value_offset <= limits::value_bytes_max && out.length <= limits::value_bytes_max - out.value_offset;
  return fits ? status::ok : status::too_large;
}

void commit_request::encode(byte_writer& out) const noexcept {
  out.write(token);
  out.write(static_cast<std::uint32_t>(if_absent ? 1 : 0));
  out.write_zeros(4);
  out.write(value_length);
  out.write_bytes(digest);
}

status commit_request::decode(bytes_view variable, commit_request& out) noexcept {
  byte_reader in(variable);
  out.token = in.read<std::uint64_t>();
  const auto bits = in.read<std::uint32_t>();
  in.read_zeros(4);
  out.value_length = in.read<std::uint64_t>();
  take(in, out.digest);
  if (!in.finished() || bits > 1)
    return status::bad_request;
  out.if_absent = bits == 1;
  return out.value_length > limits::value_bytes_max ? status::too_large : status::ok;
}

status read_reply::decode(bytes_view variable, read_reply& out) noexcept {
  byte_reader in(variable);
  take(in, out.digest);
  return outcome(in);
}

status session_message::decode(bytes_view variable, session_message& out) noexcept {
  byte_reader in(variable);
  out.session_id = in.read<std::uint64_t>();
  return outcome(in);
}

} // namespace memkv::wire
