// Whether a certificate and a private key can be used together: the only user of OpenSSL's X.509 in cli/.
//
// Threading: any one thread; blocks on files. Ownership: values; the key is not kept. Errors: sentences in
// the facts. Does not: check the chain, names, or revocation; a key with a pass phrase is refused, since a
// server cannot ask for one.
#pragma once

#include "cli/doctor_facts.hpp"

#include <string>

namespace memkv::cli {

/// Reads both PEM files. `configured` is set.
[[nodiscard]] tls_facts read_tls_facts(const std::string& cert_path, const std::string& key_path);

} // namespace memkv::cli
