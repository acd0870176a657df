// The part of a connection that understands answers: each is checked against its request before it is
// believed.
#include "client/connection.hpp"

#include <algorithm>

namespace memkv::client {
request* connection::find_open(std::uint64_t id) const noexcept {
  for (request* const one : open_) {
    if (one->open.request_id == id) {
      return one;
    }
  }
  return nullptr;
}

bool connection::accept_reply() {
  const wire::frame_header& header = reader_->header();
  request* const found = find_open(header.request_id);
  if (found == nullptr || found->open.accept(header) != wire::refusal::none) {
    return false;
  }
  // An answer to a request that has not been written completely can only be an error that ends it, and then
  // the rest of the frame must still be sent; no server does this, so it counts as a failed check.
  if (burst_.is_unfinished(*found)) {
    return false;
  }
  if (found->kind == request_kind::attach || found->kind == request_kind::connect) {
    found->kind == request_kind::attach ? accept_attach(*found) : accept_connect(*found);
    return true;
  }
  if (header.status() != wire::status::ok) {
    accept_refusal(*found, header);
    return true;
  }
  switch (found->kind) {
  case request_kind::get:
    return accept_single_get(*found);
  case request_kind::batch_get:
    return accept_batch_get(*found);
  case request_kind::batch_write:
    return accept_batch_write(*found, header, reader_->variable_part());
  case request_kind::batch_read:
    return accept_batch_read(*found, header, reader_->variable_part());
  default:
    return accept_results(*found, header, reader_->variable_part());
  }
}

void connection::accept_refusal(request& wanted, const wire::frame_header& header) {
  const errc code = code_of(header.status());
  if (wanted.uses_rdma()) {
    refuse_rdma(wanted, code);
    return;
  }
  if (wanted.owner != nullptr) {
    for (const std::uint32_t item : wanted.items) {
      item_result& result = wanted.owner->results[item];
      if (result.code == errc::pending && (code == errc::out_of_range || code == errc::buffer_too_small)) {
        result.value_length = header.value_length;
      }
    }
    wanted.owner->fail(wanted, code);
  }
  finish(wanted);
}

bool connection::accept_single_get(request& wanted) {
  const wire::frame_header& header = reader_->header();
  const std::uint32_t item_number = wanted.items.front();
  const get_item& item = wanted.owner->gets[item_number];
  wire::generation_reply body;
  if (wire::generation_reply::decode(reader_->variable_part(), body) != wire::status::ok) {
    return false;
  }
  if (header.part_number == 0) {
    wanted.value_length = header.value_length;
    wanted.generation = body.generation;
  }
  if (header.value_length != wanted.value_length || body.generation != wanted.generation ||
      header.value_length < item.range_offset ||
      wanted_bytes(item, header.value_length) > capacity_of(item) ||
      header.value_offset != item.range_offset + wanted.received_bytes ||
      header.payload_length > wanted_bytes(item, header.value_length) - wanted.received_bytes) {
    return false;
  }
  if (!header.last() && header.payload_length == 0) {
    return false;
  }
  payload_.clear();
  if (header.payload_length != 0) {
    std::byte* const target = item.target.empty() ? &wanted.overflow : item.target.data();
    payload_.add({target + wanted.received_bytes, header.payload_length, 0, header.digest});
    wanted.received_bytes += header.payload_length;
  }
  return begin_payload(wanted);
}

bool connection::accept_batch_get(request& wanted) {
  const wire::frame_header& header = reader_->header();
  wire::batch_get_reply_view body;
  if (wire::batch_get_reply_view::decode(reader_->variable_part(), body) != wire::status::ok ||
      body.payload_bytes() != header.payload_length) {
    return false;
  }
  payload_.clear();
  for (std::uint32_t i = 0; i < body.size(); ++i) {
    const wire::batch_slice slice = body[i];
    if (slice.item >= wanted.items.size() || wanted.received[slice.item] == request::item_done) {
      return false;
    }
    const std::uint32_t item_number = wanted.items[slice.item];
    const get_item& item = wanted.owner->gets[item_number];
    item_result& result = wanted.owner->results[item_number];
    std::uint64_t& received = wanted.received[slice.item];
    if (slice.status != wire::status::ok) {
      result.value_length = slice.value_length;
      result.length = 0;
      wanted.owner->set_result(item_number, code_of(slice.status));
      received = request::item_done;
      continue;
    }
    if (received == 0) {
      result.value_length = slice.value_length;
    }
    if (slice.value_length != result.value_length || slice.value_length < item.range_offset) {
      return false;
    }
    const std::uint64_t total = wanted_bytes(item, slice.value_length);
    // Only an item of no bytes has a slice without a digest: behind others it would end them unchecked.
    if (total > capacity_of(item) || slice.value_offset != item.range_offset + received ||
        slice.length > total - received || (slice.length == 0 && (total != 0 || !slice.last)) ||
        (slice.last && received + slice.length != total)) {
      return false;
    }
    std::byte* const target = item.target.empty() ? &wanted.overflow : item.target.data();
    const bool too_small = item.target.empty() && slice.length > 0;
    if (slice.length > 0) {
      payload_.add({target + received, slice.length, slice.item, slice.digest,
                    slice.last && !too_small ? &result : nullptr});
    }
    received += slice.length;
    if (slice.last) {
      result.length = total;
      received = request::item_done;
      if (slice.length == 0) {
        result.code = errc::ok;
      } else if (too_small) {
        wanted.owner->set_result(item_number, errc::buffer_too_small);
        result.length = 0;
      }
    }
  }
  return begin_payload(wanted);
}

bool connection::begin_payload(request& wanted) {
  receiving_ = &wanted;
  payload_.begin(reader_->header());
  return payload_.bytes_left() != 0 || end_frame();
}

bool connection::end_frame() {
  request& wanted = *receiving_;
  receiving_ = nullptr;
  if (!payload_.is_last_frame()) {
    return true;
  }
  if (wanted.kind == request_kind::get) {
    const std::uint32_t item_number = wanted.items.front();
    const get_item& item = wanted.owner->gets[item_number];
    item_result& result = wanted.owner->results[item_number];
    if (wanted.received_bytes != wanted_bytes(item, wanted.value_length)) {
      return false;
    }
    result.value_length = wanted.value_length;
    result.generation = wanted.generation;
    if (item.target.empty() && wanted.received_bytes != 0) {
      result.code = errc::buffer_too_small;
    } else {
      result.length = wanted.received_bytes;
      result.code = errc::ok;
    }
  } else {
    for (const std::uint64_t received : wanted.received) {
      if (received != request::item_done) {
        return false;
      }
    }
  }
  finish(wanted);
  return true;
}

bool connection::accept_results(request& wanted, const wire::frame_header& header,
                                wire::bytes_view variable) {
  if (!header.last() || header.payload_length != 0) {
    return false;
  }
  constexpr wire::status ok = wire::status::ok;
  if (wanted.owner == nullptr) {
    wire::empty_message body;
    if (wire::empty_message::decode(variable, body) != ok) {
      return false;
    }
    complete(wanted);
    return true;
  }
  const auto result_of = [&](std::size_t i) -> item_result& {
    return wanted.owner->results[wanted.items[i]];
  };
  const std::size_t count = wanted.items.size();
  switch (wanted.kind) {
  case request_kind::put: {
    wire::generation_reply body;
    if (wire::generation_reply::decode(variable, body) != ok) {
      return false;
    }
    result_of(0).generation = body.generation;
    result_of(0).code = errc::ok;
    break;
  }
  case request_kind::exists: {
    wire::generation_reply body;
    if (wire::generation_reply::decode(variable, body) != ok) {
      return false;
    }
    result_of(0).generation = body.generation;
    result_of(0).value_length = header.value_length;
    result_of(0).code = errc::ok;
    break;
  }
  case request_kind::lookup: {
    wire::lookup_reply body;
    if (wire::lookup_reply::decode(variable, body) != ok) {
      return false;
    }
    result_of(0).generation = body.generation;
    result_of(0).crc32c = body.value_crc32c;
    result_of(0).value_length = header.value_length;
    result_of(0).code = errc::ok;
    break;
  }
  case request_kind::stat: {
    wire::stat_reply body;
    if (wire::stat_reply::decode(variable, body) != ok) {
      return false;
    }
    server_stat& stat = (*wanted.owner->stats)[wanted.items.front()];
    stat.blocks = body.blocks;
    stat.used_bytes = body.used_bytes;
    stat.usable_bytes = body.usable_bytes;
    stat.uptime_ms = body.uptime_ms;
    stat.drives_online = body.drives_online;
    stat.drives_total = body.drives_total;
    result_of(0).code = errc::ok;
    break;
  }
  case request_kind::batch_put: {
    wire::batch_put_reply_view body;
    if (wire::batch_put_reply_view::decode(variable, body) != ok || body.size() != count) {
      return false;
    }
    for (std::uint32_t i = 0; i < count; ++i) {
      result_of(i).generation = body[i].generation;
      wanted.owner->set_result(wanted.items[i], code_of(body[i].status));
    }
    break;
  }
  case request_kind::batch_remove: {
    wire::batch_delete_reply_view body;
    if (wire::batch_delete_reply_view::decode(variable, body) != ok || body.size() != count) {
      return false;
    }
    for (std::uint32_t i = 0; i < count; ++i) {
      wanted.owner->set_result(wanted.items[i], code_of(body[i]));
    }
    break;
  }
  case request_kind::batch_exists: {
    wire::batch_exists_reply_view body;
    if (wire::batch_exists_reply_view::decode(variable, body) != ok || body.size() != count) {
      return false;
    }
    for (std::uint32_t i = 0; i < count; ++i) {
      result_of(i).value_length = body[i].value_length;
      wanted.owner->set_result(wanted.items[i], code_of(body[i].status));
    }
    break;
  }
  case request_kind::prefix: {
    wire::prefix_reply_view body;
    if (wire::prefix_reply_view::decode(variable, body) != ok || body.matched() > count) {
      return false;
    }
    for (std::uint32_t i = 0; i < count; ++i) {
      if (i < body.matched()) {
        result_of(i).value_length = body.value_length(i);
      }
      result_of(i).code = i < body.matched() ? errc::ok : errc::not_found;
    }
    break;
  }
  default: { // remove
    wire::empty_message body;
    if (wire::empty_message::decode(variable, body) != ok) {
      return false;
    }
    result_of(0).code = errc::ok;
    break;
  }
  }
  finish(wanted);
  return true;
}

} // namespace memkv::client
