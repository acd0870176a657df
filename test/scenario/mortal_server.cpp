// A server whose root supervisor can be killed: root_death_test.py starts it.
//
// mortal_server DRIVE...    serves the drive files with the key in MEMKV_AUTH_KEY, prints its port, and kills
//                           the actor named on each line of standard input.
#include "actors/run_server.hpp"
#include "wire/auth.hpp"

#include <caf/send.hpp>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>
#include <thread>

using namespace memkv;

int main(int count, char** words) {
  actors::server_options options;
  const char* key = std::getenv("MEMKV_AUTH_KEY");
  const auto parsed = wire::shared_key::parse(key != nullptr ? key : "");
  if (!parsed)
    return 2;
  options.key = std::make_shared<wire::shared_key>(*parsed);
  options.host = "127.0.0.1";
  options.port = 0;
  options.pool_bytes = 64 << 20;
  for (int i = 1; i < count; ++i)
    options.drives.push_back({.memory = false, .path = words[i], .size_bytes = 128 << 20});
  actors::block_signals();
  std::string problem;
  auto server = actors::start_server(options, problem);
  if (server == nullptr) {
    std::fprintf(stderr, "%s\n", problem.c_str());
    return 2;
  }
  std::printf("%u\n", static_cast<unsigned>(server->port()));
  std::fflush(stdout);
  std::thread([named = server->actors()] {
    std::string line;
    while (std::getline(std::cin, line))
      for (const auto& [name, who] : named)
        if (name == line)
          caf::anon_send_exit(who, caf::exit_reason::kill);
  }).detach();
  return actors::serve_until_told(std::move(server), problem);
}
