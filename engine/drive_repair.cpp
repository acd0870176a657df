// Making a drive right again: a new tree beside the old one, the bitmap, and one step of both superblocks.
//
// Order. What the plan follows from (the superblock that counts, the pages of its tree, the journal, the
// data) is not written to until the new superblock is durable. So a repair that was killed before that makes
// the same plan again and writes the same bytes to the same places; one that was killed after it finds a
// drive in order but for the second copy, and makes that the same as the first.
#include "engine/drive_checker.hpp"

#include "engine/id_range.hpp"
#include "wire/assert.hpp"

#include <algorithm>

namespace memkv::engine {

namespace {

constexpr std::size_t writes_in_flight = 16;

status write_failed() {
  return {errc::io_error, "the device failed to write: what could be read before can be read still; look at "
                          "the kernel's log, then run the repair again or replace the drive"};
}

class repairer {
public:
  repairer(drive_checker& checker, const check_options& options, repair_report& done)
      : checker_(checker), options_(options), done_(done) {}

  status run();

private:
  [[nodiscard]] status build_tree(superblock& next);
  [[nodiscard]] bool write_page(std::uint8_t level, const key_id& first, const key_id& last,
                                const std::function<void(tree_page_writer&)>& fill, tree_child& made);
  [[nodiscard]] bool write_bitmap(std::uint64_t sequence);
  [[nodiscard]] bool write_superblock(const superblock& block, std::uint8_t copy);
  [[nodiscard]] bool flush();
  void tell(std::uint64_t bytes);

  drive_checker& checker_;
  const check_options& options_;
  repair_report& done_;
  std::vector<std::uint32_t> slots_; // of the tree region, free, in the order in which they are used
  std::size_t next_slot_ = 0;
  std::uint64_t tree_sequence_ = 0;
  std::size_t in_flight_ = 0;
  bool failed_ = false;
  std::uint64_t bytes_done_ = 0, bytes_total_ = 0;
};

void repairer::tell(std::uint64_t bytes) {
  bytes_done_ += bytes;
  bytes_total_ = std::max(bytes_total_, bytes_done_);
  if (options_.progress)
    options_.progress({check_stage::repair, bytes_done_, bytes_total_});
}

bool repairer::flush() {
  return checker_.io().flush_now() == errc::ok;
}

bool repairer::write_superblock(const superblock& block, std::uint8_t copy) {
  aligned_bytes page(page_bytes);
  superblock own = block;
  own.copy = copy;
  encode(own, std::span<std::byte, page_bytes>(page.data(), std::size_t{page_bytes}));
  done_.changed = true;
  if (checker_.io().write_now(copy == 0 ? 0 : own.places.mirror_offset(), page.span()) != errc::ok ||
      !flush())
    return false;
  ++done_.superblocks_written;
  tell(page_bytes);
  return true;
}

bool repairer::write_page(std::uint8_t level, const key_id& first, const key_id& last,
                          const std::function<void(tree_page_writer&)>& fill, tree_child& made) {
  MEMKV_ASSERT(next_slot_ < slots_.size(), "the pages of the new tree were counted");
  auto buffer = std::make_shared<aligned_bytes>(tree_page_bytes);
  tree_page_writer writer(buffer->span());
  fill(writer);
  tree_page_header header;
  header.format_id = checker_.super().format_id;
  header.level = level;
  header.page = slots_[next_slot_++];
  header.sequence = ++tree_sequence_;
  header.journal_sequence = checker_.next_batch() - 1;
  header.first = first;
  header.last = last;
  made.first = first;
  made.reference = {header.page, writer.finish(header), header.sequence};
  while (in_flight_ >= writes_in_flight)
    checker_.io().poll(true);
  ++in_flight_;
  done_.changed = true;
  ++done_.tree_pages_written;
  checker_.io().write(checker_.places().tree_offset + std::uint64_t{header.page} * tree_page_bytes,
                      buffer->span(), [this, buffer](errc result) {
                        --in_flight_;
                        failed_ = failed_ || result != errc::ok;
                      });
  tell(tree_page_bytes);
  return !failed_;
}

status repairer::build_tree(superblock& next) {
  constexpr std::size_t children_max = tree_payload_bytes / tree_child_bytes;
  std::vector<const checked_entry*> kept;
  for (const checked_entry& entry : checker_.entries())
    if (!entry.dropped)
      kept.push_back(&entry);
  // Where leaves begin: each takes what fits.
  std::vector<std::size_t> begins;
  std::size_t used = tree_payload_bytes;
  for (std::size_t i = 0; i < kept.size(); ++i) {
    const std::size_t size = checker_.record_of(*kept[i]).encoded_bytes();
    if (used + size > tree_payload_bytes) {
      begins.push_back(i);
      used = 0;
    }
    used += size;
  }
  std::uint64_t pages = 0;
  for (std::size_t level = begins.size(); level > 0; level = (level + children_max - 1) / children_max) {
    pages += level;
    if (level == 1)
      break;
  }
  for (const bool evidence : {false, true})
    for (std::uint32_t page = 0; page < checker_.places().tree_pages && slots_.size() < pages; ++page)
      if (!checker_.tree_page_used(page) && checker_.tree_page_is_evidence(page) == evidence)
        slots_.push_back(page);
  if (slots_.size() < pages)
    return {errc::no_space,
            "the tree region has no room for a second tree beside the one that is there: start "
            "the server with this drive, it mends it step by step"};
  bytes_total_ += pages * tree_page_bytes;
  // Above the pages that a checkpoint which was cut off has left behind, as at a start.
  tree_sequence_ =
      checker_.super().tree_sequence + (checker_.super().clean ? 0 : checker_.places().tree_pages);
  std::vector<tree_child> below;
  for (std::size_t i = 0; i < begins.size(); ++i) {
    const std::size_t end = i + 1 < begins.size() ? begins[i + 1] : kept.size();
    const auto fill = [&](tree_page_writer& writer) {
      for (std::size_t at = begins[i]; at < end; ++at) {
        const bool added = writer.add(checker_.record_of(*kept[at]));
        MEMKV_ASSERT(added, "a leaf's records were measured");
      }
    };
    below.emplace_back();
    if (!write_page(0, i == 0 ? key_id{} : kept[begins[i]]->id,
                    end < kept.size() ? before(kept[end]->id) : highest_id(), fill, below.back()))
      return write_failed();
  }
  std::uint8_t level = 0;
  while (below.size() > 1) {
    ++level;
    std::vector<tree_child> above;
    for (std::size_t begin = 0; begin < below.size(); begin += children_max) {
      const std::size_t end = std::min(begin + children_max, below.size());
      const auto fill = [&](tree_page_writer& writer) {
        for (std::size_t at = begin; at < end; ++at) {
          const bool added = writer.add(below[at]);
          MEMKV_ASSERT(added, "an inner page's children were counted");
        }
      };
      above.emplace_back();
      if (!write_page(level, below[begin].first, end < below.size() ? before(below[end].first) : highest_id(),
                      fill, above.back()))
        return write_failed();
    }
    below = std::move(above);
  }
  while (in_flight_ > 0)
    checker_.io().poll(true);
  if (failed_)
    return write_failed();
  next.root = below.empty() ? tree_reference{} : below.front().reference;
  next.root_level = level;
  next.tree_sequence = tree_sequence_;
  done_.tree_rebuilt = true;
  return {};
}

bool repairer::write_bitmap(std::uint64_t sequence) {
  const layout& at = checker_.places();
  aligned_bytes page(page_bytes);
  for (std::uint32_t number = 0; number < at.bitmap_pages; ++number) {
    bool right = false;
    // One that cannot be read may be readable again after it was written.
    checker_.make_bitmap_page(number, sequence,
                              std::span<std::byte, page_bytes>(page.data(), std::size_t{page_bytes}), right);
    if (right)
      continue;
    done_.changed = true;
    if (checker_.io().write_now(at.bitmap_offset + std::uint64_t{number} * page_bytes, page.span()) !=
        errc::ok)
      return false;
    ++done_.bitmap_pages_written;
    tell(page_bytes);
  }
  return true;
}

status repairer::run() {
  const superblock& now = checker_.super();
  if (checker_.metadata_unreadable())
    return {errc::io_error,
            "the device cannot read all of the drive's tree or journal, and what it cannot read "
            "may be good: nothing was written; copy or replace the drive"};
  for (const checked_entry& entry : checker_.entries())
    done_.blocks_kept += entry.dropped ? 0 : 1;
  done_.dropped = checker_.dropped();
  done_.blocks_dropped = checker_.dropped_count();
  checker_.release_dropped();
  // From here on either copy alone is enough, whatever happens while the other one is written.
  if (checker_.copies_differ() && !write_superblock(now, now.copy == 0 ? 1 : 0))
    return write_failed();
  const bool journal_holds = checker_.next_batch() != now.journal_tail_sequence;
  const bool publish = !checker_.tree_is_right() || !now.clean || journal_holds;
  superblock next = now;
  if (!checker_.tree_is_right())
    if (status built = build_tree(next); !built.ok())
      return built;
  if (!write_bitmap(publish ? now.sequence + 1 : now.sequence))
    return write_failed();
  // Also where nothing was written: what the server wrote may not have been flushed, and is said to be there.
  if ((publish || done_.bitmap_pages_written > 0) && !flush())
    return write_failed();
  if (!publish)
    return {};
  next.clean = true;
  next.sequence = now.sequence + 1;
  next.journal_tail_sequence = checker_.next_batch();
  // As after a crash: numbers that puts under way were given are never given again.
  next.generation =
      std::max(now.generation, checker_.highest_generation()) + (now.clean ? 0 : generation_gap);
  next.blocks = done_.blocks_kept;
  next.untrimmed = now.untrimmed || !now.clean || done_.blocks_dropped > 0;
  for (const std::uint8_t copy : {0, 1})
    if (!write_superblock(next, copy))
      return write_failed();
  done_.journal_reset = journal_holds;
  done_.marked_clean = !now.clean;
  return {};
}

} // namespace

status repair_drive(block_device& device, const check_options& options, check_report& before,
                    repair_report& done) {
  done = {};
  drive_checker checker(device, options, before);
  if (status looked = checker.look(); !looked.ok())
    return looked;
  return repairer(checker, options, done).run();
}

} // namespace memkv::engine
