// What is read from a machine: from trees that are made up, and from this one where it must be.
#define CAF_SUITE doctor_gather
#include "cli/doctor_apart.hpp"
#include "cli/doctor_gather.hpp"
#include "cli/doctor_probe.hpp"
#include "cli/doctor_sysfs.hpp"
#include "cli/doctor_tls.hpp"

#include <caf/test/unit_test.hpp>

#include <openssl/pem.h>
#include <openssl/x509.h>

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <fstream>

using namespace memkv::cli;

namespace {

namespace fs = std::filesystem;

// A root directory as the kernel would show it, of a machine with what is put there.
struct fake_root {
  std::string path = (fs::temp_directory_path() / ("memkv_doctor." + std::to_string(::getpid()))).string();
  fake_root() { fs::remove_all(path); }
  ~fake_root() { fs::remove_all(path); }
  void put(const std::string& name, const std::string& text) const {
    const fs::path file = path + name;
    fs::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary) << text;
  }
  void link(const std::string& name, const std::string& to) const {
    const fs::path file = path + name;
    fs::create_directories(file.parent_path());
    fs::create_symlink(to, file);
  }
  void nic() const {
    const std::string here = "/sys/class/infiniband/mlx5_1";
    link(here + "/device/driver", "../../../bus/pci/drivers/mlx5_core");
    put(here + "/ports/1/state", "1: DOWN\n");
    put(here + "/ports/2/state", "4: ACTIVE\n");
    put(here + "/ports/2/rate", "400 Gb/sec (4X NDR)\n");
    put(here + "/ports/2/link_layer", "Ethernet\n");
    put(here + "/ports/2/gids/0", "fe80:0000:0000:0000:0e42:a1ff:fe12:3456\n");
    put(here + "/ports/2/gid_attrs/types/0", "IB/RoCE v1\n");
    put(here + "/ports/2/gids/10", "0000:0000:0000:0000:0000:ffff:0a00:0007\n");
    put(here + "/ports/2/gid_attrs/types/10", "RoCE v2\n");
    put(here + "/ports/2/gids/2", "0000:0000:0000:0000:0000:0000:0000:0000\n");
    put(here + "/device/net/eth0/mtu", "1500\n");
    put(here + "/device/net/eth0/dev_port", "0\n");
    put(here + "/device/net/eth1/mtu", "9000\n");
    put(here + "/device/net/eth1/dev_port", "1\n");
  }
  void nvme() const {
    const std::string here = "/sys/devices/nvme/nvme0n1";
    put(here + "/dev", "259:0\n");
    put(here + "/size", "15628053168\n");
    put(here + "/queue/logical_block_size", "4096\n");
    put(here + "/queue/max_sectors_kb", "512\n");
    put(here + "/queue/max_hw_sectors_kb", "2048\n");
    put(here + "/queue/discard_max_bytes", "2199023255040\n");
    put(here + "/queue/write_cache", "write through\n");
    put(here + "/queue/fua", "1\n");
    put(here + "/queue/nr_requests", "1023\n");
    put(here + "/queue/atomic_write_unit_max_bytes", "32768\n");
    link("/sys/dev/block/259:0", "../../devices/nvme/nvme0n1");
    put("/proc/self/mountinfo", "");
    put("/proc/swaps", "");
  }
};

void make_pair_of_files(const std::string& cert_path, const std::string& key_path, long ends_in_s) {
  EVP_PKEY* key = EVP_EC_gen("P-256");
  X509* cert = X509_new();
  X509_gmtime_adj(X509_getm_notBefore(cert), -7200);
  X509_gmtime_adj(X509_getm_notAfter(cert), ends_in_s);
  X509_set_pubkey(cert, key);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>("memkv"), -1, -1, 0);
  CAF_REQUIRE(X509_sign(cert, key, EVP_sha256()) > 0);
  std::FILE* file = std::fopen(cert_path.c_str(), "w");
  PEM_write_X509(file, cert);
  std::fclose(file);
  file = std::fopen(key_path.c_str(), "w");
  PEM_write_PrivateKey(file, key, nullptr, nullptr, 0, nullptr, nullptr);
  std::fclose(file);
  fs::permissions(key_path, fs::perms(0600));
  X509_free(cert);
  EVP_PKEY_free(key);
}

} // namespace

CAF_TEST(a network device is read port by port) {
  const fake_root root;
  root.nic();
  const auto nic = read_nic_facts(root.path, "mlx5_1");
  CAF_CHECK(nic.present);
  CAF_CHECK_EQUAL(nic.driver, "mlx5_core");
  CAF_CHECK_EQUAL(nic.port, 2U);
  CAF_CHECK_EQUAL(nic.state, "4: ACTIVE");
  CAF_CHECK_EQUAL(nic.rate, "400 Gb/sec (4X NDR)");
  CAF_CHECK_EQUAL(nic.net_name, "eth1");
  CAF_CHECK_EQUAL(nic.net_mtu, 9000U);
  CAF_REQUIRE_EQUAL(nic.gids.size(), 2U);
  CAF_CHECK_EQUAL(nic.gids[1].index, 10U);
  CAF_CHECK_EQUAL(nic.gids[1].type, "RoCE v2");
  const auto missing = read_nic_facts(root.path, "mlx5_0");
  CAF_CHECK(!missing.present);
  CAF_CHECK_EQUAL(missing.others, std::vector<std::string>{"mlx5_1"});
}

CAF_TEST(the queue of a drive is read where the kernel has it) {
  const fake_root root;
  root.nvme();
  doctor_drive_facts drive;
  drive.path = "/dev/nvme0n1";
  drive.where = {path_kind::block_device, {259, 0}, 0, {}};
  gather_device(root.path, drive);
  CAF_CHECK_EQUAL(drive.no_facts, "");
  CAF_CHECK_EQUAL(drive.atomic_unit_max_bytes.value_or(0), 32768U);
  CAF_CHECK_EQUAL(drive.max_hw_sectors_kb.value_or(0), 2048U);
  CAF_CHECK_EQUAL(drive.requests_max.value_or(0), 1023U);
  CAF_CHECK(drive.fua.value_or(false));
  // An older kernel has fewer of these files: unknown, not zero.
  fs::remove(root.path + "/sys/devices/nvme/nvme0n1/queue/atomic_write_unit_max_bytes");
  fs::remove(root.path + "/sys/devices/nvme/nvme0n1/queue/fua");
  doctor_drive_facts older;
  older.where = drive.where;
  gather_device(root.path, older);
  CAF_CHECK(!older.atomic_unit_max_bytes && !older.fua);
}

CAF_TEST(who holds a drive or a port is found and this server is told from others) {
  const fake_root root;
  root.put("/config.yaml", "x");
  root.put("/other.yaml", "x");
  const auto process = [&](const std::string& pid, const std::string& comm, std::string words) {
    std::ranges::replace(words, ' ', '\0');
    root.put("/proc/" + pid + "/comm", comm + "\n");
    root.put("/proc/" + pid + "/cmdline", words + '\0');
    root.link("/proc/" + pid + "/cwd", root.path);
  };
  process("100", "nginx", "nginx");
  process("200", "memkv", "/usr/bin/memkv start --config config.yaml");
  process("300", "memkv", "memkv start --config=other.yaml");
  root.link("/proc/100/fd/6", "socket:[4711]");
  root.link("/proc/200/fd/9", "/dev/nvme0n1");
  root.link("/proc/300/fd/9", "/dev/nvme1n1");
  root.put("/proc/net/tcp",
           "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout "
           "inode\n"
           "   0: 0100007F:26AC 00000000:0000 01 0:0 0:0 0 0 0 4710 1\n"
           "   1: 00000000:26AC 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 "
           "4711 1\n");
  const auto config = root.path + "/config.yaml";
  const auto server = find_holder(root.path, "/dev/nvme0n1", config);
  CAF_CHECK_EQUAL(server.pid, 200);
  CAF_CHECK(server.this_server);
  const auto another = find_holder(root.path, "/dev/nvme1n1", config);
  CAF_CHECK_EQUAL(another.pid, 300);
  CAF_CHECK_EQUAL(another.name, "memkv");
  CAF_CHECK(!another.this_server);
  CAF_CHECK_EQUAL(find_holder(root.path, "/dev/nvme2n1", config).pid, 0);
  const auto listener = find_listener(root.path, 9900, config);
  CAF_CHECK_EQUAL(listener.pid, 100);
  CAF_CHECK_EQUAL(listener.name, "nginx");
  CAF_CHECK_EQUAL(find_listener(root.path, 9901, config).pid, 0);
}

CAF_TEST(limits and settings are read below the root) {
  const fake_root root;
  root.put("/proc/self/status", "Name:\tx\nCapEff:\t0000000000004000\nSeccomp:\t2\n");
  root.put("/proc/sys/fs/nr_open", "1048576\n");
  root.put("/proc/sys/kernel/io_uring_disabled", "1\n");
  const auto limits = read_limit_facts(root.path);
  CAF_CHECK(limits.may_lock_memory);
  CAF_CHECK(!limits.may_raise_limits);
  CAF_CHECK_EQUAL(limits.descriptors_kernel_max, 1'048'576U);
  CAF_CHECK(limits.descriptors_soft > 0);
  const auto ring = read_ring_facts(root.path);
  CAF_CHECK_EQUAL(ring.disabled, 1);
  CAF_CHECK_EQUAL(ring.seccomp, 2);
  // A kernel that does not have the setting.
  const fake_root bare;
  CAF_CHECK_EQUAL(read_ring_facts(bare.path).disabled, -1);
}

CAF_TEST(a port that is listened to cannot be had and a free one can) {
  const int taken = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CAF_REQUIRE_EQUAL(::bind(taken, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  socklen_t size = sizeof address;
  ::getsockname(taken, reinterpret_cast<sockaddr*>(&address), &size);
  ::listen(taken, 1);
  const auto port = ntohs(address.sin_port);
  CAF_CHECK_EQUAL(read_port_facts("", "127.0.0.1", port).error, EADDRINUSE);
  CAF_CHECK_EQUAL(find_listener("", port, "c").pid, static_cast<int>(::getpid()));
  ::close(taken);
  CAF_CHECK_EQUAL(read_port_facts("", "127.0.0.1", port).error, 0);
  CAF_CHECK_EQUAL(read_port_facts("", "192.0.2.1", port).error, EADDRNOTAVAIL);
}

CAF_TEST(a certificate and its key are told from others) {
  const fake_root root;
  fs::create_directories(root.path);
  const auto cert = root.path + "/c.pem", key = root.path + "/k.pem";
  const auto other_cert = root.path + "/c2.pem", other_key = root.path + "/k2.pem";
  make_pair_of_files(cert, key, 86'400);
  make_pair_of_files(other_cert, other_key, -3600);
  const auto good = read_tls_facts(cert, key);
  CAF_CHECK_EQUAL(good.cert_problem + good.key_problem, "");
  CAF_CHECK(good.matches);
  CAF_CHECK_EQUAL(good.name, "/CN=memkv");
  CAF_CHECK_EQUAL(good.key_mode, 0600U);
  CAF_CHECK_EQUAL(good.not_after_s - good.not_before_s, 86'400 + 7200);
  CAF_CHECK(!read_tls_facts(cert, other_key).matches);
  CAF_CHECK_EQUAL(read_tls_facts(other_cert, other_key).not_after_s -
                      read_tls_facts(other_cert, other_key).not_before_s,
                  3600);
  CAF_CHECK(read_tls_facts(key, cert).cert_problem.find("holds no certificate") != std::string::npos);
  CAF_CHECK(read_tls_facts(key, cert).key_problem.find("holds no private key") != std::string::npos);
  CAF_CHECK(read_tls_facts(root.path + "/none", key).cert_problem.find("name a file that exists") !=
            std::string::npos);
}

CAF_TEST(a log is looked at without being made) {
  const fake_root root;
  root.put("/old.log", "x");
  const auto fresh = read_log_facts(root.path + "/new.log");
  CAF_CHECK(!fresh.exists && fresh.writable);
  CAF_CHECK(!fs::exists(root.path + "/new.log"));
  const auto old = read_log_facts(root.path + "/old.log");
  CAF_CHECK(old.exists && old.is_file && old.writable);
  CAF_CHECK(!read_log_facts(root.path).is_file);
  CAF_CHECK(!old.is_pipe);
  CAF_REQUIRE_EQUAL(::mkfifo((root.path + "/pipe").c_str(), 0600), 0);
  CAF_CHECK(read_log_facts(root.path + "/pipe").is_pipe);
  const auto nowhere = read_log_facts(root.path + "/none/new.log");
  CAF_CHECK(!nowhere.writable);
  CAF_CHECK_EQUAL(nowhere.problem, "No such file or directory");
}

CAF_TEST(work apart brings its answers in order and gives up on what hangs) {
  std::vector<std::function<std::string()>> work;
  for (int i = 0; i < 10; ++i)
    work.emplace_back(
        [i] { return std::string(static_cast<std::size_t>(i) * 3000, static_cast<char>('a' + i)); });
  work[3] = [] {
    for (;;)
      ::pause();
    return std::string();
  };
  work[5] = []() -> std::string { ::_exit(7); };
  const auto begin = std::chrono::steady_clock::now();
  const auto answers = run_apart(work, 4, 300);
  CAF_CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(20));
  CAF_REQUIRE_EQUAL(answers.size(), 10U);
  for (std::size_t i = 0; i < answers.size(); ++i) {
    const bool lost = i == 3 || i == 5;
    CAF_CHECK_EQUAL(answers[i].has_value(), !lost);
    if (!lost && answers[i])
      CAF_CHECK_EQUAL(*answers[i], std::string(i * 3000, static_cast<char>('a' + i)));
  }
}

CAF_TEST(facts of a probe survive a pipe and nothing else passes for them) {
  probe_facts facts;
  facts.done = true;
  facts.problem = "a \"b\"\n";
  facts.depth_reached = 64;
  facts.p99_ns = 1'234'567'890'123;
  facts.set_id = std::string(32, 'f');
  facts.blacklisted = true;
  probe_facts back;
  CAF_REQUIRE(decode(encode(facts), back));
  CAF_CHECK_EQUAL(encode(back), encode(facts));
  CAF_CHECK(back.blacklisted && back.depth_reached == 64 && back.p99_ns == 1'234'567'890'123);
  for (const auto* text : {"", "{}", "[1]", "{\"done\": 3}", "nonsense"})
    CAF_CHECK(!decode(text, back));
}

CAF_TEST(small files of the kernel are read as lines and numbers) {
  const fake_root root;
  root.put("/a", "  12 \nrest\n");
  root.put("/b", "max\n");
  root.put("/c", "");
  CAF_CHECK_EQUAL(sysfs_line(root.path + "/a"), "12");
  CAF_CHECK_EQUAL(sysfs_number(root.path + "/a").value_or(0), 12U);
  for (const auto* name : {"/b", "/c", "/d"})
    CAF_CHECK(!sysfs_number(root.path + name));
  CAF_CHECK_EQUAL(sysfs_names(root.path), (std::vector<std::string>{"a", "b", "c"}));
  CAF_CHECK(sysfs_names(root.path + "/none").empty());
}
