#include "admin/tls_stream.hpp"

#include "wire/assert.hpp"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace memkv::admin {

namespace {

// The newest reason of the library, which is emptied so that it says nothing about the next failure.
std::string reason() {
  std::string text;
  while (const unsigned long code = ERR_get_error())
    if (const char* words = ERR_reason_error_string(code); words != nullptr)
      text = words;
  return text.empty() ? "no reason given" : text;
}

} // namespace

struct tls_context::handle {
  ~handle() { SSL_CTX_free(context); }
  SSL_CTX* context = nullptr;
};

struct tls_stream::state {
  ~state() { SSL_free(session); }
  SSL* session = nullptr;
  BIO* incoming = nullptr; // both belong to the session
  BIO* outgoing = nullptr;
};

std::shared_ptr<tls_context> tls_context::make(const tls_options& options, std::string& problem) {
  std::shared_ptr<tls_context> made(new tls_context);
  made->handle_ = std::make_unique<handle>();
  made->verify_ = options.verify;
  auto* context = made->handle_->context = SSL_CTX_new(TLS_client_method());
  if (context == nullptr || SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1) {
    problem = "TLS cannot be set up: " + reason();
    return nullptr;
  }
  // A certificate that signed itself may stand in the file without being an authority.
  X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(context), X509_V_FLAG_PARTIAL_CHAIN);
  if (!options.ca_file.empty()) {
    // The library says "system lib" when it cannot open it, and waits for a pipe that nobody writes to.
    struct stat facts {};
    if (::stat(options.ca_file.c_str(), &facts) != 0 || ::access(options.ca_file.c_str(), R_OK) != 0) {
      problem = options.ca_file + " cannot be read: " + std::strerror(errno);
      return nullptr;
    }
    if (!S_ISREG(facts.st_mode)) {
      problem = options.ca_file + " cannot be read: it is no regular file";
      return nullptr;
    }
    if (SSL_CTX_load_verify_locations(context, options.ca_file.c_str(), nullptr) != 1) {
      problem = options.ca_file + " cannot be read as certificates in PEM: " + reason();
      return nullptr;
    }
  } else if (SSL_CTX_set_default_verify_paths(context) != 1) {
    problem = "the system's certificates cannot be read: " + reason();
    return nullptr;
  }
  SSL_CTX_set_verify(context, options.verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, nullptr);
  return made;
}

tls_context::~tls_context() = default;

tls_stream::tls_stream(std::shared_ptr<tls_context> context, const std::string& host, bool is_address)
    : context_(std::move(context)), state_(std::make_unique<state>()) {
  state_->session = SSL_new(context_->handle_->context);
  state_->incoming = BIO_new(BIO_s_mem());
  state_->outgoing = BIO_new(BIO_s_mem());
  MEMKV_ASSERT(state_->session != nullptr && state_->incoming != nullptr && state_->outgoing != nullptr,
               "memory for a TLS session is there");
  BIO_set_mem_eof_return(state_->incoming, -1);
  SSL_set_bio(state_->session, state_->incoming, state_->outgoing);
  SSL_set_connect_state(state_->session);
  const std::string plain_host = host.substr(0, host.find('%'));
  bool set = true;
  if (is_address) {
    set = X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(state_->session), plain_host.c_str()) == 1;
  } else {
    set = SSL_set1_host(state_->session, plain_host.c_str()) == 1 &&
          SSL_set_tlsext_host_name(state_->session, plain_host.c_str()) == 1;
  }
  if (!set)
    problem_ = "TLS cannot be set up for " + host + ": " + reason();
}

tls_stream::~tls_stream() = default;

void tls_stream::write(std::string_view plain) {
  unsent_ += plain;
}

void tls_stream::received(std::string_view encrypted) {
  if (!problem_.empty())
    return;
  const int taken = BIO_write(state_->incoming, encrypted.data(), static_cast<int>(encrypted.size()));
  MEMKV_ASSERT(taken == static_cast<int>(encrypted.size()), "a BIO of memory takes everything");
}

void tls_stream::fail_handshake() {
  const long verdict = SSL_get_verify_result(state_->session);
  if (context_->verify_ && verdict != X509_V_OK)
    problem_ = std::string("the server's certificate is refused: ") + X509_verify_cert_error_string(verdict) +
               " (--ca-file names the certificates to trust, --insecure asks for none)";
  else
    problem_ = "the TLS handshake failed: " + reason();
}

void tls_stream::shake_hands() {
  ERR_clear_error();
  const int done = SSL_do_handshake(state_->session);
  if (done == 1) {
    handshake_done_ = true;
    return;
  }
  const int what = SSL_get_error(state_->session, done);
  if (what != SSL_ERROR_WANT_READ && what != SSL_ERROR_WANT_WRITE)
    fail_handshake();
}

void tls_stream::advance(std::string& plain, std::string& outgoing) {
  if (problem_.empty() && !handshake_done_)
    shake_hands();
  if (problem_.empty() && handshake_done_ && !unsent_.empty()) {
    ERR_clear_error();
    if (SSL_write(state_->session, unsent_.data(), static_cast<int>(unsent_.size())) <= 0)
      problem_ = "the request cannot be encrypted: " + reason();
    unsent_.clear();
  }
  while (problem_.empty() && handshake_done_ && !ended_) {
    std::array<char, 16'384> bytes{};
    ERR_clear_error();
    const int got = SSL_read(state_->session, bytes.data(), static_cast<int>(bytes.size()));
    if (got > 0) {
      plain.append(bytes.data(), static_cast<std::size_t>(got));
      continue;
    }
    const int what = SSL_get_error(state_->session, got);
    if (what == SSL_ERROR_ZERO_RETURN)
      ended_ = true;
    else if (what != SSL_ERROR_WANT_READ)
      problem_ = "the TLS connection broke: " + reason();
    break;
  }
  // Also after a failure: the peer is told why.
  std::array<char, 16'384> bytes{};
  for (int got = BIO_read(state_->outgoing, bytes.data(), static_cast<int>(bytes.size())); got > 0;
       got = BIO_read(state_->outgoing, bytes.data(), static_cast<int>(bytes.size())))
    outgoing.append(bytes.data(), static_cast<std::size_t>(got));
}

} // namespace memkv::admin
