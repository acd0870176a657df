#include "admin/tls.hpp"

#include "actors/log.hpp"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>

#include <sys/stat.h>

#include <cerrno>
#include <cstring>

namespace memkv::admin {

namespace {

constexpr std::string_view target = "memkv::admin";

/// A path that is a directory or a pipe would be waited for, or read without an end.
std::string problem_of_file(const std::string& path) {
  struct stat facts {};
  if (::stat(path.c_str(), &facts) != 0)
    return path + " cannot be read: " + std::strerror(errno);
  if (!S_ISREG(facts.st_mode))
    return path + " is not a regular file";
  if (facts.st_size > (1 << 20))
    return path + " is larger than 1 MiB";
  if (FILE* file = std::fopen(path.c_str(), "re")) {
    std::fclose(file);
    return {};
  }
  return path + " cannot be read: " + std::strerror(errno);
}

std::string identity_of_files(const std::string& first, const std::string& second) {
  std::string text;
  for (const auto& path : {first, second}) {
    struct stat facts {};
    if (::stat(path.c_str(), &facts) == 0)
      text += std::to_string(facts.st_ino) + " " + std::to_string(facts.st_size) + " " +
              std::to_string(facts.st_mtim.tv_sec) + "." + std::to_string(facts.st_mtim.tv_nsec) + ";";
    else
      text += "-;";
  }
  return text;
}

// Whoever starts a server is not asked for a passphrase: there is nobody at its terminal.
int no_passphrase(char*, int, int, void* asked) {
  *static_cast<bool*>(asked) = true;
  return 0;
}

std::shared_ptr<SSL_CTX> load_context(const std::string& certificate_path, const std::string& key_path,
                                      std::string& problem) {
  for (const auto* path : {&certificate_path, &key_path}) {
    const bool is_key = path == &key_path;
    if (const auto wrong = problem_of_file(*path); !wrong.empty()) {
      problem = std::string{is_key ? "network.tls_key: " : "network.tls_cert: "} + wrong;
      return nullptr;
    }
  }
  std::shared_ptr<SSL_CTX> context{SSL_CTX_new(TLS_server_method()), SSL_CTX_free};
  if (context == nullptr) {
    problem = "network.tls_cert: OpenSSL cannot be used";
    return nullptr;
  }
  bool asked = false;
  SSL_CTX_set_default_passwd_cb(context.get(), no_passphrase);
  SSL_CTX_set_default_passwd_cb_userdata(context.get(), &asked);
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  SSL_CTX_set_options(context.get(), SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET);
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(context.get(), 0);
  SSL_CTX_set_mode(context.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                      SSL_MODE_RELEASE_BUFFERS);
  if (SSL_CTX_use_certificate_chain_file(context.get(), certificate_path.c_str()) != 1)
    problem = "network.tls_cert: " + certificate_path + " holds no certificate in PEM form";
  else if (SSL_CTX_use_PrivateKey_file(context.get(), key_path.c_str(), SSL_FILETYPE_PEM) != 1)
    problem = asked ? "network.tls_key: " + key_path + " is encrypted: give the key without a passphrase"
              : ERR_GET_LIB(ERR_peek_last_error()) == ERR_LIB_X509 &&
                      ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_VALUES_MISMATCH
                  ? "network.tls_key: the key in " + key_path + " does not belong to the certificate in " +
                        certificate_path
                  : "network.tls_key: " + key_path + " holds no private key in PEM form";
  else if (SSL_CTX_check_private_key(context.get()) != 1)
    problem = "network.tls_key: the key in " + key_path + " does not belong to the certificate in " +
              certificate_path;
  SSL_CTX_set_default_passwd_cb_userdata(context.get(), nullptr);
  ERR_clear_error();
  return problem.empty() ? context : nullptr;
}

} // namespace

tls_identity::tls_identity(std::string certificate_path, std::string key_path)
    : certificate_path_(std::move(certificate_path)), key_path_(std::move(key_path)) {}

std::shared_ptr<tls_identity> tls_identity::load(const std::string& certificate_path,
                                                 const std::string& key_path, std::string& problem) {
  problem.clear();
  std::shared_ptr<tls_identity> made{new tls_identity{certificate_path, key_path}};
  made->files_ = identity_of_files(certificate_path, key_path);
  made->looked_ = std::chrono::steady_clock::now();
  made->context_ = load_context(certificate_path, key_path, problem);
  return made->context_ == nullptr ? nullptr : made;
}

std::shared_ptr<SSL_CTX> tls_identity::context() {
  const std::lock_guard guard{lock_};
  return context_;
}

bool tls_identity::wants_look(std::chrono::steady_clock::time_point now, std::chrono::milliseconds every) {
  const std::lock_guard guard{lock_};
  if (looking_ || now - looked_ < every)
    return false;
  looked_ = now;
  looking_ = true;
  return true;
}

void tls_identity::look() {
  auto files = identity_of_files(certificate_path_, key_path_);
  if (files != files_) {
    files_ = std::move(files);
    std::string problem;
    if (auto fresh = load_context(certificate_path_, key_path_, problem)) {
      log::info(target, "the certificate was read again", {{"tls_cert", certificate_path_}});
      const std::lock_guard guard{lock_};
      context_ = std::move(fresh);
    } else {
      log::warn(target, problem + "; the certificate read before stays in use");
    }
  }
  const std::lock_guard guard{lock_};
  looking_ = false;
}

std::unique_ptr<tls_session> tls_session::accept(std::shared_ptr<SSL_CTX> context, int socket) {
  SSL* session = SSL_new(context.get());
  if (session == nullptr)
    return nullptr;
  if (SSL_set_fd(session, socket) != 1) {
    SSL_free(session);
    return nullptr;
  }
  SSL_set_accept_state(session);
  return std::unique_ptr<tls_session>{new tls_session{std::move(context), session}};
}

tls_session::tls_session(std::shared_ptr<SSL_CTX> context, SSL* session)
    : context_(std::move(context)), session_(session) {}

tls_session::~tls_session() {
  SSL_free(session_);
}

tls_session::step tls_session::step_of(int result) noexcept {
  const int error = SSL_get_error(session_, result);
  if (error == SSL_ERROR_WANT_READ)
    return step::wants_read;
  if (error == SSL_ERROR_WANT_WRITE)
    return step::wants_write;
  failed_ = true;
  ERR_clear_error();
  return step::closed;
}

tls_session::step tls_session::handshake() noexcept {
  ERR_clear_error();
  const int result = SSL_do_handshake(session_);
  return result == 1 ? step::done : step_of(result);
}

tls_session::step tls_session::read(std::span<char> into, std::size_t& count) noexcept {
  ERR_clear_error();
  const int result = SSL_read_ex(session_, into.data(), into.size(), &count);
  return result == 1 ? step::done : step_of(result);
}

tls_session::step tls_session::write(std::string_view bytes, std::size_t& count) noexcept {
  ERR_clear_error();
  const int result = SSL_write_ex(session_, bytes.data(), bytes.size(), &count);
  return result == 1 ? step::done : step_of(result);
}

void tls_session::close_notify() noexcept {
  if (failed_)
    return;
  ERR_clear_error();
  SSL_shutdown(session_);
  ERR_clear_error();
}

} // namespace memkv::admin
