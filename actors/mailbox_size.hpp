// How many messages wait in an actor's mailbox.
//
// In a file of its own: counting makes CAF's queues part of the object file that does it, and they look at
// the heads of their lists as if these were messages, which UndefinedBehaviorSanitizer takes for what it is.
// actors/CMakeLists.txt has that one check left out there.
//
// Threading: the actor's own. Errors: none.
#pragma once

#include <caf/fwd.hpp>

#include <cstddef>

namespace memkv::actors {

[[nodiscard]] std::size_t mailbox_size(caf::blocking_actor& of) noexcept;
[[nodiscard]] std::size_t mailbox_size(caf::scheduled_actor& of) noexcept;

} // namespace memkv::actors
