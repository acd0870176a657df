// The program memkv: main only dispatches.
#include "cli/version.hpp"

#include <cstdio>

int main() {
  std::printf("memkv %.*s\n", static_cast<int>(memkv::cli::version().size()), memkv::cli::version().data());
  return 0;
}
