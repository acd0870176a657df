// One connection by itself, driven by the test.
#define CAF_SUITE connection

#include "client/connection.hpp"
#include "test/unit/client/fake_server.hpp"

#include <caf/test/unit_test.hpp>

#include <poll.h>

#include <array>
#include <string>
#include <string_view>
#include <vector>

using namespace memkv;
using client::errc;

namespace {

client::options plain_options() {
  client::options chosen;
  chosen.transport = client::transport_choice::tcp;
  chosen.auth_key = wire::shared_key::parse(test::fake_server::default_key);
  return chosen;
}

/// Asks with one request for all of these keys.
void ask_for(client::connection& one, const std::vector<std::string_view>& keys,
             std::vector<client::item_result>& results) {
  client::operation asked;
  asked.kind = client::operation_kind::exists;
  asked.keys = keys;
  asked.results = results;
  asked.waiting = client::waiter::of_this_thread();
  asked.pending = 1;
  client::request& single = asked.requests.emplace_back();
  single.owner = &asked;
  single.kind = client::request_kind::batch_exists;
  single.deadline_ns = client::steady_ns() + 60'000'000'000;
  for (std::uint32_t item = 0; item < keys.size(); ++item) {
    single.items.push_back(item);
  }
  CAF_REQUIRE(one.enqueue(single, asked.waiting.get()));
  CAF_REQUIRE(one.try_drive(asked.waiting));
  std::array<pollfd, client::connection::descriptors> sockets{};
  one.pump({});
  while (asked.pending != 0) {
    one.wanted(sockets);
    ::poll(sockets.data(), sockets.size(), 100); // its deadlines need a look now and then
    one.pump(sockets);
  }
  CAF_CHECK(!one.leave(asked.waiting.get()));
}

} // namespace

CAF_TEST(a connection without requests holds nothing of the memory for long headers) {
  test::fake_server server;
  server.start();
  std::vector<std::string> names;
  names.reserve(4000);
  for (int i = 0; i < 4000; ++i) {
    names.push_back("key " + std::to_string(i));
  }
  const std::vector<std::string_view> keys(names.begin(), names.end());
  std::vector<client::item_result> results(keys.size());
  client::shared_state shared(plain_options());
  client::server peer(server.address());
  client::connection one(shared, peer, 0);
  ask_for(one, keys, results);
  CAF_CHECK_EQUAL(results.front().code, errc::not_found);
  CAF_CHECK_EQUAL(results.front().cause, errc::ok);
  CAF_CHECK_EQUAL(shared.counted.connections_lost.load(), 0u);
  CAF_CHECK_EQUAL(shared.headers.used_bytes(), 0u);
  one.shut(errc::closed);
}
