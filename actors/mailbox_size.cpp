#include "actors/mailbox_size.hpp"

#include <caf/blocking_actor.hpp>
#include <caf/scheduled_actor.hpp>

namespace memkv::actors {

std::size_t mailbox_size(caf::blocking_actor& of) noexcept {
  return of.mailbox().size();
}

std::size_t mailbox_size(caf::scheduled_actor& of) noexcept {
  return of.mailbox().size();
}

} // namespace memkv::actors
