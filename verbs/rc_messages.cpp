// The messages of rc_scheduler: receives and slots to send from, and who may send how many.
#include "verbs/rc_scheduler.hpp"

#include "wire/assert.hpp"

#include <algorithm>
#include <cstring>

namespace memkv::verbs {

namespace {

constexpr std::uint32_t messages_most = 1024;
constexpr std::uint32_t message_bytes_least = 512;
constexpr std::uint32_t message_bytes_most = 65'536;

bool valid(const message_room& room) noexcept {
  return room.messages_max >= 1 && room.messages_max <= messages_most &&
         room.message_bytes_max >= message_bytes_least && room.message_bytes_max <= message_bytes_most;
}

} // namespace

std::uint32_t rc_scheduler::slots_for(const message_room& theirs) const noexcept {
  return std::min({theirs.messages_max, options_.message_sends_max,
                   device_.facts().sends_max - statistics_.sends_client});
}

status rc_scheduler::check_rooms(const message_room& theirs, const message_room& ours) const {
  if (!valid(theirs) || !valid(ours)) {
    return {errc::invalid_argument,
            "A side keeps 1 to 1,024 receives posted, each with room for 512 to 65,536 bytes."};
  }
  const device_facts& facts = device_.facts();
  if (slots_for(theirs) == 0 || ours.messages_max > facts.receives_max) {
    return {errc::unsupported, facts.name + " has no room for so many messages beside the transfers."};
  }
  return {};
}

status rc_scheduler::make_mailbox(const message_room& theirs, const message_room& ours,
                                  std::unique_ptr<mailbox>& out) {
  if (status refused = check_rooms(theirs, ours); !refused.ok()) {
    return refused;
  }
  const std::uint32_t slots = slots_for(theirs);
  const std::uint64_t receive_bytes = std::uint64_t{ours.messages_max} * ours.message_bytes_max;
  const std::uint64_t bytes = receive_bytes + std::uint64_t{slots} * theirs.message_bytes_max;
  if (slots + ours.messages_max > options_.message_reports_max - message_reserved_ ||
      statistics_.message_memory + bytes > options_.message_memory_max) {
    return {errc::queue_full, "No room is left for the messages of another client."};
  }
  auto made = std::make_unique<mailbox>();
  made->theirs = theirs;
  made->ours = ours;
  made->slots = slots;
  made->memory.resize(bytes);
  made->lengths.resize(slots);
  made->posted_ns.resize(slots);
  // No remote access: SEND and RECV need none.
  if (status failed = device_.register_memory(made->memory, {}, made->region); !failed.ok()) {
    return failed;
  }
  message_ranges_.reserve(options_.message_sends_max);
  out = std::move(made);
  return {};
}

status rc_scheduler::start_attach_with_messages(const peer_address& peer, const message_room& theirs,
                                                const message_room& ours, std::unique_ptr<attachment>& out) {
  std::unique_ptr<mailbox> messages;
  if (status failed = make_mailbox(theirs, ours, messages); !failed.ok()) {
    return failed;
  }
  return start_client(peer, std::move(messages), out);
}

status rc_scheduler::attach_with_messages(const peer_address& peer, const message_room& theirs,
                                          const message_room& ours, client_id& out, peer_address& own) {
  std::unique_ptr<attachment> made;
  if (status refused = start_attach_with_messages(peer, theirs, ours, made); !refused.ok()) {
    return refused;
  }
  made->reach();
  return finish_attach(std::move(made), out, own);
}

status rc_scheduler::post_receive(rc_queue_pair& pair, const mailbox& messages, std::uint32_t index,
                                  std::uint32_t number) {
  const std::uint32_t bytes = messages.ours.message_bytes_max;
  receive_request request;
  request.id = std::uint64_t{number} << 32U | index;
  request.local = {messages.region->address() + std::uint64_t{number} * bytes, bytes,
                   messages.region->lkey()};
  return pair.post_receives({&request, 1}).outcome;
}

status rc_scheduler::send_message(client_id id, std::span<const std::byte> bytes) {
  std::uint32_t index = 0;
  client* const owner = find(id, index);
  if (owner == nullptr) {
    return {errc::not_found, "No such client is attached."};
  }
  if (owner->state != session::open) {
    return {errc::wrong_state,
            "The session is over, because of an error or because it was ended: attach again."};
  }
  if (owner->messages == nullptr || bytes.empty() ||
      bytes.size() > owner->messages->theirs.message_bytes_max) {
    return {errc::invalid_argument,
            "The session carries no messages, or this one is empty or longer than the peer has room for."};
  }
  mailbox& box = *owner->messages;
  if (box.written - box.reported >= box.slots || box.written >= box.received + box.theirs.messages_max) {
    return {errc::queue_full, "As many messages are on the way to this client as may be."};
  }
  const std::uint64_t place = box.written % box.slots;
  std::byte* const slot = box.memory.data() +
                          std::uint64_t{box.ours.messages_max} * box.ours.message_bytes_max +
                          place * box.theirs.message_bytes_max;
  std::memcpy(slot, bytes.data(), bytes.size());
  box.lengths[place] = static_cast<std::uint32_t>(bytes.size());
  ++box.written;
  add_to_batch(index);
  return {};
}

void rc_scheduler::add_messages(client& owner, std::uint32_t index) {
  if (owner.messages == nullptr || owner.state != session::open) {
    return;
  }
  const mailbox& box = *owner.messages;
  message_ranges_.clear();
  const std::uint64_t sends =
      box.region->address() + std::uint64_t{box.ours.messages_max} * box.ours.message_bytes_max;
  for (std::uint64_t number = box.posted; number != box.written; ++number) {
    const std::uint64_t place = number % box.slots;
    message_ranges_.push_back(
        {sends + place * box.theirs.message_bytes_max, box.lengths[place], box.region->lkey()});
    work_request request;
    request.id = index;
    request.kind = operation::send;
    request.local = {&message_ranges_.back(), 1}; // there is room, so none of them moves
    request.signalled = number + 1 == box.written;
    batch_.push_back(request);
  }
}

void rc_scheduler::messages_posted(client& owner, std::uint32_t index, std::uint32_t count) {
  mailbox& box = *owner.messages;
  if (count != 0 && box.posted == box.reported) {
    message_wheel_.add(index, now_ns_ + options_.posted_ns_min);
  }
  for (; count != 0; --count) {
    box.posted_ns[box.posted++ % box.slots] = now_ns_;
  }
}

void rc_scheduler::take_message_report(const report& one, std::vector<outcome>& out) {
  const auto index = static_cast<std::uint32_t>(one.id);
  MEMKV_ASSERT(index < clients_.size() && clients_[index].messages != nullptr,
               "a message that is reported has a session");
  client& owner = clients_[index];
  mailbox& box = *owner.messages;
  if (one.status != completion_status::success) {
    fail(index, out);
  } else if (one.kind == operation::send) {
    MEMKV_ASSERT(box.reported < box.posted, "a message is reported once");
    ++box.reported;
    ++statistics_.messages_sent;
    message_wheel_.remove(index);
    if (box.reported != box.posted && !owner.draining) {
      message_wheel_.add(index, box.posted_ns[box.reported % box.slots] + options_.posted_ns_min);
    }
  } else {
    const auto number = static_cast<std::uint32_t>(one.id >> 32U);
    const std::byte* const begin = box.memory.data() + std::uint64_t{number} * box.ours.message_bytes_max;
    arrivals_.push_back({{id_of(index), {begin, begin + one.bytes}}, number});
    ++box.received;
    ++statistics_.messages_received;
  }
}

void rc_scheduler::take_messages(std::vector<message>& out) {
  for (arrival& one : arrivals_) {
    std::uint32_t index = 0;
    const client* const owner = find(one.what.client, index);
    if (owner == nullptr || owner->state == session::ending) {
      continue;
    }
    if (owner->state == session::open &&
        !post_receive(*owner->pair, *owner->messages, index, one.receive).ok()) {
      failing_.push_back(one.what.client);
    }
    out.push_back(std::move(one.what));
  }
  arrivals_.clear();
}

} // namespace memkv::verbs
