# Writes VERSION_FILE (a C++ source) with the version of this build; called by the build on every run, and
# rewrites the file only when the version changed.
#
# The version is the environment's VERSION_TAG, else DEVELOPMENT.<first 7 digits of the commit>, else
# DEVELOPMENT. It is never a number that nobody released,
# and with VERSION_TAG never one of a build that accepts development licences (DEVELOPMENT_LICENSES).
set(version "DEVELOPMENT")
if(DEFINED ENV{VERSION_TAG} AND NOT "$ENV{VERSION_TAG}" STREQUAL "")
  set(version "$ENV{VERSION_TAG}")
  string(LENGTH "${version}" version_length)
  if(NOT version MATCHES "^[A-Za-z0-9][A-Za-z0-9._+-]*$" OR version_length GREATER 64)
    message(FATAL_ERROR
      "VERSION_TAG is \"${version}\": use at most 64 letters, digits, dots, dashes, pluses and underscores.")
  endif()
  if(DEVELOPMENT_LICENSES)
    message(FATAL_ERROR
      "VERSION_TAG is set, so this is a release, and this build directory accepts development licences: "
      "configure it with -DMEMKV_LICENSE_DEVELOPMENT=OFF -DMEMKV_LICENSE_KEY=PATH.")
  endif()
else()
  find_program(git_program git)
  if(git_program)
    # The commit counts only if this directory is the top of the repository: an unpacked archive that
    # happens to lie inside somebody else's repository must not carry that one's commit.
    execute_process(COMMAND ${git_program} -C ${SOURCE_DIRECTORY} rev-parse --show-cdup
      RESULT_VARIABLE status OUTPUT_VARIABLE up OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    if(status EQUAL 0 AND up STREQUAL "")
      execute_process(COMMAND ${git_program} -C ${SOURCE_DIRECTORY} rev-parse HEAD
        RESULT_VARIABLE status OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
      if(status EQUAL 0 AND commit MATCHES "^[0-9a-f]+$")
        string(SUBSTRING "${commit}" 0 7 commit)
        set(version "DEVELOPMENT.${commit}")
      endif()
    endif()
  endif()
endif()

set(text "// Written by cmake/write_version.cmake.
#include \"cli/version.hpp\"

namespace memkv::cli {

std::string_view version() noexcept {
  return \"${version}\";
}

} // namespace memkv::cli
")
set(previous "")
if(EXISTS "${VERSION_FILE}")
  file(READ "${VERSION_FILE}" previous)
endif()
if(NOT previous STREQUAL text)
  file(WRITE "${VERSION_FILE}" "${text}")
endif()
