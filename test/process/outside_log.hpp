// What was asked of the server and what it acknowledged, kept outside of it: per key the values that a read
// may return. The last acknowledged one and each that was begun after it; nothing else, and nothing less,
// unless the store may forget.
//
// Threading: any number of threads; a key is changed by one at a time. Ownership: values.
// Errors: check_*() return a sentence that says what is wrong, empty when nothing is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <vector>

namespace memkv::test {

constexpr std::size_t value_bytes_max = 9'000'000;

/// One change of a key. Its number and the key give the bytes.
struct version {
  std::uint64_t number = 0;
  bool is_put = false;
  std::size_t bytes = 0;
};

/// Writes the bytes of a version; any two versions differ almost everywhere.
void fill(std::uint32_t key, const version& which, std::span<std::byte> out);
/// The first position where the bytes are not those of this version; -1 when they all are.
std::ptrdiff_t first_difference(std::uint32_t key, const version& which, std::span<const std::byte> bytes);

class outside_log {
public:
  /// `may_forget`: a block may be gone without being deleted. Wrong bytes are never right.
  outside_log(std::uint32_t keys, bool may_forget);

  [[nodiscard]] std::uint32_t keys() const noexcept { return static_cast<std::uint32_t>(records_.size()); }
  [[nodiscard]] bool may_forget() const noexcept { return may_forget_; }
  [[nodiscard]] static std::string name(std::uint32_t key) { return "block-" + std::to_string(key); }

  [[nodiscard]] version begin_put(std::uint32_t key, std::size_t bytes);
  [[nodiscard]] version begin_remove(std::uint32_t key);
  void acknowledge(std::uint32_t key, const version& which);
  /// The server said that it did not do it.
  void withdraw(std::uint32_t key, const version& which);
  /// Nobody knows whether it was done. The key is left alone until it is settled.
  void lose(std::uint32_t key);
  [[nodiscard]] bool is_lost(std::uint32_t key) const;
  /// The last acknowledged version, at the beginning of a read.
  [[nodiscard]] version acknowledged(std::uint32_t key) const;

  /// A read returned these bytes, or nothing when `present` is false, and began when `since` was
  /// acknowledged.
  [[nodiscard]] std::string check_read(std::uint32_t key, const version& since, bool present,
                                       std::span<const std::byte> bytes) const;
  /// The same for a key that nobody changes: what was seen is from now on the only thing that may be seen.
  [[nodiscard]] std::string settle(std::uint32_t key, bool present, std::span<const std::byte> bytes);
  [[nodiscard]] std::uint64_t acknowledgements() const;
  /// Keys whose last acknowledged change is a put.
  [[nodiscard]] std::uint64_t present() const;

private:
  struct record {
    mutable std::mutex lock;
    std::vector<version> history; // since it was settled
    std::size_t acknowledged = 0; // position in it
    std::uint64_t next_number = 1;
    std::uint64_t count = 0;
    bool lost = false;
  };

  [[nodiscard]] version begin(std::uint32_t key, bool is_put, std::size_t bytes);
  [[nodiscard]] std::string describe(std::uint32_t key, const std::vector<version>& right, bool present,
                                     std::span<const std::byte> bytes) const;

  std::vector<record> records_;
  bool may_forget_;
};

} // namespace memkv::test
