#include "cli/doc.hpp"

#include "actors/run_server.hpp"
#include "admin/http_server.hpp"
#include "cli/doc_site.hpp"

#include <csignal>
#include <cstdio>
#include <string>

namespace memkv::cli {

namespace {

int refuse(const std::string& sentence) {
  std::fprintf(stderr, "memkv: %s\n", sentence.c_str());
  return 1;
}

} // namespace

int run_doc_command(const parsed& line) {
  constexpr const char* host = "127.0.0.1";
  const auto port = line.number("port").value_or(0);
  if (port > 65'535)
    return refuse("--port must be at most 65535");
  std::string problem;
  const auto server = admin::http_server::make({}, {}, problem);
  if (server == nullptr)
    return refuse(problem);
  if (!server->bind(host, static_cast<std::uint16_t>(port), problem))
    return refuse("port " + std::to_string(port) +
                  " of this machine cannot be listened on: name another with --port");
  actors::block_signals();
  server->serve(answer_doc_request);
  std::printf("memkv: documentation on http://%s:%u/ until SIGINT\n", host, server->port());
  if (std::fflush(stdout) != 0)
    return refuse("standard output cannot be written");
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGINT);
  sigaddset(&ends, SIGTERM);
  int which = 0;
  while (::sigwait(&ends, &which) != 0) {
  }
  server->stop();
  return 0;
}

} // namespace memkv::cli
