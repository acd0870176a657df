# Writes OUTPUT, a C++ source that defines doc_files() of cli/doc_site.hpp, from the files in DIRECTORY
# named by FILES (separated by commas). Called by the build when one of them changed.
set(arrays "")
set(entries "")
string(REPLACE "," ";" files "${FILES}")
set(number 0)
foreach(name ${files})
  file(READ "${DIRECTORY}/${name}" hex HEX)
  string(LENGTH "${hex}" hex_length)
  math(EXPR length "${hex_length} / 2")
  string(REGEX REPLACE "(................................)" "\\1\n" hex "${hex}")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  string(APPEND arrays "const unsigned char bytes_${number}[] = {\n${bytes}\n};\n")
  string(APPEND entries
    "    doc_file{\"/${name}\", {reinterpret_cast<const char*>(bytes_${number}), ${length}}},\n")
  math(EXPR number "${number} + 1")
endforeach()
file(WRITE "${OUTPUT}" "// Written by cmake/embed_docs.cmake.
#include \"cli/doc_site.hpp\"

#include <array>

namespace memkv::cli {
namespace {

${arrays}
} // namespace

std::span<const doc_file> doc_files() noexcept {
  static const std::array<doc_file, ${number}> files{
${entries}  };
  return files;
}

} // namespace memkv::cli
")
