// libibverbs and libmlx5, loaded when they are wanted: the program starts on machines that have neither.
//
// A table of the functions that this room calls. Those that the headers implement in place (posting,
// polling) are not in it, since they need no library. Tests fill a table of their own.
//
// Threading: the table does not change once it is loaded. Ownership: the libraries stay loaded for the life
// of the process; drivers leave things behind that do not survive unloading. Errors: unsupported, with a
// sentence that names the package.
#pragma once

#include "verbs/errc.hpp"

#include <infiniband/mlx5dv.h>
#include <infiniband/verbs.h>

namespace memkv::verbs {

struct ibverbs_library {
  ibv_device** (*get_device_list)(int*) = nullptr;
  void (*free_device_list)(ibv_device**) = nullptr;
  const char* (*get_device_name)(ibv_device*) = nullptr;
  ibv_context* (*open_device)(ibv_device*) = nullptr;
  int (*close_device)(ibv_context*) = nullptr;
  int (*query_device)(ibv_context*, ibv_device_attr*) = nullptr;
  int (*query_port)(ibv_context*, std::uint8_t, _compat_ibv_port_attr*) = nullptr;
  ssize_t (*query_gid_table)(ibv_context*, ibv_gid_entry*, std::size_t, std::uint32_t, std::size_t) = nullptr;
  ibv_pd* (*alloc_pd)(ibv_context*) = nullptr;
  int (*dealloc_pd)(ibv_pd*) = nullptr;
  ibv_mr* (*reg_mr)(ibv_pd*, void*, std::size_t, int) = nullptr;
  ibv_mr* (*reg_dmabuf_mr)(ibv_pd*, std::uint64_t, std::size_t, std::uint64_t, int,
                           int) = nullptr; // may be null
  int (*dereg_mr)(ibv_mr*) = nullptr;
  ibv_comp_channel* (*create_comp_channel)(ibv_context*) = nullptr;
  int (*destroy_comp_channel)(ibv_comp_channel*) = nullptr;
  ibv_cq* (*create_cq)(ibv_context*, int, void*, ibv_comp_channel*, int) = nullptr;
  int (*destroy_cq)(ibv_cq*) = nullptr;
  int (*get_cq_event)(ibv_comp_channel*, ibv_cq**, void**) = nullptr;
  void (*ack_cq_events)(ibv_cq*, unsigned int) = nullptr;
  ibv_qp* (*create_qp)(ibv_pd*, ibv_qp_init_attr*) = nullptr;
  int (*modify_qp)(ibv_qp*, ibv_qp_attr*, int) = nullptr;
  int (*destroy_qp)(ibv_qp*) = nullptr;
  ibv_ah* (*create_ah)(ibv_pd*, ibv_ah_attr*) = nullptr;
  int (*destroy_ah)(ibv_ah*) = nullptr;
  ibv_srq* (*create_srq)(ibv_pd*, ibv_srq_init_attr*) = nullptr;
  int (*destroy_srq)(ibv_srq*) = nullptr;
  ibv_qp_ex* (*qp_to_qp_ex)(ibv_qp*) = nullptr;
  int (*get_async_event)(ibv_context*, ibv_async_event*) = nullptr;
  void (*ack_async_event)(ibv_async_event*) = nullptr;
  // Null without libmlx5.
  bool (*mlx5_is_supported)(ibv_device*) = nullptr;
  int (*mlx5_query_device)(ibv_context*, mlx5dv_context*) = nullptr;
  ibv_qp* (*mlx5_create_qp)(ibv_context*, ibv_qp_init_attr_ex*, mlx5dv_qp_init_attr*) = nullptr;
  mlx5dv_qp_ex* (*mlx5_qp_ex_from)(ibv_qp_ex*) = nullptr;
};

/// The system's libraries. The first call loads them; others return the same.
status load_ibverbs(const ibverbs_library*& out);

} // namespace memkv::verbs
