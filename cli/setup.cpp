#include "cli/setup.hpp"

#include "actors/log.hpp"
#include "cli/config.hpp"
#include "cli/doctor_gather.hpp" // read_nic_facts
#include "cli/drive_progress.hpp"
#include "cli/drive_text.hpp"
#include "cli/drive_tool.hpp"
#include "cli/machine.hpp"
#include "cli/setup_plan.hpp"
#include "engine/drive_format.hpp"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>

namespace memkv::cli {

namespace {

constexpr std::string_view target = "memkv::setup";

struct setup {
  std::vector<setup_drive> drives;
  std::vector<opened_drive> opened; // in the same order
  setup_config config;
  bool force = false, idempotent = false;
};

void log_drive(const setup_drive& drive) {
  const auto& facts = drive.facts;
  log::info(target, "drive",
            {{"path", drive.path},
             {"model", facts.model.empty() ? std::string_view("unknown") : std::string_view(facts.model)},
             {"serial", facts.serial},
             {"capacity", about_size(facts.size_bytes)},
             {"logical_block_bytes", facts.logical_block_bytes},
             {"optimal_io_bytes", facts.optimal_io_bytes},
             {"max_sectors_kb", facts.max_sectors_kb},
             {"discard", facts.discards},
             {"write_cache", facts.write_cache}});
}

// Everything that can be known without writing: until this has succeeded no drive is touched.
std::string look(setup& work) {
  for (auto& drive : work.drives) {
    drive.where = look_at_path(drive.path);
    if (drive.where.kind == path_kind::block_device)
      (void)read_device_facts("", drive.where.number, drive.facts, drive.no_facts);
  }
  if (auto problem = check_devices(work.drives, work.force); !problem.empty())
    return problem;
  for (auto& drive : work.drives) {
    log_drive(drive);
    opened_drive opened;
    // All stay claimed until the end: nobody else can take one in between.
    if (auto problem = open_for_tool(drive.path, drive_access::write, "", opened); !problem.empty())
      return problem;
    if (const auto looked = engine::look_at_content(*opened.device, drive.content); !looked.ok())
      return looked.text;
    work.opened.push_back(std::move(opened));
  }
  return {};
}

std::string choose_config(setup& work, const parsed& line, bool keep) {
  auto& config = work.config;
  const auto rdma = line.text("rdma");
  if (rdma != "none") {
    config.rdma_device = rdma;
    const auto nic = read_nic_facts("", rdma);
    config.rdma_absent = !nic.present;
    std::string there;
    for (const auto& other : nic.others)
      there += (there.empty() ? "" : ", ") + other;
    if (config.rdma_absent)
      log::warn(target, "this machine has no RDMA device " + rdma +
                            ", and a server with this configuration is degraded: " +
                            (there.empty() ? "" : "name one of " + there + " with --rdma, ") +
                            "write --rdma none, or put the device in");
  }
  memory_facts memory;
  if (!read_memory_facts("", memory))
    return "the available memory cannot be read from /proc/meminfo: mount /proc";
  config.pool_bytes = choose_pool_bytes(memory.available_bytes);
  if (keep) {
    const auto& places = work.drives.front().content.super.places;
    if (line.given("shard-size") && config.sizes.shard_bytes != places.unit_bytes)
      log::warn(target, "--shard-size is not in effect: the drives stay as they were formatted");
    config.sizes = {places.unit_bytes, places.extent_bytes_max};
  }
  server_config server;
  server.memory.max_bytes = config.pool_bytes;
  server.storage.mode = storage_mode::direct;
  server.storage.shard_bytes = config.sizes.shard_bytes;
  for (const auto& drive : work.drives) {
    std::error_code error;
    const auto absolute = std::filesystem::absolute(drive.path, error);
    config.media.push_back(error ? drive.path : absolute.string());
    server.storage.drives.push_back({config.media.back(), drive.facts.size_bytes});
    engine::layout fits;
    if (const auto sized = engine::compute_layout(drive.facts.size_bytes, config.sizes.shard_bytes,
                                                  config.sizes.block_bytes, fits);
        !sized.ok())
      return drive.path + ": " + sized.text;
  }
  const auto verdict = check_memory(server, memory);
  if (!verdict.refusal.empty())
    log::warn(target, "memkv start may refuse this configuration on this machine: " + verdict.refusal);
  else if (!verdict.warning.empty())
    log::warn(target, verdict.warning);
  return check_setup_yaml(config);
}

// A format keeps the failure registry: what unlocks a failing drive is a reset of just that drive.
void warn_of_blacklisted(const setup& work) {
  for (const auto& drive : work.drives)
    if (drive.content.kind == engine::content_kind::memkv && drive.content.super.failures.blacklisted)
      log::warn(target, drive.path + " stays blacklisted after " +
                            std::to_string(drive.content.super.failures.failure_count) +
                            " failures: run memkv drive reset " + drive.path + ", or replace it");
}

std::string format_all(setup& work) {
  engine::identity set_id{};
  if (::getrandom(set_id.data(), set_id.size(), 0) != static_cast<ssize_t>(set_id.size()))
    return "the system gave no random bytes for the identity of the set";
  const std::size_t count = work.drives.size();
  drive_progress shown; // of all drives together
  std::uint64_t total_bytes = 0;
  std::uint64_t done_bytes = 0;
  for (const auto& drive : work.drives)
    total_bytes += drive.facts.size_bytes;
  for (std::size_t index = 0; index < count; ++index) {
    const auto& drive = work.drives[index];
    auto& opened = work.opened[index];
    engine::new_drive wanted;
    wanted.identity.set_id = set_id;
    wanted.identity.drive_index = static_cast<std::uint32_t>(index);
    wanted.identity.drive_count = static_cast<std::uint32_t>(count);
    wanted.unit_bytes = work.config.sizes.shard_bytes;
    wanted.extent_bytes_max = work.config.sizes.block_bytes;
    if (drive.content.kind == engine::content_kind::memkv)
      wanted.failures = drive.content.super.failures;
    wanted.failures.device_id = drive.facts.serial.empty() ? drive.path : drive.facts.serial;
    const auto formatted = engine::format_new(*opened.device, opened.discarder.get(), wanted,
                                              [&](std::string_view, std::uint64_t done, std::uint64_t) {
                                                shown.show("formatting", done_bytes + done, total_bytes);
                                                return true;
                                              });
    done_bytes += drive.facts.size_bytes;
    shown.show("formatting", done_bytes, total_bytes);
    shown.clear(); // log lines and sentences follow
    if (!formatted.ok())
      return drive.path + ": " + formatted.text +
             (index > 0 ? "; the drives before it are formatted, so run memkv setup again with --force" : "");
    if (!formatted.text.empty())
      log::warn(target, drive.path + ": " + formatted.text);
    log::info(
        target, "formatted",
        {{"path", drive.path}, {"set_id", hex_text(set_id)}, {"device_id", index}, {"num_devices", count}});
  }
  return {};
}

// The kernel still knows the partitions that are gone. It lets go of them only when nobody has the disk.
void forget_partitions(setup& work) {
  work.opened.clear();
  for (const auto& drive : work.drives) {
    if (drive.facts.partitions.empty())
      continue;
    const int file = ::open(drive.path.c_str(), O_RDONLY | O_EXCL | O_CLOEXEC);
    if (file < 0 || ::ioctl(file, BLKRRPART) != 0)
      log::warn(target, drive.path +
                            ": the kernel keeps showing the partitions that were there: run blockdev "
                            "--rereadpt on it");
    if (file >= 0)
      ::close(file);
  }
}

int refuse(const std::string& sentence) {
  std::fprintf(stderr, "memkv: %s\n", sentence.c_str());
  return 1;
}

} // namespace

int run_setup_command(const parsed& line) {
  setup work;
  work.force = line.has("force");
  work.idempotent = line.has("idempotent");
  if (auto problem = choose_sizes(line.number("shard-size").value_or(0), work.config.sizes); !problem.empty())
    return refuse(problem);
  for (const auto& path : line.list("drives"))
    work.drives.emplace_back().path = path;
  if (auto problem = look(work); !problem.empty())
    return refuse(problem);
  const auto decision = decide_setup(work.drives, work.force, work.idempotent);
  if (decision.action == setup_action::refuse)
    return refuse(decision.problem);
  const bool keep = decision.action == setup_action::keep;
  if (auto problem = choose_config(work, line, keep); !problem.empty())
    return refuse(problem);
  warn_of_blacklisted(work);
  if (keep)
    log::info(target, "every drive is initialised: nothing is written");
  else if (auto problem = format_all(work); !problem.empty())
    return refuse(problem);
  if (!keep)
    forget_partitions(work);
  const std::string yaml = setup_yaml(work.config);
  if (std::fwrite(yaml.data(), 1, yaml.size(), stdout) != yaml.size() || std::fflush(stdout) != 0)
    return refuse("standard output cannot be written");
  return 0;
}

} // namespace memkv::cli
