// DC on libmlx5, on a device that is not there: what it is told, and what is left when it refuses.
#include "fake_mlx5.hpp"
#include "machines.hpp"
#include "verbs/dci_scheduler.hpp"

#define CAF_SUITE ibverbs_dc
#include <caf/test/unit_test.hpp>

#include <cstring>

using namespace verbs_test;

namespace {

bool is_sentence(const std::string& text) {
  return text.size() > 20 && text.back() == '.';
}

struct world {
  ibverbs_library library;
  std::unique_ptr<fabric> device;
  std::vector<std::string> warnings;
  std::unique_ptr<completion_queue> completions;
  std::unique_ptr<dc_initiator> initiator;
  std::unique_ptr<address_handle> handle;
  dc_address peer;

  explicit world(const path_wishes& wishes = {}, const ibverbs_library& table = fake_mlx5_library())
      : library(table) {
    must(open_ibverbs_fabric(library, "", 1, wishes, device, warnings));
    must(device->create_completion_queue(256, completions));
  }
  ~world() {
    initiator.reset();
    handle.reset();
    completions.reset();
    device.reset();
    CAF_CHECK_EQUAL(card().left(), 0);
    for (const std::string& broken : card().broken_rules) {
      CAF_ERROR("broken: " << broken);
    }
  }
  world(const world&) = delete;
  world& operator=(const world&) = delete;

  [[nodiscard]] queue_pair_options options() const {
    queue_pair_options made;
    made.completions = completions.get();
    made.sends_max = 64;
    made.segments_max = 3;
    made.inline_bytes_max = 64;
    return made;
  }
  [[nodiscard]] static endpoint port_of_peer() {
    endpoint made;
    made.port_gid = {0xFE, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2};
    made.lid = 18;
    return made;
  }
  /// An initiator and a peer; what was told until then is forgotten.
  void connect() {
    must(device->create_dc_initiator(options(), initiator));
    must(device->create_address_handle(port_of_peer(), handle));
    peer = {handle.get(), 0xABCDEF, 0x1122334455667788};
    card().changes.clear();
    card().requests.clear();
    card().doorbells = 0;
  }
  work_request request(std::uint64_t id, const local_range& local, operation kind = operation::write) {
    work_request made;
    made.id = id;
    made.kind = kind;
    made.local = {&local, 1};
    made.remote_address = 0x7000 + id;
    made.rkey = 99;
    made.target = &peer;
    return made;
  }
  void post(std::uint64_t first, std::size_t count) {
    std::vector<work_request> batch;
    for (std::uint64_t id = first; id < first + count; ++id) {
      batch.push_back(request(id, range));
    }
    const post_result result = initiator->post(batch);
    CAF_REQUIRE(result.outcome.ok() && result.posted == count);
  }
  std::vector<report> reports() {
    std::vector<report> found(64);
    found.resize(completions->poll(found));
    return found;
  }
  local_range range{0x1000, 128, 7};
};

/// The attributes of the one change to this state, since the last time they were cleared.
fake_change change_to(ibv_qp_state state) {
  std::vector<fake_change> found;
  for (const fake_change& one : card().changes) {
    if (one.attributes.qp_state == state) {
      found.push_back(one);
    }
  }
  MEMKV_ASSERT(found.size() == 1, "there was one change to the state");
  return found[0];
}

std::vector<ibv_qp_state> states() {
  std::vector<ibv_qp_state> found;
  for (const fake_change& one : card().changes) {
    found.push_back(one.attributes.qp_state);
  }
  return found;
}

const std::vector<const char*> steps_of_initiator = {"mlx5_create_initiator", "qp_to_qp_ex",
                                                     "mlx5_qp_ex_from",       "initiator_init",
                                                     "initiator_rtr",         "initiator_rts"};
const std::vector<const char*> steps_of_target = {"create_cq", "create_srq", "mlx5_create_target",
                                                  "target_init", "target_rtr"};

/// That the device has no DC, says why, and is whole otherwise.
void check_without_dc(world& w, std::size_t warnings) {
  CAF_CHECK(!w.device->facts().dc && w.device->facts().dc_streams == 0);
  CAF_CHECK_EQUAL(w.warnings.size(), warnings);
  for (const std::string& one : w.warnings) {
    CAF_CHECK(is_sentence(one));
  }
  std::unique_ptr<dc_target> target;
  for (const status& refused :
       {w.device->create_dc_initiator(w.options(), w.initiator), w.device->create_dc_target(1, target),
        w.device->create_address_handle(world::port_of_peer(), w.handle)}) {
    CAF_CHECK(refused.code == errc::unsupported && is_sentence(refused.text));
  }
  CAF_CHECK(w.initiator == nullptr && target == nullptr && w.handle == nullptr);
  CAF_CHECK_EQUAL(card().there["qp"], 0);
}

} // namespace

CAF_TEST(a device of another driver has no DC and nothing is tried on it) {
  start_fake_mlx5();
  card().mlx5 = false;
  world w;
  check_without_dc(w, 0);
  CAF_CHECK(card().made["qp"] == 0);
}

CAF_TEST(without libmlx5 or with one that is too old there is no DC) {
  start_fake_mlx5();
  for (int missing = 0; missing < 4; ++missing) {
    ibverbs_library library = fake_mlx5_library();
    if (missing == 0) {
      library.mlx5_is_supported = nullptr;
    } else if (missing == 1) {
      library.mlx5_query_device = nullptr;
    } else if (missing == 2) {
      library.mlx5_create_qp = nullptr;
    } else {
      library.mlx5_qp_ex_from = nullptr;
    }
    world w({}, library);
    check_without_dc(w, missing == 0 ? 0 : 1);
  }
}

CAF_TEST(a device of mlx5 that refuses DC at any step is a warning and leaves nothing behind) {
  std::vector<const char*> steps = {"mlx5_query_device", "create_comp_channel"};
  steps.insert(steps.end(), steps_of_target.begin(), steps_of_target.end());
  steps.insert(steps.end(), steps_of_initiator.begin(), steps_of_initiator.end());
  for (const char* step : steps) {
    start_fake_mlx5();
    card().refused = step;
    card().refusal = EOPNOTSUPP;
    ibverbs_library library = fake_mlx5_library();
    std::unique_ptr<fabric> device;
    std::vector<std::string> warnings;
    must(open_ibverbs_fabric(library, "", 1, {}, device, warnings));
    CAF_MESSAGE(step << ": " << (warnings.empty() ? "" : warnings[0]));
    CAF_CHECK(!device->facts().dc);
    CAF_REQUIRE_EQUAL(warnings.size(), 1u);
    CAF_CHECK(is_sentence(warnings[0]));
    CAF_CHECK_EQUAL(card().left(), 2); // device and domain
    device.reset();
    CAF_CHECK_EQUAL(card().left(), 0);
  }
}

CAF_TEST(a device with DC says so and how many streams an initiator may have) {
  start_fake_mlx5();
  {
    world w;
    CAF_CHECK(w.device->facts().dc && w.warnings.empty());
    CAF_CHECK_EQUAL(w.device->facts().dc_streams, 0u);
    CAF_CHECK_EQUAL(card().there["qp"], 0);
    CAF_CHECK_EQUAL(card().made["qp"], 2); // the attempt
  }
  card().streams_log = 6;
  world w;
  CAF_CHECK_EQUAL(w.device->facts().dc_streams, 64u);
}

CAF_TEST(an initiator that cannot be made leaves nothing behind whatever step fails) {
  start_fake_mlx5();
  world w;
  const int before = card().left();
  for (const char* step : steps_of_initiator) {
    card().refused = step;
    card().refused_after = 0;
    card().refusal = ENOMEM;
    const status refused = w.device->create_dc_initiator(w.options(), w.initiator);
    CAF_MESSAGE(step << ": " << refused.text);
    CAF_CHECK(!refused.ok() && is_sentence(refused.text) && w.initiator == nullptr);
    CAF_CHECK_EQUAL(card().left(), before);
  }
  card().refused.clear();
  for (int count = 0; count < 4; ++count) { // their room in the completion queue came back as well
    std::unique_ptr<dc_initiator> again;
    queue_pair_options all = w.options();
    all.sends_max = 256;
    must(w.device->create_dc_initiator(all, again));
  }
}

CAF_TEST(a target that cannot be made leaves nothing behind whatever step fails) {
  start_fake_mlx5();
  world w;
  const int before = card().left();
  for (const char* step : steps_of_target) {
    card().refused = step;
    card().refused_after = 0;
    std::unique_ptr<dc_target> target;
    const status refused = w.device->create_dc_target(5, target);
    CAF_CHECK(!refused.ok() && is_sentence(refused.text) && target == nullptr);
    CAF_CHECK_EQUAL(card().left(), before);
  }
  card().refused = "create_ah";
  card().refused_after = 0;
  const status refused = w.device->create_address_handle(world::port_of_peer(), w.handle);
  CAF_CHECK(refused.code == errc::device_failed && is_sentence(refused.text) && w.handle == nullptr);
  CAF_CHECK_EQUAL(card().left(), before);
}

CAF_TEST(sizes that the device or the completion queue has not are refused before it is asked) {
  start_fake_mlx5();
  world w;
  const int made = card().made["qp"];
  queue_pair_options wrong = w.options();
  wrong.receives_max = 1;
  CAF_CHECK(w.device->create_dc_initiator(wrong, w.initiator).code == errc::invalid_argument);
  wrong = w.options();
  wrong.sends_max = 257;
  CAF_CHECK(w.device->create_dc_initiator(wrong, w.initiator).code == errc::no_resources);
  wrong.sends_max = 8193;
  CAF_CHECK(w.device->create_dc_initiator(wrong, w.initiator).code == errc::invalid_argument);
  wrong = w.options();
  wrong.completions = nullptr;
  CAF_CHECK(w.device->create_dc_initiator(wrong, w.initiator).code == errc::invalid_argument);
  CAF_CHECK_EQUAL(card().made["qp"], made);
}

CAF_TEST(an initiator is made for READ and WRITE and walked to RTS with the attributes of the path) {
  start_fake_mlx5();
  world w({.mtu_bytes = 2048, .traffic_class = 104, .service_level = 3});
  card().changes.clear();
  card().creations.clear();
  must(w.device->create_dc_initiator(w.options(), w.initiator));
  CAF_REQUIRE_EQUAL(card().creations.size(), 1u);
  const fake_creation& made = card().creations[0];
  CAF_CHECK(made.kind.dc_init_attr.dc_type == MLX5DV_DCTYPE_DCI);
  CAF_CHECK(made.wanted.send_ops_flags == (IBV_QP_EX_WITH_RDMA_READ | IBV_QP_EX_WITH_RDMA_WRITE));
  CAF_CHECK_EQUAL(made.wanted.cap.max_send_wr, 64u);
  CAF_CHECK_EQUAL(made.wanted.cap.max_send_sge, 3u);
  CAF_CHECK_EQUAL(made.wanted.cap.max_inline_data, 64u);
  CAF_CHECK_EQUAL(made.wanted.sq_sig_all, 0);
  CAF_CHECK((states() == std::vector{IBV_QPS_INIT, IBV_QPS_RTR, IBV_QPS_RTS}));
  CAF_CHECK_EQUAL(change_to(IBV_QPS_INIT).attributes.port_num, 1u);
  const ibv_qp_attr rtr = change_to(IBV_QPS_RTR).attributes;
  CAF_CHECK(rtr.path_mtu == IBV_MTU_2048);
  CAF_CHECK_EQUAL(rtr.ah_attr.sl, 3u);
  CAF_CHECK_EQUAL(rtr.ah_attr.is_global, 1u);
  CAF_CHECK_EQUAL(rtr.ah_attr.grh.sgid_index, 3u);
  const ibv_qp_attr rts = change_to(IBV_QPS_RTS).attributes;
  CAF_CHECK_EQUAL(rts.timeout, 17u); // 0.54 s, seven times: the first above 2 s
  CAF_CHECK_EQUAL(rts.retry_cnt, 6u);
  CAF_CHECK_EQUAL(rts.rnr_retry, 7u);
  CAF_CHECK_EQUAL(rts.max_rd_atomic, 16u);
  CAF_CHECK(w.initiator->state() == queue_pair_state::ready);
  CAF_CHECK_EQUAL(w.initiator->sends_free(), 64u);
  w.initiator.reset();
  queue_pair_options fewer = w.options();
  fewer.reads_max = 4;
  card().changes.clear();
  must(w.device->create_dc_initiator(fewer, w.initiator));
  CAF_CHECK_EQUAL(change_to(IBV_QPS_RTS).attributes.max_rd_atomic, 4u);
  w.initiator.reset();
  fewer.reads_max = 1000;
  card().changes.clear();
  must(w.device->create_dc_initiator(fewer, w.initiator));
  CAF_CHECK_EQUAL(change_to(IBV_QPS_RTS).attributes.max_rd_atomic, 16u);
}

CAF_TEST(a driver that takes no path for an initiator gets its MTU alone) {
  start_fake_mlx5();
  card().initiator_takes_path = false;
  world w;
  CAF_CHECK(w.device->facts().dc && w.warnings.empty());
  card().changes.clear();
  must(w.device->create_dc_initiator(w.options(), w.initiator));
  CAF_CHECK_EQUAL(change_to(IBV_QPS_RTR).mask, IBV_QP_STATE | IBV_QP_PATH_MTU);
}

CAF_TEST(a target has its key and lets in READ and WRITE and answers on the path) {
  start_fake_mlx5();
  world w({.traffic_class = 32});
  card().changes.clear();
  card().creations.clear();
  card().shared_receives.clear();
  std::unique_ptr<dc_target> target;
  must(w.device->create_dc_target(0xFEEDFACECAFEBEEF, target));
  CAF_REQUIRE_EQUAL(card().creations.size(), 1u);
  CAF_CHECK(card().creations[0].kind.dc_init_attr.dc_type == MLX5DV_DCTYPE_DCT);
  CAF_CHECK(card().creations[0].kind.dc_init_attr.dct_access_key == 0xFEEDFACECAFEBEEF);
  CAF_REQUIRE_EQUAL(card().shared_receives.size(), 1u);
  CAF_CHECK_EQUAL(card().shared_receives[0].attr.max_wr, 1u);
  CAF_CHECK((states() == std::vector{IBV_QPS_INIT, IBV_QPS_RTR}));
  CAF_CHECK_EQUAL(change_to(IBV_QPS_INIT).attributes.qp_access_flags,
                  unsigned{IBV_ACCESS_REMOTE_READ} | unsigned{IBV_ACCESS_REMOTE_WRITE});
  const ibv_qp_attr rtr = change_to(IBV_QPS_RTR).attributes;
  CAF_CHECK(rtr.path_mtu == IBV_MTU_4096);
  CAF_CHECK_EQUAL(rtr.min_rnr_timer, 12u);
  CAF_CHECK_EQUAL(rtr.ah_attr.grh.traffic_class, 32u);
  CAF_CHECK_EQUAL(rtr.ah_attr.grh.hop_limit, 64u);
  CAF_CHECK_EQUAL(rtr.ah_attr.grh.sgid_index, 3u);
  CAF_CHECK(target->number() != 0 && fake_state(target->number()) == IBV_QPS_RTR);
  CAF_CHECK(target->key() == 0xFEEDFACECAFEBEEF);
}

CAF_TEST(packets to a peer have a global header on Ethernet and to other subnets of InfiniBand) {
  start_fake_mlx5();
  {
    world w({.traffic_class = 104, .service_level = 3});
    must(w.device->create_address_handle(world::port_of_peer(), w.handle));
    const ibv_ah_attr way = card().handles.back();
    CAF_CHECK_EQUAL(way.is_global, 1u);
    CAF_CHECK(std::memcmp(way.grh.dgid.raw, world::port_of_peer().port_gid.data(), 16) == 0);
    CAF_CHECK_EQUAL(way.grh.traffic_class, 104u);
    CAF_CHECK_EQUAL(way.grh.hop_limit, 64u);
    CAF_CHECK_EQUAL(way.grh.sgid_index, 3u);
    CAF_CHECK_EQUAL(way.sl, 3u);
    CAF_CHECK_EQUAL(way.port_num, 1u);
  }
  card().layer = IBV_LINK_LAYER_INFINIBAND;
  world w;
  CAF_CHECK(w.device->facts().dc && w.warnings.empty());
  must(w.device->create_address_handle(world::port_of_peer(), w.handle));
  CAF_CHECK_EQUAL(card().handles.back().is_global, 0u);
  CAF_CHECK_EQUAL(card().handles.back().dlid, 18u);
  endpoint far = world::port_of_peer();
  far.port_gid[7] = 9;
  must(w.device->create_address_handle(far, w.handle));
  CAF_CHECK_EQUAL(card().handles.back().is_global, 1u);
}

CAF_TEST(requests reach the device as they were posted and a batch is one doorbell) {
  start_fake_mlx5();
  world w;
  w.connect();
  const std::array<local_range, 3> parts = {{{0x1000, 64, 7}, {0x2000, 32, 8}, {0x3000, 16, 9}}};
  char text[] = "from here and there";
  const auto at = reinterpret_cast<std::uintptr_t>(text);
  const std::array<local_range, 2> copied = {{{at, 10, 0}, {at + 14, 5, 0}}};
  std::array<work_request, 4> batch = {w.request(1, w.range), w.request(2, w.range, operation::read),
                                       w.request(3, w.range), w.request(4, w.range)};
  batch[1].signalled = true;
  batch[2].local = parts;
  batch[3].local = copied;
  batch[3].inlined = true;
  const post_result result = w.initiator->post(batch);
  CAF_REQUIRE(result.outcome.ok() && result.posted == 4);
  std::memset(text, 0, sizeof text);
  CAF_CHECK_EQUAL(card().doorbells, 1);
  CAF_REQUIRE_EQUAL(card().requests.size(), 4u);
  const auto& seen = card().requests;
  for (std::size_t index = 0; index < 4; ++index) {
    CAF_CHECK_EQUAL(seen[index].target_number, 0xABCDEFu);
    CAF_CHECK(seen[index].target_key == 0x1122334455667788 && seen[index].handle != nullptr);
    CAF_CHECK_EQUAL(seen[index].rkey, 99u);
    CAF_CHECK_EQUAL(seen[index].remote_address, 0x7001u + index);
    CAF_CHECK_EQUAL(seen[index].read, index == 1);
    CAF_CHECK_EQUAL(seen[index].signalled, index == 1 || index == 3); // the last always
    CAF_CHECK_EQUAL(seen[index].inlined, index == 3);
  }
  CAF_REQUIRE_EQUAL(seen[0].ranges.size(), 1u);
  CAF_CHECK(seen[0].ranges[0].addr == 0x1000 && seen[0].ranges[0].length == 128 &&
            seen[0].ranges[0].lkey == 7);
  CAF_REQUIRE_EQUAL(seen[2].ranges.size(), 3u);
  CAF_CHECK(seen[2].ranges[2].addr == 0x3000 && seen[2].ranges[2].length == 16 &&
            seen[2].ranges[2].lkey == 9);
  CAF_CHECK_EQUAL(seen[3].copied, "from here there");
  CAF_CHECK_EQUAL(w.initiator->outstanding(), 4u);
  CAF_CHECK(w.initiator->post({}).outcome.ok());
  CAF_CHECK_EQUAL(card().doorbells, 1);
}

CAF_TEST(requests that cannot be carried out are refused and nothing of their batch is posted) {
  start_fake_mlx5();
  world w;
  w.connect();
  const std::vector<local_range> four(4, w.range);
  const local_range huge{0, 1U << 31U, 7};
  dc_address nobody = w.peer;
  nobody.handle = nullptr;
  dc_address beyond = w.peer;
  beyond.target_number = 1U << 24U;
  std::vector<work_request> wrong(8, w.request(1, w.range));
  wrong[0].target = nullptr;
  wrong[1].target = &nobody;
  wrong[2].target = &beyond;
  wrong[3].kind = operation::send;
  wrong[4].kind = operation::receive;
  wrong[5].local = four;
  wrong[6].local = {&huge, 1};
  wrong[7].inlined = true; // 128 bytes, of 64
  for (const work_request& one : wrong) {
    const std::array<work_request, 2> batch = {w.request(0, w.range), one};
    const post_result result = w.initiator->post(batch);
    CAF_CHECK(result.outcome.code == errc::invalid_argument && is_sentence(result.outcome.text));
    CAF_CHECK_EQUAL(result.posted, 0u);
  }
  const std::vector<work_request> many(65, w.request(1, w.range));
  CAF_CHECK(w.initiator->post(many).outcome.code == errc::queue_full);
  CAF_CHECK_EQUAL(card().doorbells, 0);
  CAF_CHECK_EQUAL(w.initiator->outstanding(), 0u);
}

CAF_TEST(a batch that the driver refuses was not posted and the initiator takes the next) {
  start_fake_mlx5();
  world w;
  w.connect();
  card().refused = "wr_complete";
  card().refused_after = 0;
  const std::array<work_request, 2> batch = {w.request(1, w.range), w.request(2, w.range)};
  const post_result refused = w.initiator->post(batch);
  CAF_CHECK(refused.outcome.code == errc::device_failed && is_sentence(refused.outcome.text));
  CAF_CHECK_EQUAL(refused.posted, 0u);
  CAF_CHECK_EQUAL(w.initiator->outstanding(), 0u);
  card().refused.clear();
  w.post(3, 2);
  complete_fake(w.initiator->number(), card().requests.back().id);
  const std::vector<report> found = w.reports();
  CAF_REQUIRE_EQUAL(found.size(), 2u);
  CAF_CHECK(found[0].id == 3 && found[1].id == 4);
}

CAF_TEST(each request is reported once though the device tells only of some) {
  start_fake_mlx5();
  world w;
  w.connect();
  for (std::uint64_t round = 0; round < 100; ++round) {
    w.post(round * 5, 5);
    CAF_CHECK(w.reports().empty());
    complete_fake(w.initiator->number(), card().requests.back().id);
    complete_fake(w.initiator->number(), card().requests.back().id); // told twice, reported once
    const std::vector<report> found = w.reports();
    CAF_REQUIRE_EQUAL(found.size(), 5u);
    for (std::size_t index = 0; index < found.size(); ++index) {
      CAF_CHECK_EQUAL(found[index].id, round * 5 + index);
      CAF_CHECK(found[index].status == completion_status::success);
      CAF_CHECK_EQUAL(found[index].queue_pair, w.initiator->number());
    }
    CAF_CHECK_EQUAL(w.initiator->outstanding(), 0u);
  }
}

CAF_TEST(an initiator recovers over RESET and not before everything was reported) {
  start_fake_mlx5();
  world w;
  w.connect();
  CAF_CHECK(w.initiator->recover().code == errc::wrong_state); // nothing is wrong with it
  w.post(1, 3);
  complete_fake(w.initiator->number(), card().requests[1].id, IBV_WC_RETRY_EXC_ERR);
  CAF_CHECK(w.initiator->recover().code == errc::wrong_state);
  std::array<report, 2> two;
  CAF_REQUIRE_EQUAL(w.completions->poll(two), 2u);
  CAF_CHECK(two[0].id == 1 && two[0].status == completion_status::flushed);
  CAF_CHECK(two[1].id == 2 && two[1].status == completion_status::retry_exceeded);
  CAF_CHECK(w.initiator->state() == queue_pair_state::error);
  CAF_CHECK(w.initiator->recover().code == errc::wrong_state);
  complete_fake(w.initiator->number(), card().requests[2].id, IBV_WC_WR_FLUSH_ERR);
  CAF_CHECK(w.initiator->recover().code == errc::wrong_state); // written by the device, not polled
  CAF_CHECK(states().empty());
  CAF_CHECK_EQUAL(w.reports().size(), 1u);
  must(w.initiator->recover());
  CAF_CHECK((states() == std::vector{IBV_QPS_RESET, IBV_QPS_INIT, IBV_QPS_RTR, IBV_QPS_RTS}));
  CAF_CHECK_EQUAL(change_to(IBV_QPS_RTS).attributes.max_rd_atomic, 16u);
  CAF_CHECK(w.initiator->state() == queue_pair_state::ready);
  w.post(4, 1);
  complete_fake(w.initiator->number(), card().requests.back().id);
  CAF_CHECK_EQUAL(w.reports().size(), 1u);
}

CAF_TEST(failing an initiator takes it to the error state once and what is posted there is flushed) {
  start_fake_mlx5();
  world w;
  w.connect();
  w.initiator->fail();
  w.initiator->fail();
  CAF_CHECK((states() == std::vector{IBV_QPS_ERR}));
  CAF_CHECK(w.initiator->state() == queue_pair_state::error);
  w.post(1, 1);
  complete_fake(w.initiator->number(), card().requests.back().id, IBV_WC_WR_FLUSH_ERR);
  CAF_REQUIRE_EQUAL(w.reports().size(), 1u);
  must(w.initiator->recover());
}

CAF_TEST(an initiator that cannot be walked back stays in error and can be destroyed) {
  for (const char* step : {"initiator_reset", "initiator_init", "initiator_rtr", "initiator_rts"}) {
    start_fake_mlx5();
    world w;
    w.connect();
    w.initiator->fail();
    card().refused = step;
    card().refused_after = 0;
    const status refused = w.initiator->recover();
    CAF_CHECK(refused.code == errc::device_failed && is_sentence(refused.text));
    CAF_CHECK(w.initiator->state() == queue_pair_state::error);
    const work_request one = w.request(1, w.range);
    const post_result result = w.initiator->post({&one, 1});
    if (std::string(step) == "initiator_reset") { // it is in the error state, and flushes
      CAF_CHECK(result.outcome.ok());
    } else { // in between, where nothing would be reported
      CAF_CHECK(result.outcome.code == errc::device_failed && result.posted == 0);
      CAF_CHECK_EQUAL(w.initiator->outstanding(), 0u);
    }
  }
}

CAF_TEST(nothing of an initiator that is gone is reported to its successor) {
  start_fake_mlx5();
  world w;
  w.connect();
  w.post(1, 1);
  const std::uint64_t old = card().requests.back().id;
  w.initiator.reset();
  must(w.device->create_dc_initiator(w.options(), w.initiator));
  w.post(2, 1);
  CAF_CHECK(card().requests.back().id != old);
  complete_fake(w.initiator->number(), old);
  CAF_CHECK(w.reports().empty());
  CAF_CHECK_EQUAL(w.initiator->outstanding(), 1u);
}

CAF_TEST(a queue pair that is neither destroyed nor stopped is counted) {
  struct variant {
    int refusal;
    bool takes_reset;
    std::uint32_t left;
  };
  // One that was reset touches nothing any more, and a device that is gone neither.
  for (const auto& [refusal, takes_reset, left] : {variant{EBUSY, false, 1}, variant{EBUSY, true, 0},
                                                   variant{EIO, false, 0}, variant{ENODEV, false, 0}}) {
    start_fake_mlx5();
    world w;
    w.connect();
    CAF_CHECK_EQUAL(w.device->queue_pairs_left(), 0u);
    card().initiator_takes_reset = takes_reset;
    card().refused = "destroy_qp";
    card().refused_after = 0;
    card().refusal = refusal;
    w.initiator.reset();
    CAF_CHECK_EQUAL(w.device->queue_pairs_left(), left);
    card().refused.clear();
    take_fake_queue_pairs();
  }
}

CAF_TEST(the pool runs on it and rebuilds what failed or makes it anew) {
  for (const bool takes_reset : {true, false}) {
    start_fake_mlx5();
    card().initiator_takes_reset = takes_reset;
    world w;
    dci_scheduler_options options;
    options.initiators = 1;
    options.clients_max = 2;
    options.transfers_max = 128;
    options.quota = 64;
    std::unique_ptr<dci_scheduler> pool;
    must(dci_scheduler::create(*w.device, options, pool));
    std::array<client_id, 2> clients{};
    for (client_id& one : clients) {
      must(pool->attach(world::port_of_peer(), 77, 5, one));
    }
    transfer sample;
    sample.local = w.range;
    sample.deadline_ns = 1'000'000'000'000;
    card().doorbells = 0;
    for (std::uint64_t cookie = 0; cookie < 64; ++cookie) {
      sample.cookie = cookie;
      sample.way = cookie % 2 == 0 ? direction::fetch : direction::place;
      must(pool->submit(clients[cookie % 2], sample));
    }
    std::vector<outcome> outcomes;
    pool->run(1, outcomes);
    CAF_CHECK_EQUAL(card().doorbells, 1);
    CAF_REQUIRE_EQUAL(card().requests.size(), 64u);
    const std::uint32_t number = pool->queue_pair_numbers()[0];
    complete_fake(number, card().requests[15].id);
    complete_fake(number, card().requests[20].id, IBV_WC_REM_ACCESS_ERR);
    for (std::size_t index = 21; index < 64; ++index) {
      complete_fake(number, card().requests[index].id, IBV_WC_WR_FLUSH_ERR);
    }
    pool->run(2, outcomes);
    pool->run(1'000'000'000, outcomes);
    std::array<int, 5> results{};
    int broken = 0;
    for (const outcome& one : outcomes) {
      if (one.kind == outcome::what::transfer) {
        ++results[static_cast<std::size_t>(one.result)];
      } else {
        ++broken;
      }
    }
    CAF_CHECK_EQUAL(results[static_cast<std::size_t>(transfer_result::done)], 16);
    CAF_CHECK_EQUAL(results[static_cast<std::size_t>(transfer_result::refused)], 1);
    CAF_CHECK_EQUAL(results[static_cast<std::size_t>(transfer_result::retryable)], 47);
    CAF_CHECK_EQUAL(broken, 1); // the client's whose key was wrong
    const dci_statistics now = pool->statistics();
    CAF_CHECK_EQUAL(now.initiators_ready, 1u);
    CAF_CHECK_EQUAL(now.rebuilt, 1u);
    CAF_CHECK_EQUAL(now.destroyed, takes_reset ? 0u : 1u);
    CAF_CHECK_EQUAL(pool->queue_pair_numbers()[0] == number, takes_reset);
  }
}
