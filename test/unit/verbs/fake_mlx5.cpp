#include "fake_mlx5.hpp"

#include "wire/assert.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <sys/eventfd.h>
#include <unistd.h>

namespace verbs_test {
namespace {

using memkv::verbs::ibverbs_library;

struct fake_queue {
  ibv_cq queue{};
  std::deque<ibv_wc> completions;
};

struct fake_pair {
  ibv_qp_ex pair{}; // first: the fabric sees its base
  mlx5dv_qp_ex addresses{};
  bool target = false;
  bool takes_requests = false; // between start and complete
  ibv_qp_state state = IBV_QPS_RESET;
  std::uint32_t ranges_max = 0;
  std::uint32_t inline_max = 0;
  std::vector<fake_request> batch;
  bool has_address = true; // of the last of the batch
  bool has_data = true;
};

fake_card the_card;
ibv_device the_device;
ibv_device* the_list[2] = {&the_device, nullptr};
std::uint32_t number_last = 0;
std::vector<fake_pair*> pairs;

/// Whether the function is to refuse now; sets errno.
bool refuses(const char* function) {
  if (the_card.refused != function || the_card.refused_after-- > 0) {
    return false;
  }
  errno = the_card.refusal;
  return true;
}

void rule(bool kept, const char* what) {
  if (!kept) {
    the_card.broken_rules.emplace_back(what);
  }
}

template <class thing>
thing* add(const char* kind, thing* one) {
  ++the_card.there[kind];
  ++the_card.made[kind];
  return one;
}
void gone(const char* kind) {
  --the_card.there[kind];
}

fake_pair& of(ibv_qp* pair) {
  return *reinterpret_cast<fake_pair*>(pair);
}
fake_pair& of(ibv_qp_ex* pair) {
  return *reinterpret_cast<fake_pair*>(pair);
}

// Requests ---------------------------------------------------------------------------------------------

void begin(ibv_qp_ex* pair, bool read, std::uint32_t rkey, std::uint64_t address) {
  fake_pair& one = of(pair);
  rule(one.takes_requests, "a request is built after ibv_wr_start");
  rule(one.has_address && one.has_data, "the request before has its address and its data");
  fake_request made;
  made.id = pair->wr_id;
  made.read = read;
  made.signalled = (pair->wr_flags & IBV_SEND_SIGNALED) != 0;
  rule((pair->wr_flags & ~unsigned{IBV_SEND_SIGNALED}) == 0, "a request has no flag but the signal's");
  made.rkey = rkey;
  made.remote_address = address;
  one.batch.push_back(made);
  one.has_address = one.has_data = false;
}

void take_ranges(ibv_qp_ex* pair, std::size_t count, const ibv_sge* ranges) {
  fake_pair& one = of(pair);
  rule(!one.has_data, "a request gets its data once");
  rule(count <= one.ranges_max, "a request has no more ranges than the queue pair was made for");
  one.batch.back().ranges.assign(ranges, ranges + count);
  one.has_data = true;
}

void equip(fake_pair& one) {
  ibv_qp_ex& pair = one.pair;
  pair.wr_start = [](ibv_qp_ex* of_pair) {
    rule(!of(of_pair).takes_requests, "a batch is complete before the next");
    of(of_pair).takes_requests = true;
    of(of_pair).batch.clear();
  };
  pair.wr_rdma_read = [](ibv_qp_ex* of_pair, std::uint32_t rkey, std::uint64_t address) {
    begin(of_pair, true, rkey, address);
  };
  pair.wr_rdma_write = [](ibv_qp_ex* of_pair, std::uint32_t rkey, std::uint64_t address) {
    begin(of_pair, false, rkey, address);
  };
  pair.wr_set_sge = [](ibv_qp_ex* of_pair, std::uint32_t lkey, std::uint64_t address, std::uint32_t length) {
    const ibv_sge range{address, length, lkey};
    take_ranges(of_pair, 1, &range);
  };
  pair.wr_set_sge_list = take_ranges;
  pair.wr_set_inline_data_list = [](ibv_qp_ex* of_pair, std::size_t count, const ibv_data_buf* parts) {
    fake_pair& inside = of(of_pair);
    rule(!inside.has_data, "a request gets its data once");
    fake_request& last = inside.batch.back();
    rule(!last.read, "a READ is not inline");
    last.inlined = true;
    for (std::size_t part = 0; part < count; ++part) {
      last.copied.append(static_cast<const char*>(parts[part].addr), parts[part].length);
    }
    rule(last.copied.size() <= inside.inline_max, "no more inline than the queue pair was made for");
    inside.has_data = true;
  };
  pair.wr_abort = [](ibv_qp_ex* of_pair) { of(of_pair).takes_requests = false; };
  pair.wr_complete = [](ibv_qp_ex* of_pair) {
    fake_pair& inside = of(of_pair);
    rule(inside.takes_requests, "a batch is started before it is complete");
    rule(inside.has_address && inside.has_data, "the last request has its address and its data");
    rule(inside.state == IBV_QPS_RTS || inside.state == IBV_QPS_ERR,
         "requests are posted when ready, or to be flushed");
    inside.takes_requests = false;
    if (refuses("wr_complete")) {
      return the_card.refusal;
    }
    the_card.requests.insert(the_card.requests.end(), inside.batch.begin(), inside.batch.end());
    ++the_card.doorbells;
    return 0;
  };
  one.addresses.wr_set_dc_addr = [](mlx5dv_qp_ex* addresses, ibv_ah* handle, std::uint32_t number,
                                    std::uint64_t key) {
    const auto found = std::find_if(pairs.begin(), pairs.end(),
                                    [&](const fake_pair* any) { return &any->addresses == addresses; });
    MEMKV_ASSERT(found != pairs.end(), "requests are for a queue pair that there is");
    rule(!(*found)->has_address, "a request gets its address once, and after its operation");
    fake_request& last = (*found)->batch.back();
    last.handle = handle;
    last.target_number = number;
    last.target_key = key;
    (*found)->has_address = true;
  };
}

// Queue pairs ------------------------------------------------------------------------------------------

ibv_qp* create_pair(ibv_context* context, ibv_qp_init_attr_ex* wanted, mlx5dv_qp_init_attr* kind) {
  const bool target = kind->dc_init_attr.dc_type == MLX5DV_DCTYPE_DCT;
  if (refuses(target ? "mlx5_create_target" : "mlx5_create_initiator")) {
    return nullptr;
  }
  rule(wanted->qp_type == IBV_QPT_DRIVER, "DC is of the driver's own type");
  rule(kind->comp_mask == MLX5DV_QP_INIT_ATTR_MASK_DC, "DC is asked for by its mask, without streams");
  rule((wanted->comp_mask & IBV_QP_INIT_ATTR_PD) != 0 && wanted->pd != nullptr, "there is a domain");
  rule(wanted->send_cq != nullptr && wanted->recv_cq != nullptr, "there are completion queues");
  if (target) {
    rule(wanted->comp_mask == IBV_QP_INIT_ATTR_PD, "a target takes no mask but that of its domain");
    rule(wanted->srq != nullptr, "a target has a shared receive queue");
  } else {
    rule(wanted->srq == nullptr && wanted->cap.max_recv_wr == 0, "an initiator receives nothing");
    rule((wanted->comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS) != 0, "an initiator names its operations");
  }
  the_card.creations.push_back({*wanted, *kind});
  auto* const made = add("qp", new fake_pair);
  made->target = target;
  made->ranges_max = wanted->cap.max_send_sge;
  made->inline_max = wanted->cap.max_inline_data;
  made->pair.qp_base.context = context;
  made->pair.qp_base.send_cq = wanted->send_cq;
  made->pair.qp_base.srq = wanted->srq;
  made->pair.qp_base.qp_num = target ? 0 : ++number_last; // a target has none until it is in RTR
  if (!target) {
    equip(*made);
  }
  pairs.push_back(made);
  return &made->pair.qp_base;
}

/// Which attributes must come with a change of state, and which may. False: there is no such change.
bool attributes_of(const fake_pair& one, ibv_qp_state to, int& needed, int& allowed) {
  needed = IBV_QP_STATE;
  allowed = 0;
  if (one.target) {
    if (one.state == IBV_QPS_RESET && to == IBV_QPS_INIT) {
      needed |= IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS;
      return true;
    }
    needed |= IBV_QP_MIN_RNR_TIMER | IBV_QP_AV | IBV_QP_PATH_MTU;
    return one.state == IBV_QPS_INIT && to == IBV_QPS_RTR;
  }
  switch (to) {
  case IBV_QPS_RESET:
    return the_card.initiator_takes_reset;
  case IBV_QPS_INIT:
    needed |= IBV_QP_PKEY_INDEX | IBV_QP_PORT;
    return one.state == IBV_QPS_RESET;
  case IBV_QPS_RTR:
    needed |= IBV_QP_PATH_MTU;
    allowed = IBV_QP_PKEY_INDEX | (the_card.initiator_takes_path ? IBV_QP_AV : 0);
    return one.state == IBV_QPS_INIT;
  case IBV_QPS_RTS:
    needed |= IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC;
    allowed = IBV_QP_MIN_RNR_TIMER;
    return one.state == IBV_QPS_RTR;
  case IBV_QPS_ERR:
    return one.state != IBV_QPS_RESET;
  default:
    return false;
  }
}

int modify(ibv_qp* pair, ibv_qp_attr* attributes, int mask) {
  static const std::map<ibv_qp_state, const char*> names = {
      {IBV_QPS_RESET, "reset"}, {IBV_QPS_INIT, "init"}, {IBV_QPS_RTR, "rtr"},
      {IBV_QPS_RTS, "rts"},     {IBV_QPS_ERR, "err"},
  };
  fake_pair& one = of(pair);
  const std::string name =
      std::string(one.target ? "target_" : "initiator_") + names.at(attributes->qp_state);
  if (refuses(name.c_str())) {
    return the_card.refusal;
  }
  int needed = 0;
  int allowed = 0;
  if (!attributes_of(one, attributes->qp_state, needed, allowed) || (mask & needed) != needed ||
      (mask & ~(needed | allowed)) != 0) {
    return EINVAL;
  }
  if ((mask & IBV_QP_AV) != 0) {
    rule(attributes->ah_attr.port_num == 1, "a path has a port");
    rule(attributes->ah_attr.is_global != 0 || the_card.layer != IBV_LINK_LAYER_ETHERNET,
         "a path on Ethernet has a global header");
  }
  the_card.changes.push_back({pair->qp_num, *attributes, mask});
  one.state = attributes->qp_state;
  if (one.target && one.state == IBV_QPS_RTR) {
    pair->qp_num = ++number_last;
  }
  return 0;
}

int poll(ibv_cq* queue, int most, ibv_wc* out) {
  auto& from = reinterpret_cast<fake_queue*>(queue)->completions;
  int count = 0;
  while (count < most && !from.empty()) {
    out[count++] = from.front();
    from.pop_front();
  }
  return count;
}

// The table --------------------------------------------------------------------------------------------

void add_device(ibverbs_library& made) {
  made.get_device_list = [](int* count) {
    *count = 1;
    return the_list;
  };
  made.free_device_list = [](ibv_device**) {};
  made.get_device_name = [](ibv_device*) { return "mlx5_0"; };
  made.open_device = [](ibv_device* device) {
    auto* const context = add("context", new ibv_context{});
    context->device = device;
    context->async_fd = ::eventfd(0, 0);
    context->ops.poll_cq = poll;
    context->ops.req_notify_cq = [](ibv_cq*, int) { return 0; };
    return context;
  };
  made.close_device = [](ibv_context* context) {
    ::close(context->async_fd);
    delete context;
    gone("context");
    return 0;
  };
  made.query_device = [](ibv_context*, ibv_device_attr* limits) {
    limits->phys_port_cnt = 1;
    limits->max_qp_wr = 8192;
    limits->max_sge = 30;
    limits->max_qp_init_rd_atom = 16;
    limits->max_qp_rd_atom = 16;
    limits->max_cqe = 65'536;
    return 0;
  };
  made.query_port = [](ibv_context*, std::uint8_t, _compat_ibv_port_attr* out) {
    auto* const state = reinterpret_cast<ibv_port_attr*>(out);
    state->state = IBV_PORT_ACTIVE;
    state->active_mtu = the_card.mtu;
    state->link_layer = the_card.layer;
    state->lid = the_card.layer == IBV_LINK_LAYER_ETHERNET ? 0 : 17;
    state->max_msg_sz = 1U << 30U;
    return 0;
  };
  made.query_gid_table = [](ibv_context*, ibv_gid_entry* entries, std::size_t, std::uint32_t, std::size_t) {
    entries[0] = {};
    entries[0].gid_index = 3;
    entries[0].port_num = 1;
    entries[0].gid_type = the_card.layer == IBV_LINK_LAYER_ETHERNET ? IBV_GID_TYPE_ROCE_V2 : IBV_GID_TYPE_IB;
    entries[0].gid.raw[0] = 0xFE;
    entries[0].gid.raw[1] = 0x80;
    entries[0].gid.raw[15] = 1;
    return ssize_t{1};
  };
  made.get_async_event = [](ibv_context*, ibv_async_event*) { return -1; };
  made.ack_async_event = [](ibv_async_event*) {};
}

void add_resources(ibverbs_library& made) {
  made.alloc_pd = [](ibv_context* context) -> ibv_pd* {
    if (refuses("alloc_pd")) {
      return nullptr;
    }
    return add("pd", new ibv_pd{context, 0});
  };
  made.dealloc_pd = [](ibv_pd* domain) {
    delete domain;
    gone("pd");
    return 0;
  };
  made.create_comp_channel = [](ibv_context* context) -> ibv_comp_channel* {
    if (refuses("create_comp_channel")) {
      return nullptr;
    }
    return add("channel", new ibv_comp_channel{context, ::eventfd(0, 0), 0});
  };
  made.destroy_comp_channel = [](ibv_comp_channel* channel) {
    ::close(channel->fd);
    delete channel;
    gone("channel");
    return 0;
  };
  made.create_cq = [](ibv_context* context, int, void*, ibv_comp_channel*, int) -> ibv_cq* {
    if (refuses("create_cq")) {
      return nullptr;
    }
    auto* const queue = add("cq", new fake_queue);
    queue->queue.context = context;
    return &queue->queue;
  };
  made.destroy_cq = [](ibv_cq* queue) {
    delete reinterpret_cast<fake_queue*>(queue);
    gone("cq");
    return 0;
  };
  made.get_cq_event = [](ibv_comp_channel*, ibv_cq**, void**) { return -1; };
  made.ack_cq_events = [](ibv_cq*, unsigned) {};
  made.create_srq = [](ibv_pd*, ibv_srq_init_attr* wanted) -> ibv_srq* {
    if (refuses("create_srq")) {
      return nullptr;
    }
    the_card.shared_receives.push_back(*wanted);
    return add("srq", new ibv_srq{});
  };
  made.destroy_srq = [](ibv_srq* receives) {
    rule(std::none_of(pairs.begin(), pairs.end(),
                      [&](const fake_pair* one) { return one->pair.qp_base.srq == receives; }),
         "a shared receive queue outlives its queue pairs");
    delete receives;
    gone("srq");
    return 0;
  };
  made.create_ah = [](ibv_pd*, ibv_ah_attr* way) -> ibv_ah* {
    if (refuses("create_ah")) {
      return nullptr;
    }
    if (way->is_global == 0 && the_card.layer == IBV_LINK_LAYER_ETHERNET) {
      errno = EINVAL;
      return nullptr;
    }
    the_card.handles.push_back(*way);
    return add("ah", new ibv_ah{});
  };
  made.destroy_ah = [](ibv_ah* handle) {
    delete handle;
    gone("ah");
    return 0;
  };
}

void add_pairs(ibverbs_library& made) {
  made.modify_qp = modify;
  made.destroy_qp = [](ibv_qp* pair) {
    if (refuses("destroy_qp")) {
      return the_card.refusal;
    }
    std::erase(pairs, &of(pair));
    delete &of(pair);
    gone("qp");
    return 0;
  };
  made.qp_to_qp_ex = [](ibv_qp* pair) -> ibv_qp_ex* {
    return refuses("qp_to_qp_ex") ? nullptr : &of(pair).pair;
  };
  made.mlx5_is_supported = [](ibv_device*) { return the_card.mlx5; };
  made.mlx5_query_device = [](ibv_context*, mlx5dv_context* told) {
    if (refuses("mlx5_query_device")) {
      return the_card.refusal;
    }
    const bool asked = (told->comp_mask & MLX5DV_CONTEXT_MASK_DCI_STREAMS) != 0;
    told->comp_mask = asked && the_card.streams_log >= 0 ? std::uint64_t{MLX5DV_CONTEXT_MASK_DCI_STREAMS} : 0;
    told->dci_streams_caps.max_log_num_concurent =
        static_cast<std::uint8_t>(std::max(the_card.streams_log, 0));
    return 0;
  };
  made.mlx5_create_qp = create_pair;
  made.mlx5_qp_ex_from = [](ibv_qp_ex* pair) -> mlx5dv_qp_ex* {
    return refuses("mlx5_qp_ex_from") ? nullptr : &of(pair).addresses;
  };
}

} // namespace

fake_card& card() {
  return the_card;
}

void start_fake_mlx5() {
  MEMKV_ASSERT(the_card.left() == 0, "what was made on the device before is gone");
  the_card = {};
  number_last = 0x100;
}

ibverbs_library fake_mlx5_library() {
  ibverbs_library made;
  add_device(made);
  add_resources(made);
  add_pairs(made);
  return made;
}

void complete_fake(std::uint32_t queue_pair, std::uint64_t id, ibv_wc_status status) {
  const auto found = std::find_if(pairs.begin(), pairs.end(), [&](const fake_pair* any) {
    return any->pair.qp_base.qp_num == queue_pair;
  });
  MEMKV_ASSERT(found != pairs.end(), "a completion is for a queue pair that there is");
  if (status != IBV_WC_SUCCESS) {
    (*found)->state = IBV_QPS_ERR;
  }
  ibv_wc made{};
  made.wr_id = id;
  made.status = status;
  made.qp_num = queue_pair;
  reinterpret_cast<fake_queue*>((*found)->pair.qp_base.send_cq)->completions.push_back(made);
}

void take_fake_queue_pairs() {
  for (fake_pair* const each : pairs) {
    delete each;
    gone("qp");
  }
  pairs.clear();
}

ibv_qp_state fake_state(std::uint32_t queue_pair) {
  const auto found = std::find_if(pairs.begin(), pairs.end(), [&](const fake_pair* any) {
    return any->pair.qp_base.qp_num == queue_pair;
  });
  return found == pairs.end() ? IBV_QPS_UNKNOWN : (*found)->state;
}

} // namespace verbs_test
