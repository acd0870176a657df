#include "wire/hello.hpp"

#include <algorithm>

namespace memkv::wire {

hello_answer answer_hello(const shared_key& key, bytes_view variable, const nonce& server_nonce,
                          const hello_reply& own) noexcept {
  hello_answer answer;
  hello_request request;
  answer.status = hello_request::decode(variable, request);
  answer.nonce_known = variable.size() == hello_request::size;
  answer.reply = own;
  answer.reply.client_nonce = request.client_nonce;
  if (answer.status != status::ok)
    return answer;
  answer.reply.server_nonce = server_nonce;
  answer.reply.version = std::min(request.highest_version, limits::version);
  answer.keys = derive_session(key, answer.reply.version, request.client_nonce, server_nonce);
  return answer;
}

frame_header reply_header(const frame_header& request, const connection_tag& tag, status code,
                          bool last) noexcept {
  frame_header header;
  header.direction = direction::reply;
  header.opcode = request.opcode;
  header.status_code = static_cast<std::uint8_t>(code);
  header.request_id = request.request_id;
  header.flags = last ? flags::last : 0;
  header.tag = tag;
  header.kind = request.kind;
  return header;
}

void append_hello_answer(std::vector<std::byte>& buffer, const frame_header& request,
                         const hello_answer& answer) {
  const frame_header header = reply_header(request, {}, answer.status);
  if (answer.status == status::ok)
    append_frame(buffer, header, answer.reply);
  else if (answer.nonce_known)
    append_frame(buffer, header, hello_refusal{answer.reply.client_nonce});
  else
    append_frame(buffer, header, empty_message{});
}

void append_hello_refusal(std::vector<std::byte>& buffer, const frame_header& request, bytes_view variable,
                          status code) {
  const frame_header header = reply_header(request, {}, code);
  if (variable.size() != hello_request::size) {
    append_frame(buffer, header, empty_message{});
    return;
  }
  hello_refusal refusal;
  std::copy_n(variable.begin(), refusal.client_nonce.size(), refusal.client_nonce.begin());
  append_frame(buffer, header, refusal);
}

void append_version_refusal(std::vector<std::byte>& buffer, const frame_header& request,
                            bytes_view variable) {
  if (request.opcode == opcode::hello)
    append_hello_refusal(buffer, request, variable, status::unsupported_version);
  else
    append_frame(buffer, reply_header(request, {}, status::unsupported_version), empty_message{});
}

void append_hello(std::vector<std::byte>& buffer, std::uint64_t request_id, const nonce& client_nonce) {
  frame_header header;
  header.opcode = opcode::hello;
  header.request_id = request_id;
  hello_request body;
  body.client_nonce = client_nonce;
  append_frame(buffer, header, body);
}

hello_outcome read_hello_answer(const shared_key& key, const frame_header& header, bytes_view variable,
                                std::uint64_t request_id, const nonce& client_nonce) noexcept {
  hello_outcome outcome;
  if (header.opcode != opcode::hello || header.request_id != request_id || !header.last() ||
      header.part_number != 0 || header.payload_length != 0)
    return outcome;
  outcome.status = header.status();
  if (outcome.status == status::ok) {
    if (hello_reply::decode(variable, outcome.reply) != status::ok ||
        outcome.reply.version > limits::version || outcome.reply.client_nonce != client_nonce)
      return outcome;
    outcome.keys = derive_session(key, outcome.reply.version, client_nonce, outcome.reply.server_nonce);
  } else {
    hello_refusal refused;
    if (hello_refusal::decode(variable, refused) != status::ok || refused.client_nonce != client_nonce)
      return outcome;
  }
  outcome.genuine = true;
  return outcome;
}

} // namespace memkv::wire
