// What is known of the licence in force, for whoever shows it: status, metrics, doctor.
//
// Threading: any thread; LICENSE WATCHER writes. Ownership: values are copied. Errors: none.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>

namespace memkv::actors {

struct license_facts {
  std::string plan; // as the licence writes it
  std::string organization;
  std::string id;
  std::string source;             // "--license", "MEMKV_LICENSE", the path of a well-known file
  std::string path;               // of the file that is watched; empty when the licence was given itself
  std::uint64_t expires_at_s = 0; // since 1970-01-01 UTC
  std::uint64_t days_left = 0;    // whole days
  bool development = false;       // signed with the key that anybody has
  bool valid = false;
};

class license_state {
public:
  [[nodiscard]] license_facts read() const {
    std::lock_guard guard{lock_};
    return facts_;
  }
  void write(license_facts facts) {
    std::lock_guard guard{lock_};
    facts_ = std::move(facts);
  }

private:
  mutable std::mutex lock_;
  license_facts facts_;
};

} // namespace memkv::actors
