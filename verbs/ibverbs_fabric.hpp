// The fabric on libibverbs: RC on any device that it knows, soft-RoCE included, and DC on those of mlx5 that
// have it (ibverbs_dc.hpp, which says how far that is tried). Where there is no DC, its functions are refused
// as unsupported with the reason.
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
