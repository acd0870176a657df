// The verdicts, from machines that are made up.
#define CAF_SUITE doctor_judge
#include "cli/doctor_judge.hpp"
#include "engine/drive_content.hpp"

#include <caf/test/unit_test.hpp>

#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <functional>

using namespace memkv;
using namespace memkv::cli;

namespace {

constexpr std::uint64_t mib = 1024 * 1024;
constexpr std::uint64_t gib = 1024 * mib;
constexpr const char* key = "0123456789abcdeffedcba98765432100f1e2d3c4b5a69788796a5b4c3d2e1f0";

doctor_drive_facts nvme(unsigned index) {
  doctor_drive_facts drive;
  drive.path = "/dev/nvme" + std::to_string(index) + "n1";
  drive.where.kind = path_kind::block_device;
  drive.where.number = {259, index};
  drive.device.number = {259, index};
  drive.device.name = "nvme" + std::to_string(index) + "n1";
  drive.device.model = "FAST DRIVE 9000";
  drive.device.size_bytes = 8 * gib;
  drive.device.logical_block_bytes = 512;
  drive.device.optimal_io_bytes = 128 << 10;
  drive.device.max_sectors_kb = 1280;
  drive.device.discards = true;
  drive.device.write_cache = "write back";
  drive.fua = true;
  drive.atomic_unit_max_bytes = 16384;
  drive.max_hw_sectors_kb = 2048;
  drive.requests_max = 1023;
  drive.probe.done = true;
  drive.probe.direct = true;
  drive.probe.depth_wanted = drive.probe.depth_reached = 64;
  drive.probe.device_depth = 63;
  drive.probe.reads = 100'000;
  drive.probe.probe_ns = 400'000'000;
  drive.probe.median_ns = 80'000;
  drive.probe.p99_ns = 2'300'000;
  drive.probe.content = static_cast<std::uint32_t>(engine::content_kind::memkv);
  drive.probe.set_id = std::string(32, 'a');
  drive.probe.drive_index = index;
  drive.probe.drive_count = 2;
  drive.probe.clean = true;
  drive.probe.unit_bytes = 64 << 10;
  drive.probe.extent_bytes = 4 << 20;
  return drive;
}

nic_facts connectx() {
  nic_facts nic;
  nic.device = "mlx5_0";
  nic.present = true;
  nic.others = {"mlx5_0"};
  nic.driver = "mlx5_core";
  nic.state = "4: ACTIVE";
  nic.rate = "100 Gb/sec (4X EDR)";
  nic.link_layer = "Ethernet";
  nic.net_mtu = 9000;
  nic.net_name = "eth2";
  nic.gids = {{0, "fe80::1", "IB/RoCE v1"}, {3, "::ffff:10.0.0.7", "RoCE v2"}};
  return nic;
}

// Two NVMe drives, a NIC, certificates, a peer: everything is as it should be.
doctor_facts healthy() {
  doctor_facts facts;
  facts.config_path = "c.yaml";
  facts.loaded =
      parse_config("network: { tls_cert: c.pem, tls_key: k.pem }\nmemory: { max_size: 1 GiB }\n"
                   "rdma: { device: mlx5_0, gid_index: 3, mtu: 4096, traffic_class: 104, service_level: 3 }\n"
                   "storage: { mode: direct, drives: [{ media: /dev/nvme0n1 }, { media: /dev/nvme1n1 }] }\n",
                   {std::string(key)});
  CAF_REQUIRE_EQUAL(facts.loaded.problem.sentence, "");
  facts.loaded.not_in_effect.clear();
  facts.key_from_environment = true;
  facts.key_different_bytes = 30;
  facts.probed = true;
  facts.kernel = "6.8.0";
  facts.ring = {0, 0, 0};
  facts.memory_known = true;
  facts.memory = {64 * gib, 600, 2 * mib};
  facts.pool_pages = facts.pool_pages_free = 600;
  facts.limits = {RLIM_INFINITY, 1024, 1'048'576, 1'048'576, false, false};
  facts.ports = {{9900, false, 0, 1024, {}}, {9901, true, 0, 1024, {}}};
  facts.drives = {nvme(0), nvme(1)};
  facts.tls = {true, "", "", true, 1'000'000, 2'000'000'000, "/CN=memkv", 0600};
  facts.nics = {connectx()};
  facts.clock = {"", true, 1500, 1'790'000'000};
  facts.peers = {{"b:9900", false, peer_facts::outcome::answered, "", 2'000'000, 300'000}};
  facts.log = {"memkv.log", false, true, true, true, ".", "", 10 * gib};
  return facts;
}

// The findings of one check, each "state found: remedy", with the subject in front if there is one.
std::string said(const doctor_facts& facts, std::string_view check) {
  std::string text;
  for (const auto& each : judge(facts))
    if (each.check == check)
      text += (text.empty() ? "" : "\n") + std::string(name(each.state)) + " " +
              (each.subject.empty() ? "" : each.subject + " ") + each.found +
              (each.remedy.empty() ? "" : ": " + each.remedy);
  return text;
}

std::string changed(std::string_view check, const std::function<void(doctor_facts&)>& change) {
  auto facts = healthy();
  change(facts);
  return said(facts, check);
}

std::string first_line(const std::string& text) {
  return text.substr(0, text.find('\n'));
}

std::string of_drive(std::string_view check, const std::function<void(doctor_drive_facts&)>& change) {
  return first_line(changed(check, [&](doctor_facts& facts) { change(facts.drives[0]); }));
}

std::string of_nic(std::string_view check, const std::function<void(nic_facts&)>& change) {
  return changed(check, [&](doctor_facts& facts) { change(facts.nics[0]); });
}

} // namespace

CAF_TEST(on a machine that keeps what is promised nothing fails and nothing warns) {
  const auto findings = judge(healthy());
  for (const auto& each : findings)
    if (each.state == check_state::failed || each.state == check_state::warning)
      CAF_ERROR(each.sentence());
  CAF_CHECK_EQUAL(exit_code(findings), 0);
  CAF_CHECK(count_states(findings).ok > 30);
}

CAF_TEST(every finding that is not good says what to do) {
  // As many faults at once as one machine can have.
  auto facts = healthy();
  facts.kernel = "5.4";
  facts.ring = {EPERM, 2, 0};
  facts.limits = {65536, 1024, 1024, 0, false, false};
  facts.ports[0].error = EADDRINUSE;
  facts.drives[0].device.discards = false;
  facts.drives[1].where.kind = path_kind::other;
  facts.tls.matches = false;
  facts.nics[0].state = "1: DOWN";
  facts.clock.synchronised = false;
  facts.peers[0].ahead_ns = 61'000'000'000;
  facts.log.writable = false;
  const auto findings = judge(facts);
  CAF_CHECK_EQUAL(exit_code(findings), 1);
  for (const auto& each : findings)
    if (each.state == check_state::failed || each.state == check_state::warning)
      CAF_CHECK_NOT_EQUAL(each.remedy, "");
}

CAF_TEST(a configuration that cannot be read is a failure and the rest is still looked at) {
  auto facts = healthy();
  facts.loaded = {};
  facts.loaded.problem = {3, "storage.mode", "storage.mode must be file, memory or direct"};
  CAF_CHECK_EQUAL(said(facts, "config"),
                  "failed c.yaml, line 3: storage.mode must be file, memory or direct");
  facts.loaded.problem = {0, "", "the file cannot be opened (Permission denied): name another"};
  CAF_CHECK_EQUAL(said(facts, "config"),
                  "failed c.yaml: the file cannot be opened (Permission denied): name another");
  CAF_CHECK_EQUAL(std::string(judge(facts)[0].remedy), "name another");
  CAF_CHECK_EQUAL(said(facts, "kernel"), "ok Linux 6.8.0");
  CAF_CHECK_EQUAL(said(facts, "clock"), "ok synchronised, to within 0.002 s");
  CAF_CHECK_EQUAL(exit_code(judge(facts)), 1);
}

CAF_TEST(every key without effect has a line) {
  CAF_CHECK_EQUAL(changed("config.effect",
                          [](auto& f) {
                            f.loaded.not_in_effect = {{"one.key", 4, "it is not part of this build"},
                                                      {"other.key", 5, "it is not part of this build"}};
                          }),
                  "warning one.key not in effect (line 4), since it is not part of this build: remove it, or "
                  "use a build that has it\n"
                  "warning other.key not in effect (line 5), since it is not part of this build: remove it, "
                  "or use a build that has it");
  CAF_CHECK_EQUAL(
      changed("config.access",
              [](auto& f) { f.loaded.warnings = {"c.yaml can be read by others: run chmod 600 on it"}; }),
      "warning c.yaml can be read by others: run chmod 600 on it");
}

CAF_TEST(an old kernel fails) {
  CAF_CHECK_EQUAL(
      changed("kernel", [](auto& f) { f.kernel = "6.1.0-18-amd64"; }),
      "failed this is Linux 6.1.0-18-amd64, and memkv start needs 6.8 or newer: boot a newer kernel");
}

CAF_TEST(the reason why a ring is refused is named) {
  const auto ring = [](ring_facts with) { return changed("io_uring", [&](auto& f) { f.ring = with; }); };
  CAF_CHECK_EQUAL(ring({0, 1, 2}), "ok a ring could be set up, by this user (kernel.io_uring_disabled is 1)");
  CAF_CHECK_EQUAL(
      ring({EPERM, 2, 0}),
      "failed a ring cannot be set up (Operation not permitted), since kernel.io_uring_disabled is 2: "
      "sysctl -w kernel.io_uring_disabled=0");
  CAF_CHECK(ring({EPERM, 1, 0}).find("kernel.io_uring_group") != std::string::npos);
  CAF_CHECK_EQUAL(
      ring({EPERM, 0, 2}),
      "failed a ring cannot be set up (Operation not permitted), and this process is under a seccomp "
      "filter: allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp "
      "profile");
  CAF_CHECK(ring({ENOSYS, -1, 0}).find("boot a kernel with CONFIG_IO_URING") != std::string::npos);
  CAF_CHECK(ring({EINVAL, 0, 0}).find("does not know the options") != std::string::npos);
  CAF_CHECK(ring({EPERM, 0, 0}).find("security module") != std::string::npos);
}

CAF_TEST(memory that is too small fails and names the pages) {
  const auto text = changed("memory", [](auto& f) {
    f.memory = {gib, 0, 2 * mib};
    f.pool_pages_free = 0;
  });
  CAF_CHECK_EQUAL(
      text, "failed memory.max_size needs 1.0 GiB, but 80 % of the available memory is 819.2 MiB: lower "
            "it, or reserve hugepages for the pool with sysctl -w vm.nr_hugepages=512");
  CAF_CHECK_EQUAL(changed("memory", [](auto& f) { f.memory_known = false; }),
                  "failed the available memory cannot be read from /proc/meminfo: mount /proc");
}

CAF_TEST(hugepages that are too few come with the line for sysctl) {
  CAF_CHECK_EQUAL(changed("hugepages", [](auto&) {}),
                  "ok 600 of 600 hugepages of 2 MiB are free, and the pool needs 512");
  CAF_CHECK_EQUAL(changed("hugepages", [](auto& f) { f.pool_pages_free = 100; }),
                  "warning 100 of 600 hugepages of 2 MiB are free, and the pool needs 512, so it will lie in "
                  "ordinary memory: sysctl -w vm.nr_hugepages=1012");
  CAF_CHECK_EQUAL(
      changed("hugepages", [](auto& f) { f.pool_pages = f.pool_pages_free = 0; }),
      "skipped none are reserved, so the pool will lie in ordinary memory; to reserve them: sysctl -w "
      "vm.nr_hugepages=512");
}

CAF_TEST(the limit on locked memory is compared with what all rings register) {
  CAF_CHECK_EQUAL(changed("memlock", [](auto&) {}), "ok the limit on locked memory is infinite");
  CAF_CHECK_EQUAL(
      changed("memlock", [](auto& f) { f.limits.memlock_bytes = gib; }),
      "warning the rings of 2 drives lock memory.max_size each, 2.00 GiB in all, and RLIMIT_MEMLOCK is "
      "1.00 GiB, so buffers will not be registered, which costs speed: LimitMEMLOCK=infinity in the "
      "systemd unit, or \"USER - memlock unlimited\" in /etc/security/limits.conf");
  CAF_CHECK(changed("memlock", [](auto& f) { f.limits.memlock_bytes = 2 * gib; }).starts_with("ok "));
  CAF_CHECK(changed("memlock", [](auto& f) {
              f.limits.memlock_bytes = 0;
              f.limits.may_lock_memory = true;
            }).starts_with("ok "));
}

CAF_TEST(descriptors are compared with what may be had) {
  CAF_CHECK_EQUAL(
      changed("descriptors", [](auto& f) { f.limits.descriptors_hard = 4096; }),
      "warning network.max_connections needs 16640 open files, and this user may have 4096, where "
      "accepting will pause: LimitNOFILE=16640 in the systemd unit, or \"USER - nofile 16640\" in "
      "/etc/security/limits.conf");
  const auto root = [](std::uint64_t kernel) {
    return changed("descriptors", [&](auto& f) {
      f.limits.descriptors_hard = 4096;
      f.limits.descriptors_kernel_max = kernel;
      f.limits.may_raise_limits = true;
    });
  };
  CAF_CHECK(root(1 << 20).starts_with("ok "));
  CAF_CHECK(root(8192).ends_with("sysctl -w fs.nr_open=16640"));
}

CAF_TEST(a port that cannot be had says who has it or why) {
  const auto port = [](int error, holder_facts holder) {
    return changed("port.data", [&](auto& f) {
      f.ports[0].error = error;
      f.ports[0].holder = holder;
    });
  };
  CAF_CHECK_EQUAL(port(0, {}), "ok 9900 free");
  CAF_CHECK_EQUAL(port(EADDRINUSE, {77, "nginx", false}),
                  "failed 9900 held by nginx (pid 77): stop that, or choose another port in network.address");
  CAF_CHECK_EQUAL(port(EADDRINUSE, {77, "memkv", true}),
                  "ok 9900 held by the server of this configuration, which is running (pid 77)");
  CAF_CHECK(port(EADDRINUSE, {}).find("ss -ltnp") != std::string::npos);
  CAF_CHECK(port(EACCES, {}).starts_with("failed 9900 ports below 1024 are not for this user"));
  CAF_CHECK(port(EADDRNOTAVAIL, {}).find("no interface of this machine has the address 0.0.0.0") !=
            std::string::npos);
  CAF_CHECK(
      changed("port.admin", [](auto& f) { f.ports[1].error = EADDRINUSE; }).starts_with("failed 9901 "));
}

CAF_TEST(a drive that cannot be used says why and nothing more) {
  CAF_CHECK_EQUAL(of_drive("drive",
                           [](auto& d) {
                             d.where = {};
                             d.where.problem = "/dev/nvme0n1 does not exist: name a drive that does";
                           }),
                  "failed /dev/nvme0n1 does not exist: name a drive that does");
  CAF_CHECK_EQUAL(
      of_drive("drive", [](auto& d) { d.where.kind = path_kind::regular_file; }),
      "failed /dev/nvme0n1 is a regular file, and storage.mode is direct: name a block device, or set "
      "storage.mode to file");
  CAF_CHECK_EQUAL(of_drive("drive", [](auto& d) { d.device.mounts = {"/data"}; }),
                  "failed /dev/nvme0n1 is mounted on /data: unmount it first");
  CAF_CHECK_EQUAL(of_drive("drive", [](auto& d) { d.device.holders = {"md0"}; }),
                  "failed /dev/nvme0n1 is part of md0: take it out of that first");
  CAF_CHECK_EQUAL(of_drive("drive", [](auto& d) { d.device.read_only = true; }),
                  "failed /dev/nvme0n1 is read-only: blockdev --setrw /dev/nvme0n1, or name another drive");
  CAF_CHECK(of_drive("drive", [](auto& d) { d.device.zoned = true; }).find("zoned") != std::string::npos);
  CAF_CHECK(of_drive("drive", [](auto& d) { d.device.logical_block_bytes = 8192; }).starts_with("failed "));
  CAF_CHECK(
      of_drive("drive", [](auto& d) { d.stuck = true; }).starts_with("failed /dev/nvme0n1 does not answer"));
  // The other drive is still judged.
  CAF_CHECK_EQUAL(
      changed("drive.depth", [](auto& f) { f.drives[0].device.mounts = {"/data"}; }).find("nvme0n1"),
      std::string::npos);
}

CAF_TEST(two names of one drive are found) {
  CAF_CHECK_EQUAL(
      changed("drive.apart", [](auto& f) { f.drives[0].device.wwid = f.drives[1].device.wwid = "eui.1"; }),
      "failed /dev/nvme1n1 and /dev/nvme0n1 are two ways to the same drive (eui.1): name one of them");
}

CAF_TEST(what the queue of a drive lacks is said) {
  CAF_CHECK(of_drive("drive.discard", [](auto& d) { d.device.discards = false; }).starts_with("warning "));
  CAF_CHECK_EQUAL(of_drive("drive.write_cache", [](auto&) {}),
                  "ok /dev/nvme0n1 write back, flushed by the server; with FUA");
  CAF_CHECK(of_drive("drive.write_cache", [](auto& d) { d.fua = false; }).find("without FUA") !=
            std::string::npos);
  CAF_CHECK(of_drive("drive.write_cache", [](auto& d) { d.fua.reset(); }).find("FUA unknown") !=
            std::string::npos);
  CAF_CHECK_EQUAL(of_drive("drive.write_cache", [](auto& d) { d.device.write_cache = "write through"; }),
                  "ok /dev/nvme0n1 write through: what is written is durable");
  CAF_CHECK_EQUAL(of_drive("drive.write_cache", [](auto& d) { d.device.write_cache = ""; }),
                  "skipped /dev/nvme0n1 the kernel does not say");
  CAF_CHECK_EQUAL(of_drive("drive.atomic_write", [](auto&) {}),
                  "ok /dev/nvme0n1 the kernel writes up to 16.0 KiB whole or not at all");
  // Kernels before 6.11 have no such file; the controller may still say.
  CAF_CHECK_EQUAL(of_drive("drive.atomic_write",
                           [](auto& d) {
                             d.atomic_unit_max_bytes.reset();
                             d.probe.nvme_atomic_bytes = 4096;
                           }),
                  "ok /dev/nvme0n1 the controller writes 4.00 KiB whole or not at all (AWUPF)");
  CAF_CHECK(of_drive("drive.atomic_write", [](auto& d) {
              d.atomic_unit_max_bytes.reset();
            }).starts_with("skipped /dev/nvme0n1 unknown"));
  CAF_CHECK_EQUAL(
      of_drive("drive.io_size", [](auto& d) { d.device.max_sectors_kb = 128; }),
      "warning /dev/nvme0n1 requests of up to 128 KiB, optimal 128.0 KiB, and the hardware takes more, "
      "so larger requests are split needlessly: echo 1024 > /sys/block/nvme0n1/queue/max_sectors_kb");
  CAF_CHECK(of_drive("drive.io_size", [](auto& d) {
              d.device.max_sectors_kb = 128;
              d.max_hw_sectors_kb = 128;
            }).starts_with("ok "));
}

CAF_TEST(the depth that was reached is reported with the latency) {
  CAF_CHECK_EQUAL(
      of_drive("drive.depth", [](auto&) {}),
      "ok /dev/nvme0n1 reached 64 of 64 requests in flight (at the device: 63), 250000 reads of 4 KiB a "
      "second, median 80 us, p99 2.3 ms");
  CAF_CHECK(of_drive("drive.depth", [](auto& d) { d.probe.depth_reached = 1; }).starts_with("warning "));
  CAF_CHECK(of_drive("drive.depth", [](auto& d) { d.probe.device_depth = 1; }).starts_with("ok "));
  CAF_CHECK(of_drive("drive.depth", [](auto& d) {
              d.probe.device_depth = 1;
              d.probe.median_ns = 5'000'000;
            }).starts_with("warning "));
  CAF_CHECK(of_drive("drive.depth", [](auto& d) { d.probe.device_depth = 0; }).find("not counted") !=
            std::string::npos);
  CAF_CHECK(of_drive("drive.depth", [](auto& d) {
              d.requests_max = 32;
            }).ends_with("its queue has room for 32: echo 64 > /sys/block/nvme0n1/queue/nr_requests"));
  CAF_CHECK(of_drive("drive.read", [](auto& d) {
              d.probe.read_errors = 3;
            }).starts_with("failed /dev/nvme0n1 3 of 100000 reads failed"));
}

CAF_TEST(a drive that hangs or belongs to others is named) {
  CAF_CHECK_EQUAL(
      of_drive("drive.read", [](auto& d) { d.probe.timed_out = true; }),
      "failed /dev/nvme0n1 did not answer a read within the deadline: look at dmesg; reset or replace "
      "the drive");
  const auto held = [](holder_facts holder) {
    return of_drive("drive.read", [&](auto& d) {
      d.probe.in_use = true;
      d.probe.problem = "in use";
      d.holder = holder;
    });
  };
  CAF_CHECK_EQUAL(held({5, "dd", false}), "failed /dev/nvme0n1 in use by dd (pid 5): stop that");
  CAF_CHECK(held({}).starts_with("failed /dev/nvme0n1 in use by something that cannot be seen"));
  CAF_CHECK(held({5, "memkv", true})
                .starts_with("skipped /dev/nvme0n1 in use by the server of this configuration"));
  CAF_CHECK_EQUAL(
      of_drive("drive.read",
               [](auto& d) { d.probe.problem = "No permission to open drive /dev/nvme0n1: run as root."; }),
      "failed /dev/nvme0n1 No permission to open drive /dev/nvme0n1: run as root");
}

CAF_TEST(what lies on a drive decides) {
  CAF_CHECK_EQUAL(of_drive("drive.superblock", [](auto&) {}),
                  "ok /dev/nvme0n1 drive 0 of 2 of set aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, closed in order");
  CAF_CHECK_EQUAL(of_drive("drive.superblock",
                           [](auto& d) {
                             d.probe.blacklisted = true;
                             d.probe.failure_count = 6;
                           }),
                  "failed /dev/nvme0n1 is blacklisted after 6 failures: replace it, or memkv drive reset "
                  "/dev/nvme0n1");
  CAF_CHECK(of_drive("drive.superblock", [](auto& d) {
              d.probe.one_copy = true;
            }).ends_with("memkv drive fsck --repair /dev/nvme0n1"));
  CAF_CHECK(of_drive("drive.superblock", [](auto& d) { d.probe.failure_count = 1; }).starts_with("warning "));
  CAF_CHECK(
      of_drive("drive.superblock", [](auto& d) { d.probe.unit_bytes = 4096; })
          .starts_with("failed /dev/nvme0n1 drive 0 of 2 of set aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, closed "
                       "in order; formatted with storage.shard_size 4.00 KiB"));
  CAF_CHECK(of_drive("drive.superblock", [](auto& d) {
              d.probe.fits = static_cast<std::uint32_t>(engine::errc::wrong_size);
            }).starts_with("failed /dev/nvme0n1 was formatted for a device of another size"));
  CAF_CHECK_EQUAL(
      of_drive("drive.superblock",
               [](auto& d) { d.probe.fits = static_cast<std::uint32_t>(engine::errc::corrupt); }),
      "failed /dev/nvme0n1 has a superblock that contradicts itself: see what memkv drive verify "
      "/dev/nvme0n1 and memkv drive fsck /dev/nvme0n1 find; what stays damaged starts empty after "
      "memkv setup --force on all drives of the set");
  CAF_CHECK_EQUAL(of_drive("drive.superblock",
                           [](auto& d) {
                             d.probe.content = static_cast<std::uint32_t>(engine::content_kind::foreign);
                             d.probe.content_problem =
                                 "holds an XFS file system and was never memkv's: name another";
                             d.probe.set_id = "";
                           }),
                  "failed /dev/nvme0n1 holds an XFS file system and was never memkv's: name another");
}

CAF_TEST(drives of another set or in another order are found) {
  CAF_CHECK_EQUAL(changed("drive.set", [](auto&) {}),
                  "ok 2 of 2 drives found to be in set aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
  CAF_CHECK_EQUAL(
      changed("drive.set", [](auto& f) { std::swap(f.drives[0], f.drives[1]); }),
      "failed /dev/nvme1n1 is drive 1 of 2, and storage.drives names it as drive 0 of 2: keep the order "
      "and number of the drives\n"
      "failed /dev/nvme0n1 is drive 0 of 2, and storage.drives names it as drive 1 of 2: keep the order "
      "and number of the drives");
  CAF_CHECK_EQUAL(
      changed("drive.set",
              [](auto& f) {
                f.drives.push_back(nvme(2));
                f.drives[0].probe.drive_count = f.drives[1].probe.drive_count = 3;
                f.drives[2].probe.set_id = std::string(32, 'b');
                f.drives[2].probe.drive_count = 3;
              }),
      "failed /dev/nvme2n1 belongs to set bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb, and the others to "
      "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: name only drives of one set in storage.drives, or memkv setup "
      "--force");
}

CAF_TEST(files are judged by directory and room) {
  const auto file = [](const std::function<void(doctor_drive_facts&)>& change) {
    return changed("drive", [&](doctor_facts& f) {
      f.loaded.config.storage.mode = storage_mode::file;
      doctor_drive_facts drive;
      drive.path = "/data/d0";
      drive.directory = "/data";
      drive.directory_writable = true;
      drive.room_bytes = 8 * gib;
      drive.wanted_bytes = 4 * gib;
      change(drive);
      f.drives = {drive};
    });
  };
  CAF_CHECK_EQUAL(file([](auto&) {}), "ok /data/d0 will be made in full size, 4.00 GiB");
  CAF_CHECK_EQUAL(
      file([](auto& d) { d.room_bytes = gib; }),
      "failed /data/d0 will be made, but max_size is 4.00 GiB and /data has room for 1.00 GiB: lower "
      "max_size, or name another directory");
  CAF_CHECK(file([](auto& d) { d.directory_writable = false; }).find("mkdir -p /data") != std::string::npos);
  const auto second_of_two = [](std::uint64_t file_system, std::uint64_t allocated_of_first) {
    auto facts = healthy();
    facts.loaded.config.storage.mode = storage_mode::file;
    doctor_drive_facts drive;
    drive.path = "/data/d0";
    drive.directory = "/data";
    drive.directory_writable = true;
    drive.room_bytes = 6 * gib;
    drive.wanted_bytes = 4 * gib;
    facts.drives = {drive, drive};
    facts.drives[0].allocated_bytes = allocated_of_first;
    facts.drives[1].path = "/data/d1";
    facts.drives[1].file_system_number = file_system;
    const auto both = said(facts, "drive");
    return both.substr(both.find('\n') + 1);
  };
  CAF_CHECK_EQUAL(second_of_two(0, 0),
                  "failed /data/d1 will be made, but max_size is 4.00 GiB and /data has room for 2.00 GiB "
                  "beside the drives before it: lower max_size, or name another directory");
  CAF_CHECK(second_of_two(7, 0).starts_with("ok "));
  auto moved = healthy();
  moved.loaded.config.storage.mode = storage_mode::file;
  doctor_drive_facts present;
  present.path = "/data/d0";
  present.directory = "/data";
  present.directory_writable = true;
  present.room_bytes = 8 * gib;
  present.wanted_bytes = present.where.size_bytes = present.allocated_bytes = gib;
  moved.drives = {present, present};
  moved.drives[0].where.kind = path_kind::regular_file;
  moved.drives[1].path = "/data/mistyped";
  CAF_CHECK_EQUAL(said(moved, "drive"),
                  "ok /data/d0 is a file of 1.00 GiB\n"
                  "warning /data/mistyped will be made in full size, 1.00 GiB, and empty, although other "
                  "drives of this server are there: if blocks were kept in it, correct the path or mount its "
                  "file system before the start");
  CAF_CHECK(second_of_two(0, 4 * gib).starts_with("ok "));
  const auto old = [&](std::uint64_t size, std::uint64_t allocated, std::uint64_t room) {
    return file([&](auto& d) {
      d.where.kind = path_kind::regular_file;
      d.where.size_bytes = size;
      d.allocated_bytes = allocated;
      d.room_bytes = room;
    });
  };
  CAF_CHECK_EQUAL(old(4 * gib, 4 * gib, 0), "ok /data/d0 is a file of 4.00 GiB");
  CAF_CHECK(
      old(2 * gib, 2 * gib, 8 * gib).starts_with("failed /data/d0 has 2147483648 bytes, and max_size is "));
  // Only what is certainly memkv's may be removed.
  const auto of_other_size = [&](engine::content_kind content, std::uint64_t size = 2 * gib) {
    return file([&](auto& d) {
      d.where.kind = path_kind::regular_file;
      d.where.size_bytes = d.allocated_bytes = size;
      d.probe.done = true;
      d.probe.content = static_cast<std::uint32_t>(content);
    });
  };
  using engine::content_kind;
  for (const auto ours : {content_kind::memkv, content_kind::memkv_damaged, content_kind::memkv_newer})
    CAF_CHECK(of_other_size(ours).ends_with(
        ": set max_size to the size of the file, or remove the file to start it empty"));
  CAF_CHECK_EQUAL(of_other_size(content_kind::foreign),
                  "failed /data/d0 is not a file of memkv's, and is left alone (it has 2147483648 bytes, and "
                  "max_size is 4294967296): check the path in storage.drives");
  CAF_CHECK(of_other_size(content_kind::blank, 300).starts_with("failed /data/d0 is not a file of memkv's"));
  CAF_CHECK(of_other_size(content_kind::blank)
                .ends_with(": check the path, or set max_size to the size of the file"));
  CAF_CHECK(old(4 * gib, gib, gib).starts_with("failed /data/d0 has holes"));
  CAF_CHECK(file([](auto& d) {
              d.where.kind = path_kind::block_device;
            }).starts_with("failed /data/d0 is a block device, and storage.mode is file"));
}

CAF_TEST(a network device is judged by what sysfs says) {
  CAF_CHECK_EQUAL(of_nic("rdma.link", [](auto&) {}), "ok mlx5_0 port 1 is up, 100 Gb/sec (4X EDR), Ethernet");
  CAF_CHECK_EQUAL(of_nic("rdma.link", [](auto& n) { n.state = "1: DOWN"; }),
                  "warning mlx5_0 port 1 is not up (1: DOWN): ip link set eth2 up, and check the cable");
  CAF_CHECK_EQUAL(
      of_nic("rdma.mtu", [](auto& n) { n.net_mtu = 1500; }),
      "warning mlx5_0 eth2 has an MTU of 1500, which lets RDMA have 1024; rdma.mtu is 4096: ip link set "
      "eth2 mtu 9000, or lower rdma.mtu");
  CAF_CHECK(of_nic("rdma.mtu", [](auto& n) { n.net_mtu = 4192; }).starts_with("ok "));
  CAF_CHECK(of_nic("rdma.mtu", [](auto& n) { n.net_mtu = 4191; }).starts_with("warning "));
  CAF_CHECK(of_nic("rdma.mtu", [](auto& n) { n.link_layer = "InfiniBand"; }).starts_with("skipped "));
  CAF_CHECK_EQUAL(of_nic("rdma.gid", [](auto&) {}),
                  "ok mlx5_0 rdma.gid_index 3 is RoCE v2 (::ffff:10.0.0.7)");
  CAF_CHECK_EQUAL(changed("rdma.gid", [](auto& f) { f.loaded.config.rdma.gid_index = 0; }),
                  "warning mlx5_0 rdma.gid_index 0 is IB/RoCE v1, not RoCE v2: set rdma.gid_index to 3");
  CAF_CHECK_EQUAL(changed("rdma.gid", [](auto& f) { f.loaded.config.rdma.gid_index = 9; }),
                  "warning mlx5_0 rdma.gid_index 9 is empty: set rdma.gid_index to 3");
  CAF_CHECK(changed("rdma.gid", [](auto& f) { f.loaded.config.rdma.gid_index.reset(); }).find("is 3 (") !=
            std::string::npos);
  CAF_CHECK(of_nic("rdma.dc", [](auto&) {}).starts_with("skipped mlx5_0 driver mlx5_core"));
  CAF_CHECK_EQUAL(
      of_nic("rdma.dc", [](auto& n) { n.driver = "bnxt_re"; }),
      "warning mlx5_0 driver bnxt_re, and DC needs mlx5_core: expect RC, one connection a client");
  CAF_CHECK_EQUAL(
      of_nic("rdma.device",
             [](auto& n) {
               n.present = false;
               n.others = {"mlx5_2", "mlx5_3"};
             }),
      "warning mlx5_0 is not there, so clients use TCP: name one of mlx5_2, mlx5_3 in rdma.device");
  CAF_CHECK_EQUAL(
      changed("rdma.traffic_class", [](auto& f) { f.loaded.config.rdma.traffic_class = 26; }),
      "warning rdma.traffic_class is 26, and its two low bits are not part of a DSCP: set it to four "
      "times the DSCP, such as 104 for 26");
  CAF_CHECK(changed("rdma.service_level", [](auto& f) {
              f.loaded.config.rdma.service_level = 9;
            }).starts_with("warning "));
}

CAF_TEST(a certificate is judged by its key and its dates) {
  const auto tls = [](const std::function<void(tls_facts&)>& change) {
    return changed("tls", [&](auto& f) { change(f.tls); });
  };
  CAF_CHECK_EQUAL(tls([](auto&) {}),
                  "ok key and certificate (/CN=memkv) match, until 2033-05-18 03:33:20 UTC");
  CAF_CHECK_EQUAL(
      tls([](auto& t) { t.matches = false; }),
      "failed k.pem is not the key of the certificate in c.pem: name the two files that were made together");
  CAF_CHECK_EQUAL(tls([](auto& t) { t.not_after_s = 1'700'000'000; }),
                  "failed the certificate ended on 2023-11-14 22:13:20 UTC: renew it");
  CAF_CHECK(tls([](auto& t) {
              t.not_before_s = 1'800'000'000;
            }).starts_with("failed the certificate begins only on"));
  CAF_CHECK(tls([](auto& t) {
              t.not_after_s = 1'790'000'000 + 86'400;
            }).starts_with("warning the certificate ends on"));
  CAF_CHECK_EQUAL(tls([](auto& t) { t.key_mode = 0644; }),
                  "warning others than its owner can reach the private key: chmod 600 k.pem");
  CAF_CHECK_EQUAL(
      tls([](auto& t) { t.key_problem = "k.pem cannot be opened (Permission denied): let it be read"; }),
      "failed k.pem cannot be opened (Permission denied): let it be read");
  CAF_CHECK(tls([](auto& t) { t.configured = false; }).starts_with("skipped no certificate is configured"));
}

CAF_TEST(a key that nobody drew is noticed) {
  CAF_CHECK_EQUAL(changed("auth_key", [](auto&) {}), "ok from MEMKV_AUTH_KEY, 32 bytes");
  CAF_CHECK_EQUAL(
      changed("auth_key",
              [](auto& f) {
                f.key_from_environment = false;
                f.key_different_bytes = 2;
              }),
      "warning from network.auth_key, and has only 2 different bytes of 32, so nobody drew it at random: "
      "make one for all servers and clients with openssl rand -hex 32");
}

CAF_TEST(a previous key that is the key itself is doubted) {
  const auto previous = [](bool same) {
    return changed("auth_key.previous", [&](auto& f) {
      auto& network = f.loaded.config.network;
      network.auth_key = wire::shared_key::generate();
      network.previous_key = same ? network.auth_key : wire::shared_key::generate();
    });
  };
  CAF_CHECK(previous(false).starts_with("ok "));
  CAF_CHECK(previous(true).starts_with("warning network.previous_key is the key itself"));
}

CAF_TEST(clocks are judged at five and at sixty seconds) {
  const auto off = [](std::int64_t ns) {
    return changed("clock.peer", [&](auto& f) { f.peers[0].ahead_ns = ns; });
  };
  constexpr std::int64_t s = 1'000'000'000;
  CAF_CHECK_EQUAL(off(2'000'000), "ok b:9900 its clock is 0.002 s ahead of ours, to within 0.000 s");
  CAF_CHECK(off(5 * s).starts_with("ok "));
  CAF_CHECK_EQUAL(off(-6 * s),
                  "warning b:9900 its clock is 6.0 s behind ours, to within 0.000 s: synchronise both "
                  "clocks (timedatectl set-ntp true)");
  CAF_CHECK(off(60 * s).starts_with("warning "));
  CAF_CHECK_EQUAL(off(3600 * s),
                  "failed b:9900 its clock is 3600.0 s ahead of ours, to within 0.000 s, and beyond 60 "
                  "s nothing is answered: synchronise both clocks (timedatectl set-ntp true)");
  const auto peer = [](peer_facts::outcome what) {
    return changed("clock.peer", [&](auto& f) {
      f.peers[0].what = what;
      f.peers[0].problem = "Connection refused";
    });
  };
  CAF_CHECK(peer(peer_facts::outcome::unreachable)
                .starts_with("skipped b:9900 cannot be reached (Connection refused)"));
  for (const auto what :
       {peer_facts::outcome::wrong_key, peer_facts::outcome::silent, peer_facts::outcome::timed_out})
    CAF_CHECK(peer(what).starts_with("failed b:9900 "));
  CAF_CHECK(
      changed("clock.peer", [](auto& f) { f.peers[0].previous_key = true; })
          .ends_with("it knows network.previous_key and not the new key: restart it with both keys: the new "
                     "one as network.auth_key"));
  CAF_CHECK(changed("clock.peer", [](auto& f) { f.peers.clear(); }).starts_with("skipped no other server"));
  CAF_CHECK(changed("clock", [](auto& f) { f.clock.synchronised = false; }).starts_with("warning "));
  CAF_CHECK(changed("clock", [](auto& f) { f.clock.problem = "x"; }).starts_with("skipped "));
}

CAF_TEST(a log that cannot be written fails) {
  const auto log = [](const std::function<void(log_facts&)>& change) {
    return changed("log", [&](auto& f) { change(f.log); });
  };
  CAF_CHECK_EQUAL(log([](auto& l) { l.file = ""; }), "ok goes to standard error");
  CAF_CHECK(log([](auto& l) { l.stuck = true; }).starts_with("failed memkv.log does not answer"));
  CAF_CHECK(log([](auto& l) { l.is_file = false; }).starts_with("failed memkv.log is a directory"));
  CAF_CHECK(
      log([](auto& l) { l.is_pipe = true; }).starts_with("skipped memkv.log is a pipe, and a start is"));
  CAF_CHECK_EQUAL(
      log([](auto& l) {
        l.exists = l.writable = false;
        l.problem = "Read-only file system";
      }),
      "failed memkv.log cannot be made in . (Read-only file system): name another with --log-file, or let "
      "the server's user write there");
  CAF_CHECK(log([](auto& l) {
              l.free_bytes = mib;
            }).starts_with("warning memkv.log its file system has 1.00 MiB left"));
}

CAF_TEST(without probing nothing is said of what only probing tells) {
  auto facts = healthy();
  facts.probed = false;
  facts.ports.clear();
  facts.peers.clear();
  for (auto& drive : facts.drives)
    drive.probe = {};
  for (const auto* check : {"port.data", "port.admin", "drive.read", "drive.depth", "drive.superblock",
                            "drive.set", "clock.peer"})
    CAF_CHECK_EQUAL(said(facts, check), "");
  CAF_CHECK_EQUAL(exit_code(judge(facts)), 0);
}
