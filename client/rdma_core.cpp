#include "client/rdma_core.hpp"

#include "verbs/ibverbs_fabric.hpp"

#include <algorithm>
#include <cstdio>
#include <utility>

namespace memkv::client {
namespace {

constexpr std::uint32_t deadlines_in_a_row_max = 3;

[[nodiscard]] status from_verbs(const verbs::status& problem) {
  switch (problem.code) {
  case verbs::errc::ok:
    return {};
  case verbs::errc::invalid_argument:
    return {errc::invalid_argument, problem.text};
  case verbs::errc::unsupported:
    return {errc::unsupported, problem.text};
  case verbs::errc::no_resources:
  case verbs::errc::queue_full:
    return {errc::no_memory, problem.text};
  default:
    return {errc::rdma_failed, problem.text};
  }
}

[[nodiscard]] verbs::path_wishes wishes_of(const options& chosen) {
  verbs::path_wishes wishes;
  wishes.gid_index = chosen.gid_index;
  wishes.mtu_bytes = chosen.mtu;
  if (chosen.traffic_class) {
    wishes.traffic_class = static_cast<std::uint8_t>(*chosen.traffic_class);
  }
  if (chosen.service_level) {
    wishes.service_level = static_cast<std::uint8_t>(*chosen.service_level);
  }
  return wishes;
}

[[nodiscard]] rdma_device::opener opener_of(const options& chosen, const std::string& name) {
  if (chosen.open_fabric) {
    return [open = chosen.open_fabric, name](std::unique_ptr<verbs::fabric>& made) {
      const status opened = open(name, made);
      return opened.ok() ? verbs::status{} : verbs::status{verbs::errc::device_failed, opened.text};
    };
  }
  return [wishes = wishes_of(chosen), name](std::unique_ptr<verbs::fabric>& made) {
    const verbs::ibverbs_library* library = nullptr;
    if (verbs::status loaded = verbs::load_ibverbs(library); !loaded.ok()) {
      return loaded;
    }
    std::vector<std::string> warnings; // said when the client was made
    return verbs::open_ibverbs_fabric(*library, name, 1, wishes, made, warnings);
  };
}

} // namespace

// ---- devices ----

status rdma_core::open_devices(const options& chosen, std::vector<std::string>& notes, bool& none) {
  std::vector<std::string> names = chosen.rdma_devices;
  std::vector<std::string> warnings;
  std::function<status(const std::string&, std::unique_ptr<verbs::fabric>&)> open = chosen.open_fabric;
  if (!open) {
    const verbs::ibverbs_library* library = nullptr;
    const verbs::status loaded = verbs::load_ibverbs(library);
    std::vector<std::string> found;
    const verbs::status listed = loaded.ok() ? verbs::list_devices(*library, found) : loaded;
    if (names.empty()) {
      if (!listed.ok() || found.empty()) {
        none = true;
        notes.push_back("transport auto means tcp: " +
                        (listed.ok() ? "this machine has no RDMA device" : listed.text));
        return {};
      }
      names = {""}; // the first whose port is active
    } else if (!loaded.ok()) {
      return {errc::bad_config, "rdma_devices: " + loaded.text};
    }
    open = [&, library](const std::string& name, std::unique_ptr<verbs::fabric>& made) {
      return from_verbs(verbs::open_ibverbs_fabric(*library, name, 1, wishes_of(chosen), made, warnings));
    };
  } else if (names.empty()) {
    none = true;
    notes.emplace_back("transport auto means tcp: this machine has no RDMA device");
    return {};
  }
  for (const std::string& name : names) {
    std::unique_ptr<verbs::fabric> fabric;
    if (const status opened = open(name, fabric); !opened.ok()) {
      return {errc::bad_config, "rdma_devices: " + (name.empty() ? "" : name + ": ") + opened.text};
    }
    std::string known = name.empty() ? fabric->facts().name : name;
    // With auto the first failure is the end of RDMA, so nobody asks for the device again.
    rdma_device::opener again;
    if (strict_) {
      again = opener_of(chosen, known);
    }
    devices_.push_back(std::make_unique<rdma_device>(std::move(known), std::move(fabric), std::move(again)));
  }
  notes.insert(notes.end(), warnings.begin(), warnings.end());
  return {};
}

status rdma_core::make(const options& chosen, std::vector<std::string>& notes,
                       std::shared_ptr<rdma_core>& out) {
  out.reset();
  if (chosen.transport == transport_choice::tcp) {
    return {};
  }
  const std::shared_ptr<rdma_core> made(new rdma_core);
  made->strict_ = chosen.transport == transport_choice::rdma;
  made->log_ = chosen.log;
  bool none = false;
  status opened = made->open_devices(chosen, notes, none);
  if (none) {
    return {};
  }
  if (opened.ok() && made->strict_) {
    made->staging_on_device_.reserve(made->devices_.size());
    made->staging_.emplace(std::size_t{chosen.rdma_staging_mb} << 20U);
    if (made->staging_->data().empty()) {
      return {errc::no_memory, "rdma_staging_mb: there is not so much memory: ask for less"};
    }
    for (const auto& device : made->devices_) {
      const verbs::status registered =
          device->register_memory(made->staging_->data(), made->staging_on_device_.emplace_back());
      if (!registered.ok()) {
        opened = {errc::bad_config, "the staging area of " + std::to_string(chosen.rdma_staging_mb) +
                                        " MiB cannot be registered with " + device->name() + ": " +
                                        registered.text};
        break;
      }
    }
  }
  if (!opened.ok()) {
    if (made->strict_) {
      return opened;
    }
    made->note_failure(opened.text);
  }
  out = made;
  return {};
}

rdma_core::~rdma_core() {
  for (const auto& device : devices_) {
    device->close(); // before the staging area goes
  }
}

bool rdma_core::has_open_device() const noexcept {
  return std::any_of(devices_.begin(), devices_.end(), [](const auto& one) { return !one->closed(); });
}

void rdma_core::watch() {
  for (const auto& device : devices_) {
    if (device->watch()) {
      note_failure("the RDMA device " + device->name() + " is gone or its port is down");
    }
  }
}

// ---- failures ----

void rdma_core::log(const std::string& line) const {
  if (log_) {
    log_(line);
  } else {
    std::fprintf(stderr, "memkv: %s\n", line.c_str());
  }
}

void rdma_core::note_failure(const std::string& why) {
  ++failures;
  if (!strict_) {
    if (!latched_.exchange(true)) {
      log("WARN RDMA failed, and this client works over TCP from now on: " + why);
    }
  } else if (failures.load() == 1) {
    log("WARN RDMA failed, for the first time in this client: " + why);
  }
}

void rdma_core::note_deadline() {
  if (deadlines_in_a_row_.fetch_add(1) + 1 == deadlines_in_a_row_max) {
    note_failure("three requests in a row had no answer within their deadline");
  }
}

void rdma_core::note_success() noexcept {
  if (deadlines_in_a_row_.load(std::memory_order_relaxed) != 0) {
    deadlines_in_a_row_ = 0;
  }
}

// ---- registered memory ----

status rdma_core::add(std::shared_ptr<registration> made, registered_memory& out) {
  made->core = shared_from_this();
  {
    const std::unique_lock lock(mutex_);
    const auto behind = registrations_.lower_bound(made->address + made->length);
    const bool overlaps = behind != registrations_.begin() && [&] {
      const registration& before = *std::prev(behind)->second;
      return before.address + before.length > made->address;
    }();
    if (overlaps) {
      for (std::size_t i = 0; i < made->on_device.size(); ++i) {
        devices_[i]->deregister(made->on_device[i].id);
      }
      return {errc::invalid_argument, "a part of this memory is registered already: deregister it first"};
    }
    registrations_.emplace(made->address, made);
    ++count_;
  }
  out = {};
  out.held_ = std::move(made);
  return {};
}

status rdma_core::register_memory(std::span<std::byte> range, registered_memory& out) {
  auto made = std::make_shared<registration>();
  made->address = reinterpret_cast<std::uintptr_t>(range.data());
  made->length = range.size();
  for (const auto& device : devices_) {
    if (!in_use()) {
      break;
    }
    const verbs::status registered = device->register_memory(range, made->on_device.emplace_back());
    if (!registered.ok()) {
      for (std::size_t i = 0; i < made->on_device.size(); ++i) {
        devices_[i]->deregister(made->on_device[i].id);
      }
      return from_verbs(registered);
    }
  }
  return add(std::move(made), out);
}

status rdma_core::register_device_memory(const device_memory& memory, registered_memory& out) {
  auto made = std::make_shared<registration>();
  made->address = memory.address;
  made->length = memory.length;
  made->copy_out = memory.copy_out;
  for (const auto& device : devices_) {
    const verbs::status registered = device->register_dma_buf(memory.descriptor, memory.offset, memory.length,
                                                              memory.address, made->on_device.emplace_back());
    if (!registered.ok()) {
      for (std::size_t i = 0; i < made->on_device.size(); ++i) {
        devices_[i]->deregister(made->on_device[i].id);
      }
      return from_verbs(registered);
    }
  }
  return add(std::move(made), out);
}

bool rdma_core::deregister(registration& one, bool wait) {
  std::shared_ptr<registration> kept;
  {
    const std::unique_lock lock(mutex_);
    const auto place = registrations_.find(one.address);
    if (!wait && one.uses.load() != 0) {
      return false;
    }
    kept = std::move(place->second);
    registrations_.erase(place); // no call finds it any more
    --count_;
  }
  for (std::uint32_t uses = kept->uses.load(); uses != 0; uses = kept->uses.load()) {
    kept->uses.wait(uses);
  }
  for (std::size_t i = 0; i < kept->on_device.size(); ++i) {
    devices_[i]->deregister(kept->on_device[i].id);
  }
  return true;
}

std::shared_ptr<registration> rdma_core::find(const void* begin, std::size_t length) {
  const auto address = static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(begin));
  const std::shared_lock lock(mutex_);
  auto place = registrations_.upper_bound(address);
  if (place == registrations_.begin()) {
    return nullptr;
  }
  --place;
  registration& one = *place->second;
  if (length > one.length || address - one.address > one.length - length) {
    return nullptr;
  }
  ++one.uses;
  return place->second;
}

// ---- the handle ----

registered_memory::registered_memory() noexcept = default;
registered_memory::registered_memory(registered_memory&& other) noexcept = default;

registered_memory& registered_memory::operator=(registered_memory&& other) noexcept {
  if (this != &other) {
    if (held_) {
      static_cast<void>(held_->core->deregister(*held_, true));
    }
    held_ = std::move(other.held_);
  }
  return *this;
}

registered_memory::~registered_memory() {
  if (held_) {
    static_cast<void>(held_->core->deregister(*held_, true));
  }
}

status registered_memory::release() {
  if (held_ && !held_->core->deregister(*held_, false)) {
    return {errc::busy, "a call uses this memory: wait for it to complete"};
  }
  held_.reset();
  return {};
}

bool registered_memory::effective() const noexcept {
  return held_ != nullptr && !held_->on_device.empty() && held_->core->in_use() &&
         held_->core->has_open_device();
}

} // namespace memkv::client
