// The queue pair that carries the messages of one connection, and the memory they lie in. Internal to
// client/.
//
// Operation. Made with its receives posted, then connected by its device. A frame is copied by add() and goes
// out with post(), all that were added with one doorbell. look() fetches what the device reported; take()
// hands out what arrived, in its order, as views, each of which is given back when it has been read: only
// then may the server send into that room again. What goes wrong breaks the pair for good, and broken() says
// why.
//
// Before sleeping on descriptor(), arm(): it tells of what comes from then on, and looks once more at what
// came before.
//
// Threading: any thread; one lock, held for the length of a call. Nobody else wants it unless the device is
// closed. Views belong to who took them. Ownership: the memory, which stays until the last holder of the pair
// lets go, and which children of a fork do not get. After close(), by the device, nothing is sent or
// received. Limits: what make() is given; the owner sends no more requests than receives_max without an
// answer. Errors: values. Does not: know what messages mean.
#pragma once

#include "verbs/fabric.hpp"
#include "wire/bytes.hpp"

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

namespace memkv::client {

class message_pair {
public:
  struct room {
    std::uint32_t receives_max = 0;
    std::uint32_t sends_max = 0; // added and not yet reported
    std::uint32_t message_bytes_max = 0;
  };
  struct arrival {
    std::uint32_t receive = 0;
    wire::bytes_view bytes;
  };

  [[nodiscard]] static verbs::status make(verbs::fabric& fabric, const room& wanted,
                                          std::shared_ptr<message_pair>& out);
  ~message_pair();
  message_pair(const message_pair&) = delete;
  message_pair& operator=(const message_pair&) = delete;

  // The device, which owns the fabric.

  [[nodiscard]] verbs::rc_address address() const;
  [[nodiscard]] verbs::status connect(const verbs::rc_address& peer);
  /// Destroys the queue pair: no byte of memory that it lent is touched afterwards.
  void close() noexcept;

  // The connection's driver.

  /// False: no room now, or broken. What was added before is not affected.
  [[nodiscard]] bool add(wire::bytes_view frame);
  void post();
  /// True: something can be taken, there is room to send again where add() found none, or it is broken.
  [[nodiscard]] bool look();
  [[nodiscard]] bool take(arrival& out);
  void give_back(std::uint32_t receive);
  /// False: as look().
  [[nodiscard]] bool arm();
  void acknowledge();
  /// -1: closed.
  [[nodiscard]] int descriptor() const;
  [[nodiscard]] bool broken() const;
  /// Why, as a sentence.
  [[nodiscard]] std::string problem() const;

private:
  message_pair(const room& wanted, std::byte* memory, std::size_t bytes) noexcept;
  [[nodiscard]] verbs::status make_parts(verbs::fabric& fabric);
  [[nodiscard]] verbs::status post_receive(std::uint32_t receive);
  void take_reports();
  void break_off(const std::string& why);
  [[nodiscard]] bool worth_a_look() const noexcept;
  [[nodiscard]] std::byte* receive_at(std::uint32_t receive) const noexcept {
    return memory_ + std::size_t{receive} * room_.message_bytes_max;
  }
  [[nodiscard]] std::byte* send_at(std::uint64_t number) const noexcept {
    return receive_at(room_.receives_max) + number % room_.sends_max * room_.message_bytes_max;
  }

  const room room_;
  std::byte* const memory_; // receives, then slots to send from
  const std::size_t memory_bytes_;

  mutable std::mutex mutex_; // all below; none of the three once closed, and each before what it needs
  std::unique_ptr<verbs::completion_queue> completions_;
  std::unique_ptr<verbs::memory_region> region_;
  std::unique_ptr<verbs::rc_queue_pair> pair_;
  std::deque<arrival> arrived_;
  std::vector<verbs::local_range> ranges_; // of what was added, in the order of adding
  // Messages that were added, posted, and reported; a slot is its number modulo sends_max.
  std::uint64_t added_ = 0;
  std::uint64_t posted_ = 0;
  std::uint64_t reported_ = 0;
  bool wants_room_ = false;
  std::string problem_; // broken, when there is one
};

} // namespace memkv::client
