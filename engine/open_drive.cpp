#include "engine/open_drive.hpp"

#include "engine/file_device.hpp"
#include "engine/memory_device.hpp"
#include "engine/page.hpp"

namespace memkv::engine {

status open_drive(const drive_description& description, const store_options& options, clock& time,
                  std::unique_ptr<block_device>& device, std::unique_ptr<drive_store>& store) {
  store.reset();
  device.reset();
  const std::uint64_t size = description.size_bytes / page_bytes * page_bytes;
  store_options used = options;
  status opened;
  if (description.memory) {
    used.persistent = false;
    opened = open_memory_device(size, "memory", device);
  } else {
    file_device_options file;
    file.path = description.path;
    file.size_bytes = size;
    opened = open_file_device(file, device);
  }
  if (!opened.ok()) {
    device.reset();
    return opened;
  }
  const std::string name = device->information().name;
  opened = drive_store::open(*device, used, time, store);
  if (!opened.ok()) {
    store.reset();
    device.reset();
  }
  if (!opened.text.empty())
    opened.text = name + ": " + opened.text;
  return opened;
}

} // namespace memkv::engine
