// Lookup, and the lease that one on a queue pair may ask for.
//
// Threading and ownership: see tcp_request.hpp. Limits of leases: rdma_tokens.hpp.
#pragma once

#include "actors/tcp_request.hpp"

namespace memkv::actors {

[[nodiscard]] std::unique_ptr<tcp_request> make_lookup_request(tcp_connection& connection, reactor& owner,
                                                               const wire::frame_header& header);

} // namespace memkv::actors
