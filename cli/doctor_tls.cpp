#include "cli/doctor_tls.hpp"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <memory>

namespace memkv::cli {

namespace {

struct closer {
  void operator()(std::FILE* file) const noexcept { std::fclose(file); }
  void operator()(X509* cert) const noexcept { X509_free(cert); }
  void operator()(EVP_PKEY* key) const noexcept { EVP_PKEY_free(key); }
};
using file_ptr = std::unique_ptr<std::FILE, closer>;

file_ptr open_file(const std::string& path, std::string& problem) {
  file_ptr file(std::fopen(path.c_str(), "re"));
  if (file == nullptr)
    problem = path + " cannot be opened (" + std::strerror(errno) + ")" +
              (errno == ENOENT ? ": name a file that exists" : ": let the server's user read it");
  return file;
}

// Without one, OpenSSL would ask at the terminal.
int no_pass_phrase(char*, int, int, void*) {
  return -1;
}

std::int64_t seconds_of(const ASN1_TIME* time) {
  std::tm parts{};
  if (time == nullptr || ASN1_TIME_to_tm(time, &parts) != 1)
    return 0;
  return static_cast<std::int64_t>(::timegm(&parts));
}

} // namespace

tls_facts read_tls_facts(const std::string& cert_path, const std::string& key_path) {
  tls_facts facts;
  facts.configured = true;
  std::unique_ptr<X509, closer> cert;
  std::unique_ptr<EVP_PKEY, closer> key;
  if (const auto file = open_file(cert_path, facts.cert_problem)) {
    cert.reset(PEM_read_X509(file.get(), nullptr, no_pass_phrase, nullptr));
    if (cert == nullptr)
      facts.cert_problem = cert_path + " holds no certificate in PEM form: name one";
  }
  if (const auto file = open_file(key_path, facts.key_problem)) {
    struct stat about {};
    if (::fstat(::fileno(file.get()), &about) == 0)
      facts.key_mode = about.st_mode & 07777U;
    key.reset(PEM_read_PrivateKey(file.get(), nullptr, no_pass_phrase, nullptr));
    if (key == nullptr)
      facts.key_problem = key_path +
                          " holds no private key in PEM form, or one with a pass phrase: name a key "
                          "without one";
  }
  if (cert != nullptr) {
    facts.not_before_s = seconds_of(X509_get0_notBefore(cert.get()));
    facts.not_after_s = seconds_of(X509_get0_notAfter(cert.get()));
    if (char* line = X509_NAME_oneline(X509_get_subject_name(cert.get()), nullptr, 0); line != nullptr) {
      facts.name = line;
      OPENSSL_free(line);
    }
    facts.matches = key != nullptr && X509_check_private_key(cert.get(), key.get()) == 1;
  }
  ERR_clear_error();
  return facts;
}

} // namespace memkv::cli
