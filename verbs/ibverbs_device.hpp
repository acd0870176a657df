// Which RDMA devices there are, what their ports can do, and how paths through a port are to be set up.
//
// choose_path is a pure function of facts and wishes. It never gives up what was asked for in silence: what
// it changes, and what looks wrong, it says in a warning; what cannot be had is an error with a sentence.
// Threading: any thread.
#pragma once

#include "verbs/device_facts.hpp"
#include "verbs/ibverbs_library.hpp"

#include <string>
#include <vector>

namespace memkv::verbs {

/// Names, in the order of the library. not_found, with a sentence, when there is none.
status list_devices(const ibverbs_library& library, std::vector<std::string>& out);

/// Opens a device. An empty name takes the first whose port is active, else the first. The caller closes it.
status open_device(const ibverbs_library& library, const std::string& name, std::uint8_t port,
                   ibv_context*& context, device_facts& facts);

/// On Ethernet: RoCE v2 over IPv4 if the port has it, then over a routable IPv6 address, then link-local,
/// then RoCE v1. Unless wished otherwise DSCP 26 and priority 3, as RoCE networks have it by convention. A
/// path MTU above the port's is reduced to it.
status choose_path(const device_facts& facts, const path_wishes& wishes, path_options& out,
                   std::vector<std::string>& warnings);

/// "fe80::1" or "::ffff:10.0.0.1", for messages.
[[nodiscard]] std::string to_text(const gid& address);

} // namespace memkv::verbs
