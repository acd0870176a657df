// Orders of faults as JSON: what is understood, and that everything else is refused with a sentence.
#define CAF_SUITE admin_faults
#include "admin/faults.hpp"

#include "actors/fault_points.hpp"
#include "actors/server.hpp"

#include <caf/test/unit_test.hpp>

#include <string>
#include <vector>

using namespace memkv;
using namespace memkv::admin;
namespace faults = actors::faults;
using effect = engine::drive_fault::effect;
using target = engine::drive_fault::target;

namespace {

template <class Order>
Order order_of(const std::string& text) {
  faults::order out;
  std::string problem;
  if (!read_fault_order(text, out, problem))
    CAF_FAIL(text << " was refused: " << problem);
  if (!std::holds_alternative<Order>(out))
    CAF_FAIL(text << " was taken for something else");
  return std::get<Order>(out);
}

struct server {
  std::shared_ptr<actors::fault_points> points = std::make_shared<actors::fault_points>();
  std::shared_ptr<actors::server_board> board = std::make_shared<actors::server_board>();
  server() { points->drives = {std::make_shared<engine::drive_faults>(), nullptr}; }
  actors::fault_injector injector{points, board};
  fault_answer post(const std::string& body) { return order_fault(injector, body); }
};

} // namespace

CAF_TEST(an actor is killed by name or kind and in one of three ways) {
  const auto by_name = order_of<faults::kill>(R"({"kill": {"name": "drive-1"}})");
  CAF_CHECK_EQUAL(by_name.name, "drive-1");
  CAF_CHECK(by_name.by == faults::how::kill);
  const auto by_kind = order_of<faults::kill>(R"({"kill": {"kind": "reactor", "how": "exception"}})");
  CAF_CHECK_EQUAL(by_kind.kind, "reactor");
  CAF_CHECK(by_kind.by == faults::how::exception);
  CAF_CHECK(order_of<faults::kill>(R"({"kill": {"kind": "evictor", "how": "shutdown"}})").by ==
            faults::how::shutdown);
}

CAF_TEST(a drive fails or corrupts or is slow or hangs) {
  const auto fail = order_of<faults::drive>(R"({"drive": {"id": 2, "fail": "writes", "count": 3}})");
  CAF_CHECK_EQUAL(fail.id, 2u);
  CAF_CHECK(fail.fault.what == effect::fail);
  CAF_CHECK(fail.fault.which == target::writes);
  CAF_CHECK_EQUAL(fail.fault.count, 3u);
  const auto slow = order_of<faults::drive>(R"({"drive": {"id": 0, "slow_ms": 500, "count": 100}})");
  CAF_CHECK(slow.fault.what == effect::slow);
  CAF_CHECK(slow.fault.which == target::any);
  CAF_CHECK_EQUAL(slow.fault.ns, 500'000'000u);
  const auto hang = order_of<faults::drive>(R"({"drive": {"id": 0, "hang_ms": 0, "of": "flushes"}})");
  CAF_CHECK(hang.fault.what == effect::hang);
  CAF_CHECK(hang.fault.which == target::flushes);
  CAF_CHECK_EQUAL(hang.fault.ns, 0u);
  CAF_CHECK_EQUAL(hang.fault.count, 1u);
  CAF_CHECK(order_of<faults::drive>(R"({"drive": {"id": 0, "corrupt": "reads"}})").fault.what ==
            effect::corrupt);
}

CAF_TEST(connections are dropped or delayed and an actor stalls and all is cleared) {
  CAF_CHECK_EQUAL(order_of<faults::drop_connections>(R"({"connections": {"drop": 10}})").count, 10u);
  CAF_CHECK_EQUAL(order_of<faults::drop_connections>(R"({"connections": {"drop": "all"}})").count,
                  faults::drop_connections::all);
  const auto delay =
      order_of<faults::delay_connections>(R"({"connections": {"delay_ms": 200, "seconds": 5}})");
  CAF_CHECK_EQUAL(delay.delay_ms, 200u);
  CAF_CHECK_EQUAL(delay.seconds, 5u);
  const auto stall = order_of<faults::stall>(R"({"actor": {"name": "reactor-0", "stall_ms": 3000}})");
  CAF_CHECK_EQUAL(stall.name, "reactor-0");
  CAF_CHECK_EQUAL(stall.ms, 3000u);
  order_of<faults::clear>(R"({"clear": true})");
}

CAF_TEST(everything else is refused with a sentence and status 400) {
  const std::vector<std::string> wrong{"",
                                       "null",
                                       "[]",
                                       "7",
                                       "{",
                                       "{}",
                                       R"("kill")",
                                       "{\"kill\": {\"name\": \"\xFF\"}}",
                                       R"({"kill": {"name": "server"}} {})",
                                       R"({"kill": {"name": "server"}, "clear": true})",
                                       R"({"kill": {"name": "server"}, "kill": {"name": "listener"}})",
                                       R"({"destroy": {}})",
                                       R"({"kill": 1})",
                                       R"({"kill": {}})",
                                       R"({"kill": {"name": "a", "kind": "b"}})",
                                       R"({"kill": {"name": ""}})",
                                       R"({"kill": {"name": 1}})",
                                       R"({"kill": {"name": "a", "how": "softly"}})",
                                       R"({"kill": {"name": "a", "why": "b"}})",
                                       R"({"kill": {"name": ")" + std::string(65, 'a') + R"("}})",
                                       R"({"drive": {"fail": "writes"}})",
                                       R"({"drive": {"id": 0}})",
                                       R"({"drive": {"id": 0, "fail": "everything"}})",
                                       R"({"drive": {"id": -1, "fail": "any"}})",
                                       R"({"drive": {"id": 0.5, "fail": "any"}})",
                                       R"({"drive": {"id": "0", "fail": "any"}})",
                                       R"({"drive": {"id": 0, "fail": "any", "count": 0}})",
                                       R"({"drive": {"id": 0, "fail": "any", "count": 1000001}})",
                                       R"({"drive": {"id": 0, "fail": "any", "count": 1e2}})",
                                       R"({"drive": {"id": 0, "fail": "any", "slow_ms": 5}})",
                                       R"({"drive": {"id": 0, "slow_ms": 0}})",
                                       R"({"drive": {"id": 0, "slow_ms": 60001}})",
                                       R"({"drive": {"id": 0, "hang_ms": 600001}})",
                                       R"({"drive": {"id": 0, "corrupt": "writes"}})",
                                       R"({"drive": {"id": 0, "corrupt": true}})",
                                       R"({"drive": {"id": 0, "fail": "reads", "of": "any"}})",
                                       R"({"connections": {}})",
                                       R"({"connections": {"drop": 0}})",
                                       R"({"connections": {"drop": "some"}})",
                                       R"({"connections": {"drop": 1, "seconds": 1}})",
                                       R"({"connections": {"drop": 1, "delay_ms": 1}})",
                                       R"({"connections": {"delay_ms": 5}})",
                                       R"({"connections": {"delay_ms": 10001, "seconds": 1}})",
                                       R"({"connections": {"delay_ms": 1, "seconds": 601}})",
                                       R"({"actor": {"name": "a"}})",
                                       R"({"actor": {"stall_ms": 5}})",
                                       R"({"actor": {"name": "a", "stall_ms": 60001}})",
                                       R"({"clear": false})",
                                       R"({"clear": 1})"};
  server one;
  for (const auto& text : wrong) {
    const auto answer = one.post(text);
    if (answer.status != 400 || !answer.body.starts_with(R"({"error":")"))
      CAF_ERROR(text << " was answered with " << answer.status << " " << answer.body);
  }
  CAF_CHECK(one.points->drives[0]->armed().empty());
  CAF_CHECK_EQUAL(one.post(std::string(fault_body_bytes_max + 1, ' ')).status, 413);
  CAF_CHECK_EQUAL(one.post(std::string(4'000, '[')).status, 400);
}

CAF_TEST(an order is answered with 202 and shows in the list until it is met or cleared) {
  server one;
  const auto taken = one.post(R"({"drive": {"id": 0, "slow_ms": 500, "of": "reads", "count": 100}})");
  CAF_CHECK_EQUAL(taken.status, 202);
  CAF_CHECK_EQUAL(taken.body, R"({"accepted":true})");
  CAF_CHECK_EQUAL(one.post(R"({"connections": {"delay_ms": 200, "seconds": 60}})").status, 202);
  CAF_CHECK(one.points->drives[0]->take(engine::io_operation::kind::read).has_value());
  const auto listed = list_faults(one.injector);
  CAF_CHECK_EQUAL(listed.status, 200);
  const auto has = [&](const std::string& text) { return listed.body.find(text) != std::string::npos; };
  CAF_CHECK(has(R"("armed":[{"count":99,"of":"reads","slow_ms":500}])"));
  CAF_CHECK(has(R"("slowed":1)"));
  CAF_CHECK(has(R"("delay_ms":200)"));
  CAF_CHECK(has(R"("possible":false)"));
  CAF_CHECK_EQUAL(one.post(R"({"clear": true})").status, 202);
  CAF_CHECK(one.points->drives[0]->armed().empty());
  CAF_CHECK_EQUAL(one.points->delay_until_ns.load(), 0u);
}

CAF_TEST(what is not there is answered with 404 and what cannot be with 409) {
  server one;
  CAF_CHECK_EQUAL(one.post(R"({"drive": {"id": 2, "fail": "any"}})").status, 404);
  CAF_CHECK_EQUAL(one.post(R"({"drive": {"id": 1, "fail": "any"}})").status, 409);
  CAF_CHECK_EQUAL(one.post(R"({"kill": {"name": "nobody"}})").status, 404);
  CAF_CHECK_EQUAL(one.post(R"({"kill": {"kind": "connection"}})").status, 404);
  CAF_CHECK_EQUAL(one.post(R"({"actor": {"name": "nobody", "stall_ms": 1}})").status, 404);
  for (std::size_t order = 0; order < engine::drive_faults::orders_max; ++order)
    CAF_CHECK_EQUAL(one.post(R"({"drive": {"id": 0, "fail": "any"}})").status, 202);
  CAF_CHECK_EQUAL(one.post(R"({"drive": {"id": 0, "fail": "any"}})").status, 409);
}
