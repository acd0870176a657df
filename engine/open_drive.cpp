#include "engine/open_drive.hpp"

#include "engine/faulty_device.hpp"
#include "engine/file_device.hpp"
#include "engine/memory_device.hpp"
#include "engine/page.hpp"
#include "engine/uring_device.hpp"

namespace memkv::engine {

status open_drive(const drive_description& description, const store_options& options, clock& time,
                  const drive_means& means, std::unique_ptr<block_device>& device,
                  std::unique_ptr<drive_store>& store) {
  store.reset();
  device.reset();
  const std::uint64_t size = description.size_bytes / page_bytes * page_bytes;
  store_options used = options;
  status opened;
  if (description.memory) {
    used.persistent = false;
    opened = open_memory_device(size, "memory", device);
  } else if (description.raw) {
    used.sync = sync_policy::always;
    // Nothing that somebody else may have put there is ever formatted without having been asked to.
    used.format_if_new = false;
    uring_device_options raw;
    raw.path = description.path;
    raw.allow_file = description.image;
    raw.host = means.host;
    raw.registered = means.registered;
    raw.claim_ms = means.claim_ms;
    opened = open_uring_device(raw, device);
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
  if (means.faults != nullptr && !description.memory)
    device = make_faulty_device(std::move(device), means.faults, time);
  const std::string name = device->information().name;
  const std::string note = std::move(opened.text);
  opened = drive_store::open(*device, used, time, store);
  if (!opened.ok()) {
    store.reset();
    device.reset();
  }
  if (!opened.text.empty())
    opened.text = name + ": " + opened.text;
  if (opened.ok() && !note.empty())
    opened.text += (opened.text.empty() ? "" : "; ") + note;
  return opened;
}

} // namespace memkv::engine
