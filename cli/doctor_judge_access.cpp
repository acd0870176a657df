// Keys, certificate, clocks, and the log.
#include "cli/doctor_judge.hpp"

#include "cli/drive_text.hpp"
#include "wire/auth.hpp"
#include "wire/limits.hpp"

#include <array>
#include <cstdio>
#include <cstdlib>

namespace memkv::cli {

namespace {

using enum check_state;

constexpr std::int64_t second_ns = 1'000'000'000;
constexpr std::int64_t clock_warning_ns = 5 * second_ns;
constexpr std::int64_t clock_failure_ns = static_cast<std::int64_t>(wire::limits::drift_ns_max);
constexpr std::int64_t cert_warning_s = std::int64_t{30} * 86'400;
constexpr std::uint64_t log_room_bytes = std::uint64_t{64} << 20;
// 32 random bytes have 30 different ones; fewer than these do not happen.
constexpr std::uint32_t different_bytes_min = 16;

std::string seconds_text(std::int64_t nanoseconds) {
  std::array<char, 48> text{};
  const auto magnitude = static_cast<double>(nanoseconds < 0 ? -nanoseconds : nanoseconds) / 1e9;
  std::snprintf(text.data(), text.size(), magnitude < 1 ? "%.3f s" : "%.1f s", magnitude);
  return text.data();
}

std::string date_text(std::int64_t seconds) {
  return seconds <= 0 ? "an unreadable time" : utc_text(static_cast<std::uint64_t>(seconds) * second_ns);
}

finding judge_key(const doctor_facts& facts) {
  const std::string from = facts.key_from_environment ? "from MEMKV_AUTH_KEY" : "from network.auth_key";
  if (facts.key_different_bytes < different_bytes_min)
    return {warning, "auth_key", "",
            from + ", and has only " + std::to_string(facts.key_different_bytes) +
                " different bytes of 32, so nobody drew it at random",
            "make one for all servers and clients with openssl rand -hex 32"};
  return {ok, "auth_key", "", from + ", 32 bytes", ""};
}

finding judge_tls(const doctor_facts& facts) {
  const auto& tls = facts.tls;
  const auto& network = facts.loaded.config.network;
  if (!tls.configured)
    return {skipped, "tls", "", "no certificate is configured, so the administration endpoint has plain HTTP",
            ""};
  for (const auto* problem : {&tls.cert_problem, &tls.key_problem})
    if (!problem->empty())
      return from_sentence(failed, "tls", "", *problem);
  if (!tls.matches)
    return {failed, "tls", "", network.tls_key + " is not the key of the certificate in " + network.tls_cert,
            "name the two files that were made together"};
  if (facts.clock.now_s > tls.not_after_s)
    return {failed, "tls", "", "the certificate ended on " + date_text(tls.not_after_s), "renew it"};
  if (facts.clock.now_s < tls.not_before_s)
    return {failed, "tls", "", "the certificate begins only on " + date_text(tls.not_before_s),
            "set the clock, or name another certificate"};
  if ((tls.key_mode & 077U) != 0)
    return {warning, "tls", "", "others than its owner can reach the private key",
            "chmod 600 " + network.tls_key};
  if (tls.not_after_s - facts.clock.now_s < cert_warning_s)
    return {warning, "tls", "", "the certificate ends on " + date_text(tls.not_after_s), "renew it"};
  return {ok, "tls", "", "key and certificate (" + tls.name + ") match, until " + date_text(tls.not_after_s),
          ""};
}

finding judge_clock(const clock_facts& clock) {
  if (!clock.problem.empty())
    return {skipped, "clock", "",
            "the kernel does not say whether the clock is synchronised (" + clock.problem + ")", ""};
  if (!clock.synchronised)
    return {warning, "clock", "", "the kernel does not hold this clock to be synchronised",
            "run a time service (timedatectl set-ntp true)"};
  return {ok, "clock", "",
          "synchronised, to within " + seconds_text(static_cast<std::int64_t>(clock.error_bound_us) * 1000),
          ""};
}

finding judge_peer(const peer_facts& peer) {
  const auto made = [&](check_state state, std::string found, std::string remedy) {
    return finding{state, "clock.peer", peer.server, std::move(found), std::move(remedy)};
  };
  using outcome = peer_facts::outcome;
  switch (peer.what) {
  case outcome::answered:
    break;
  case outcome::unreachable:
    return made(skipped, "cannot be reached (" + peer.problem + ")", "start it, or take it out of the list");
  case outcome::wrong_key:
    return made(failed, "takes the connection and refuses the greeting",
                "give it the same authentication key, and check that a memkv server listens there");
  case outcome::silent:
    return made(failed,
                "takes the connection and never answers, so its clock is far from ours or it is stuck",
                "synchronise both clocks, then look at its log");
  case outcome::timed_out:
    return made(failed, "was asked for its time and did not answer within the deadline",
                "check name resolution and the network to it");
  }
  const std::int64_t off = std::llabs(peer.ahead_ns);
  const std::string found = "its clock is " + seconds_text(peer.ahead_ns) +
                            (peer.ahead_ns < 0 ? " behind" : " ahead of") + " ours, to within " +
                            seconds_text(static_cast<std::int64_t>(peer.uncertainty_ns));
  if (off > clock_failure_ns)
    return made(failed, found + ", and beyond 60 s nothing is answered",
                "synchronise both clocks (timedatectl set-ntp true)");
  if (peer.previous_key)
    return made(warning, found + "; it knows network.previous_key and not the new key",
                "restart it with both keys: the new one as network.auth_key");
  if (off > clock_warning_ns)
    return made(warning, found, "synchronise both clocks (timedatectl set-ntp true)");
  return made(ok, found, "");
}

finding judge_log(const log_facts& log) {
  if (log.file.empty())
    return {ok, "log", "", "goes to standard error", ""};
  if (log.stuck)
    return {failed, "log", log.file, "does not answer within the deadline when it is looked at",
            "check the mount it is on, or name another with --log-file"};
  if (log.exists && !log.is_file)
    return {failed, "log", log.file, "is a directory", "name a file with --log-file"};
  if (!log.writable)
    return {failed, "log", log.file,
            (log.exists ? "cannot be written (" : "cannot be made in " + log.directory + " (") + log.problem +
                ")",
            "name another with --log-file, or let the server's user write there"};
  if (log.is_pipe) // opening it to see would be the end of the input of whoever reads it
    return {skipped, "log", log.file,
            "is a pipe, and a start is refused while nobody reads it: start its reader before the server",
            ""};
  if (log.free_bytes < log_room_bytes)
    return {warning, "log", log.file, "its file system has " + about_size(log.free_bytes) + " left",
            "make room there"};
  return {ok, "log", log.file, log.exists ? "can be written" : "can be made", ""};
}

} // namespace

void judge_access(const doctor_facts& facts, std::vector<finding>& out) {
  if (facts.loaded.ok()) {
    out.push_back(judge_key(facts));
    const auto& network = facts.loaded.config.network;
    if (network.previous_key && network.auth_key &&
        wire::equal_in_constant_time(network.previous_key->secret_bytes(), network.auth_key->secret_bytes()))
      out.push_back({warning, "auth_key.previous", "",
                     "network.previous_key is the key itself, so a key that is still in use elsewhere is not "
                     "accepted",
                     "set it to the key that is being replaced, or remove it"});
    else if (network.previous_key)
      out.push_back({ok, "auth_key.previous", "",
                     "network.previous_key is accepted beside the key: remove it when nobody has it any more",
                     ""});
    out.push_back(judge_tls(facts));
  }
  out.push_back(judge_clock(facts.clock));
  if (!facts.loaded.ok())
    return;
  for (const auto& peer : facts.peers)
    out.push_back(judge_peer(peer));
  if (facts.probed && facts.peers.empty())
    out.push_back(
        {skipped, "clock.peer", "", "no other server was named with --servers or MEMKV_SERVERS", ""});
  out.push_back(judge_log(facts.log));
}

} // namespace memkv::cli
