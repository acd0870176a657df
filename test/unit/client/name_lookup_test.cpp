// Names that a resolver knows, does not know any more, or takes its time about.
#define CAF_SUITE name_lookup

#include "client/name_lookup.hpp"
#include "client/waiter.hpp"

#include <caf/test/unit_test.hpp>

#include <netinet/in.h>

#include <atomic>
#include <cstring>
#include <future>

using namespace memkv::client;

namespace {

constexpr std::int64_t second_ns = 1'000'000'000;

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

} // namespace

CAF_TEST(a numeric address is known without asking) {
  CAF_CHECK_EQUAL(port_of(name_lookup("127.0.0.1", "9900").find(0)), 9900);
  CAF_CHECK_EQUAL(name_lookup("::1", "9900").find(0).size(), 1u);
}

CAF_TEST(a name is asked for once and again after it was of no use) {
  std::atomic<int> asked{0};
  name_lookup lookup([&] { return port_of(static_cast<std::uint16_t>(++asked)); });
  const auto soon = [] { return steady_ns() + 60 * second_ns; };
  CAF_CHECK_EQUAL(port_of(lookup.find(soon())), 1);
  CAF_CHECK_EQUAL(port_of(lookup.find(soon())), 1);
  lookup.forget();
  CAF_CHECK_EQUAL(port_of(lookup.find(soon())), 2);
  CAF_CHECK_EQUAL(asked.load(), 2);
}

CAF_TEST(a resolver that takes long keeps nobody beyond his time and is not asked twice at once) {
  std::promise<void> answer;
  std::shared_future<void> answered = answer.get_future().share();
  std::atomic<int> asked{0};
  name_lookup lookup([&asked, answered] {
    ++asked;
    answered.wait();
    return port_of(7);
  });
  const std::int64_t begin = steady_ns();
  CAF_CHECK(lookup.find(begin + second_ns / 50).empty());
  CAF_CHECK(lookup.find(0).empty());
  CAF_CHECK(steady_ns() - begin < 60 * second_ns);
  answer.set_value();
  CAF_CHECK_EQUAL(port_of(lookup.find(steady_ns() + 60 * second_ns)), 7);
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
  CAF_CHECK_EQUAL(port_of(lookup.find(steady_ns() + 60 * second_ns)), 1);
  lookup.forget();
  CAF_CHECK_EQUAL(port_of(lookup.find(steady_ns() + 60 * second_ns)), 1); // there is no such name
  CAF_CHECK_EQUAL(port_of(lookup.find(steady_ns() + second_ns / 50)), 1); // it takes long
  answer.set_value();
  CAF_CHECK_EQUAL(port_of(lookup.find(steady_ns() + 60 * second_ns)), 3);
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
    CAF_CHECK(lookup.find(0).empty());
  }
  answer.set_value();
  asked->get_future().wait();
}
