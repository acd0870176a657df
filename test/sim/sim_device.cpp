#include "test/sim/sim_device.hpp"

#include "wire/assert.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace memkv::sim {

using engine::errc;
using engine::io_operation;

namespace {

constexpr std::uint64_t sector_bytes = 512;
constexpr std::uint64_t not_yet = ~std::uint64_t{0};

bool overlap(const io_operation& a, const io_operation& b) noexcept {
  return a.offset < b.offset + b.length && b.offset < a.offset + a.length;
}

} // namespace

sim_device::sim_device(world& in, const sim_options& options)
    : sim_device(in, options, image(options.size_bytes)) {}

sim_device::sim_device(world& in, const sim_options& options, image start)
    : world_(in), options_(options), start_(std::move(start)), now_(start_) {
  information_.size_bytes = now_.size();
  information_.depth_max = options.depth_max;
  information_.survives_process = options.survives_process;
  information_.survives_power_loss = options.survives_process;
  information_.name = options.name;
}

fault sim_device::choose_fault(const io_operation& operation, std::uint64_t number) {
  if (const auto found = planned_.find(number); found != planned_.end()) {
    ++met_;
    return found->second;
  }
  using kind = fault::kind;
  random& chance = world_.chance;
  const auto elsewhere = [&] {
    return chance.below((now_.size() - operation.length) / information_.alignment + 1) *
           information_.alignment;
  };
  const auto flip = [&] {
    constexpr std::array flips{kind::flipped_bit, kind::flipped_byte, kind::flipped_sector};
    return flips[chance.below(flips.size())];
  };
  switch (operation.what) {
  case io_operation::kind::read:
    if (chance.chance(rates_.read_error))
      return {kind::io_error};
    if (chance.chance(rates_.misdirected_read))
      return {kind::misdirected_read, elsewhere()};
    if (chance.chance(rates_.flipped_on_read))
      return {flip()};
    break;
  case io_operation::kind::write:
    if (chance.chance(rates_.write_error)) {
      constexpr std::array errors{kind::io_error, kind::no_space, kind::short_transfer};
      return {errors[chance.below(errors.size())]};
    }
    if (chance.chance(rates_.lost_write))
      return {kind::lost_write};
    if (chance.chance(rates_.torn_write))
      return {kind::torn_write};
    if (chance.chance(rates_.misdirected_write))
      return {kind::misdirected_write, elsewhere()};
    if (chance.chance(rates_.flipped_on_write))
      return {flip()};
    break;
  case io_operation::kind::flush:
    if (chance.chance(rates_.flush_error))
      return {kind::io_error};
    break;
  case io_operation::kind::discard:
    break;
  }
  return {};
}

bool sim_device::is_outside(const io_operation& operation) const noexcept {
  if (operation.what == io_operation::kind::flush)
    return false;
  if (operation.offset > now_.size() || operation.length > now_.size() - operation.offset ||
      operation.offset % information_.alignment != 0 || operation.length % information_.alignment != 0)
    return true;
  return operation.what != io_operation::kind::discard && operation.length > engine::io_bytes_max;
}

void sim_device::submit(io_operation& operation) {
  if (submitted_ >= cut_before_)
    cut_power();
  const std::uint64_t number = submitted_++;
  flight next;
  next.operation = &operation;
  next.number = number;
  next.ready =
      world_.now + (options_.delay_ticks_max == 0 ? 0 : world_.chance.below(options_.delay_ticks_max + 1));
  const bool wrong = is_outside(operation);
  if (!cut_ && !wrong) {
    next.hit = choose_fault(operation, number);
    for (const std::vector<flight>* list : {&flying_, &stuck_})
      for (const flight& other : *list) {
        const bool one_writes =
            operation.what == io_operation::kind::write || other.operation->what == io_operation::kind::write;
        if (one_writes && operation.what != io_operation::kind::flush &&
            other.operation->what != io_operation::kind::flush && overlap(operation, *other.operation))
          ++overlaps_;
      }
  }
  if (operation.what == io_operation::kind::write && !wrong)
    next.sent =
        std::make_shared<const std::vector<std::byte>>(operation.data, operation.data + operation.length);
  if (!cut_ && !wrong &&
      (operation.what == io_operation::kind::write || operation.what == io_operation::kind::flush)) {
    log_record record;
    record.what = operation.what;
    record.offset = operation.offset;
    record.data = next.sent;
    record.durable = operation.durable;
    record.submitted = events_++;
    // What really reaches the medium, also if the power goes before it is complete.
    if (next.hit.what == fault::kind::lost_write || next.hit.what == fault::kind::io_error ||
        next.hit.what == fault::kind::no_space || (failed_ && options_.stays_failed))
      record.failed = true;
    next.record = log_.size();
    log_.push_back(std::move(record));
  }
  (next.hit.what == fault::kind::never_completes && !cut_ ? stuck_ : flying_).push_back(std::move(next));
}

void sim_device::spoil(std::vector<std::byte>& data, fault::kind how) {
  if (data.empty())
    return;
  random& chance = world_.chance;
  const std::uint64_t at = chance.below(data.size());
  if (how == fault::kind::flipped_bit) {
    data[at] ^= std::byte{1} << chance.below(8);
  } else if (how == fault::kind::flipped_byte) {
    data[at] ^= static_cast<std::byte>(1 + chance.below(255));
  } else {
    const std::uint64_t first = at / sector_bytes * sector_bytes;
    for (std::uint64_t i = first; i < std::min<std::uint64_t>(first + sector_bytes, data.size()); ++i)
      data[i] = static_cast<std::byte>(chance.next());
  }
}

errc sim_device::perform(const flight& what) {
  using kind = fault::kind;
  const io_operation& operation = *what.operation;
  if (cut_)
    return errc::io_error;
  if (is_outside(operation))
    return errc::invalid_argument;
  const bool writes =
      operation.what == io_operation::kind::write || operation.what == io_operation::kind::flush;
  if (writes && failed_ && options_.stays_failed)
    return errc::io_error;
  sim_device& other = what.hit.device == nullptr ? *this : *what.hit.device;
  switch (what.hit.what) {
  case kind::io_error:
    return errc::io_error;
  case kind::no_space:
    return errc::no_space;
  default:
    break;
  }
  if (operation.what == io_operation::kind::discard)
    discard(operation);
  if (operation.what == io_operation::kind::flush || operation.what == io_operation::kind::discard)
    return errc::ok;

  if (operation.what == io_operation::kind::read) {
    std::vector<std::byte> data(operation.length);
    if (what.hit.what == kind::misdirected_read)
      other.now_.read(what.hit.offset, data);
    else
      now_.read(operation.offset, data);
    if (what.hit.what >= kind::flipped_bit)
      spoil(data, what.hit.what);
    if (what.hit.what == kind::short_transfer)
      data.resize(data.size() / 2);
    std::copy(data.begin(), data.end(), operation.data);
    return what.hit.what == kind::short_transfer ? errc::io_error : errc::ok;
  }

  std::vector<std::byte> data = *what.sent;
  log_record& record = log_[what.record];
  errc result = errc::ok;
  switch (what.hit.what) {
  case kind::lost_write:
    return errc::ok;
  case kind::short_transfer:
    data.resize(data.size() / 2 / sector_bytes * sector_bytes);
    result = errc::io_error;
    break;
  case kind::torn_write: {
    // The first sector arrives and the last one does not, so that it is torn for certain.
    std::vector<std::byte> old(data.size());
    now_.read(operation.offset, old);
    for (std::uint64_t at = sector_bytes; at < data.size(); at += sector_bytes)
      if (at + sector_bytes >= data.size() || world_.chance.chance(0.5))
        std::copy_n(old.begin() + static_cast<std::ptrdiff_t>(at), std::min(sector_bytes, data.size() - at),
                    data.begin() + static_cast<std::ptrdiff_t>(at));
    break;
  }
  case kind::misdirected_write: {
    other.now_.write(what.hit.offset, data);
    log_record elsewhere = record;
    elsewhere.offset = what.hit.offset;
    elsewhere.completed = other.events_;
    record.failed = true;
    if (&other == this) {
      record = std::move(elsewhere);
      record.failed = false;
      record.completed = not_yet;
    } else {
      elsewhere.submitted = other.events_++;
      elsewhere.completed = other.events_++;
      other.log_.push_back(std::move(elsewhere));
    }
    return errc::ok;
  }
  case kind::flipped_bit:
  case kind::flipped_byte:
  case kind::flipped_sector:
    spoil(data, what.hit.what);
    break;
  default:
    break;
  }
  now_.write(operation.offset, data);
  record.data = std::make_shared<const std::vector<std::byte>>(std::move(data));
  return result;
}

void sim_device::discard(const io_operation& operation) {
  if (options_.after_discard == discarded::old_bytes || operation.length == 0)
    return;
  std::vector<std::byte> data(operation.length);
  for (std::byte& value : data)
    value = options_.after_discard == discarded::zeros  ? std::byte{0}
            : options_.after_discard == discarded::ones ? std::byte{0xFF}
                                                        : static_cast<std::byte>(world_.chance.next());
  now_.write(operation.offset, data);
  log_record record;
  record.offset = operation.offset;
  record.data = std::make_shared<const std::vector<std::byte>>(std::move(data));
  record.submitted = events_++;
  record.completed = events_++;
  log_.push_back(std::move(record));
}

void sim_device::finish(const flight& what, errc result) {
  io_operation& operation = *what.operation;
  if (what.sent && !std::equal(what.sent->begin(), what.sent->end(), operation.data))
    ++changed_buffers_;
  const bool writes =
      operation.what == io_operation::kind::write || operation.what == io_operation::kind::flush;
  if (writes && !cut_ && result != errc::invalid_argument) {
    log_record& record = log_[what.record];
    record.completed = events_++;
    if (result != errc::ok) {
      failed_ = true;
      // A failed flush promises nothing, and a failed write may be there in part.
      if (operation.what == io_operation::kind::flush) {
        record.failed = true;
        // What no earlier flush made certain may be dropped by this one, and the next one will not say so.
        std::uint64_t flushed = 0;
        for (const log_record& one : log_)
          if (one.what == io_operation::kind::flush && !one.failed && one.completed != not_yet)
            flushed = std::max(flushed, one.submitted);
        for (log_record& one : log_)
          if (one.what == io_operation::kind::write && one.completed != not_yet && one.completed >= flushed)
            one.doubtful = !one.durable;
      }
      record.durable = false;
    }
  }
  operation.result = result;
  operation.done(operation);
}

std::size_t sim_device::poll(bool wait) {
  ++world_.now;
  if (flying_.empty())
    return 0;
  if (wait) {
    std::uint64_t earliest = not_yet;
    for (const flight& one : flying_)
      earliest = std::min(earliest, one.ready);
    world_.now = std::max(world_.now, earliest);
  }
  std::vector<flight> ready;
  std::erase_if(flying_, [&](flight& one) {
    if (one.ready > world_.now && !cut_)
      return false;
    ready.push_back(std::move(one));
    return true;
  });
  std::sort(ready.begin(), ready.end(), [](const flight& a, const flight& b) {
    return a.ready != b.ready ? a.ready < b.ready : a.number < b.number;
  });
  for (const flight& one : ready)
    finish(one, perform(one));
  return ready.size();
}

void sim_device::release_stuck(errc result) {
  std::vector<flight> released = std::move(stuck_);
  stuck_.clear();
  for (flight& one : released) {
    one.hit = {};
    if (result == errc::io_error)
      one.hit.what = fault::kind::io_error;
    else if (result == errc::no_space)
      one.hit.what = fault::kind::no_space;
    one.ready = world_.now;
    flying_.push_back(std::move(one));
  }
}

void sim_device::cut_power() noexcept {
  cut_ = true;
  for (flight& one : stuck_)
    flying_.push_back(std::move(one));
  stuck_.clear();
}

void sim_device::close() noexcept {
  // A device that is closed gives its buffers back, so what never completes is cancelled.
  release_stuck(errc::io_error);
  while (!flying_.empty())
    poll(true);
}

void sim_device::forget_log() {
  MEMKV_ASSERT(in_flight() == 0, "the log is forgotten with nothing in flight");
  start_ = now_;
  log_.clear();
  events_ = 0;
}

crash_states::crash_states(const sim_device& device, std::uint64_t moment)
    : start_(device.start()), records_(device.log()) {
  // The last flush that counts: everything completed before its submission is there.
  std::uint64_t flushed = 0;
  for (const log_record& record : records_)
    if (record.what == io_operation::kind::flush && !record.failed && record.completed < moment)
      flushed = std::max(flushed, record.submitted);
  for (const log_record& record : records_) {
    if (record.what != io_operation::kind::write || record.submitted >= moment)
      continue;
    // A write that failed cleanly, or was lost inside the drive, never reaches the medium.
    if (record.failed)
      continue;
    const bool complete = record.completed < moment;
    const bool certain = complete && !record.doubtful && (record.durable || record.completed < flushed);
    steps_.push_back({&record, !certain});
  }
  std::stable_sort(steps_.begin(), steps_.end(), [](const step& a, const step& b) {
    return std::pair(a.record->completed, a.record->submitted) <
           std::pair(b.record->completed, b.record->submitted);
  });
  for (const step& one : steps_)
    if (one.open)
      open_.push_back(one.record);
}

/// Lengths of the beginnings that list() tears a write to: its first sector, its first 4 KiB, half, all but
/// the last sector.
std::vector<std::uint64_t> crash_states::tears(const log_record& record) {
  const std::uint64_t length = record.data->size();
  std::vector<std::uint64_t> result{sector_bytes, 4096, length / 2 / sector_bytes * sector_bytes,
                                    length - std::min(length, sector_bytes)};
  std::erase_if(result, [&](std::uint64_t cut) { return cut == 0 || cut >= length; });
  std::sort(result.begin(), result.end());
  result.erase(std::unique(result.begin(), result.end()), result.end());
  return result;
}

std::uint64_t crash_states::count() const noexcept {
  std::uint64_t result = 1;
  for (const log_record* record : open_) {
    const std::uint64_t choices = 2 + tears(*record).size();
    if (result > not_yet / choices)
      return not_yet;
    result *= choices;
  }
  return result;
}

image crash_states::list(std::uint64_t number) const {
  image result = start_;
  for (const step& one : steps_) {
    std::span<const std::byte> data = *one.record->data;
    if (one.open) {
      const std::vector<std::uint64_t> cuts = tears(*one.record);
      const std::uint64_t choice = number % (2 + cuts.size());
      number /= 2 + cuts.size();
      if (choice == 0)
        continue;
      if (choice >= 2)
        data = data.first(cuts[choice - 2]);
    }
    result.write(one.record->offset, data);
  }
  return result;
}

image crash_states::draw(random& chance) const {
  image result = start_;
  // Whole epochs survive more often than single writes do, so the share that is there is itself drawn.
  const std::uint64_t share = chance.below(5);
  for (const step& one : steps_) {
    const std::span<const std::byte> data = *one.record->data;
    if (!one.open || chance.below(4) < share) {
      const bool torn = one.open && chance.below(4) == 0;
      if (!torn) {
        result.write(one.record->offset, data);
        continue;
      }
      const std::uint64_t step_bytes = chance.below(2) == 0 ? sector_bytes : 4096;
      for (std::uint64_t at = 0; at < data.size(); at += step_bytes)
        if (chance.below(2) == 0)
          result.write(one.record->offset + at, data.subspan(at, std::min(step_bytes, data.size() - at)));
    }
  }
  return result;
}

} // namespace memkv::sim
