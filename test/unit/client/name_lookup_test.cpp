// Names that a resolver knows, does not know any more, or takes its time about.
#define CAF_SUITE name_lookup

#include "client/name_lookup.hpp"

#include <caf/test/unit_test.hpp>

#include <netinet/in.h>
#include <poll.h>

#include <atomic>
#include <cstring>
#include <future>

using namespace memkv::client;

namespace {

std::vector<socket_address> port_of(std::uint16_t port) {
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  v4.sin_port = htons(port);
  socket_address address;
  std::memcpy(&address.storage, &v4, sizeof v4);
  address.length = sizeof v4;
  return {address};
}

int port_of(const std::vector<socket_address>& addresses) {
  if (addresses.empty()) {
    return -1;
  }
  sockaddr_in v4{};
  std::memcpy(&v4, &addresses.front().storage, sizeof v4);
  return ntohs(v4.sin_port);
}

/// The port of what is known when the look-up is over; -1 for nothing, -2 when it has not ended in a minute.
int after(name_lookup& lookup) {
  std::vector<socket_address> known;
  for (int i = 0; i < 60'000; ++i) {
    if (lookup.find(known)) {
      return port_of(known);
    }
    ::poll(nullptr, 0, 1);
  }
  return -2;
}

} // namespace

CAF_TEST(a numeric address is known without asking) {
  std::vector<socket_address> known;
  CAF_CHECK(name_lookup("127.0.0.1", "9900").find(known));
  CAF_CHECK_EQUAL(port_of(known), 9900);
  CAF_CHECK(name_lookup("::1", "9900").find(known));
  CAF_CHECK_EQUAL(known.size(), 1u);
}

CAF_TEST(a name is asked for once and again after it was of no use) {
  std::atomic<int> asked{0};
  name_lookup lookup([&] { return port_of(static_cast<std::uint16_t>(++asked)); });
  CAF_CHECK_EQUAL(after(lookup), 1);
  CAF_CHECK_EQUAL(after(lookup), 1);
  lookup.forget();
  CAF_CHECK_EQUAL(after(lookup), 2);
  CAF_CHECK_EQUAL(asked.load(), 2);
}

CAF_TEST(a resolver that takes long keeps nobody and is not asked twice at once) {
  std::promise<void> answer;
  std::shared_future<void> answered = answer.get_future().share();
  std::atomic<int> asked{0};
  name_lookup lookup([&asked, answered] {
    ++asked;
    answered.wait();
    return port_of(7);
  });
  std::vector<socket_address> known;
  for (int i = 0; i < 100; ++i) {
    CAF_CHECK(!lookup.find(known));
    CAF_CHECK(known.empty());
  }
  answer.set_value();
  CAF_CHECK_EQUAL(after(lookup), 7);
  CAF_CHECK_EQUAL(asked.load(), 1);
}

CAF_TEST(what a name stood for last is used while it cannot be looked up) {
  std::promise<void> answer;
  std::shared_future<void> answered = answer.get_future().share();
  std::atomic<int> asked{0};
  name_lookup lookup([&asked, answered]() -> std::vector<socket_address> {
    const int time = ++asked;
    if (time == 2) {
      return {};
    }
    if (time == 3) {
      answered.wait();
    }
    return port_of(static_cast<std::uint16_t>(time));
  });
  CAF_CHECK_EQUAL(after(lookup), 1);
  lookup.forget();
  CAF_CHECK_EQUAL(after(lookup), 1); // there is no such name
  std::vector<socket_address> known;
  CAF_CHECK(!lookup.find(known)); // it is asked for again, and takes long
  CAF_CHECK_EQUAL(port_of(known), 1);
  answer.set_value();
  CAF_CHECK_EQUAL(after(lookup), 3);
}

CAF_TEST(a look up that nobody waits for any more harms nobody) {
  std::promise<void> answer;
  std::shared_future<void> answered = answer.get_future().share();
  const auto asked = std::make_shared<std::promise<void>>();
  {
    name_lookup lookup([answered, asked] {
      answered.wait();
      asked->set_value();
      return port_of(1);
    });
    std::vector<socket_address> known;
    CAF_CHECK(!lookup.find(known));
  }
  answer.set_value();
  asked->get_future().wait();
}
