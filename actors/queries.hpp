// What is answered at once, from the indexes alone: Exists, BatchExists, Prefix, Ping, Stat.
//
// Threading and ownership: see tcp_request.hpp.
#pragma once

#include "actors/tcp_request.hpp"

namespace memkv::actors {

/// Answers it; false: it is no query.
[[nodiscard]] bool answer_query(tcp_connection& connection, reactor& owner, const wire::frame_header& header,
                                wire::bytes_view variable);

} // namespace memkv::actors
