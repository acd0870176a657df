#include "test/unit/client/fake_server.hpp"

#include "test/unit/client/fake_rdma.hpp"
#include "wire/crc32c.hpp"
#include "wire/hello.hpp"
#include "wire/message_reader.hpp"
#include "wire/payload_digest.hpp"
#include "wire/request_reader.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>

namespace memkv::test {
namespace {

[[noreturn]] void give_up(const char* what) {
  std::perror(what);
  std::abort();
}

[[nodiscard]] int bound_socket(std::uint16_t& port) {
  const int made = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  ::setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  if (::bind(made, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    give_up("fake_server: bind");
  }
  socklen_t size = sizeof address;
  ::getsockname(made, reinterpret_cast<sockaddr*>(&address), &size);
  port = ntohs(address.sin_port);
  return made;
}

[[nodiscard]] bool send_all(int socket, wire::bytes_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) {
      return false;
    }
    bytes = bytes.subspan(static_cast<std::size_t>(sent));
  }
  return true;
}

[[nodiscard]] std::string full_name(std::string_view ns, std::string_view key) {
  return std::string(ns) + '\0' + std::string(key);
}

template <class Message>
[[nodiscard]] std::vector<std::byte> encoded(const Message& message) {
  std::vector<std::byte> bytes(message.encoded_size());
  wire::byte_writer writer(bytes);
  message.encode(writer);
  return bytes;
}

} // namespace

struct fake_server::session {
  int socket = -1;
  std::thread thread;
  wire::session_keys keys;
};

fake_server::fake_server(std::string_view key_digits)
    : key_(wire::shared_key::parse(key_digits).value()), mac_(key_), reserved_(bound_socket(port_)) {}

fake_server::~fake_server() {
  stop();
  if (reserved_ >= 0) {
    ::close(reserved_);
  }
}

std::string fake_server::address() const {
  return "127.0.0.1:" + std::to_string(port_);
}

std::uint64_t fake_server::now_ns() const {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(now).count() +
                                    clock_offset_ns.load());
}

void fake_server::start() {
  if (reserved_ >= 0) {
    listening_ = reserved_;
    reserved_ = -1;
  } else {
    listening_ = bound_socket(port_);
  }
  if (::listen(listening_, 128) != 0) {
    give_up("fake_server: listen");
  }
  acceptor_ = std::thread([this, listening = listening_] { accept_main(listening); });
}

void fake_server::stop() {
  if (listening_ < 0) {
    return;
  }
  ::shutdown(listening_, SHUT_RDWR);
  acceptor_.join();
  ::close(listening_);
  listening_ = -1;
  for (const auto& one : sessions_) {
    ::shutdown(one->socket, SHUT_RDWR);
  }
  for (const auto& one : sessions_) {
    one->thread.join();
    ::close(one->socket);
  }
  sessions_.clear();
}

bool fake_server::has(std::string_view key, std::string_view ns) const {
  const std::lock_guard lock(mutex_);
  return blocks_.contains(full_name(ns, key));
}

std::set<std::string> fake_server::peers() const {
  const std::lock_guard lock(mutex_);
  return peers_;
}

std::size_t fake_server::blocks() const {
  const std::lock_guard lock(mutex_);
  return blocks_.size();
}

void fake_server::accept_main(int listening) {
  while (true) {
    sockaddr_in peer{};
    socklen_t peer_bytes = sizeof peer;
    const int accepted = ::accept4(listening, reinterpret_cast<sockaddr*>(&peer), &peer_bytes, SOCK_CLOEXEC);
    if (accepted < 0) {
      return;
    }
    {
      const std::lock_guard lock(mutex_);
      char text[INET_ADDRSTRLEN] = {};
      peers_.insert(::inet_ntop(AF_INET, &peer.sin_addr, text, sizeof text));
    }
    const int on = 1;
    ::setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    ++connections_;
    sessions_.push_back(std::make_unique<session>());
    session& served = *sessions_.back();
    served.socket = accepted;
    served.thread = std::thread([this, &served] {
      serve(served);
      if (fake_rdma* const here = rdma.load(); here != nullptr) {
        here->connection_ended(&served);
      }
      ::shutdown(served.socket, SHUT_RDWR);
    });
  }
}

void fake_server::serve(session& served) {
  wire::header_budget budget;
  wire::request_reader reader(mac_, budget);
  std::vector<std::byte> buffer(64U << 10U);
  std::size_t begin = 0;
  std::size_t end = 0;
  const auto more = [&] {
    const ssize_t received = ::recv(served.socket, buffer.data(), buffer.size(), 0);
    begin = 0;
    end = received > 0 ? static_cast<std::size_t>(received) : 0;
    return received > 0;
  };
  std::vector<std::vector<fake_frame>> gathered;
  while (true) {
    if (begin == end && !more()) {
      return;
    }
    const auto taken = reader.consume(wire::bytes_view(buffer).subspan(begin, end - begin), now_ns());
    begin += taken.consumed;
    if (taken.event == wire::request_event::need_more) {
      continue;
    }
    if (taken.event == wire::request_event::close || taken.event == wire::request_event::wait_for_budget ||
        taken.event == wire::request_event::refuse_version) {
      return;
    }
    const wire::frame_header header = reader.header();
    const std::vector<std::byte> variable(reader.variable_part().begin(), reader.variable_part().end());
    std::vector<std::byte> payload;
    payload.reserve(header.payload_length);
    while (payload.size() < header.payload_length) {
      if (begin == end && !more()) {
        return;
      }
      const std::size_t part = std::min<std::size_t>(end - begin, header.payload_length - payload.size());
      payload.insert(payload.end(), buffer.begin() + static_cast<std::ptrdiff_t>(begin),
                     buffer.begin() + static_cast<std::ptrdiff_t>(begin + part));
      begin += part;
    }
    if (taken.event == wire::request_event::drop) {
      continue;
    }
    ++requests_[static_cast<std::uint8_t>(header.opcode)];
    if (header.opcode == wire::opcode::hello) {
      wire::hello_reply own;
      own.frames_in_flight_max = in_flight_max;
      own.capabilities = keyed_required ? wire::server_capabilities::keyed_digest_required : 0;
      if (const fake_rdma* const here = rdma.load(); here != nullptr && here->present) {
        own.capabilities |= wire::server_capabilities::rdma;
      }
      const wire::hello_answer hello = wire::answer_hello(key_, variable, wire::random_nonce(), own);
      if (mute_hello || hello.status != wire::status::ok) {
        continue;
      }
      served.keys = hello.keys;
      fake_frame frame;
      frame.header = wire::reply_header(header, {}, wire::status::ok);
      frame.variable = encoded(hello.reply);
      send_frame(std::move(frame), served, true);
      reader.accept_hello(hello.keys.tag);
      continue;
    }
    if (header.opcode == wire::opcode::ping) {
      fake_frame frame;
      frame.header = wire::reply_header(header, served.keys.tag, wire::status::ok);
      send_frame(std::move(frame), served, true);
      continue;
    }
    const bool over_rdma =
        header.opcode == wire::opcode::tcp_attach || header.opcode == wire::opcode::tcp_detach ||
        header.opcode == wire::opcode::batch_write || header.opcode == wire::opcode::batch_read;
    gathered.push_back(header.opcode == wire::opcode::connect ? connect(header, variable, served)
                       : over_rdma                            ? answer_rdma(header, variable, served)
                                                              : answer(header, variable, payload, served));
    if (gathered.size() < gather.load()) {
      continue;
    }
    std::reverse(gathered.begin(), gathered.end());
    for (std::size_t part = 0; std::any_of(gathered.begin(), gathered.end(),
                                           [&](const auto& frames) { return part < frames.size(); });
         ++part) {
      for (std::vector<fake_frame>& frames : gathered) {
        if (part < frames.size()) {
          send_frame(std::move(frames[part]), served, false);
        }
      }
    }
    gathered.clear();
  }
}

void fake_server::send_frame(fake_frame frame, session& served, bool is_special) {
  if (!is_special) {
    shape(frame);
  }
  const std::vector<std::byte> bytes = made_bytes(frame, served);
  if (bytes.empty()) {
    return;
  }
  if (!send_all(served.socket, bytes) || frame.close_after) {
    ::shutdown(served.socket, SHUT_RDWR);
  }
}

std::vector<std::byte> fake_server::made_bytes(fake_frame& frame, session& served) {
  wire::payload_digest digest(served.keys.payload_key);
  const bool has_slices = frame.header.opcode == wire::opcode::tcp_batch_get;
  if (!has_slices && !frame.payload.empty()) {
    digest.begin(frame.header.kind, wire::direction::reply, frame.header.request_id, frame.header.part_number,
                 0);
    digest.update(frame.payload);
    frame.header.digest = digest.finish();
  }
  frame.header.payload_length = frame.payload.size();
  if (frame.drop) {
    return {};
  }
  if (frame.damage_tag) {
    frame.header.tag[3] ^= std::byte{1};
  }
  if (frame.damage_payload && !frame.payload.empty()) {
    frame.payload[frame.payload.size() / 2] ^= std::byte{4};
  }
  std::vector<std::byte> bytes;
  const std::size_t at = wire::append_frame(bytes, frame.header, wire::raw_message{frame.variable});
  // append_frame sets the length of the header; all else is the test's to spoil.
  wire::seal(wire::bytes_span(bytes).subspan(at),
             now_ns() + static_cast<std::uint64_t>(frame.clock_offset_ns), mac_);
  if (frame.damage_mac) {
    bytes.back() ^= std::byte{1};
  }
  bytes.insert(bytes.end(), frame.payload.begin(), frame.payload.end());
  bytes.insert(bytes.end(), frame.behind, std::byte{0x5A});
  if (frame.close_after) {
    bytes.resize(bytes.size() - frame.payload.size() / 2);
  }
  return bytes;
}

std::vector<fake_frame> fake_server::connect(const wire::frame_header& header, wire::bytes_view variable,
                                             session& served) {
  std::vector<fake_frame> frames(1);
  fake_rdma* const here = rdma.load();
  wire::connect_request wanted;
  wire::connect_reply reply;
  wire::status status =
      here == nullptr ? wire::status::unsupported : wire::connect_request::decode(variable, wanted);
  if (status == wire::status::ok) {
    status = here->connect(&served, wanted, reply, [&](const wire::connect_reply& given) {
      const wire::connection_tag tag = wire::derive_queue_pair_tag(
          key_, served.keys.tag, given.nonce, {wanted.client.number, wanted.client.packet_number},
          {given.server.number, given.server.packet_number});
      auto reader = std::make_shared<wire::message_reader>(mac_, tag);
      return [this, &served, reader](wire::bytes_view bytes) {
        std::vector<std::vector<std::byte>> out;
        if (reader->judge(bytes, now_ns()) != wire::request_event::header) {
          return out;
        }
        const wire::frame_header asked = reader->header();
        if (asked.opcode == wire::opcode::ping) {
          fake_frame frame;
          frame.header = wire::reply_header(asked, reader->tag(), wire::status::ok);
          out.push_back(made_bytes(frame, served));
          return out;
        }
        const std::vector<std::byte> body(reader->variable_part().begin(), reader->variable_part().end());
        ++requests_[static_cast<std::uint8_t>(asked.opcode)];
        ++messages_[static_cast<std::uint8_t>(asked.opcode)];
        const bool over_rdma =
            asked.opcode == wire::opcode::batch_write || asked.opcode == wire::opcode::batch_read;
        // Digests of messages are made with marked ids.
        wire::frame_header marked = asked;
        marked.request_id |= std::uint64_t{1} << 63U;
        for (fake_frame& frame :
             over_rdma ? answer_rdma(marked, body, served) : answer(asked, body, {}, served)) {
          frame.header.request_id = asked.request_id;
          frame.header.tag = reader->tag();
          frame.by_message = true;
          shape(frame);
          if (std::vector<std::byte> made = made_bytes(frame, served); !made.empty()) {
            out.push_back(std::move(made));
          }
        }
        return out;
      };
    });
  }
  frames[0].header = wire::reply_header(header, served.keys.tag, status);
  if (status == wire::status::ok) {
    frames[0].variable = encoded(reply);
  }
  return frames;
}

std::vector<fake_frame> fake_server::answer(const wire::frame_header& header, wire::bytes_view variable,
                                            const std::vector<std::byte>& payload, session& served) {
  const std::lock_guard lock(mutex_);
  std::vector<fake_frame> frames;
  const auto reply = [&](wire::status status, std::vector<std::byte> body = {}) -> fake_frame& {
    fake_frame& frame = frames.emplace_back();
    frame.header = wire::reply_header(header, served.keys.tag, status);
    frame.variable = std::move(body);
    return frame;
  };
  const auto find = [&](wire::bytes_view key) -> const stored* {
    const auto place = blocks_.find(full_name(header.ns.text(), wire::as_text(key)));
    return place == blocks_.end() ? nullptr : &place->second;
  };
  const auto store = [&](wire::bytes_view key, wire::bytes_view value, bool if_absent) {
    stored& block = blocks_[full_name(header.ns.text(), wire::as_text(key))];
    if (if_absent && block.generation != 0) {
      return std::pair(wire::status::already_exists, std::uint64_t{0});
    }
    block = {std::vector<std::byte>(value.begin(), value.end()), ++generation_};
    return std::pair(wire::status::ok, block.generation);
  };
  const auto digest_matches = [&](wire::bytes_view value, std::uint32_t index,
                                  const wire::digest16& expected) {
    wire::payload_digest digest(served.keys.payload_key);
    digest.begin(header.kind, wire::direction::request, header.request_id, 0, index);
    digest.update(value);
    return digest.matches(expected);
  };
  // What a get of one item returns: a status, or a range of the value.
  const auto range_of = [&](const wire::get_request& wanted, const stored* block, std::uint64_t& length) {
    if (block == nullptr) {
      return wire::status::not_found;
    }
    if (wanted.range_offset > block->value.size()) {
      return wire::status::out_of_range;
    }
    length = block->value.size() - wanted.range_offset;
    length = wanted.range_length == 0 ? length : std::min(length, wanted.range_length);
    return wanted.capacity != 0 && length > wanted.capacity ? wire::status::buffer_too_small
                                                            : wire::status::ok;
  };
  if (keyed_required && header.kind != wire::digest_kind::keyed) {
    reply(wire::status::keyed_digest_required);
    return frames;
  }
  switch (header.opcode) {
  case wire::opcode::tcp_put: {
    wire::key_request body;
    if (wire::key_request::decode(variable, body) != wire::status::ok) {
      reply(wire::status::bad_request);
    } else if (!digest_matches(payload, 0, header.digest)) {
      reply(wire::status::digest_mismatch);
    } else if (const auto [status, generation] = store(body.key, payload, header.if_absent());
               status != wire::status::ok) {
      reply(status);
    } else {
      reply(status, encoded(wire::generation_reply{generation}));
    }
    break;
  }
  case wire::opcode::tcp_get: {
    wire::get_request body;
    if (wire::get_request::decode(variable, body) != wire::status::ok) {
      reply(wire::status::bad_request);
      break;
    }
    const stored* const block = find(body.key);
    std::uint64_t length = 0;
    if (const wire::status status = range_of(body, block, length); status != wire::status::ok) {
      reply(status).header.value_length = block == nullptr ? 0 : block->value.size();
      break;
    }
    std::uint64_t done = 0;
    std::uint32_t part = 0;
    do {
      const std::uint64_t bytes = std::min<std::uint64_t>(length - done, part_bytes.load());
      fake_frame& frame = reply(wire::status::ok, encoded(wire::generation_reply{block->generation}));
      frame.header.part_number = part++;
      frame.header.value_length = block->value.size();
      frame.header.value_offset = body.range_offset + done;
      frame.header.flags = done + bytes == length ? wire::flags::last : 0;
      const auto from = block->value.begin() + static_cast<std::ptrdiff_t>(body.range_offset + done);
      frame.payload.assign(from, from + static_cast<std::ptrdiff_t>(bytes));
      done += bytes;
    } while (done < length);
    break;
  }
  case wire::opcode::exists:
  case wire::opcode::lookup:
  case wire::opcode::tcp_delete: {
    wire::key_request body;
    if (wire::key_request::decode(variable, body) != wire::status::ok) {
      reply(wire::status::bad_request);
      break;
    }
    const stored* const block = find(body.key);
    if (block == nullptr) {
      reply(wire::status::not_found);
    } else if (header.opcode == wire::opcode::tcp_delete) {
      blocks_.erase(full_name(header.ns.text(), wire::as_text(body.key)));
      reply(wire::status::ok);
    } else if (header.opcode == wire::opcode::exists) {
      reply(wire::status::ok, encoded(wire::generation_reply{block->generation})).header.value_length =
          block->value.size();
    } else {
      wire::lookup_reply found;
      found.generation = block->generation;
      found.value_crc32c = wire::crc32c(block->value);
      reply(wire::status::ok, encoded(found)).header.value_length = block->value.size();
    }
    break;
  }
  case wire::opcode::stat: {
    wire::stat_reply body;
    body.blocks = blocks_.size();
    body.drives_online = 1;
    body.drives_total = 1;
    reply(wire::status::ok, encoded(body));
    break;
  }
  case wire::opcode::tcp_batch_put: {
    wire::batch_put_view body;
    if (wire::batch_put_view::decode(variable, body) != wire::status::ok ||
        body.payload_bytes() != payload.size()) {
      reply(wire::status::bad_request);
      break;
    }
    std::vector<wire::batch_put_result> results;
    std::size_t at = 0;
    for (const wire::batch_put_item item : body) {
      const wire::bytes_view value = wire::bytes_view(payload).subspan(at, item.value_length);
      at += item.value_length;
      if (!digest_matches(value, static_cast<std::uint32_t>(results.size()), item.digest)) {
        results.push_back({wire::status::digest_mismatch, 0});
        continue;
      }
      const auto [status, generation] = store(item.key, value, item.if_absent);
      results.push_back({status, generation});
    }
    reply(wire::status::ok, encoded(wire::batch_put_reply{results}));
    break;
  }
  case wire::opcode::tcp_batch_get: {
    wire::batch_get_view body;
    if (wire::batch_get_view::decode(variable, body) != wire::status::ok) {
      reply(wire::status::bad_request);
      break;
    }
    std::vector<wire::batch_slice> slices;
    std::vector<std::byte> bytes;
    std::uint32_t part = 0;
    const auto send_part = [&](bool last) {
      wire::payload_digest digest(served.keys.payload_key);
      std::size_t at = 0;
      for (wire::batch_slice& slice : slices) {
        digest.begin(header.kind, wire::direction::reply, header.request_id, part, slice.item);
        digest.update(wire::bytes_view(bytes).subspan(at, slice.length));
        slice.digest = digest.finish();
        at += slice.length;
      }
      fake_frame& frame = reply(wire::status::ok, encoded(wire::batch_get_reply{slices}));
      frame.header.part_number = part++;
      frame.header.flags = last ? wire::flags::last : 0;
      frame.payload = std::move(bytes);
      slices.clear();
      bytes = {};
    };
    std::uint32_t index = 0;
    for (const wire::get_request item : body) {
      const stored* const block = find(item.key);
      std::uint64_t length = 0;
      wire::batch_slice slice;
      slice.item = index++;
      slice.status = range_of(item, block, length);
      slice.value_length = block == nullptr ? 0 : block->value.size();
      std::uint64_t done = 0;
      if (slice.status != wire::status::ok || length == 0) {
        slice.value_offset = slice.status == wire::status::ok ? item.range_offset : 0;
        slice.last = true;
        slices.push_back(slice);
      }
      while (slice.status == wire::status::ok && done < length) {
        if (bytes.size() >= part_bytes.load()) {
          send_part(false);
        }
        const std::uint64_t step = std::min<std::uint64_t>(length - done, part_bytes.load() - bytes.size());
        slice.value_offset = item.range_offset + done;
        slice.length = static_cast<std::uint32_t>(step);
        slice.last = done + step == length;
        const auto from = block->value.begin() + static_cast<std::ptrdiff_t>(slice.value_offset);
        bytes.insert(bytes.end(), from, from + static_cast<std::ptrdiff_t>(step));
        slices.push_back(slice);
        done += step;
      }
    }
    send_part(true);
    break;
  }
  case wire::opcode::tcp_batch_delete:
  case wire::opcode::batch_exists:
  case wire::opcode::prefix: {
    wire::batch_keys_view body;
    if (wire::batch_keys_view::decode(variable, body) != wire::status::ok) {
      reply(wire::status::bad_request);
      break;
    }
    std::vector<wire::status> statuses;
    std::vector<wire::batch_exists_result> found;
    std::vector<std::uint64_t> lengths;
    bool leading = true;
    for (const wire::batch_key item : body) {
      const stored* const block = find(item.key);
      const wire::status status = block == nullptr ? wire::status::not_found : wire::status::ok;
      statuses.push_back(status);
      found.push_back({status, block == nullptr ? 0 : block->value.size()});
      leading = leading && block != nullptr;
      if (leading) {
        lengths.push_back(block->value.size());
      }
      if (header.opcode == wire::opcode::tcp_batch_delete && block != nullptr) {
        blocks_.erase(full_name(header.ns.text(), wire::as_text(item.key)));
      }
    }
    if (header.opcode == wire::opcode::tcp_batch_delete) {
      reply(wire::status::ok, encoded(wire::batch_delete_reply{statuses}));
    } else if (header.opcode == wire::opcode::batch_exists) {
      reply(wire::status::ok, encoded(wire::batch_exists_reply{found}));
    } else {
      reply(wire::status::ok, encoded(wire::prefix_reply{lengths}));
    }
    break;
  }
  default:
    reply(wire::status::unsupported);
    break;
  }
  return frames;
}

std::vector<fake_frame> fake_server::answer_rdma(const wire::frame_header& header, wire::bytes_view variable,
                                                 session& served) {
  std::vector<fake_frame> frames(1);
  const auto reply = [&](wire::status status, std::vector<std::byte> body = {}) {
    frames.front().header = wire::reply_header(header, served.keys.tag, status);
    frames.front().variable = std::move(body);
    return frames;
  };
  fake_rdma* const here = rdma.load();
  if (here == nullptr || !here->present) {
    return reply(wire::status::unsupported);
  }
  wire::payload_digest digest(served.keys.payload_key);
  const auto digest_of = [&](wire::bytes_view bytes, wire::direction from, std::uint32_t index) {
    digest.begin(header.kind, from, header.request_id, 0, index);
    digest.update(bytes);
    return digest.finish();
  };
  if (header.opcode == wire::opcode::tcp_attach) {
    wire::attach_request wanted;
    wire::attach_reply body;
    if (wire::attach_request::decode(variable, wanted) != wire::status::ok) {
      return reply(wire::status::bad_request);
    }
    const wire::status attached = here->attach(&served, wanted, body);
    return attached == wire::status::ok ? reply(attached, encoded(body)) : reply(attached);
  }
  if (header.opcode == wire::opcode::tcp_detach) {
    return variable.size() != 8 ? reply(wire::status::bad_request)
                                : reply(here->detach(&served, wire::load_le<std::uint64_t>(variable.data())));
  }
  if (header.opcode == wire::opcode::batch_write) {
    wire::batch_write_view body;
    if (wire::batch_write_view::decode(variable, body) != wire::status::ok) {
      return reply(wire::status::bad_request);
    }
    if (!here->has_session(&served, body.session_id())) {
      return reply(wire::status::session_ended);
    }
    std::vector<wire::batch_put_result> results;
    for (const wire::batch_write_item item : body) {
      std::vector<std::byte> value(item.value_length);
      const wire::status fetched = here->fetch(body.session_id(), item.client_address, item.rkey, value);
      wire::batch_put_result& result = results.emplace_back();
      result.status = fetched;
      if (fetched != wire::status::ok) {
        continue;
      }
      if (digest_of(value, wire::direction::request, static_cast<std::uint32_t>(results.size() - 1)) !=
          item.digest) {
        result.status = wire::status::digest_mismatch;
        continue;
      }
      const std::lock_guard lock(mutex_);
      stored& block = blocks_[full_name(header.ns.text(), wire::as_text(item.key))];
      if (item.if_absent && block.generation != 0) {
        result.status = wire::status::already_exists;
        continue;
      }
      block = {std::move(value), ++generation_};
      result.generation = block.generation;
    }
    return reply(wire::status::ok, encoded(wire::batch_put_reply{results}));
  }
  wire::batch_read_view body;
  if (wire::batch_read_view::decode(variable, body) != wire::status::ok) {
    return reply(wire::status::bad_request);
  }
  if (!here->has_session(&served, body.session_id())) {
    return reply(wire::status::session_ended);
  }
  std::vector<wire::batch_read_result> results;
  for (const wire::batch_read_item item : body) {
    std::vector<std::byte> value;
    wire::batch_read_result& result = results.emplace_back();
    {
      const std::lock_guard lock(mutex_);
      const auto place = blocks_.find(full_name(header.ns.text(), wire::as_text(item.key)));
      if (place == blocks_.end()) {
        result.status = wire::status::not_found;
        continue;
      }
      value = place->second.value;
    }
    const std::uint64_t whole = value.size();
    if (item.range_offset > whole) {
      result = {wire::status::out_of_range, whole, 0, {}};
      continue;
    }
    const std::uint64_t rest = whole - item.range_offset;
    const std::uint64_t length = item.range_length == 0 ? rest : std::min(rest, item.range_length);
    if (length > item.capacity) {
      result = {wire::status::buffer_too_small, whole, 0, {}};
      continue;
    }
    const auto range = wire::bytes_view(value).subspan(item.range_offset, length);
    const wire::status placed = here->place(body.session_id(), item.client_address, item.rkey, range);
    if (placed != wire::status::ok) {
      result.status = placed;
      continue;
    }
    result = {wire::status::ok, whole, length,
              digest_of(range, wire::direction::reply, static_cast<std::uint32_t>(results.size() - 1))};
  }
  return reply(wire::status::ok, encoded(wire::batch_read_reply{results}));
}

} // namespace memkv::test
