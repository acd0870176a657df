// The client's end of TLS as a filter: encrypted bytes in and out, plain bytes in and out, no socket. So one
// loop can drive many connections and give each, handshake included, the same deadline.
//
// Threading: one thread. Ownership: a stream keeps its context alive. Errors: one sentence.
// At least TLS 1.2; the certificate and the name in it are checked unless the options say otherwise.
// Does not: renegotiate, resume sessions, or send certificates.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace memkv::admin {

struct tls_options {
  std::string ca_file; // PEM; the certificates to trust instead of the system's
  bool verify = true;
};

class tls_context {
public:
  /// Null with a problem when the file cannot be read.
  [[nodiscard]] static std::shared_ptr<tls_context> make(const tls_options& options, std::string& problem);
  ~tls_context();
  tls_context(const tls_context&) = delete;
  tls_context& operator=(const tls_context&) = delete;

private:
  friend class tls_stream;
  tls_context() = default;
  struct handle;
  std::unique_ptr<handle> handle_;
  bool verify_ = true;
};

class tls_stream {
public:
  tls_stream(std::shared_ptr<tls_context> context, const std::string& host, bool is_address);
  ~tls_stream();
  tls_stream(const tls_stream&) = delete;
  tls_stream& operator=(const tls_stream&) = delete;

  /// What is to be sent once the handshake is done.
  void write(std::string_view plain);
  /// Takes encrypted bytes of the peer.
  void received(std::string_view encrypted);
  /// Goes on as far as possible; appends plain bytes to `plain` and encrypted ones to `outgoing`.
  void advance(std::string& plain, std::string& outgoing);

  [[nodiscard]] bool handshake_done() const noexcept { return handshake_done_; }
  /// The peer said in TLS that nothing more will come.
  [[nodiscard]] bool ended() const noexcept { return ended_; }
  /// Empty while all is well.
  [[nodiscard]] const std::string& problem() const noexcept { return problem_; }

private:
  void shake_hands();
  void fail_handshake();

  struct state;
  std::shared_ptr<tls_context> context_;
  std::unique_ptr<state> state_;
  std::string unsent_;
  std::string problem_;
  bool handshake_done_ = false;
  bool ended_ = false;
};

} // namespace memkv::admin
