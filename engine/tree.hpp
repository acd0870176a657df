// The B+ tree as the store keeps it in memory: which page holds which range of ids, and which ranges have
// changed.
//
// Operation. Entries themselves are in the index; the tree knows, for each leaf, its range, its page, and how
// many bytes its records take. A change marks its leaf dirty. A checkpoint makes dirty leaves anew from the
// index, oldest change first, each into a free page, then the inner pages above them; a root that was made
// durable lets the replaced pages be used again.
//
// A leaf that grows over a page is divided when it is written, and only then: so every leaf but those that a
// checkpoint is writing has a page, or was never published, and a checkpoint that writes a part of the dirty
// leaves can name the old pages of all others. A leaf that is less than two fifths full when it is written is
// joined with a neighbour or takes entries from it.
//
// Threading: one thread. Ownership: the source is lent. Errors: values.
// Does not: do I/O.
#pragma once

#include "engine/tree_page.hpp"

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <span>
#include <vector>

namespace memkv::engine {

class tree {
public:
  using record_visitor = std::function<void(const entry_record&)>;
  /// Visits the records of all entries with first <= id <= last in ascending order.
  using record_source = std::function<void(const key_id& first, const key_id& last, const record_visitor&)>;

  tree(const layout& places, const identity& format_id, record_source source);

  /// Tells of a page found while the tree is read from the drive, from the root downwards. Leaves at level 0.
  /// `first` is from the parent. False when the page is used already.
  [[nodiscard]] bool load(std::uint8_t level, const key_id& first, const tree_reference& reference,
                          std::uint64_t journal_sequence, std::size_t payload_bytes);
  /// A page that could not be read: its range is there, empty, to be written anew.
  void load_lost(std::uint8_t level, const key_id& first);
  /// After the last load: completes levels, so that each range has its node.
  void finish_loading(std::uint64_t tree_sequence);

  /// An entry in this range was added (`bytes` > 0), removed or replaced; the index has the change already.
  void note_change(const key_id& id, std::int64_t bytes, std::uint64_t batch);
  /// Up to which batch the leaf of this id was complete when it was read.
  [[nodiscard]] std::uint64_t journal_sequence(const key_id& id) const;

  struct leaf_range {
    key_id first, last;
    std::uint64_t journal_sequence;
  };
  [[nodiscard]] std::vector<leaf_range> leaves() const;

  [[nodiscard]] bool dirty() const noexcept { return !levels_.front().dirty.empty() || structure_changed_; }
  [[nodiscard]] std::size_t dirty_leaves() const noexcept { return levels_.front().dirty.size(); }
  /// The first batch that the published tree may lack, if `next` is the next batch to be applied.
  [[nodiscard]] std::uint64_t tail(std::uint64_t next) const noexcept;

  /// Starts a checkpoint of as many changes as there are free pages for, oldest first.
  void begin_checkpoint(std::uint64_t applied);
  using page_sink = std::function<std::span<std::byte>(std::uint32_t page)>;
  enum class progress { more, complete, out_of_pages };
  /// Makes the next few pages (at most three or so): asks `sink` for the bytes of each and fills them.
  [[nodiscard]] progress step(std::uint64_t applied, const page_sink& sink);
  /// After complete: what the superblock is to name.
  [[nodiscard]] tree_reference root() const noexcept { return root_; }
  [[nodiscard]] std::uint8_t root_level() const noexcept {
    return static_cast<std::uint8_t>(levels_.size() - 1);
  }
  [[nodiscard]] std::uint64_t tree_sequence() const noexcept { return sequence_; }
  /// The root is published: replaced pages are free again.
  void finish_checkpoint();

  [[nodiscard]] std::uint32_t free_pages() const noexcept { return free_pages_; }
  /// Of ranges and page marks, with the heap's own bookkeeping.
  [[nodiscard]] std::uint64_t memory_bytes() const noexcept;
  [[nodiscard]] std::size_t leaf_count() const noexcept { return levels_.front().nodes.size(); }

private:
  struct node {
    tree_reference reference;
    std::size_t bytes = 0;
    std::uint64_t journal_sequence = 0;
    std::uint64_t dirty_since = 0;
    bool dirty = false;
    std::list<key_id>::iterator place; // in level::dirty, when dirty
  };
  using node_map = std::map<key_id, node>;
  struct level {
    node_map nodes;
    std::list<key_id> dirty;
  };

  [[nodiscard]] node_map::iterator node_of(std::size_t level, const key_id& id);
  [[nodiscard]] key_id last_of(std::size_t level, node_map::const_iterator at) const;
  void mark(std::size_t level, node_map::iterator at, std::uint64_t batch);
  void mark_first(std::size_t level, node_map::iterator at, std::uint64_t batch);
  void unmark(std::size_t level, node_map::iterator at);
  void change_parent(std::size_t level, const key_id& child, std::int64_t bytes, std::uint64_t batch);
  void items(std::size_t level, const key_id& first, const key_id& last,
             const std::function<void(const key_id&, std::size_t)>& visitor) const;
  void split_if_over(std::size_t level, key_id first);
  node_map::iterator insert_node(std::size_t level, const key_id& first, std::uint64_t batch);
  void remove_node(std::size_t level, node_map::iterator at, std::uint64_t batch);
  void release_page(node& of);
  [[nodiscard]] bool write_node(std::size_t level, node_map::iterator at, std::uint64_t applied,
                                const page_sink& sink);
  void drop_needless_levels();
  [[nodiscard]] std::uint32_t take_page();

  layout places_;
  identity format_id_;
  record_source source_;
  std::vector<level> levels_;
  std::vector<bool> page_used_;
  std::uint32_t free_pages_ = 0;
  std::uint32_t cursor_ = 0;
  std::vector<std::uint32_t> replaced_;
  std::uint64_t sequence_ = 0;
  tree_reference root_;
  bool running_ = false;
  bool structure_changed_ = false;
  std::uint64_t target_ = 0;
  std::size_t step_level_ = 0;
};

} // namespace memkv::engine
