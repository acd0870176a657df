// Reading a mapped file without dying of SIGBUS when the file system fails or the file is cut short.
//
// Threading: any thread; may be nested. The handler is installed once, at the first use, and hands signals
// for other addresses to the handler that was there before.
// Errors: false when a page of `range` could not be read.
// Does not: run destructors of what the function has on its stack when it is cut off: copy and checksum in
// it, nothing that owns something and nothing that throws.
#pragma once

#include <cstddef>
#include <span>
#include <type_traits>

namespace memkv::engine {

namespace detail {
[[nodiscard]] bool guarded_read(std::span<const std::byte> range, void (*function)(void*), void* context);
}

/// Calls `function()`, which reads from `range`. False if a read of `range` raised SIGBUS; the function's
/// work is then half done.
template <class Function>
[[nodiscard]] bool guarded_read(std::span<const std::byte> range, Function&& function) {
  using plain = std::remove_reference_t<Function>;
  return detail::guarded_read(
      range, [](void* context) { (*static_cast<plain*>(context))(); },
      const_cast<void*>(static_cast<const void*>(&function)));
}

} // namespace memkv::engine
