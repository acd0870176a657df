#include "wire/status.hpp"

namespace memkv::wire {

std::string_view name(status code) noexcept {
  switch (code) {
  case status::ok:
    return "Ok";
  case status::not_found:
    return "NotFound";
  case status::already_exists:
    return "AlreadyExists";
  case status::no_space:
    return "NoSpace";
  case status::deadline_exceeded:
    return "DeadlineExceeded";
  case status::busy:
    return "Busy";
  case status::unavailable:
    return "Unavailable";
  case status::bad_request:
    return "BadRequest";
  case status::too_large:
    return "TooLarge";
  case status::unsupported:
    return "Unsupported";
  case status::unsupported_version:
    return "UnsupportedVersion";
  case status::digest_mismatch:
    return "DigestMismatch";
  case status::out_of_range:
    return "OutOfRange";
  case status::buffer_too_small:
    return "BufferTooSmall";
  case status::corrupt:
    return "Corrupt";
  case status::shutting_down:
    return "ShuttingDown";
  case status::keyed_digest_required:
    return "KeyedDigestRequired";
  case status::internal:
    return "Internal";
  case status::memory_refused:
    return "MemoryRefused";
  case status::session_ended:
    return "SessionEnded";
  }
  return "Internal";
}

std::string_view explain(status code) noexcept {
  switch (code) {
  case status::ok:
    return "done";
  case status::not_found:
    return "there is no such block";
  case status::already_exists:
    return "a block of this key is there already, and the put was to store it only if absent";
  case status::no_space:
    return "the store is full and may not evict anything";
  case status::deadline_exceeded:
    return "it was not done within the deadline";
  case status::busy:
    return "the server has reached one of its limits; try again";
  case status::unavailable:
    return "the drive of this block is offline or being recovered";
  case status::bad_request:
    return "the server could not understand the request";
  case status::too_large:
    return "the value, the batch or the key is above a limit of the server";
  case status::unsupported:
    return "the server does not know this operation, or needs RDMA for it";
  case status::unsupported_version:
    return "the server speaks only an older version of the protocol";
  case status::digest_mismatch:
    return "the payload changed on its way; nothing was stored";
  case status::out_of_range:
    return "the range begins behind the end of the value";
  case status::buffer_too_small:
    return "the value is larger than the room given for it";
  case status::corrupt:
    return "the block failed its check and was dropped; it is a miss now";
  case status::shutting_down:
    return "the server is stopping";
  case status::keyed_digest_required:
    return "the server wants keyed digests; turn them on in the client";
  case status::internal:
    return "the part of the server that worked on it ended; the outcome is not known";
  case status::memory_refused:
    return "the memory given for it could not be reached under its key and address";
  case status::session_ended:
    return "the RDMA session ended, or is not one of this connection";
  }
  return "the server answered with a code this version does not know";
}

bool retryable(status code) noexcept {
  switch (code) {
  case status::no_space:
  case status::deadline_exceeded:
  case status::busy:
  case status::unavailable:
  case status::digest_mismatch:
  case status::shutting_down:
  case status::internal:
    return true;
  default:
    return false;
  }
}

} // namespace memkv::wire
