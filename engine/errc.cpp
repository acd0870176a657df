#include "engine/errc.hpp"

namespace memkv::engine {

std::string_view name(errc code) noexcept {
  switch (code) {
  case errc::ok:
    return "ok";
  case errc::not_found:
    return "not_found";
  case errc::already_exists:
    return "already_exists";
  case errc::no_space:
    return "no_space";
  case errc::deadline_exceeded:
    return "deadline_exceeded";
  case errc::busy:
    return "busy";
  case errc::offline:
    return "offline";
  case errc::io_error:
    return "io_error";
  case errc::corrupt:
    return "corrupt";
  case errc::bad_format:
    return "bad_format";
  case errc::newer_version:
    return "newer_version";
  case errc::foreign_drive:
    return "foreign_drive";
  case errc::wrong_size:
    return "wrong_size";
  case errc::in_use:
    return "in_use";
  case errc::too_large:
    return "too_large";
  case errc::invalid_argument:
    return "invalid_argument";
  case errc::cancelled:
    return "cancelled";
  case errc::not_formatted:
    return "not_formatted";
  case errc::blacklisted:
    return "blacklisted";
  case errc::unreadable:
    return "unreadable";
  case errc::later_epoch:
    return "later_epoch";
  }
  return "unknown";
}

} // namespace memkv::engine
