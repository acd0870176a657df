// What a store may answer: the expected state, kept outside of what is tested.
//
// Operation. A key is a register. Each put and delete is a write with a beginning and an end on the model's
// own clock, and a flag whether it is certain to have happened. A get may see a write unless another one that
// certainly happened lay wholly between that write's end and the get's beginning. What a get has seen becomes
// certain in turn, so nothing that was overwritten, deleted or evicted may come back. Evictions, lost drives
// and lossy power cuts are writes of "absent" that may have happened.
//
// Threading: one thread; serialise begin and end calls in the order in which they happened.
// Limits: none of its own; forgets writes that nothing can see any more.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace memkv::sim {

class model {
public:
  using key = std::string;
  /// Names one content: a seed, a hash. The test makes the bytes from it, or it from the bytes.
  using content = std::uint64_t;
  using ticket = std::uint64_t;

  enum class outcome : std::uint8_t {
    done,    // acknowledged
    refused, // certainly did not happen
    unknown, // timed out, connection closed: may happen until settle() or crash()
  };

  [[nodiscard]] ticket begin_put(const key& name, content what);
  [[nodiscard]] ticket begin_delete(const key& name);
  void end(ticket operation, outcome how);

  [[nodiscard]] ticket begin_get(const key& name);
  /// Empty: legal. Otherwise a sentence that says what was seen and what was allowed.
  [[nodiscard]] std::string end_get(ticket operation, std::optional<content> seen);
  /// The get ended with an error, or was abandoned: proves nothing.
  void abandon_get(ticket operation);

  /// Writes of unknown outcome can no longer take effect after now: their deadline has passed.
  void settle();

  /// The server announced that this block went, at some time since its last put or get began.
  void evicted(const key& name);
  /// It announced how many went, not which: each may explain one miss.
  void evicted_some(std::uint64_t blocks) { announced_ += blocks; }
  /// Every key for which `where` is true may be absent from now on.
  void lost(const std::function<bool(const key&)>& where);

  /// The process died. What was under way has happened or never will. `lossy`: acknowledged blocks may be
  /// gone too.
  void crash(bool lossy);

  /// What a get that begins and ends now may see.
  [[nodiscard]] std::vector<std::optional<content>> allowed(const key& name) const;
  [[nodiscard]] std::vector<key> keys() const;

  /// Misses explained only by evicted_some(), and how many it announced.
  [[nodiscard]] std::uint64_t unexplained_misses() const noexcept { return misses_; }
  [[nodiscard]] std::uint64_t announced_evictions() const noexcept { return announced_; }

private:
  static constexpr std::uint64_t open_end = ~std::uint64_t{0};

  struct write {
    std::optional<content> what;
    std::uint64_t begin = 0;
    std::uint64_t end = open_end;
    bool certain = false;
    ticket operation = 0; // 0: none under way
  };
  struct get {
    key name;
    std::uint64_t begin = 0;
  };

  [[nodiscard]] ticket begin_write(const key& name, std::optional<content> what);
  [[nodiscard]] static bool visible(const std::vector<write>& writes, const write& one, std::uint64_t begin,
                                    std::uint64_t end);
  std::vector<write>& writes_of(const key& name);
  void forget(const key& name);

  std::uint64_t now_ = 1;
  ticket last_ = 0;
  std::map<key, std::vector<write>> writes_;
  std::map<ticket, key> writing_;
  std::map<ticket, get> getting_;
  std::uint64_t announced_ = 0;
  std::uint64_t misses_ = 0;
};

} // namespace memkv::sim
