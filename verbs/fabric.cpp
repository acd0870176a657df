#include "verbs/fabric.hpp"

namespace memkv::verbs {

namespace {

/// Of a fabric that registers quickly: everything is left to the end.
class quick_registration final : public slow_step {
public:
  quick_registration(std::span<std::byte> range, remote_access access) : range(range), access(access) {}
  void run() noexcept override {}

  const std::span<std::byte> range;
  const remote_access access;
};

} // namespace

status fabric::start_registration(std::span<std::byte> range, remote_access access,
                                  std::unique_ptr<slow_step>& out) noexcept {
  out = std::make_unique<quick_registration>(range, access);
  return {};
}

status fabric::finish_registration(slow_step& step, std::unique_ptr<memory_region>& out) noexcept {
  const auto& wanted = static_cast<const quick_registration&>(step);
  return register_memory(wanted.range, wanted.access, out);
}

} // namespace memkv::verbs
