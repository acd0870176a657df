# Writes OUTPUT, a C++ source that defines console_assets() of admin/console_assets.hpp, from the files in
# DIRECTORY named by FILES (separated by commas). Called by the build when one of them changed.
#
# Blanks at the beginning of a line, and lines of JavaScript that hold a comment alone, are left out; lines
# stay lines, so that what a browser says of line 17 is true of the source as well.
set(arrays "")
set(entries "")
string(REPLACE "," ";" files "${FILES}")
set(number 0)
foreach(name ${files})
  file(READ "${DIRECTORY}/${name}" text)
  string(REGEX REPLACE "\n +" "\n" text "${text}")
  if(name MATCHES "\\.js$")
    string(REGEX REPLACE "\n//[^\n]*" "\n" text "${text}")
    string(REGEX REPLACE "^//[^\n]*" "" text "${text}")
    string(REGEX REPLACE "\n/\\*\\*[^\n]*\\*/\n" "\n\n" text "${text}")
  endif()
  string(SHA256 digest "${text}")
  string(SUBSTRING "${digest}" 0 16 digest)
  string(HEX "${text}" hex)
  string(LENGTH "${hex}" hex_length)
  math(EXPR length "${hex_length} / 2")
  string(REGEX REPLACE "(................................)" "\\1\n" hex "${hex}")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  if(name STREQUAL "index.html")
    set(path "/")
  else()
    set(path "/${name}")
  endif()
  if(name MATCHES "\\.html$")
    set(type "text/html; charset=utf-8")
  elseif(name MATCHES "\\.css$")
    set(type "text/css; charset=utf-8")
  elseif(name MATCHES "\\.js$")
    set(type "text/javascript; charset=utf-8")
  elseif(name MATCHES "\\.svg$")
    set(type "image/svg+xml")
  else()
    message(FATAL_ERROR "${name}: its content type is not known here")
  endif()
  string(APPEND arrays "const unsigned char bytes_${number}[] = {\n${bytes}\n};\n")
  string(APPEND entries
    "    console_asset{\"${path}\", \"${type}\",\n"
    "                  {reinterpret_cast<const char*>(bytes_${number}), ${length}},"
    " \"\\\"${digest}\\\"\"},\n")
  math(EXPR number "${number} + 1")
endforeach()
file(WRITE "${OUTPUT}" "// Written by cmake/embed_assets.cmake.
#include \"admin/console_assets.hpp\"

#include <array>

namespace memkv::admin {
namespace {

${arrays}
} // namespace

std::span<const console_asset> console_assets() noexcept {
  static const std::array<console_asset, ${number}> assets{
${entries}  };
  return assets;
}

} // namespace memkv::admin
")
