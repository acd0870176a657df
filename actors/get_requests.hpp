// TcpGet and TcpBatchGet: values out, through value_reader.
//
// Threading and ownership: see tcp_request.hpp.
#pragma once

#include "actors/tcp_request.hpp"

namespace memkv::actors {

[[nodiscard]] std::unique_ptr<tcp_request> make_get_request(tcp_connection& connection, reactor& owner,
                                                const wire::frame_header& header);
[[nodiscard]] std::unique_ptr<tcp_request> make_batch_get_request(tcp_connection& connection, reactor& owner,
                                                const wire::frame_header& header);

} // namespace memkv::actors
