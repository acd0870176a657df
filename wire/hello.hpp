// Both sides of opening a connection, as pure functions of the nonces. Normative text: wire.md, section 6.
//
// Threading: any. Errors: values. Does not: make nonces (auth.hpp does), send, or decide whether a client may
// come in.
#pragma once

#include "wire/frame_writer.hpp"
#include "wire/messages.hpp"

#include <vector>

namespace memkv::wire {

/// What a server makes of an accepted Hello frame's variable part.
struct hello_answer {
  bool nonce_known = false; ///< the variable part had the length of a Hello's
  enum status status =
      status::bad_request; ///< ok: send `reply`, then use `keys`; else send a refusal and close
  hello_reply reply;
  session_keys keys;
};

/// `own` gives server id, capabilities and limits; its nonces and version are overwritten.
[[nodiscard]] hello_answer answer_hello(const shared_key& key, bytes_view variable, const nonce& server_nonce,
                                        const hello_reply& own) noexcept;

/// The header of a reply to `request` in our version: opcode, id and digest kind are the request's, the rest
/// empty.
/// Hello and UnsupportedVersion are answered with a zero `tag`.
[[nodiscard]] frame_header reply_header(const frame_header& request, const connection_tag& tag, status code,
                                        bool last = true) noexcept;

/// Appends the unsealed answer to a Hello.
void append_hello_answer(std::vector<std::byte>& buffer, const frame_header& request,
                         const hello_answer& answer);
/// Appends the unsealed refusal of a Hello, for example Busy. The nonce is repeated unless `variable`, the
/// request's variable part, has another length than a Hello's; then the refusal's is empty.
void append_hello_refusal(std::vector<std::byte>& buffer, const frame_header& request, bytes_view variable,
                          status code);
/// Appends the unsealed answer to a frame of a version above ours; for a Hello it repeats the nonce.
void append_version_refusal(std::vector<std::byte>& buffer, const frame_header& request, bytes_view variable);

/// Appends the client's unsealed Hello.
void append_hello(std::vector<std::byte>& buffer, std::uint64_t request_id, const nonce& client_nonce);

/// What a client makes of a Hello's answer.
struct hello_outcome {
  bool genuine = false; ///< false: not an answer to this Hello; close
  enum status status = status::internal;
  hello_reply reply;
  session_keys keys; ///< when genuine and ok
};

[[nodiscard]] hello_outcome read_hello_answer(const shared_key& key, const frame_header& header,
                                              bytes_view variable, std::uint64_t request_id,
                                              const nonce& client_nonce) noexcept;

} // namespace memkv::wire
