// Finding a device and choosing a path through it, on a table of functions that tells what each test wants.
#include "verbs/ibverbs_device.hpp"
#include "verbs/ibverbs_fabric.hpp"

#define CAF_SUITE verbs_device
#include <caf/test/unit_test.hpp>

#include <algorithm>
#include <cerrno>
#include <cstring>

using namespace memkv::verbs;

namespace {

struct fake_device {
  std::string name;
  bool opens = true;
  bool active = true;
  std::uint8_t layer = IBV_LINK_LAYER_ETHERNET;
  ibv_mtu mtu = IBV_MTU_4096;
  std::vector<ibv_gid_entry> gids;
  ibv_device handle{};
  ibv_context context{};
};

/// What the fake library sees; one for each test.
struct {
  std::vector<fake_device> devices;
  std::vector<ibv_device*> list;
  int lists_out = 0;
  int open = 0;
} there;

fake_device& of(const ibv_device* device) {
  return *std::find_if(there.devices.begin(), there.devices.end(),
                       [&](const fake_device& one) { return &one.handle == device; });
}
fake_device& of(const ibv_context* context) {
  return *std::find_if(there.devices.begin(), there.devices.end(),
                       [&](const fake_device& one) { return &one.context == context; });
}

ibverbs_library make_library() {
  ibverbs_library made;
  made.get_device_list = [](int* count) {
    there.list.clear();
    for (fake_device& one : there.devices) {
      there.list.push_back(&one.handle);
    }
    there.list.push_back(nullptr);
    *count = static_cast<int>(there.devices.size());
    ++there.lists_out;
    return there.list.data();
  };
  made.free_device_list = [](ibv_device**) { --there.lists_out; };
  made.get_device_name = [](ibv_device* device) { return of(device).name.c_str(); };
  made.open_device = [](ibv_device* device) -> ibv_context* {
    if (!of(device).opens) {
      errno = EACCES;
      return nullptr;
    }
    ++there.open;
    return &of(device).context;
  };
  made.close_device = [](ibv_context*) {
    --there.open;
    return 0;
  };
  made.query_device = [](ibv_context*, ibv_device_attr* limits) {
    limits->phys_port_cnt = 1;
    limits->max_qp_wr = 1024;
    limits->max_sge = 30;
    limits->max_qp_init_rd_atom = 16;
    limits->max_qp_rd_atom = 8;
    limits->max_cqe = 4096;
    return 0;
  };
  made.query_port = [](ibv_context* context, std::uint8_t, _compat_ibv_port_attr* out) {
    auto* const state = reinterpret_cast<ibv_port_attr*>(out);
    state->state = of(context).active ? IBV_PORT_ACTIVE : IBV_PORT_DOWN;
    state->active_mtu = of(context).mtu;
    state->link_layer = of(context).layer;
    state->max_msg_sz = 1U << 30U;
    return 0;
  };
  made.query_gid_table = [](ibv_context* context, ibv_gid_entry* entries, std::size_t most, std::uint32_t,
                            std::size_t) {
    const auto& gids = of(context).gids;
    std::copy_n(gids.begin(), std::min(most, gids.size()), entries);
    return static_cast<ssize_t>(gids.size());
  };
  made.alloc_pd = [](ibv_context*) -> ibv_pd* {
    errno = ENOMEM;
    return nullptr;
  };
  return made;
}

ibv_gid_entry gid_at(std::uint32_t index, std::uint32_t type, const std::vector<std::uint8_t>& head,
                     std::uint32_t port = 1) {
  ibv_gid_entry made{};
  made.gid_index = index;
  made.gid_type = type;
  made.port_num = port;
  std::copy(head.begin(), head.end(), made.gid.raw);
  return made;
}

const std::vector<std::uint8_t> ipv4 = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 10, 0, 0, 1};
const std::vector<std::uint8_t> link_local = {0xFE, 0x80};
const std::vector<std::uint8_t> global = {0x20, 0x01, 0x0D, 0xB8};

fake_device device_named(const std::string& name) {
  fake_device made;
  made.name = name;
  made.gids = {gid_at(0, IBV_GID_TYPE_ROCE_V1, link_local), gid_at(1, IBV_GID_TYPE_ROCE_V2, link_local),
               gid_at(2, IBV_GID_TYPE_ROCE_V1, ipv4), gid_at(3, IBV_GID_TYPE_ROCE_V2, ipv4),
               gid_at(4, IBV_GID_TYPE_ROCE_V2, global)};
  return made;
}

void reset(std::vector<fake_device> devices) {
  there = {};
  there.devices = std::move(devices);
}

bool is_sentence(const std::string& text) {
  return text.size() > 20 && text.back() == '.';
}

struct opened {
  status outcome;
  device_facts facts;
};

opened open(const std::string& name, std::uint8_t port = 1) {
  const ibverbs_library library = make_library();
  opened made;
  ibv_context* context = nullptr;
  made.outcome = open_device(library, name, port, context, made.facts);
  if (made.outcome.ok()) {
    library.close_device(context);
  }
  CAF_CHECK_EQUAL(there.open, 0);
  CAF_CHECK_EQUAL(there.lists_out, 0);
  return made;
}

struct path {
  status outcome;
  path_options options;
  std::vector<std::string> warnings;
};

path choose(const path_wishes& wishes = {}) {
  path made;
  made.outcome = choose_path(open("").facts, wishes, made.options, made.warnings);
  return made;
}

} // namespace

CAF_TEST(a machine without devices gives one clear sentence) {
  reset({});
  const ibverbs_library library = make_library();
  std::vector<std::string> names;
  const status none = list_devices(library, names);
  CAF_CHECK(none.code == errc::not_found && is_sentence(none.text) && names.empty());
  CAF_CHECK(open("").outcome.code == errc::not_found);
  CAF_CHECK_EQUAL(there.lists_out, 0);
}

CAF_TEST(the system library either loads or says which package is missing) {
  const ibverbs_library* library = nullptr;
  const status outcome = load_ibverbs(library);
  CAF_CHECK(outcome.ok() ? library != nullptr : outcome.text.find("libibverbs") != std::string::npos);
}

CAF_TEST(without a name the first device with an active port is taken) {
  reset({device_named("a"), device_named("b"), device_named("c")});
  there.devices[0].active = false;
  CAF_CHECK_EQUAL(open("").facts.name, "b");
  CAF_CHECK_EQUAL(open("c").facts.name, "c");
  CAF_CHECK_EQUAL(open("a").facts.name, "a");
  there.devices[1].active = there.devices[2].active = false;
  CAF_CHECK_EQUAL(open("").facts.name, "a");
  CAF_CHECK(choose().outcome.code == errc::device_failed);
}

CAF_TEST(a device that is not there is named together with those that are) {
  reset({device_named("a"), device_named("b")});
  const status refused = open("mlx5_7").outcome;
  CAF_CHECK(refused.code == errc::not_found && refused.text.find("a, b") != std::string::npos);
  CAF_CHECK(open("a", 2).outcome.code == errc::not_found);
  there.devices[0].opens = false;
  CAF_CHECK(open("a").outcome.code == errc::device_failed && is_sentence(open("a").outcome.text));
  CAF_CHECK_EQUAL(open("").facts.name, "b");
}

CAF_TEST(facts are those of the port that was asked for) {
  reset({device_named("a")});
  there.devices[0].gids.push_back(gid_at(9, IBV_GID_TYPE_ROCE_V2, ipv4, 2));
  const device_facts facts = open("a").facts;
  CAF_CHECK_EQUAL(facts.gids.size(), 5u);
  CAF_CHECK_EQUAL(facts.mtu_bytes_active, 4096u);
  CAF_CHECK_EQUAL(facts.reads_max, 16u);
  CAF_CHECK_EQUAL(facts.reads_served_max, 8u);
  CAF_CHECK(facts.port_active && facts.layer == link_layer::ethernet && !facts.dc && !facts.dma_buf);
}

CAF_TEST(RoCE v2 over IPv4 is preferred and then a routable address) {
  reset({device_named("a")});
  CAF_CHECK_EQUAL(choose().options.gid_index, 3u);
  there.devices[0].gids.erase(there.devices[0].gids.begin() + 3);
  CAF_CHECK_EQUAL(choose().options.gid_index, 4u);
  there.devices[0].gids.pop_back();
  CAF_CHECK_EQUAL(choose().options.gid_index, 1u);
  CAF_CHECK(choose().warnings.empty());
  there.devices[0].gids.erase(there.devices[0].gids.begin() + 1);
  CAF_CHECK_EQUAL(choose().options.gid_index, 0u);
  CAF_REQUIRE_EQUAL(choose().warnings.size(), 1u);
  CAF_CHECK(is_sentence(choose().warnings[0]));
  there.devices[0].gids.clear();
  CAF_CHECK(choose().outcome.code == errc::device_failed);
}

CAF_TEST(an index that was asked for is taken or refused) {
  reset({device_named("a")});
  CAF_CHECK_EQUAL(choose({.gid_index = 1}).options.gid_index, 1u);
  const path refused = choose({.gid_index = 17});
  CAF_CHECK(refused.outcome.code == errc::not_found && is_sentence(refused.outcome.text));
}

CAF_TEST(a path MTU above that of the port is reduced with a warning) {
  reset({device_named("a")});
  there.devices[0].mtu = IBV_MTU_1024;
  CAF_CHECK_EQUAL(choose().options.mtu_bytes, 1024u);
  const path reduced = choose({.mtu_bytes = 4096});
  CAF_CHECK(reduced.outcome.ok());
  CAF_CHECK_EQUAL(reduced.options.mtu_bytes, 1024u);
  CAF_REQUIRE_EQUAL(reduced.warnings.size(), 1u);
  CAF_CHECK(is_sentence(reduced.warnings[0]) && reduced.warnings[0].find("1024") != std::string::npos);
  const path smaller = choose({.mtu_bytes = 512});
  CAF_CHECK(smaller.warnings.empty());
  CAF_CHECK_EQUAL(smaller.options.mtu_bytes, 512u);
  CAF_CHECK(choose({.mtu_bytes = 1500}).outcome.code == errc::invalid_argument);
}

CAF_TEST(priority and traffic class follow the convention of RoCE unless they are given) {
  reset({device_named("a")});
  CAF_CHECK_EQUAL(choose().options.traffic_class, 104u);
  CAF_CHECK_EQUAL(choose().options.service_level, 3u);
  CAF_CHECK_EQUAL(choose({.traffic_class = 8, .service_level = 0}).options.traffic_class, 8u);
  CAF_CHECK_EQUAL(choose({.traffic_class = 8, .service_level = 0}).options.service_level, 0u);
  CAF_CHECK(choose({.service_level = 16}).outcome.code == errc::invalid_argument);
  there.devices[0].layer = IBV_LINK_LAYER_INFINIBAND;
  CAF_CHECK_EQUAL(choose().options.traffic_class, 0u);
  CAF_CHECK_EQUAL(choose().options.gid_index, 0u);
  CAF_CHECK(choose().warnings.empty());
}

CAF_TEST(a fabric that cannot be set up closes its device) {
  reset({device_named("a")});
  const ibverbs_library library = make_library();
  std::unique_ptr<fabric> made;
  std::vector<std::string> warnings;
  const status refused = open_ibverbs_fabric(library, "a", 1, {}, made, warnings);
  CAF_CHECK(refused.code == errc::no_resources && is_sentence(refused.text) && made == nullptr);
  CAF_CHECK_EQUAL(there.open, 0);
  CAF_CHECK(!open_ibverbs_fabric(library, "a", 1, {.gid_index = 50}, made, warnings).ok());
  CAF_CHECK_EQUAL(there.open, 0);
}

CAF_TEST(addresses are written as people write them) {
  gid value{};
  std::copy(ipv4.begin(), ipv4.end(), value.begin());
  CAF_CHECK_EQUAL(to_text(value), "::ffff:10.0.0.1");
  value = {};
  std::copy(link_local.begin(), link_local.end(), value.begin());
  CAF_CHECK_EQUAL(to_text(value), "fe80:0:0:0:0:0:0:0");
}
