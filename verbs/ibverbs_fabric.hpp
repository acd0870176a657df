// The fabric on libibverbs: RC on any device that it knows, soft-RoCE included. DC initiators and targets
// are refused as unsupported, and its facts say that the device has no DC: that is not built yet.
//
// Threading, ownership and errors: as fabric.hpp says. Limits: those of the device.
#pragma once

#include "verbs/fabric.hpp"
#include "verbs/ibverbs_device.hpp"

#include <memory>
#include <string>
#include <vector>

namespace memkv::verbs {

/// Opens a device as open_device does, and chooses the path as choose_path does.
status open_ibverbs_fabric(const ibverbs_library& library, const std::string& device, std::uint8_t port,
                           const path_wishes& wishes, std::unique_ptr<fabric>& out,
                           std::vector<std::string>& warnings);

} // namespace memkv::verbs
