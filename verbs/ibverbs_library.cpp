#include "verbs/ibverbs_library.hpp"

#include <dlfcn.h>

namespace memkv::verbs {
namespace {

struct loaded {
  ibverbs_library table;
  status outcome;
};

loaded load() {
  loaded made;
  void* const verbs = ::dlopen("libibverbs.so.1", RTLD_NOW | RTLD_LOCAL);
  if (verbs == nullptr) {
    made.outcome = {
        errc::unsupported,
        "RDMA needs libibverbs, which is not on this machine: install the packages libibverbs1 and "
        "ibverbs-providers."};
    return made;
  }
  const char* missing = nullptr;
  const auto take = [](void* from, auto& function, const char* symbol) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(::dlsym(from, symbol));
    return function != nullptr;
  };
  const auto find = [&](auto& function, const char* symbol, bool required = true) {
    if (!take(verbs, function, symbol) && required) {
      missing = symbol;
    }
  };
  ibverbs_library& table = made.table;
  find(table.get_device_list, "ibv_get_device_list");
  find(table.free_device_list, "ibv_free_device_list");
  find(table.get_device_name, "ibv_get_device_name");
  find(table.open_device, "ibv_open_device");
  find(table.close_device, "ibv_close_device");
  find(table.query_device, "ibv_query_device");
  find(table.query_port, "ibv_query_port");
  find(table.query_gid_table, "_ibv_query_gid_table");
  find(table.alloc_pd, "ibv_alloc_pd");
  find(table.dealloc_pd, "ibv_dealloc_pd");
  find(table.reg_mr, "ibv_reg_mr");
  find(table.reg_dmabuf_mr, "ibv_reg_dmabuf_mr", false);
  find(table.dereg_mr, "ibv_dereg_mr");
  find(table.create_comp_channel, "ibv_create_comp_channel");
  find(table.destroy_comp_channel, "ibv_destroy_comp_channel");
  find(table.create_cq, "ibv_create_cq");
  find(table.destroy_cq, "ibv_destroy_cq");
  find(table.get_cq_event, "ibv_get_cq_event");
  find(table.ack_cq_events, "ibv_ack_cq_events");
  find(table.create_qp, "ibv_create_qp");
  find(table.modify_qp, "ibv_modify_qp");
  find(table.destroy_qp, "ibv_destroy_qp");
  find(table.create_ah, "ibv_create_ah");
  find(table.destroy_ah, "ibv_destroy_ah");
  find(table.create_srq, "ibv_create_srq");
  find(table.destroy_srq, "ibv_destroy_srq");
  find(table.qp_to_qp_ex, "ibv_qp_to_qp_ex");
  find(table.get_async_event, "ibv_get_async_event");
  find(table.ack_async_event, "ibv_ack_async_event");
  if (missing != nullptr) {
    made.outcome = {errc::unsupported, std::string("RDMA needs a newer libibverbs: this one has no ") +
                                           missing + " (rdma-core 32 or later)."};
    return made;
  }
  if (void* const mlx5 = ::dlopen("libmlx5.so.1", RTLD_NOW | RTLD_LOCAL)) {
    take(mlx5, table.mlx5_is_supported, "mlx5dv_is_supported");
    take(mlx5, table.mlx5_query_device, "mlx5dv_query_device");
    take(mlx5, table.mlx5_create_qp, "mlx5dv_create_qp");
    take(mlx5, table.mlx5_qp_ex_from, "mlx5dv_qp_ex_from_ibv_qp_ex");
  }
  return made;
}

} // namespace

status load_ibverbs(const ibverbs_library*& out) {
  static const loaded once = load();
  if (once.outcome.ok()) {
    out = &once.table;
  }
  return once.outcome;
}

} // namespace memkv::verbs
