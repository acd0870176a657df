// TLS of the administration endpoint, server's side, on sockets that do not block.
//
// Operation. An identity is a certificate (with its chain) and its key, read from two PEM files; when the
// files change they are read again, and what is wrong with them then is said and the old ones stay in use.
// Who needs the certificate never waits for a disk: looking at the files is for a thread that may.
//
// Threading: an identity may be shared by threads; a session belongs to one. Ownership: a session keeps its
// identity's certificate alive, not the socket. Errors: values, with one sentence where a person can act.
// Limits: TLS 1.2 and 1.3, no renegotiation, no resumption. Does not: check certificates of clients.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>

struct ssl_st;
struct ssl_ctx_st;

namespace memkv::admin {

class tls_identity {
public:
  /// Null and a sentence when the files cannot be used.
  [[nodiscard]] static std::shared_ptr<tls_identity> load(const std::string& certificate_path,
                                                          const std::string& key_path, std::string& problem);

  /// The present certificate.
  [[nodiscard]] std::shared_ptr<ssl_ctx_st> context();
  /// Whether the files should be looked at: once when the last look was `every` ago or more, and is over.
  [[nodiscard]] bool wants_look(std::chrono::steady_clock::time_point now,
                                std::chrono::milliseconds every = std::chrono::seconds{5});
  /// Looks at the files, and reads them if they are others. May wait for their file system.
  void look();

private:
  tls_identity(std::string certificate_path, std::string key_path);

  const std::string certificate_path_, key_path_;
  std::string files_; // what told the files of context_, or those that were refused, from others; of look()
  std::mutex lock_;
  std::shared_ptr<ssl_ctx_st> context_;
  std::chrono::steady_clock::time_point looked_{};
  bool looking_ = false;
};

class tls_session {
public:
  enum class step {
    done,
    wants_read,  // when the socket can be read
    wants_write, // when it can be written
    closed,      // by the peer, or by an error
  };

  /// Null when there is no memory for it.
  [[nodiscard]] static std::unique_ptr<tls_session> accept(std::shared_ptr<ssl_ctx_st> context, int socket);
  ~tls_session();
  tls_session(const tls_session&) = delete;
  tls_session& operator=(const tls_session&) = delete;

  [[nodiscard]] step handshake() noexcept;
  /// done: `count` bytes were read, at least one.
  [[nodiscard]] step read(std::span<char> into, std::size_t& count) noexcept;
  /// done: `count` bytes were written, at least one.
  [[nodiscard]] step write(std::string_view bytes, std::size_t& count) noexcept;
  /// Tells the peer that nothing more comes, if the socket has room for it.
  void close_notify() noexcept;

private:
  tls_session(std::shared_ptr<ssl_ctx_st> context, ssl_st* session);
  [[nodiscard]] step step_of(int result) noexcept;

  std::shared_ptr<ssl_ctx_st> context_;
  ssl_st* session_;
  bool failed_ = false;
};

} // namespace memkv::admin
