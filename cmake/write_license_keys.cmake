# Writes the C++ sources that hold the keys of licences: KEYS_FILE, the public keys that servers and clients
# accept, and ISSUER_FILE, the private key that memkv-license signs with when it is given none. Run with -P,
# or included with the variables set:
#
#   RELEASE_KEY   PEM file of the release's public key; may be empty in a development build
#   DEVELOPMENT   ON: the pair in deploy/license is accepted too, and memkv-license has its private half
#
# A build that accepts no key at all could never start: it is refused here, with a sentence.
set(license_directory ${CMAKE_CURRENT_LIST_DIR}/../deploy/license)
file(READ ${license_directory}/development-public.pem development_public)
file(READ ${license_directory}/development-private.pem development_private)

set(keys "")
set(count 0)
macro(add_license_key pem development)
  string(APPEND keys "    {R\"pem(${pem})pem\", ${development}},\n")
  math(EXPR count "${count} + 1")
endmacro()

# What stands between the lines of the only key, without ends of lines; empty when there is not one alone.
function(bytes_of_key pem out)
  set(${out} "" PARENT_SCOPE)
  if(pem MATCHES "^[ \t\r\n]*-----BEGIN PUBLIC KEY-----([^-]*)-----END PUBLIC KEY-----[ \t\r\n]*$")
    string(REGEX REPLACE "[ \t\r\n]" "" bytes "${CMAKE_MATCH_1}")
    set(${out} "${bytes}" PARENT_SCOPE)
  endif()
endfunction()

if(RELEASE_KEY)
  if(NOT EXISTS "${RELEASE_KEY}")
    message(FATAL_ERROR "MEMKV_LICENSE_KEY names ${RELEASE_KEY}, which is not there: name the PEM file of "
                        "the public key that the release's licences are signed for.")
  endif()
  file(READ "${RELEASE_KEY}" release_public)
  string(FIND "${release_public}" "PRIVATE KEY" private_at)
  bytes_of_key("${release_public}" release_bytes)
  bytes_of_key("${development_public}" development_bytes)
  string(LENGTH "${release_bytes}" release_length)
  # One key of P-384 in the one form that openssl pkey -pubout writes: then two texts are the same key only if
  # their bytes are the same.
  if(NOT private_at EQUAL -1 OR NOT release_length EQUAL 160 OR
     NOT release_bytes MATCHES "^MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE[A-Za-z0-9+/]+$")
    message(FATAL_ERROR "MEMKV_LICENSE_KEY names ${RELEASE_KEY}, which is not a public key in PEM form, on "
                        "the curve P-384 and not compressed: make one with openssl pkey -pubout, and never "
                        "give the private half to a build.")
  endif()
  string(REPEAT "." 64 line)
  string(REGEX REPLACE "(${line})" "\\1\n" release_lines "${release_bytes}")
  set(release_public "-----BEGIN PUBLIC KEY-----\n${release_lines}\n-----END PUBLIC KEY-----\n")
  if(release_bytes STREQUAL development_bytes)
    message(FATAL_ERROR "MEMKV_LICENSE_KEY names the development key, whose private half everybody has: make "
                        "a pair with memkv-license key.")
  endif()
  add_license_key("${release_public}" false)
endif()
set(issuer_key "")
if(DEVELOPMENT)
  add_license_key("${development_public}" true)
  set(issuer_key "${development_private}")
endif()
if(count EQUAL 0)
  message(FATAL_ERROR "This is a release build, which accepts no development licence, and it was given no "
                      "key to verify licences with: configure with -DMEMKV_LICENSE_KEY=PATH, the release's "
                      "public key (PEM).")
endif()

function(write_if_changed path text)
  set(previous "")
  if(EXISTS "${path}")
    file(READ "${path}" previous)
  endif()
  if(NOT previous STREQUAL text)
    file(WRITE "${path}" "${text}")
  endif()
endfunction()

write_if_changed("${KEYS_FILE}" "// Written by cmake/write_license_keys.cmake.
#include \"wire/license.hpp\"

namespace memkv::wire {

std::span<const license_key> built_in_license_keys() noexcept {
  static constexpr license_key keys[] = {
${keys}  };
  return keys;
}

} // namespace memkv::wire
")
if(ISSUER_FILE)
  write_if_changed("${ISSUER_FILE}" "// Written by cmake/write_license_keys.cmake.
#include \"wire/license_issuer.hpp\"

namespace memkv::wire {

std::string_view development_license_key() noexcept {
  return R\"pem(${issuer_key})pem\";
}

} // namespace memkv::wire
")
endif()
