#include "cli/doctor_probe.hpp"

#include "cli/doctor_apart.hpp"
#include "cli/drive_text.hpp"
#include "engine/drive_content.hpp"
#include "engine/drive_io.hpp"
#include "engine/page.hpp"
#include "engine/system_call.hpp"
#include "engine/uring_device.hpp"
#include "wire/bytes.hpp"

#include <fcntl.h>
#include <linux/nvme_ioctl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <fstream>
#include <functional>

namespace memkv::cli {

namespace {

using engine::page_bytes;

constexpr std::uint32_t claim_ms = 300; // a server that has just ended gives its drives back a little late
constexpr std::uint64_t sample_turns = 8;
constexpr std::size_t latencies_max = 1'000'000;

std::uint64_t now_ns() {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                        std::chrono::steady_clock::now().time_since_epoch())
                                        .count());
}

// Reads at random places, each with its place in the queue used again as soon as it is back.
class random_reads {
public:
  random_reads(engine::block_device& device, const std::string& counter_path)
      : device_(device), counter_path_(counter_path), pages_(device.information().size_bytes / page_bytes),
        state_(now_ns() | 1U) {}

  void run(probe_facts& out) {
    const std::uint32_t depth = device_.information().depth_max;
    engine::aligned_bytes memory(std::size_t{depth} * page_bytes);
    slots_.resize(depth);
    const std::uint64_t begun = now_ns();
    until_ns_ = begun + std::uint64_t{probe_ms} * 1'000'000;
    for (std::size_t i = 0; i < slots_.size(); ++i) {
      slots_[i].owner = this;
      slots_[i].operation.what = engine::io_operation::kind::read;
      slots_[i].operation.length = page_bytes;
      slots_[i].operation.data = memory.data() + i * page_bytes;
      slots_[i].operation.done = &came_back;
      slots_[i].operation.context = &slots_[i];
      start(slots_[i]);
    }
    // Looked at right after requests were handed over, without waiting for any of them.
    for (std::uint64_t turns = 0; device_.in_flight() > 0; ++turns) {
      const bool look = turns % sample_turns == 0;
      device_.poll(!look);
      if (look)
        sample();
    }
    out.probe_ns = now_ns() - begun;
    out.reads = latencies_.size() + errors_;
    out.read_errors = errors_;
    out.depth_wanted = depth;
    out.depth_reached = device_.statistics().depth_most;
    out.device_depth = device_depth_;
    std::ranges::sort(latencies_);
    if (!latencies_.empty()) {
      out.median_ns = latencies_[latencies_.size() / 2];
      out.p99_ns = latencies_[(latencies_.size() * 99 - 1) / 100];
    }
  }

private:
  struct slot {
    engine::io_operation operation;
    random_reads* owner = nullptr;
    std::uint64_t begun_ns = 0;
  };

  std::uint64_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_;
  }

  void start(slot& each) {
    each.operation.offset = next() % pages_ * page_bytes;
    each.begun_ns = now_ns();
    device_.submit(each.operation);
  }

  static void came_back(engine::io_operation& operation) {
    auto& each = *static_cast<slot*>(operation.context);
    auto& self = *each.owner;
    const std::uint64_t now = now_ns();
    if (operation.result != engine::errc::ok)
      ++self.errors_;
    else
      self.latencies_.push_back(now - each.begun_ns);
    // A drive that fails everything is not asked for ever.
    if (now < self.until_ns_ && self.latencies_.size() < latencies_max && self.errors_ < 64)
      self.start(each);
  }

  void sample() {
    std::ifstream counter(counter_path_);
    std::uint32_t reads = 0;
    if (counter >> reads)
      device_depth_ = std::max(device_depth_, reads);
  }

  engine::block_device& device_;
  const std::string counter_path_;
  const std::uint64_t pages_;
  std::uint64_t state_, until_ns_ = 0, errors_ = 0;
  std::uint32_t device_depth_ = 0;
  std::vector<slot> slots_;
  std::vector<std::uint64_t> latencies_;
};

// What the controller promises to write whole when the power fails: its identity, asked for with the one
// admin command that changes nothing.
std::uint32_t atomic_bytes_of_nvme(const std::string& path, std::uint32_t block_bytes) {
  constexpr std::uint8_t identify = 0x06;
  constexpr std::size_t awupf = 528; // u16: blocks, less one
  const int file =
      engine::repeated_if_interrupted([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC); });
  if (file < 0)
    return 0;
  alignas(4096) std::array<std::byte, 4096> identity{};
  nvme_admin_cmd command{};
  command.opcode = identify;
  command.addr = reinterpret_cast<std::uintptr_t>(identity.data());
  command.data_len = identity.size();
  command.cdw10 = 1; // of the controller
  command.timeout_ms = 1'000;
  const int rc =
      engine::repeated_if_interrupted([&] { return ::ioctl(file, NVME_IOCTL_ADMIN_CMD, &command); });
  ::close(file);
  return rc == 0 ? (wire::load_le<std::uint16_t>(identity.data() + awupf) + 1U) * block_bytes : 0;
}

void describe_content(const engine::drive_content& content, probe_facts& out) {
  out.content = static_cast<std::uint32_t>(content.kind);
  out.fits = static_cast<std::uint32_t>(content.fits);
  out.content_problem = engine::why_not_ours(content);
  if (content.kind != engine::content_kind::memkv)
    return;
  const auto& super = content.super;
  out.set_id = hex_text(super.set.set_id);
  out.drive_index = super.set.drive_index;
  out.drive_count = super.set.drive_count;
  out.failure_count = super.failures.failure_count;
  out.blacklisted = super.failures.blacklisted;
  out.clean = super.clean;
  out.one_copy = content.copies[0] != engine::errc::ok || content.copies[1] != engine::errc::ok;
  out.unit_bytes = super.places.unit_bytes;
  out.extent_bytes = super.places.extent_bytes_max;
}

} // namespace

probe_facts probe_drive(const doctor_drive_facts& drive, const std::string& root, bool reads) {
  probe_facts out;
  out.done = true;
  engine::uring_device_options options;
  options.path = drive.path;
  options.read_only = true;
  options.allow_file = drive.where.kind == path_kind::regular_file;
  options.claim_ms = claim_ms;
  std::unique_ptr<engine::block_device> device;
  if (const auto opened = engine::open_uring_device(options, device); !opened.ok()) {
    out.problem = opened.text;
    out.in_use = opened.code == engine::errc::in_use;
    return out;
  }
  engine::drive_content content;
  if (const auto looked = engine::look_at_content(*device, content); !looked.ok()) {
    out.problem = looked.text;
    return out;
  }
  out.direct = drive.where.kind == path_kind::block_device;
  describe_content(content, out);
  if (reads)
    random_reads(*device, root + "/sys/dev/block/" + to_text(drive.where.number) + "/inflight").run(out);
  if (drive.device.name.starts_with("nvme") && drive.device.logical_block_bytes > 0)
    out.nvme_atomic_bytes = atomic_bytes_of_nvme(drive.path, drive.device.logical_block_bytes);
  return out;
}

std::string encode(const probe_facts& facts) {
  nlohmann::json document{{"done", facts.done},
                          {"problem", facts.problem},
                          {"in_use", facts.in_use},
                          {"direct", facts.direct},
                          {"depth_wanted", facts.depth_wanted},
                          {"depth_reached", facts.depth_reached},
                          {"device_depth", facts.device_depth},
                          {"reads", facts.reads},
                          {"read_errors", facts.read_errors},
                          {"probe_ns", facts.probe_ns},
                          {"median_ns", facts.median_ns},
                          {"p99_ns", facts.p99_ns},
                          {"nvme_atomic_bytes", facts.nvme_atomic_bytes},
                          {"content", facts.content},
                          {"fits", facts.fits},
                          {"content_problem", facts.content_problem},
                          {"set_id", facts.set_id},
                          {"drive_index", facts.drive_index},
                          {"drive_count", facts.drive_count},
                          {"failure_count", facts.failure_count},
                          {"blacklisted", facts.blacklisted},
                          {"clean", facts.clean},
                          {"one_copy", facts.one_copy},
                          {"unit_bytes", facts.unit_bytes},
                          {"extent_bytes", facts.extent_bytes}};
  return document.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

bool decode(const std::string& text, probe_facts& out) {
  const auto document = nlohmann::json::parse(text, nullptr, false);
  if (!document.is_object())
    return false;
  try {
    const auto take = [&document](const char* key, auto& value) { document.at(key).get_to(value); };
    probe_facts read;
    take("done", read.done);
    take("problem", read.problem);
    take("in_use", read.in_use);
    take("direct", read.direct);
    take("depth_wanted", read.depth_wanted);
    take("depth_reached", read.depth_reached);
    take("device_depth", read.device_depth);
    take("reads", read.reads);
    take("read_errors", read.read_errors);
    take("probe_ns", read.probe_ns);
    take("median_ns", read.median_ns);
    take("p99_ns", read.p99_ns);
    take("nvme_atomic_bytes", read.nvme_atomic_bytes);
    take("content", read.content);
    take("fits", read.fits);
    take("content_problem", read.content_problem);
    take("set_id", read.set_id);
    take("drive_index", read.drive_index);
    take("drive_count", read.drive_count);
    take("failure_count", read.failure_count);
    take("blacklisted", read.blacklisted);
    take("clean", read.clean);
    take("one_copy", read.one_copy);
    take("unit_bytes", read.unit_bytes);
    take("extent_bytes", read.extent_bytes);
    out = read;
  } catch (const nlohmann::json::exception&) {
    return false;
  }
  return true;
}

void probe_drives(doctor_facts& facts, const std::string& root) {
  const bool raw = facts.loaded.config.storage.mode == storage_mode::direct;
  std::vector<std::size_t> which;
  std::vector<std::function<std::string()>> work;
  for (std::size_t i = 0; i < facts.drives.size(); ++i) {
    const auto& drive = facts.drives[i];
    const auto wanted = raw ? path_kind::block_device : path_kind::regular_file;
    if (drive.where.kind != wanted || !drive.device.in_use().empty())
      continue;
    which.push_back(i);
    work.emplace_back([&drive, &root, raw] { return encode(probe_drive(drive, root, raw)); });
  }
  const auto answers = run_apart(work, drives_at_once, probe_deadline_ms);
  for (std::size_t i = 0; i < which.size(); ++i) {
    probe_facts& probe = facts.drives[which[i]].probe;
    probe.timed_out = !answers[i] || !decode(*answers[i], probe);
    probe.done = true;
  }
}

} // namespace memkv::cli
