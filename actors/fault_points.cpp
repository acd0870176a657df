#include "actors/fault_points.hpp"

#include <chrono>
#include <stdexcept>
#include <thread>

namespace memkv::actors {

void carry_out(const act_up& message) {
  if (message.stall_ms == 0)
    throw std::runtime_error("injected");
  std::this_thread::sleep_for(std::chrono::milliseconds{message.stall_ms});
}

} // namespace memkv::actors
