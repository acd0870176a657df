// The door: how many connections, from where, and how many strangers.
#define CAF_SUITE admission
#include "actors/admission.hpp"
#include "actors/drive_table.hpp"
#include "actors/log.hpp"

#include <caf/test/unit_test.hpp>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>

using namespace memkv::actors;

namespace {

peer_address v4(const char* text) {
  sockaddr_storage storage{};
  auto* address = reinterpret_cast<sockaddr_in*>(&storage);
  address->sin_family = AF_INET;
  ::inet_pton(AF_INET, text, &address->sin_addr);
  return address_of(storage);
}

int descriptor() {
  return ::dup(0) >= 0 ? ::dup(0) : -1;
}

using refusal = admission::refusal;

} // namespace

CAF_TEST(addresses are counted apart and in total) {
  const auto door = std::make_shared<admission>(3, 2, 10);
  refusal why{};
  const auto first = door->admit(descriptor(), v4("10.0.0.1"), why);
  const auto second = door->admit(descriptor(), v4("10.0.0.1"), why);
  CAF_REQUIRE(first != nullptr && second != nullptr);
  const int spare = descriptor();
  CAF_CHECK(door->admit(spare, v4("10.0.0.1"), why) == nullptr);
  CAF_CHECK(why == refusal::address);
  const auto third = door->admit(descriptor(), v4("10.0.0.2"), why);
  CAF_REQUIRE(third != nullptr);
  CAF_CHECK(door->admit(spare, v4("10.0.0.3"), why) == nullptr);
  CAF_CHECK(why == refusal::total);
  CAF_CHECK_EQUAL(door->connections(), 3u);
  CAF_CHECK_EQUAL(door->refused(), 2u);
  ::close(spare);
}

CAF_TEST(a place comes back with the end of its connection) {
  const auto door = std::make_shared<admission>(1, 1, 1);
  refusal why{};
  auto slot = door->admit(descriptor(), v4("10.0.0.1"), why);
  const int number = slot->descriptor();
  slot.reset();
  CAF_CHECK_EQUAL(door->connections(), 0u);
  CAF_CHECK_EQUAL(::fcntl(number, F_GETFD), -1);
  CAF_CHECK(door->admit(descriptor(), v4("10.0.0.1"), why) != nullptr);
}

CAF_TEST(strangers have a limit of their own that authentication lifts) {
  const auto door = std::make_shared<admission>(10, 10, 1);
  refusal why{};
  auto slot = door->admit(descriptor(), v4("10.0.0.1"), why);
  const int spare = descriptor();
  CAF_CHECK(door->admit(spare, v4("10.0.0.2"), why) == nullptr);
  CAF_CHECK(why == refusal::unauthenticated);
  slot->authenticated();
  slot->authenticated();
  CAF_CHECK(door->admit(spare, v4("10.0.0.2"), why) != nullptr);
}

CAF_TEST(one address cannot take all places of strangers) {
  const auto door = std::make_shared<admission>(100, 100, 8);
  refusal why{};
  std::vector<std::shared_ptr<admission_slot>> slots;
  for (int i = 0; i < 2; ++i)
    slots.push_back(door->admit(descriptor(), v4("10.0.0.1"), why));
  const int spare = descriptor();
  CAF_CHECK(door->admit(spare, v4("10.0.0.1"), why) == nullptr);
  CAF_CHECK(why == refusal::unauthenticated);
  CAF_CHECK(door->admit(descriptor(), v4("10.0.0.2"), why) != nullptr);
  slots.front()->authenticated();
  slots.push_back(door->admit(spare, v4("10.0.0.1"), why));
  CAF_CHECK(slots.back() != nullptr);
  slots.clear();
  CAF_CHECK_EQUAL(door->connections(), 0u);
  CAF_CHECK(door->admit(descriptor(), v4("10.0.0.1"), why) != nullptr);
}

CAF_TEST(a flood at the door is one line a minute with all of it counted) {
  const auto door = std::make_shared<admission>(10, 10, 10);
  const memkv::log::capture captured;
  constexpr std::uint64_t second = 1'000'000'000;
  for (int i = 0; i < 1000; ++i)
    door->events().note(door_event::other_key, v4("10.0.0.1"));
  door->events().note(door_event::other_key, v4("10.0.0.2"));
  door->events().note(door_event::other_time, v4("10.0.0.3"));
  for (std::uint64_t now = 1; now < 60; ++now) {
    door->events().report(now * second);
    door->events().note(door_event::other_key, v4("10.0.0.4"));
  }
  auto lines = captured.lines();
  CAF_REQUIRE_EQUAL(lines.size(), 2u);
  CAF_CHECK_EQUAL(captured.count(memkv::log::level::warn), 2u);
  CAF_CHECK(lines[0].text.find("compare auth_key") != std::string::npos);
  CAF_CHECK(lines[0].text.find("count=1001") != std::string::npos);
  CAF_CHECK(lines[0].text.find("last_peer=10.0.0.2") != std::string::npos);
  CAF_CHECK(lines[1].text.find("compare the clocks") != std::string::npos);
  CAF_CHECK(lines[1].text.find("count=1 ") != std::string::npos);
  door->events().report(61 * second);
  door->events().report(1000 * second);
  lines = captured.lines();
  CAF_REQUIRE_EQUAL(lines.size(), 3u);
  CAF_CHECK(lines[2].text.find("count=59") != std::string::npos);
  CAF_CHECK(lines[2].text.find("last_peer=10.0.0.4") != std::string::npos);
}

CAF_TEST(who is refused for the number of connections is told of by the limit that was reached) {
  const auto door = std::make_shared<admission>(3, 2, 4);
  const memkv::log::capture captured;
  refusal why{};
  std::vector<std::shared_ptr<admission_slot>> slots;
  const int spare = descriptor();
  slots.push_back(door->admit(descriptor(), v4("10.0.0.1"), why));
  CAF_CHECK(door->admit(spare, v4("10.0.0.1"), why) == nullptr); // a quarter of the strangers
  slots.back()->authenticated();
  slots.push_back(door->admit(descriptor(), v4("10.0.0.1"), why));
  CAF_CHECK(door->admit(spare, v4("10.0.0.1"), why) == nullptr);
  slots.push_back(door->admit(descriptor(), v4("10.0.0.2"), why));
  CAF_CHECK(door->admit(spare, v4("10.0.0.3"), why) == nullptr);
  CAF_CHECK(door->admit(spare, v4("10.0.0.4"), why) == nullptr);
  door->events().report(1);
  const auto lines = captured.lines();
  CAF_REQUIRE_EQUAL(lines.size(), 3u);
  CAF_CHECK(lines[0].text.find("raise network.max_connections ") != std::string::npos ||
            lines[0].text.find("raise network.max_connections\"") != std::string::npos);
  CAF_CHECK(lines[0].text.find("count=2") != std::string::npos);
  CAF_CHECK(lines[1].text.find("raise network.max_connections_per_address") != std::string::npos);
  CAF_CHECK(lines[2].text.find("have not shown the key yet") != std::string::npos);
  ::close(spare);
}

CAF_TEST(the end of a connection is told of when a person can do something about it) {
  using memkv::wire::refusal;
  const auto of = [](close_reason why, refusal what, bool authenticated) {
    return door_event_of(why, what, authenticated);
  };
  CAF_CHECK(of(close_reason::protocol, refusal::bad_mac, false) == door_event::other_key);
  CAF_CHECK(of(close_reason::protocol, refusal::bad_magic, false) == door_event::other_protocol);
  CAF_CHECK(of(close_reason::protocol, refusal::bad_length, false) == door_event::other_protocol);
  CAF_CHECK(of(close_reason::protocol, refusal::bad_tag, false) == door_event::misplaced);
  CAF_CHECK(of(close_reason::protocol, refusal::bad_mac, true) == door_event::misplaced);
  CAF_CHECK(of(close_reason::handshake_timeout, refusal::none, false) == door_event::silent);
  CAF_CHECK(of(close_reason::header_timeout, refusal::none, false) == door_event::silent);
  CAF_CHECK(!of(close_reason::header_timeout, refusal::none, true));
  for (const auto why : {close_reason::peer_closed, close_reason::idle, close_reason::slow_reader,
                         close_reason::stopping, close_reason::too_many_drops})
    CAF_CHECK(!of(why, refusal::none, false));
}

CAF_TEST(addresses are printed as people write them) {
  CAF_CHECK_EQUAL(to_string(v4("192.0.2.7")), "192.0.2.7");
  peer_address six{};
  six[0] = 0x20;
  six[1] = 0x01;
  six[15] = 1;
  CAF_CHECK_EQUAL(to_string(six), "2001::1");
}

CAF_TEST(homes of blocks are spread evenly over the drives) {
  std::array<int, 5> seen{};
  for (std::uint32_t i = 0; i < 50'000; ++i) {
    std::array<std::byte, 4> key{};
    std::memcpy(key.data(), &i, sizeof i);
    ++seen[home_drive(memkv::wire::make_key_id("", key), seen.size())];
  }
  for (const auto count : seen)
    CAF_CHECK(count > 9'500 && count < 10'500);
}

CAF_TEST(taking the last drive away moves only the blocks that lived there) {
  for (std::uint32_t i = 0; i < 10'000; ++i) {
    std::array<std::byte, 4> key{};
    std::memcpy(key.data(), &i, sizeof i);
    const auto id = memkv::wire::make_key_id("", key);
    if (const auto home = home_drive(id, 8); home != 7)
      CAF_REQUIRE_EQUAL(home_drive(id, 7), home);
  }
}
