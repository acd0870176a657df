// Messages of rc_scheduler: what arrives, who may send how many, and whose memory it is.
#include "rc_world.hpp"

#define CAF_SUITE rc_messages
#include <caf/test/unit_test.hpp>

#include <string>
#include <string_view>

using namespace verbs_test;

namespace {

constexpr std::uint32_t room = 512;

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

/// The peer of one session: receives at the start of its machine's memory, sends from the end.
struct peer {
  machine* at = nullptr;
  rc_queue_pair* pair = nullptr;
  client_id id = 0;
  std::vector<std::string> got;
  std::vector<completion_status> failed;
  std::uint64_t posted = 0;
  std::uint64_t sent = 0;

  void post(std::uint64_t number) const {
    const receive_request one{number, at->range(number * room, room)};
    must(pair->post_receives({&one, 1}).outcome);
  }
  void take(bool repost = true) {
    for (const report& one : at->reports()) {
      if (one.status != completion_status::success) {
        failed.push_back(one.status);
      } else if (one.kind == operation::receive) {
        const auto* const begin = reinterpret_cast<const char*>(at->memory.data() + one.id * room);
        got.emplace_back(begin, one.bytes);
        if (repost) {
          post(one.id);
        }
      } else {
        ++sent;
      }
    }
  }
  void send(std::string_view text) {
    const std::size_t place = (1U << 15U) + posted++ % 16 * 1024;
    std::copy_n(bytes_of(text).begin(), text.size(), at->memory.begin() + static_cast<std::ptrdiff_t>(place));
    const local_range from = at->range(place, text.size());
    work_request request;
    request.kind = operation::send;
    request.local = {&from, 1};
    must(pair->post({&request, 1}).outcome);
  }
};

struct world : rc_world {
  using rc_world::rc_world;
  std::deque<peer> peers;
  std::vector<message> messages;

  /// The peer keeps `theirs` receives posted, or says so and posts fewer.
  peer& join(std::uint32_t theirs, std::uint32_t ours, std::uint32_t posted = ~0U) {
    peer& made = peers.emplace_back();
    made.at = &more.emplace_back(network, 1U << 16U);
    made.pair = &make_pair(*made.at, std::max(theirs, 1U));
    for (std::uint32_t number = 0; number < std::min(theirs, posted); ++number) {
      made.post(number);
    }
    peer_address own;
    must(engine->attach_with_messages(to_peer_address(made.pair->address()), {theirs, room}, {ours, room},
                                      made.id, own));
    must(made.pair->connect(to_rc_address(own)));
    return made;
  }
  std::vector<std::string> taken() {
    messages.clear();
    engine->take_messages(messages);
    std::vector<std::string> out;
    for (const message& one : messages) {
      out.emplace_back(reinterpret_cast<const char*>(one.bytes.data()), one.bytes.size());
    }
    return out;
  }
  [[nodiscard]] transfer into(const peer& to, std::uint64_t cookie) const {
    transfer one = make(cookie);
    one.remote_address = to.at->region->address() + 60'000;
    one.rkey = to.at->region->rkey();
    return one;
  }
  [[nodiscard]] errc send(const peer& to, std::string_view text) {
    return engine->send_message(to.id, bytes_of(text)).code;
  }
};

} // namespace

CAF_TEST(messages arrive both ways in their order and beside transfers) {
  world w;
  peer& one = w.join(4, 4);
  peer& other = w.join(4, 4);
  one.send("one: first");
  one.send("one: second");
  other.send("other");
  w.settle(second / 10);
  auto got = w.taken();
  CAF_REQUIRE_EQUAL(got.size(), 3u);
  std::erase(got, "other");
  CAF_CHECK_EQUAL(got[0], "one: first");
  CAF_CHECK_EQUAL(got[1], "one: second");
  CAF_CHECK_EQUAL(std::count_if(w.messages.begin(), w.messages.end(),
                                [&](const message& any) { return any.client == other.id; }),
                  1);
  CAF_CHECK(w.send(one, "answer 1") == errc::ok && w.send(one, "answer 2") == errc::ok);
  must(w.engine->submit(one.id, w.into(one, 7)));
  const std::uint64_t before = w.network.statistics().doorbells;
  w.run();
  CAF_CHECK_EQUAL(w.network.statistics().doorbells, before + 1);
  w.settle(second / 10);
  one.take();
  other.take();
  CAF_CHECK_EQUAL(one.got.size(), 2u);
  CAF_CHECK(one.got[0] == "answer 1" && one.got[1] == "answer 2" && other.got.empty());
  CAF_CHECK(one.sent == 2 && other.sent == 1);
  CAF_CHECK_EQUAL(w.engine->statistics().messages_sent, 2u);
  CAF_CHECK_EQUAL(w.engine->statistics().messages_received, 3u);
}

CAF_TEST(a message is the callers to change as soon as it was sent) {
  world w;
  peer& one = w.join(4, 4);
  std::string text = "first";
  CAF_CHECK(w.send(one, text) == errc::ok);
  text = "other";
  CAF_CHECK(w.send(one, text) == errc::ok);
  w.settle(second / 10);
  text = "wrong";
  one.take();
  CAF_REQUIRE_EQUAL(one.got.size(), 2u);
  CAF_CHECK(one.got[0] == "first" && one.got[1] == "other");
}

CAF_TEST(no more is sent than the peer has receives for unless it asks) {
  world w;
  peer& one = w.join(3, 8);
  for (int sent = 0; sent < 3; ++sent) {
    CAF_CHECK(w.send(one, "unasked") == errc::ok);
  }
  CAF_CHECK(w.send(one, "too many") == errc::queue_full);
  w.settle(second / 10);
  CAF_CHECK(w.send(one, "too many") == errc::queue_full);
  one.take();
  one.send("question");
  w.settle(second / 10);
  CAF_CHECK_EQUAL(w.taken().size(), 1u);
  CAF_CHECK(w.send(one, "answer") == errc::ok);
  CAF_CHECK(w.send(one, "too many") == errc::queue_full);
  for (int round = 0; round < 100; ++round) {
    w.settle(second / 1000);
    one.take();
    one.send("question");
    w.settle(second / 1000);
    CAF_REQUIRE_EQUAL(w.taken().size(), 1u);
    CAF_REQUIRE(w.send(one, "answer " + std::to_string(round)) == errc::ok);
  }
  w.settle(second / 10);
  one.take();
  CAF_CHECK_EQUAL(one.got.size(), 104u);
  CAF_CHECK_EQUAL(one.got.back(), "answer 99");
  CAF_CHECK(w.network.misuse().empty());
}

CAF_TEST(what nobody takes stops the peer and not the engine) {
  world w;
  peer& one = w.join(4, 2);
  one.send("1");
  w.settle(second / 1000);
  one.send("2");
  w.settle(second / 1000);
  one.send("3"); // finds no receive: its sender is told to wait, and gives up
  w.settle(second);
  CAF_CHECK_EQUAL(w.engine->statistics().messages_received, 2u);
  one.take();
  CAF_REQUIRE_EQUAL(one.failed.size(), 5u); // and its receives
  CAF_CHECK(one.failed[0] == completion_status::receiver_retry_exceeded ||
            one.failed.back() == completion_status::receiver_retry_exceeded);
  CAF_CHECK_EQUAL(w.taken().size(), 2u);
  CAF_CHECK_EQUAL(w.taken().size(), 0u);
}

CAF_TEST(what the peer does not take in time breaks its session) {
  rc_scheduler_options options = rc_options();
  options.posted_ns_min = second;
  simulated_node_options patient;
  patient.receiver_retries = 7;
  world w(options, {}, patient);
  peer& one = w.join(4, 4, 0); // said four and posted none
  peer& other = w.join(4, 4);
  CAF_CHECK(w.send(one, "lost") == errc::ok && w.send(other, "taken") == errc::ok);
  w.settle(second / 2);
  CAF_CHECK_EQUAL(w.count(outcome::what::session_broken, one.id), 0u);
  w.settle(second);
  CAF_CHECK_EQUAL(w.count(outcome::what::session_broken, one.id), 1u);
  CAF_CHECK(w.send(one, "late") == errc::wrong_state);
  CAF_CHECK_EQUAL(w.engine->queue_pair_number(one.id), 0u);
  w.settle(3 * second);
  CAF_CHECK_EQUAL(w.count(outcome::what::session_broken, other.id), 0u);
  other.take();
  CAF_CHECK_EQUAL(other.got.size(), 1u);
}

CAF_TEST(the time of a message runs from its own posting) {
  rc_scheduler_options options = rc_options();
  options.posted_ns_min = second;
  simulated_node_options patient;
  patient.receiver_retries = 7;
  world w(options, {}, patient);
  peer& one = w.join(4, 4, 2);
  CAF_CHECK(w.send(one, "1") == errc::ok);
  w.settle(second * 8 / 10);
  CAF_CHECK(w.send(one, "2") == errc::ok && w.send(one, "waits") == errc::ok);
  w.settle(second / 2); // longer than a second since the first
  CAF_CHECK_EQUAL(w.count(outcome::what::session_broken, one.id), 0u);
  one.post(2);
  w.settle(second);
  CAF_CHECK_EQUAL(w.count(outcome::what::session_broken, one.id), 0u);
  CAF_CHECK_EQUAL(w.engine->statistics().messages_sent, 3u);
  CAF_CHECK_EQUAL(w.engine->next_ns(), ~std::uint64_t{0});
}

CAF_TEST(a message with any error breaks its session and ends its transfers) {
  for (const completion_status status : errors()) {
    world w;
    peer& one = w.join(4, 4);
    peer& other = w.join(4, 4);
    w.network.inject(w.engine->queue_pair_number(one.id), status);
    CAF_CHECK(w.send(one, "lost") == errc::ok);
    must(w.engine->submit(one.id, w.into(one, 1)));
    must(w.engine->submit(other.id, w.into(other, 2)));
    w.settle();
    CAF_CHECK(w.result(1) == transfer_result::retryable && w.result(2) == transfer_result::done);
    CAF_CHECK_EQUAL(w.count(outcome::what::session_broken, one.id), 1u);
    CAF_CHECK_EQUAL(w.count(outcome::what::session_broken, other.id), 0u);
    must(w.engine->detach(one.id, w.outcomes));
    CAF_CHECK_EQUAL(w.count(outcome::what::session_ended, one.id), 1u);
    CAF_CHECK(w.network.misuse().empty());
  }
}

CAF_TEST(a message longer than its receive breaks the session of its sender) {
  world w;
  peer& one = w.join(4, 4);
  one.send(std::string(room + 1, 'x'));
  w.settle();
  CAF_CHECK(w.taken().empty());
  CAF_CHECK_EQUAL(w.count(outcome::what::session_broken, one.id), 1u);
  CAF_CHECK_EQUAL(w.engine->queue_pair_number(one.id), 0u);
}

CAF_TEST(what came before a session broke is handed out and nothing of one that ended) {
  world w;
  peer& one = w.join(4, 4);
  peer& other = w.join(4, 4);
  one.send("before");
  other.send("before");
  w.settle(second / 1000);
  w.network.inject(w.engine->queue_pair_number(one.id), completion_status::general);
  must(w.engine->submit(one.id, w.into(one, 1)));
  w.settle(second);
  CAF_CHECK_EQUAL(w.count(outcome::what::session_broken, one.id), 1u);
  must(w.engine->detach(other.id, w.outcomes));
  CAF_CHECK_EQUAL(w.taken().size(), 1u);
  CAF_CHECK_EQUAL(w.messages[0].client, one.id);
}

CAF_TEST(a device that takes no receives again breaks the session at the next turn) {
  world w;
  peer& one = w.join(4, 4);
  one.send("last");
  w.settle(second / 1000);
  CAF_CHECK_EQUAL(w.engine->next_ns(), ~std::uint64_t{0});
  w.network.kill(*w.server.device);
  CAF_CHECK_EQUAL(w.taken().size(), 1u);
  CAF_CHECK(w.engine->next_ns() <= w.network.now_ns());
  w.run();
  CAF_CHECK_EQUAL(w.count(outcome::what::session_broken, one.id), 1u);
  CAF_CHECK_EQUAL(w.engine->queue_pair_number(one.id), 0u);
  CAF_CHECK_EQUAL(w.engine->next_ns(), ~std::uint64_t{0});
}

CAF_TEST(bounds of messages are kept with a sentence) {
  rc_scheduler_options options = rc_options();
  options.message_reports_max = 16;
  options.message_memory_max = 20 * room;
  world w(options);
  peer& one = w.join(4, 4);
  rc_queue_pair& pair = w.make_pair(w.host);
  const peer_address address = to_peer_address(pair.address());
  client_id made = 0;
  peer_address own;
  const auto attach = [&](const message_room& theirs, const message_room& ours) {
    const status refused = w.engine->attach_with_messages(address, theirs, ours, made, own);
    CAF_CHECK_EQUAL(refused.ok(), refused.text.empty());
    return refused.code;
  };
  CAF_CHECK(attach({0, room}, {4, room}) == errc::invalid_argument);
  CAF_CHECK(attach({1025, room}, {4, room}) == errc::invalid_argument);
  CAF_CHECK(attach({4, 511}, {4, room}) == errc::invalid_argument);
  CAF_CHECK(attach({4, 65'537}, {4, room}) == errc::invalid_argument);
  CAF_CHECK(attach({4, room}, {0, room}) == errc::invalid_argument);
  CAF_CHECK(attach({5, room}, {4, room}) == errc::queue_full);      // reports
  CAF_CHECK(attach({1, 16 * room}, {1, room}) == errc::queue_full); // memory
  CAF_CHECK(attach({4, room}, {4, room}) == errc::ok);
  CAF_CHECK(attach({1, room}, {1, room}) == errc::queue_full);
  must(w.engine->detach(made, w.outcomes));
  CAF_CHECK(attach({4, room}, {4, room}) == errc::ok);
  CAF_CHECK_EQUAL(w.engine->statistics().message_memory, 16u * room);
  CAF_CHECK(w.send(one, "") == errc::invalid_argument);
  CAF_CHECK(w.send(one, std::string(room + 1, 'x')) == errc::invalid_argument);
  CAF_CHECK(w.engine->send_message(0, bytes_of("x")).code == errc::not_found);
  const client_id plain = w.add();
  CAF_CHECK(w.engine->send_message(plain, bytes_of("x")).code == errc::invalid_argument);
}

CAF_TEST(closing with messages on the way leaves no memory with the device) {
  world w;
  peer& one = w.join(4, 4);
  one.send("question");
  CAF_CHECK(w.send(one, "answer") == errc::ok);
  must(w.engine->submit(one.id, w.into(one, 1)));
  w.run();
  w.engine->close(w.outcomes);
  CAF_CHECK(w.result(1) == transfer_result::retryable);
  CAF_CHECK_EQUAL(w.count(outcome::what::session_ended, one.id), 1u);
  CAF_CHECK_EQUAL(w.engine->statistics().message_memory, 0u);
  w.network.settle();
  CAF_CHECK(w.network.misuse().empty());
}
