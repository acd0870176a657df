// Chaos: a real server on three drives, told to fail in every way there is while a load from outside compares
// every byte, and healthy again by itself each time. Orders go through POST /v1/faults alone.
//
// chaos MEMKV SECONDS SEED [DEVICE DEVICE DEVICE]    raw drives, else files; chaos_test.py starts it
//
// Exits with 0 when nothing was wrong. Prints a table in the end.
#include "test/chaos/admin_client.hpp"
#include "test/chaos/trouble_book.hpp"
#include "test/process/server_process.hpp"
#include "test/process/verified_load.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <sstream>

#include <csignal>

using namespace memkv;
using namespace memkv::test;
using namespace std::chrono_literals;
using nlohmann::json;
using clock_type = std::chrono::steady_clock;

namespace {

constexpr std::uint32_t drives = 3;
constexpr std::uint32_t workers = 6;
constexpr std::uint32_t keys = 480;
/// Fewer acknowledged changes prove nothing; a machine at rest makes thousands.
constexpr std::uint64_t changes_min = keys / 4;
constexpr std::uint64_t drive_bytes = std::uint64_t{640} << 20;
// Generous: the machine may be busy with other things, or stand still for a moment.
constexpr auto start_limit = 120s;
constexpr double healthy_limit_s = 150;
/// Of the load before anything is done to the server, and after the last fault.
constexpr double growth_limit_s = 100;
/// Longer than the endpoint takes to say that somebody is silent, and than a stop of the machine besides.
constexpr int stall_ms = 6'000;
/// Longer than a report is given again.
constexpr auto report_age = 400ms;
/// More than the server keeps in its pool and its caches.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::int64_t resident_growth_max = std::int64_t{4} << 30; // a sanitizer keeps what was freed
#else
constexpr std::int64_t resident_growth_max = std::int64_t{64} << 20;
#endif
constexpr std::uint64_t hang_limit_ms = 10'000; // the server's

struct chaos_failed {};

[[noreturn]] void give_up(const std::string& why) {
  std::cout << "chaos: " << why << std::endl;
  throw chaos_failed{};
}

std::string kind_of(const std::string& actor) {
  const auto last = actor.find_last_not_of("0123456789");
  return actor[last] == '-' ? actor.substr(0, last) : actor;
}

double seconds_since(clock_type::time_point begin) {
  return std::chrono::duration<double>(clock_type::now() - begin).count();
}

struct process_facts {
  std::int64_t resident_bytes = 0;
  std::int64_t threads = 0;
  std::int64_t descriptors = 0;
};

process_facts facts_of(pid_t pid) {
  process_facts out;
  const auto directory = std::filesystem::path{"/proc"} / std::to_string(pid);
  std::ifstream file{directory / "status"};
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("VmRSS:"))
      out.resident_bytes = std::strtoll(line.c_str() + 6, nullptr, 10) * 1024;
    if (line.starts_with("Threads:"))
      out.threads = std::strtoll(line.c_str() + 8, nullptr, 10);
  }
  std::error_code ignored;
  for (const auto& each : std::filesystem::directory_iterator{directory / "fd", ignored}) {
    static_cast<void>(each);
    ++out.descriptors;
  }
  return out;
}

/// What a fault is counted under, and how long the server took to be healthy again.
struct row {
  std::vector<double> seconds;
};

class chaos {
public:
  chaos(std::string program, int seconds, std::uint64_t seed, std::vector<std::string> devices)
      : seconds_(seconds), seed_(seed), devices_(std::move(devices)), chance_(seed), server_(program),
        program_(std::move(program)), book_(drives, workers, [this] { look_at_drives(); }),
        log_(keys, false) {}

  void run() {
    prepare();
    start({"--fault-injection"});
    expect_health_says_injection();
    load_settings wanted;
    wanted.workers = workers;
    wanted.seed = seed_;
    wanted.read_percent = 50;
    wanted.judge = &book_;
    wanted.deadline_ms = 3'000;
    wanted.pause = 2ms;
    make_probes();
    {
      verified_load load{log_, port_, wanted};
      torment(load);
      load.stop();
      sum_up(load);
      settle_everything(load);
    }
    check_memory();
    kill_the_root(wanted);
    print();
  }

  [[nodiscard]] std::string said() const { return server_.said(); }

private:
  std::uint64_t below(std::uint64_t end) { return chance_() % end; }

  // --- the server ---

  void prepare() {
    port_ = free_port_pair();
    std::ostringstream out;
    out << "network:\n  address: 127.0.0.1:" << port_ << "\n  reactors: 2\n"
        << "memory:\n  max_size: 64 MiB\n"
        << "storage:\n  mode: " << (devices_.empty() ? "file" : "direct")
        << "\n  flap_threshold: 1000\n  eviction:\n    enabled: true\n  drives:\n";
    if (devices_.empty()) {
      for (std::uint32_t index = 0; index < drives; ++index)
        out << "    - { media: " << server_.drive_path(index).string() << ", max_size: " << drive_bytes
            << " }\n";
    } else {
      std::vector<std::string> setup{program_, "setup", "--force", "--drives"};
      setup.insert(setup.end(), devices_.begin(), devices_.end());
      if (run_quietly(setup) != 0)
        give_up("memkv setup failed");
      for (const auto& device : devices_)
        out << "    - media: " << device << "\n";
    }
    server_.write_config_text(out.str());
  }

  void start(std::vector<std::string> flags) {
    server_.set_flags(std::move(flags));
    server_.spawn();
    if (!server_.wait_until_serving(start_limit))
      give_up("the server does not start");
    const auto begin = clock_type::now();
    while (ask_admin(admin_port(), "GET", "/v1/health").body.value("status", "") != "healthy") {
      if (seconds_since(begin) > healthy_limit_s)
        give_up("the server does not become healthy after its start");
      pause_for(20ms);
    }
  }

  [[nodiscard]] std::uint16_t admin_port() const { return static_cast<std::uint16_t>(port_ + 1); }

  void expect_health_says_injection() {
    if (!ask_admin(admin_port(), "GET", "/v1/status").body.value("fault_injection", false))
      give_up("the status does not say that faults are injected");
    // The log is written by a thread of its own, a moment later.
    for (const auto begin = clock_type::now(); said().find("fault injection is on") == std::string::npos;
         pause_for(20ms))
      if (seconds_since(begin) > healthy_limit_s)
        give_up("the log does not say that faults are injected");
  }

  /// Orders a fault; the name of the actor that it hit, if it hit one.
  std::string order(const json& fault) {
    const auto answer = ask_admin(admin_port(), "POST", "/v1/faults", fault.dump());
    if (answer.status != 202)
      give_up("the order " + fault.dump() + " was answered with " + std::to_string(answer.status) + " " +
              answer.body.dump());
    return answer.body.value("actor", "");
  }

  [[nodiscard]] json armed() const { return ask_admin(admin_port(), "GET", "/v1/faults").body; }

  /// How often each actor was started anew.
  [[nodiscard]] std::map<std::string, std::uint64_t> restarts() const {
    std::map<std::string, std::uint64_t> out;
    const auto status = ask_admin(admin_port(), "GET", "/v1/status").body;
    if (status.is_object() && status.contains("actors"))
      for (const auto& each : status["actors"])
        out[each.value("name", "")] = each.value("restarts", std::uint64_t{0});
    return out;
  }

  /// Drives that failed although nobody told them to belong into the book too.
  void look_at_drives() {
    const auto status = ask_admin(admin_port(), "GET", "/v1/status", {}, 1'500ms).body;
    if (!status.is_object() || !status.contains("storage"))
      return;
    const std::lock_guard guard{failures_lock_};
    for (const auto& each : status["storage"]["devices"]) {
      const auto id = each.value("device_id", 0U);
      const bool known = each.contains("failure_count") && each["failure_count"].is_number();
      const auto failures = known ? each["failure_count"].get<std::uint64_t>() : 0;
      if (id < drives && failures > failures_[id]) {
        failures_[id] = failures;
        now_in_->begin(id, true);
      } else if (id < drives && each.value("state", "") != "online") {
        now_in_->begin(id, false);
      }
    }
  }

  // --- is it healthy? ---

  void make_probes() {
    user_ = connect_to(port_, 2'000);
    for (std::uint32_t drive = 0; drive < drives; ++drive)
      for (int number = 0; probes_.size() <= drive; ++number) {
        // Names of the load's keys say where they lie; these are none of its keys.
        const auto name = outside_log::name(keys + static_cast<std::uint32_t>(number));
        const auto key = keys + static_cast<std::uint32_t>(number);
        if (!is_large(key, workers) && may_lie_on(key, drive, drives, workers))
          probes_.push_back(name);
      }
  }

  /// A block can be put to each drive and be read from it.
  bool probes_succeed() {
    for (const auto& name : probes_) {
      ++probed_;
      std::vector<std::byte> wanted(20'000);
      fill(keys, {probed_, true, wanted.size()}, wanted);
      std::vector<std::byte> found(wanted.size());
      if (user_->put(name, wanted).code != client::errc::ok)
        return false;
      const auto read = user_->get(name, found);
      if (read.code != client::errc::ok)
        return false;
      if (found != wanted)
        give_up("a block that has just been put came back with other bytes");
    }
    return true;
  }

  /// Waits until all of these have been started anew, everything is there, and every drive answers. Seconds.
  double wait_until_healthy(const std::map<std::string, std::uint64_t>& before,
                            const std::vector<std::string>& killed, const std::string& after) {
    const auto begin = clock_type::now();
    while (true) {
      const auto status = ask_admin(admin_port(), "GET", "/v1/status").body;
      bool well = status.is_object() && status.value("status", "") == "healthy";
      if (well) {
        std::map<std::string, std::uint64_t> now;
        for (const auto& each : status["actors"])
          now[each.value("name", "")] = each.value("restarts", std::uint64_t{0});
        for (const auto& name : killed) {
          const auto earlier = before.find(name);
          well = well && now.contains(name) && (earlier == before.end() || now[name] > earlier->second);
        }
      }
      if (well && probes_succeed()) {
        look_at_drives(); // a drive that failed meanwhile
        book_.end_all();
        return seconds_since(begin);
      }
      if (!server_.running() || server_.wait(0ms).in_time)
        give_up("the server ended after " + after);
      if (seconds_since(begin) > healthy_limit_s)
        give_up("the server was not healthy " + std::to_string(static_cast<int>(healthy_limit_s)) +
                " s after " + after + ": " + status.dump().substr(0, 2'000));
      pause_for(10ms);
    }
  }

  // --- faults ---

  /// Kills somebody of each kind.
  void kill(std::vector<std::string> kinds) {
    static const std::vector<std::string> ways{"kill", "exception", "shutdown"};
    const auto before = restarts();
    std::vector<std::string> killed;
    std::string what;
    for (const auto& kind : kinds) {
      json victim = {{"how", ways[below(ways.size())]}};
      if (kind == "connection") {
        victim["kind"] = kind;
      } else {
        std::vector<std::string> names;
        for (const auto& [name, times] : before)
          if (kind_of(name) == kind && std::ranges::find(killed, name) == killed.end())
            names.push_back(name);
        if (names.empty() && !killed.empty())
          continue; // the only one has just been killed, and may not be back
        if (names.empty())
          give_up("there is no " + kind + " to be killed");
        const auto name = names[below(names.size())];
        victim["name"] = name;
        killed.push_back(name);
        if (kind == "drive")
          book_.begin(static_cast<std::uint32_t>(std::stoul(name.substr(6))), false);
      }
      order({{"kill", victim}});
      ++killed_[kind];
      what += (what.empty() ? "kill " : " + ") + kind;
    }
    const auto took = wait_until_healthy(before, killed, what);
    rows_[kinds.size() == 1 ? what : "kill several"].seconds.push_back(took);
  }

  struct drive_fault {
    std::string name;
    json what;
    bool may_lose = false;
    std::uint64_t limit_ms = 5'000; // how long the load is given to meet it
  };

  void hurt_drive(const drive_fault& fault) {
    const auto drive = static_cast<std::uint32_t>(below(drives));
    auto what = fault.what;
    what["id"] = drive;
    if (fault.may_lose)
      book_.begin(drive, true);
    order({{"drive", what}});
    // Healthy again is said from when the last of them was met, or taken back.
    const auto begin = clock_type::now();
    while (seconds_since(begin) * 1'000 < static_cast<double>(fault.limit_ms)) {
      const auto now = armed();
      if (now.is_object() && now["drives"][drive]["armed"].empty())
        break;
      pause_for(20ms);
    }
    const auto now = armed();
    if (!now.is_object() || !now["drives"][drive]["armed"].empty())
      ++taken_back_[fault.name];
    if (what.contains("hang_ms") && what["hang_ms"].get<std::uint64_t>() > hang_limit_ms)
      pause_for(std::chrono::milliseconds{what["hang_ms"].get<std::uint64_t>()});
    order({{"clear", true}});
    rows_[fault.name].seconds.push_back(wait_until_healthy({}, {}, fault.name));
  }

  void hurt_connections() {
    if (below(2) == 0) {
      order({{"connections", {{"drop", below(3) == 0 ? json("all") : json(1 + below(6))}}}});
      rows_["drop connections"].seconds.push_back(wait_until_healthy({}, {}, "dropping connections"));
      return;
    }
    order({{"connections", {{"delay_ms", 20 + below(300)}, {"seconds", 2}}}});
    pause_for(2s);
    rows_["delay connections"].seconds.push_back(wait_until_healthy({}, {}, "delaying connections"));
  }

  /// Somebody does not answer: the endpoint does, and says who.
  void stall() {
    std::vector<std::string> names;
    for (const auto& [name, times] : restarts())
      if (name != "trim-batcher" && name != "license-watcher") // they may take long by right
        names.push_back(name);
    const auto name = names[below(names.size())];
    pause_for(200ms); // a report is given again for so long
    order({{"actor", {{"name", name}, {"stall_ms", stall_ms}}}});
    const auto begin = clock_type::now();
    bool named = false;
    while (!named && seconds_since(begin) * 1'000 < stall_ms - 100) {
      const auto health = ask_admin(admin_port(), "GET", "/v1/health");
      if (health.status == 503 && health.body.is_object() && health.body.contains("silent"))
        for (const auto& each : health.body["silent"])
          named = named || each == name;
    }
    if (!named)
      give_up("/v1/health did not say that " + name + " is stuck");
    pause_for(std::chrono::milliseconds{stall_ms -
                                        std::min(stall_ms, static_cast<int>(seconds_since(begin) * 1'000))});
    rows_["stall " + kind_of(name)].seconds.push_back(wait_until_healthy({}, {}, "stalling " + name));
  }

  [[nodiscard]] drive_fault some_drive_fault(std::uint64_t which) {
    static const std::vector<std::string> targets{"writes", "reads", "any"};
    switch (which % 6) {
    case 0:
      return {"fail writes", {{"fail", "writes"}, {"count", 1 + below(3)}}, true};
    case 1:
      return {"fail reads", {{"fail", "reads"}, {"count", 1 + below(4)}}, true};
    case 2:
      return {"fail anything", {{"fail", "any"}, {"count", 1 + below(5)}}, true};
    case 3:
      return {"slow", {{"slow_ms", 20 + below(400)}, {"count", 20 + below(60)}, {"of", targets[below(3)]}}};
    case 4:
      return {"hang below the limit",
              {{"hang_ms", 1'500 + below(2'000)}, {"count", 1 + below(2)}, {"of", targets[below(3)]}}};
    default:
      return {"corrupt reads", {{"corrupt", "reads"}, {"count", 1 + below(6)}}, true};
    }
  }

  void hang_for_long() {
    hurt_drive({"hang above the limit",
                {{"hang_ms", hang_limit_ms + 1'500}, {"count", 1 + below(3)}, {"of", "writes"}},
                true,
                2'000});
  }

  void torment(verified_load& load) {
    const auto begin = clock_type::now();
    // Everything has been put once, so that what comes later is growth.
    while (load.operations() < keys && seconds_since(begin) < growth_limit_s)
      pause_for(50ms);
    std::set<std::string> kinds{"connection"};
    for (const auto& [name, times] : restarts())
      if (kind_of(name) != "server" && kind_of(name) != "drive-resetter")
        kinds.insert(kind_of(name));
    kinds_ = {kinds.begin(), kinds.end()};
    // Each once, in any order; then as it comes.
    std::vector<std::function<void()>> first;
    for (const auto& kind : kinds_)
      first.push_back([this, kind] { kill({kind}); });
    for (std::uint64_t which = 0; which < 6; ++which)
      first.push_back([this, which] { hurt_drive(some_drive_fault(which)); });
    first.push_back([this] { hang_for_long(); });
    first.push_back([this] { hurt_connections(); });
    first.push_back([this] { stall(); });
    std::shuffle(first.begin(), first.end(), chance_);
    for (const auto& one : first)
      next(load, one);
    warm_ = facts_of(server_.pid());
    while (seconds_since(begin) < seconds_)
      next(load, [this] {
        const auto dice = below(100);
        if (dice < 45)
          kill({kinds_[below(kinds_.size())]});
        else if (dice < 60)
          kill({kinds_[below(kinds_.size())], kinds_[below(kinds_.size())], kinds_[below(kinds_.size())]});
        else if (dice < 80)
          hurt_drive(some_drive_fault(below(6)));
        else if (dice < 83)
          hang_for_long();
        else if (dice < 93)
          hurt_connections();
        else
          stall();
      });
    tormented_s_ = seconds_since(begin);
    // A slow machine has done little by now.
    const auto last = clock_type::now();
    while (log_.acknowledgements() < changes_min && seconds_since(last) < growth_limit_s)
      pause_for(50ms);
  }

  void next(verified_load& load, const std::function<void()>& one) {
    pause_for(std::chrono::milliseconds{50 + below(400)});
    one();
    ++faults_;
    if (const auto problem = load.first_problem(); !problem.empty())
      give_up("the load found something wrong: " + problem);
  }

  // --- what came of it ---

  void sum_up(const verified_load& load) {
    if (!load.problems().empty())
      give_up("the load found something wrong: " + load.problems().front() + " (" +
              std::to_string(load.problems().size()) + " problems)");
    counts_ = load.trouble();
    operations_ = load.operations();
    for (const auto& kind : kinds_)
      if (killed_[kind] == 0)
        give_up("no " + kind + " was killed");
    if (log_.acknowledgements() < changes_min)
      give_up("the load did too little to prove anything");
    const auto status = ask_admin(admin_port(), "GET", "/v1/status").body;
    if (!status.is_object() || status["eviction"].value("evicted_blocks", 1) != 0)
      give_up("blocks were evicted, or nobody knows: misses prove nothing then");
  }

  /// Whether all is well, and how often drives have failed so far.
  std::pair<bool, std::uint64_t> failures_so_far() {
    const auto status = ask_admin(admin_port(), "GET", "/v1/status").body;
    if (!status.is_object() || status.value("status", "") != "healthy")
      return {false, 0};
    std::uint64_t failures = 0;
    for (const auto& each : status["storage"]["devices"])
      failures += each.value("failure_count", std::uint64_t{0});
    return {true, failures};
  }

  /// What a healthy server has of all keys, for good; the number of blocks that are there. `missed` decides
  /// on those that should be there and are not. On a slow machine a drive may be too slow by itself, and away
  /// for a moment: that is waited for, and asked again.
  int settle_all(const std::string& when,
                 const std::function<void(std::uint32_t key, clock_type::time_point begun)>& missed) {
    int there = 0;
    std::vector<std::uint32_t> open(keys);
    std::iota(open.begin(), open.end(), 0U);
    const auto begin = clock_type::now();
    std::string last_error;
    while (!open.empty()) {
      if (seconds_since(begin) > healthy_limit_s)
        give_up(when + " the server does not become healthy; " + std::to_string(open.size()) +
                " keys are not decided, and the last error is " + last_error);
      const auto [well, failures] = failures_so_far();
      std::vector<std::uint32_t> again;
      std::vector<std::pair<std::uint32_t, clock_type::time_point>> missing;
      for (const auto key : open) {
        std::vector<std::byte> found(value_bytes_max + 1);
        const auto begun = clock_type::now();
        const auto result = user_->get(outside_log::name(key), found);
        const bool miss = result.code == client::errc::not_found && result.cause == client::errc::ok;
        if (result.code != client::errc::ok && !miss) {
          last_error = client::name(result.code);
          again.push_back(key);
        } else if (miss && !log_.check_read(key, log_.acknowledged(key), false, {}).empty()) {
          missing.emplace_back(key, begun);
        } else if (const auto problem = log_.settle(key, !miss, {found.data(), miss ? 0 : result.length});
                   !problem.empty()) {
          give_up(when + ": " + problem);
        } else if (!miss) {
          ++there;
        }
      }
      if (!missing.empty())
        pause_for(report_age);
      if (!missing.empty() && (!well || failures_so_far() != std::pair{true, failures})) {
        last_error = "a miss while a drive was away";
        for (const auto& [key, begun] : missing)
          again.push_back(key);
      } else {
        for (const auto& [key, begun] : missing)
          missed(key, begun);
      }
      if (!again.empty())
        pause_for(100ms);
      open = std::move(again);
    }
    return there;
  }

  /// Reads every key while nothing is wrong. From here on each has one value, or none.
  void settle_everything(const verified_load& load) {
    pause_for(load_settings{}.unsettled); // whatever was not answered is decided by then
    there_ = settle_all("afterwards", [&](std::uint32_t key, clock_type::time_point begun) {
      if (!book_.may_miss(key, load.acknowledged_at(key), begun))
        give_up("afterwards: " + outside_log::name(key) + " is gone");
      ++gone_;
      log_.acknowledge(key, log_.begin_remove(key));
      static_cast<void>(log_.settle(key, false, {}));
    });
  }

  void check_memory() {
    last_ = facts_of(server_.pid());
    if (last_.resident_bytes - warm_.resident_bytes > resident_growth_max)
      give_up("the server grew from " + std::to_string(warm_.resident_bytes >> 20) + " to " +
              std::to_string(last_.resident_bytes >> 20) + " MiB");
    // The load's connections are gone by now.
    if (last_.threads > warm_.threads + 4 || last_.descriptors > warm_.descriptors + 8)
      give_up("the server has " + std::to_string(last_.threads) + " threads and " +
              std::to_string(last_.descriptors) + " descriptors; it had " + std::to_string(warm_.threads) +
              " and " + std::to_string(warm_.descriptors));
  }

  /// Under load; and no miss is forgiven from here on, but of drives that fail by themselves.
  void kill_the_root(load_settings wanted) {
    trouble_book afterwards(drives, workers, [this] { look_at_drives(); });
    now_in_ = &afterwards;
    wanted.judge = &afterwards;
    wanted.seed += 1;
    {
      verified_load load{log_, port_, wanted};
      pause_for(2s);
      const json root{{"kill", {{"name", "server"}, {"how", below(2) == 0 ? "kill" : "exception"}}}};
      // The process may be gone before its answer is sent.
      if (const auto answer = ask_admin(admin_port(), "POST", "/v1/faults", root.dump());
          answer.status != 202 && answer.status != 0)
        give_up("the order to kill the root was answered with " + std::to_string(answer.status));
      const auto end = server_.wait(60s);
      load.stop();
      if (!end.in_time || end.exit_code != 1)
        give_up("after the death of the root the process ended with " + std::to_string(end.exit_code));
      if (!load.problems().empty())
        give_up("around the death of the root: " + load.problems().front());
    }
    start({});
    user_ = connect_to(port_);
    if (ask_admin(admin_port(), "POST", "/v1/faults", R"({"clear": true})").status != 404)
      give_up("a server without fault injection takes an order");
    found_again_ = settle_all("after the death of the root", [&](std::uint32_t key, auto begun) {
      if (!afterwards.may_miss(key, {}, begun))
        give_up("after the death of the root: " + outside_log::name(key) + " is gone");
    });
    now_in_ = &book_;
    server_.signal(SIGTERM);
    if (const auto end = server_.wait(60s); !end.in_time || end.exit_code != 0)
      give_up("the server does not stop in order");
  }

  void print() {
    std::printf("chaos: seed %llu, %d faults in %.0f s, %s drives\n", static_cast<unsigned long long>(seed_),
                faults_, tormented_s_, devices_.empty() ? "file" : "raw");
    std::printf("  %-28s %6s %12s %12s\n", "fault", "times", "median s", "longest s");
    for (auto& [name, one] : rows_) {
      std::sort(one.seconds.begin(), one.seconds.end());
      std::printf("  %-28s %6zu %12.3f %12.3f\n", name.c_str(), one.seconds.size(),
                  one.seconds[one.seconds.size() / 2], one.seconds.back());
    }
    std::printf("  killed:");
    for (const auto& [kind, times] : killed_)
      std::printf(" %s %d,", kind.c_str(), times);
    std::printf(" server 1\n");
    for (const auto& [name, times] : taken_back_)
      std::printf("  taken back before all were met: %s, %d times\n", name.c_str(), times);
    std::printf(
        "  %llu operations, %llu acknowledged changes, %llu answers judged, 0 wrong, 0 lost; %llu misses "
        "of drives in trouble, %llu unanswered changes settled; longest request %.1f s\n",
        static_cast<unsigned long long>(operations_),
        static_cast<unsigned long long>(log_.acknowledgements()),
        static_cast<unsigned long long>(counts_.judged), static_cast<unsigned long long>(counts_.forgiven),
        static_cast<unsigned long long>(counts_.settled), counts_.longest_seconds);
    std::printf("  refused or unanswered:");
    for (const auto& [name, times] : counts_.failures)
      std::printf(" %s %llu", name.c_str(), static_cast<unsigned long long>(times));
    std::printf(
        "\n  in the end: %d blocks there, %d gone with drives that failed; after the root's death %d found "
        "again\n",
        there_, gone_, found_again_);
    std::printf(
        "  resident %lld MiB after warming up, %lld in the end; threads %lld and %lld; descriptors %lld and "
        "%lld\n",
        static_cast<long long>(warm_.resident_bytes >> 20),
        static_cast<long long>(last_.resident_bytes >> 20), static_cast<long long>(warm_.threads),
        static_cast<long long>(last_.threads), static_cast<long long>(warm_.descriptors),
        static_cast<long long>(last_.descriptors));
  }

  const int seconds_;
  const std::uint64_t seed_;
  const std::vector<std::string> devices_;
  std::mt19937_64 chance_;
  server_process server_;
  const std::string program_;
  trouble_book book_;
  trouble_book* now_in_ = &book_; // the book that drives which fail by themselves are written into
  outside_log log_;
  std::uint16_t port_ = 0;
  std::unique_ptr<client::client> user_;
  std::vector<std::string> probes_; // by drive
  std::uint64_t probed_ = 0;
  std::mutex failures_lock_;
  std::array<std::uint64_t, drives> failures_{};
  std::vector<std::string> kinds_;
  std::map<std::string, int> killed_;
  std::map<std::string, int> taken_back_;
  std::map<std::string, row> rows_;
  trouble_counts counts_;
  std::uint64_t operations_ = 0;
  process_facts warm_, last_;
  double tormented_s_ = 0;
  int faults_ = 0;
  int there_ = 0, gone_ = 0, found_again_ = 0;
};

} // namespace

int main(int count, char** words) {
  if (count != 4 && count != 4 + static_cast<int>(drives)) {
    std::fprintf(stderr, "chaos MEMKV SECONDS SEED [DEVICE DEVICE DEVICE]\n");
    return 2;
  }
  const auto seed = std::strtoull(words[3], nullptr, 10);
  chaos one(words[1], std::atoi(words[2]), seed, {words + 4, words + count});
  try {
    one.run();
    return 0;
  } catch (const chaos_failed&) {
    std::cout << "chaos: failed with MEMKV_TEST_SEED=" << seed << "; the end of the server's log:\n";
    auto text = one.said();
    std::cout << text.substr(text.size() - std::min<std::size_t>(text.size(), 12'000)) << std::endl;
    return 1;
  }
}
