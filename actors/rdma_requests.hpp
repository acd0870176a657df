// TcpAttach, TcpDetach, BatchWrite and BatchRead: sessions with DCI POOLs, and values that travel by RDMA.
//
// Threading and ownership: see tcp_request.hpp. Normative text: docs/formats/wire.md, section 17.
#pragma once

#include "actors/tcp_request.hpp"

namespace memkv::actors {

/// For a header with one of the four opcodes, on a server that has rails.
[[nodiscard]] std::unique_ptr<tcp_request> make_rdma_request(tcp_connection& connection, reactor& owner,
                                                             const wire::frame_header& header);

} // namespace memkv::actors
