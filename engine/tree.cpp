#include "engine/tree.hpp"

#include "engine/id_range.hpp"
#include "engine/limits.hpp"
#include "wire/assert.hpp"

#include <algorithm>
#include <optional>

namespace memkv::engine {

namespace {

constexpr key_id lowest_id{};

constexpr std::size_t underfull_bytes = tree_payload_bytes * 2 / 5;

/// Pages that a leaf which fits its page takes at most when it is written: with a neighbour and a split.
constexpr std::size_t leaf_pages_most = 3;

/// Into how many pages a node of so many bytes is divided: 1, or so many that each is half to two thirds full
/// or, where there are two, a little more. None is underfull then, and each has room for what comes next.
std::size_t pieces_of(std::size_t bytes) {
  if (bytes <= tree_payload_bytes)
    return 1;
  return std::max<std::size_t>(2, (bytes * 3 + 2 * tree_payload_bytes - 1) / (2 * tree_payload_bytes));
}

} // namespace

tree::tree(const layout& places, const identity& format_id, record_source source)
    : places_(places), format_id_(format_id), source_(std::move(source)), levels_(1),
      page_used_(places.tree_pages, false), free_pages_(places.tree_pages) {
  // References to a level stay good while a level above it is made.
  levels_.reserve(std::size_t{tree_levels_max} + 2);
  levels_.front().nodes.try_emplace(lowest_id);
}

bool tree::load(std::uint8_t level_number, const key_id& first, const tree_reference& reference,
                std::uint64_t journal_sequence, std::size_t payload_bytes) {
  if (reference.page >= page_used_.size() || page_used_[reference.page])
    return false;
  page_used_[reference.page] = true;
  --free_pages_;
  if (levels_.size() <= level_number)
    levels_.resize(level_number + std::size_t{1});
  node& made = levels_[level_number].nodes[first];
  made.reference = reference;
  made.journal_sequence = journal_sequence;
  made.bytes = payload_bytes;
  return true;
}

void tree::load_lost(std::uint8_t level_number, const key_id& first) {
  if (levels_.size() <= level_number)
    levels_.resize(level_number + std::size_t{1});
  // Whatever the drive had for this range is gone; a lost leaf begins empty, and nothing older is missing
  // from it.
  levels_[level_number].nodes.try_emplace(first);
  structure_changed_ = true;
}

void tree::finish_loading(std::uint64_t tree_sequence) {
  sequence_ = std::max(sequence_, tree_sequence);
  for (level& each : levels_)
    each.nodes.try_emplace(lowest_id);
  // A level is right when each of its nodes is the first child of some node, or lies inside one. What a lost
  // page takes with it is made good by counting the children anew and by writing again what has no page.
  while (levels_.back().nodes.size() > 1) {
    levels_.emplace_back();
    levels_.back().nodes.try_emplace(lowest_id);
    structure_changed_ = true;
  }
  // An inner node begins with its first child: where a lost page left none, there is an empty one now.
  for (std::size_t number = levels_.size(); number-- > 1;)
    for (auto& [first, each] : levels_[number].nodes)
      levels_[number - 1].nodes.try_emplace(first);
  for (std::size_t number = 1; number < levels_.size(); ++number) {
    for (auto at = levels_[number].nodes.begin(); at != levels_[number].nodes.end(); ++at) {
      std::size_t bytes = 0;
      items(number, at->first, last_of(number, at), [&](const key_id&, std::size_t size) { bytes += size; });
      at->second.bytes = bytes;
    }
  }
  const bool empty =
      levels_.size() == 1 && levels_.front().nodes.begin()->second.reference.page == no_tree_page;
  for (std::size_t number = 0; number < levels_.size(); ++number) {
    for (auto at = levels_[number].nodes.begin(); at != levels_[number].nodes.end(); ++at) {
      if (at->second.reference.page != no_tree_page || (empty && !structure_changed_))
        continue;
      mark(number, at, 0);
      if (number + 1 < levels_.size())
        mark(number + 1, node_of(number + 1, at->first), 0);
    }
  }
  for (std::size_t number = 0; number < levels_.size(); ++number) {
    std::vector<key_id> firsts;
    for (const auto& [first, each] : levels_[number].nodes)
      if (each.bytes > tree_payload_bytes)
        firsts.push_back(first);
    for (const key_id& first : firsts)
      split_if_over(number, first);
  }
  // Dirt above means dirt further above.
  for (std::size_t number = 1; number + 1 < levels_.size(); ++number)
    for (const key_id& first : std::list<key_id>(levels_[number].dirty))
      mark(number + 1, node_of(number + 1, first), 0);
  if (levels_.back().nodes.begin()->second.reference.page != no_tree_page)
    root_ = levels_.back().nodes.begin()->second.reference;
}

tree::node_map::iterator tree::node_of(std::size_t level_number, const key_id& id) {
  auto at = levels_[level_number].nodes.upper_bound(id);
  MEMKV_ASSERT(at != levels_[level_number].nodes.begin(), "every id belongs to a node");
  return --at;
}

key_id tree::last_of(std::size_t level_number, node_map::const_iterator at) const {
  ++at;
  return at == levels_[level_number].nodes.end() ? highest_id() : before(at->first);
}

void tree::mark(std::size_t level_number, node_map::iterator at, std::uint64_t batch) {
  if (at->second.dirty)
    return;
  level& here = levels_[level_number];
  at->second.dirty = true;
  at->second.dirty_since = batch;
  at->second.place = here.dirty.insert(here.dirty.end(), at->first);
}

void tree::mark_first(std::size_t level_number, node_map::iterator at, std::uint64_t batch) {
  unmark(level_number, at);
  level& here = levels_[level_number];
  at->second.dirty = true;
  at->second.dirty_since = batch;
  at->second.place = here.dirty.insert(here.dirty.begin(), at->first);
}

void tree::unmark(std::size_t level_number, node_map::iterator at) {
  if (!at->second.dirty)
    return;
  levels_[level_number].dirty.erase(at->second.place);
  at->second.dirty = false;
}

void tree::items(std::size_t level_number, const key_id& first, const key_id& last,
                 const std::function<void(const key_id&, std::size_t)>& visitor) const {
  if (level_number == 0) {
    source_(first, last, [&](const entry_record& record) { visitor(record.id, record.encoded_bytes()); });
    return;
  }
  const node_map& children = levels_[level_number - 1].nodes;
  for (auto at = children.lower_bound(first); at != children.end() && at->first <= last; ++at)
    visitor(at->first, tree_child_bytes);
}

void tree::change_parent(std::size_t level_number, const key_id& child, std::int64_t bytes,
                         std::uint64_t batch) {
  if (level_number + 1 == levels_.size()) {
    if (levels_[level_number].nodes.size() < 2)
      return;
    // The top has more than one node: a new root above it.
    levels_.emplace_back();
    auto at = levels_.back().nodes.try_emplace(lowest_id).first;
    at->second.bytes = levels_[level_number].nodes.size() * tree_child_bytes;
    mark(level_number + 1, at, batch);
    structure_changed_ = true;
    return;
  }
  auto at = node_of(level_number + 1, child);
  at->second.bytes = static_cast<std::size_t>(static_cast<std::int64_t>(at->second.bytes) + bytes);
  const key_id first = at->first;
  const bool was_dirty = at->second.dirty;
  mark(level_number + 1, at, batch);
  if (!was_dirty)
    change_parent(level_number + 1, first, 0, batch);
  if (bytes > 0)
    split_if_over(level_number + 1, first);
}

tree::node_map::iterator tree::insert_node(std::size_t level_number, const key_id& first,
                                           std::uint64_t batch) {
  auto [at, inserted] = levels_[level_number].nodes.try_emplace(first);
  MEMKV_ASSERT(inserted, "a node is made once");
  structure_changed_ = true;
  change_parent(level_number, first, tree_child_bytes, batch);
  return at;
}

void tree::remove_node(std::size_t level_number, node_map::iterator at, std::uint64_t batch) {
  const key_id first = at->first;
  unmark(level_number, at);
  release_page(at->second);
  // The parent may itself begin with this child; its range stays the same, its first child begins later then,
  // so nodes are only ever removed when their left neighbour under the same parent takes their range.
  levels_[level_number].nodes.erase(at);
  structure_changed_ = true;
  change_parent(level_number, first, -static_cast<std::int64_t>(tree_child_bytes), batch);
}

void tree::release_page(node& of) {
  if (of.reference.page != no_tree_page)
    replaced_.push_back(of.reference.page);
  of.reference = {};
}

void tree::split_if_over(std::size_t level_number, key_id first) {
  auto at = levels_[level_number].nodes.find(first);
  if (at == levels_[level_number].nodes.end() || at->second.bytes <= tree_payload_bytes)
    return;
  const std::size_t share = at->second.bytes / pieces_of(at->second.bytes);
  struct piece {
    key_id first;
    std::size_t bytes;
  };
  std::vector<piece> pieces{{first, 0}};
  items(level_number, first, last_of(level_number, at), [&](const key_id& id, std::size_t size) {
    if (pieces.back().bytes >= share)
      pieces.push_back({id, 0});
    pieces.back().bytes += size;
  });
  MEMKV_ASSERT(pieces.size() > 1, "an overfull node has at least two items");
  if (!at->second.dirty)
    mark(level_number, at, 0);
  at->second.bytes = pieces.front().bytes;
  const node copy = at->second;
  level& here = levels_[level_number];
  auto place = copy.place;
  structure_changed_ = true;
  // One after the other: what is above counts the nodes there are.
  for (std::size_t i = 1; i < pieces.size(); ++i) {
    auto made = here.nodes.try_emplace(pieces[i].first).first;
    made->second.bytes = pieces[i].bytes;
    made->second.journal_sequence = copy.journal_sequence;
    made->second.dirty = true;
    made->second.dirty_since = copy.dirty_since;
    made->second.place = place = here.dirty.insert(std::next(place), pieces[i].first);
    change_parent(level_number, pieces[i].first, tree_child_bytes, copy.dirty_since);
  }
}

void tree::note_change(const key_id& id, std::int64_t bytes, std::uint64_t batch) {
  auto at = node_of(0, id);
  at->second.bytes = static_cast<std::size_t>(static_cast<std::int64_t>(at->second.bytes) + bytes);
  mark(0, at, batch);
}

std::uint64_t tree::journal_sequence(const key_id& id) const {
  auto at = levels_.front().nodes.upper_bound(id);
  return std::prev(at)->second.journal_sequence;
}

std::vector<tree::leaf_range> tree::leaves() const {
  std::vector<leaf_range> result;
  const node_map& nodes = levels_.front().nodes;
  for (auto at = nodes.begin(); at != nodes.end(); ++at)
    result.push_back({at->first, last_of(0, at), at->second.journal_sequence});
  return result;
}

std::uint64_t tree::memory_bytes() const noexcept {
  constexpr std::size_t map_links = 4 * sizeof(void*);
  constexpr std::size_t list_links = 2 * sizeof(void*);
  std::uint64_t bytes = page_used_.capacity() / 8;
  for (const level& each : levels_)
    bytes += each.nodes.size() * heap_bytes(map_links + sizeof(node_map::value_type)) +
             each.dirty.size() * heap_bytes(list_links + sizeof(key_id));
  return bytes;
}

std::uint64_t tree::tail(std::uint64_t next) const noexcept {
  const level& bottom = levels_.front();
  return bottom.dirty.empty() ? next : bottom.nodes.find(bottom.dirty.front())->second.dirty_since;
}

void tree::begin_checkpoint(std::uint64_t applied) {
  MEMKV_ASSERT(!running_, "one checkpoint at a time");
  running_ = true;
  step_level_ = 0;
  target_ = applied;
  std::size_t inner = 8;
  for (std::size_t number = 1; number < levels_.size(); ++number)
    inner += levels_[number].nodes.size() * 2;
  const std::size_t budget = free_pages_ > inner ? free_pages_ - inner : 0;
  const level& bottom = levels_.front();
  // Too many for one go: the oldest ones, and at least those of the oldest batch.
  std::size_t needed = 0;
  for (const key_id& first : bottom.dirty) {
    const node& leaf = bottom.nodes.find(first)->second;
    needed += std::max(leaf_pages_most, pieces_of(leaf.bytes));
    if (needed <= budget)
      continue;
    const std::uint64_t oldest = bottom.nodes.find(bottom.dirty.front())->second.dirty_since;
    target_ = std::max(oldest, leaf.dirty_since == 0 ? 0 : leaf.dirty_since - 1);
    return;
  }
}

std::uint32_t tree::take_page() {
  if (free_pages_ == 0)
    return no_tree_page;
  while (page_used_[cursor_])
    cursor_ = (cursor_ + 1) % places_.tree_pages;
  page_used_[cursor_] = true;
  --free_pages_;
  return cursor_;
}

bool tree::write_node(std::size_t level_number, node_map::iterator at, std::uint64_t applied,
                      const page_sink& sink) {
  const std::uint32_t page = take_page();
  if (page == no_tree_page)
    return false;
  tree_page_writer writer(sink(page));
  tree_page_header header;
  header.format_id = format_id_;
  header.level = static_cast<std::uint8_t>(level_number);
  header.page = page;
  header.sequence = ++sequence_;
  header.journal_sequence = applied;
  header.first = at->first;
  header.last = last_of(level_number, at);
  bool fitted = true;
  if (level_number == 0) {
    source_(header.first, header.last,
            [&](const entry_record& record) { fitted = fitted && writer.add(record); });
  } else {
    const node_map& children = levels_[level_number - 1].nodes;
    for (auto child = children.lower_bound(header.first);
         child != children.end() && child->first <= header.last; ++child) {
      MEMKV_ASSERT(child->second.reference.page != no_tree_page, "children are written before their parents");
      fitted = fitted && writer.add(tree_child{child->first, child->second.reference});
    }
  }
  MEMKV_ASSERT(fitted && writer.payload_bytes() == at->second.bytes, "a node knows how large its page is");
  release_page(at->second);
  at->second.reference = {page, writer.finish(header), header.sequence};
  at->second.journal_sequence = applied;
  unmark(level_number, at);
  const key_id first = at->first;
  if (level_number + 1 < levels_.size())
    change_parent(level_number, first, 0, applied);
  return true;
}

void tree::drop_needless_levels() {
  while (levels_.size() > 1 && levels_[levels_.size() - 2].nodes.size() == 1) {
    for (auto& [first, top] : levels_.back().nodes)
      release_page(top);
    levels_.pop_back();
    structure_changed_ = true;
  }
}

tree::progress tree::step(std::uint64_t applied, const page_sink& sink) {
  MEMKV_ASSERT(running_, "steps belong to a checkpoint");
  for (;;) {
    if (step_level_ > 0)
      drop_needless_levels();
    if (step_level_ >= levels_.size()) {
      root_ = levels_.back().nodes.begin()->second.reference;
      structure_changed_ = false;
      return progress::complete;
    }
    level& here = levels_[step_level_];
    const bool top = step_level_ + 1 == levels_.size();
    if (here.dirty.empty() ||
        (step_level_ == 0 && here.nodes.find(here.dirty.front())->second.dirty_since > target_)) {
      if (top) {
        root_ = here.nodes.begin()->second.reference;
        structure_changed_ = false;
        return progress::complete;
      }
      ++step_level_;
      continue;
    }
    auto at = here.nodes.find(here.dirty.front());
    // Joining needs a left neighbour under the same parent, so that no parent loses its first child.
    const auto parent_of = [&](const key_id& first) {
      return top ? lowest_id : node_of(step_level_ + 1, first)->first;
    };
    while (at->second.bytes < underfull_bytes && here.nodes.size() > 1) {
      auto left = at;
      auto right = std::next(at);
      if (right == here.nodes.end() || parent_of(right->first) != parent_of(at->first)) {
        if (at == here.nodes.begin() || parent_of(std::prev(at)->first) != parent_of(at->first))
          break;
        left = std::prev(at);
        right = at;
      }
      const std::uint64_t since = at->second.dirty_since;
      const auto other = at == left ? right : left;
      if (other->second.bytes > tree_payload_bytes) {
        // It grew while this checkpoint runs: split it now, and write all of it now.
        const key_id first = other->first;
        mark_first(step_level_, other, since);
        mark_first(step_level_, at, since);
        split_if_over(step_level_, first);
        continue;
      }
      const std::size_t together = left->second.bytes + right->second.bytes;
      if (together <= tree_payload_bytes) {
        remove_node(step_level_, right, since);
        left->second.bytes = together;
        mark_first(step_level_, left, since);
        at = left;
        continue;
      }
      // Even shares: the boundary moves, and both are written now.
      const key_id last = last_of(step_level_, right);
      const key_id old_boundary = right->first;
      const key_id first = left->first;
      std::size_t before_boundary = 0;
      std::optional<key_id> boundary;
      items(step_level_, first, last, [&](const key_id& id, std::size_t size) {
        if (boundary)
          return;
        if (before_boundary >= together / 2)
          boundary = id;
        else
          before_boundary += size;
      });
      MEMKV_ASSERT(boundary && *boundary > first, "two nodes have more than one item");
      remove_node(step_level_, here.nodes.find(old_boundary), since);
      auto made = insert_node(step_level_, *boundary, since);
      made->second.bytes = together - before_boundary;
      left = here.nodes.find(first);
      left->second.bytes = before_boundary;
      unmark(step_level_, left);
      if (!write_node(step_level_, left, applied, sink) || !write_node(step_level_, made, applied, sink))
        return progress::out_of_pages;
      return progress::more;
    }
    if (at->second.bytes > tree_payload_bytes) {
      split_if_over(step_level_, at->first);
      continue;
    }
    return write_node(step_level_, at, applied, sink) ? progress::more : progress::out_of_pages;
  }
}

void tree::finish_checkpoint() {
  MEMKV_ASSERT(running_, "a checkpoint was begun");
  running_ = false;
  for (const std::uint32_t page : replaced_) {
    page_used_[page] = false;
    ++free_pages_;
  }
  replaced_.clear();
}

} // namespace memkv::engine
