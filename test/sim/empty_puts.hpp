// Puts of blocks whose payload is zeros and is never written: what fills a sparse drive with millions of
// blocks in seconds.
//
// Operation. A value larger than an extent is striped as the server does it: its parts are prepared one after
// another, then its head is committed; all lie on this one drive. Checksums are those of zeros.
//
// Threading: one thread. Ownership: the store is lent and outlives this.
// Errors: counted. A put that failed gives back what it held, as the server does.
// Limits: at most `values_max` puts under way.
#pragma once

#include "engine/drive_store.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace memkv::sim {

class empty_puts {
public:
  empty_puts(engine::drive_store& store, std::uint32_t extent_bytes_max, std::size_t values_max);
  ~empty_puts();
  empty_puts(const empty_puts&) = delete;
  empty_puts& operator=(const empty_puts&) = delete;

  [[nodiscard]] static engine::key_id id_of(std::uint64_t number);

  /// Begins a put under the key that `number` is; before that drives the store until there is room. False:
  /// the store does not get on (nothing moves any more), and nothing was begun.
  [[nodiscard]] bool put(std::uint64_t number, std::uint64_t length);
  /// Drives the store until every put was answered. False: it does not get on.
  [[nodiscard]] bool finish();

  [[nodiscard]] std::uint64_t stored() const noexcept { return stored_; }
  [[nodiscard]] std::uint64_t refused() const noexcept { return refused_; }
  [[nodiscard]] engine::errc first_refusal() const noexcept { return first_refusal_; }

private:
  struct value;

  void allocate_part(value& of, std::uint32_t part);
  void part_allocated(value& of, std::uint32_t part, std::uint64_t token);
  void end(value& of, engine::errc result);
  [[nodiscard]] bool poll_until_below(std::size_t values);
  [[nodiscard]] std::vector<std::uint32_t> sums(std::uint32_t length);

  engine::drive_store& store_;
  std::uint32_t extent_bytes_max_;
  std::size_t values_max_;
  std::vector<std::unique_ptr<value>> values_; // free ones too
  std::vector<value*> free_;
  std::uint64_t last_put_id_ = 0;
  std::uint64_t stored_ = 0, refused_ = 0;
  engine::errc first_refusal_ = engine::errc::ok;
  std::uint32_t known_length_ = 0; // of the piece whose sum is known
  std::uint32_t known_sum_ = 0, whole_sum_ = 0;
};

/// Bytes of the values that can be read whole: each of their parts is there too. `torn` counts the others.
[[nodiscard]] std::uint64_t useful_bytes(engine::drive_store& store, std::uint32_t extent_bytes_max,
                                         std::uint64_t& torn);

} // namespace memkv::sim
