#include "test/crash/check_run.hpp"

#include "wire/assert.hpp"
#include "wire/bytes.hpp"

namespace memkv::crash {

namespace {

sim::sim_options device_options(const sim::image& drive) {
  sim::sim_options options;
  options.size_bytes = drive.size();
  options.delay_ticks_max = 4;
  return options;
}

std::uint64_t writes_of(const sim::sim_device& device) {
  std::uint64_t writes = 0;
  for (const sim::log_record& record : device.log())
    writes += record.what == engine::io_operation::kind::write ? 1 : 0;
  return writes;
}

} // namespace

std::string checked_image::kinds() const {
  std::string all;
  for (std::size_t kind = 0; kind < engine::finding_kinds; ++kind)
    if (report.found[kind] > 0)
      all += (all.empty() ? "" : " ") + std::string(name(static_cast<engine::finding_kind>(kind)));
  return all;
}

std::string checked_image::text() const {
  std::string all = result.text;
  for (const engine::check_finding& found : report.findings)
    all += "\n  " + std::string(name(found.severity())) + " " + std::string(name(found.kind)) + " in " +
           std::string(name(found.region)) + " at " + std::to_string(found.offset) + ": " + found.text;
  return all;
}

checked_image check(const sim::image& drive, const engine::check_options& options) {
  checked_image result;
  sim::world world(1);
  sim::sim_device device(world, device_options(drive), drive);
  result.result = engine::check_drive(device, options, result.report);
  if (!device.log().empty() || !(device.now() == drive))
    result.problem = "a check wrote to the drive";
  else if (result.report.complete && result.report.bytes_accounted() != drive.size())
    result.problem = "the regions are not the drive";
  return result;
}

repaired_image repair(const sim::image& drive, const engine::check_options& options) {
  repaired_image result;
  sim::world world(1);
  sim::sim_device device(world, device_options(drive), drive);
  result.result = engine::repair_drive(device, options, result.before, result.done);
  result.after = device.now();
  result.writes = writes_of(device);
  return result;
}

std::string repair_cut_everywhere(const sim::image& drive, const sim::image& after, std::uint64_t seed,
                                  std::uint64_t& states) {
  sim::world world(seed);
  sim::sim_device device(world, device_options(drive), drive);
  engine::check_report before;
  engine::repair_report done;
  if (const auto result = engine::repair_drive(device, {}, before, done); !result.ok())
    return "the repair failed: " + result.text;
  if (!(device.now() == after))
    return "a repair with other delays ended in other bytes";
  for (std::uint64_t moment = 0; moment <= device.events(); ++moment) {
    const sim::crash_states cut(device, moment);
    for (int i = 0; i < 2; ++i, ++states) {
      const sim::image left = i == 0 ? cut.list(0) : cut.draw(world.chance);
      const repaired_image again = repair(left);
      if (!again.result.ok())
        return "cut at event " + std::to_string(moment) + " it fails: " + again.result.text;
      if (!(again.after == after))
        return "cut at event " + std::to_string(moment) + " of " + std::to_string(device.events()) +
               " it ends in other bytes";
    }
  }
  return {};
}

std::string serve(const run_options& options, const sim::image& drive, const sim::model& expected) {
  store_run run(options, drive, expected);
  if (const auto opened = run.open(); !opened.ok() || !opened.text.empty())
    return "opening says: " + opened.text;
  const auto counters = run.store->counters();
  if (counters.bad_bitmap_pages + counters.bad_superblocks + counters.bad_tree_pages +
          counters.dropped_at_recovery + counters.journal_holes + counters.torn_tails >
      0)
    return "opening found damage after the repair";
  run.get_all();
  if (run.corrupt_reads > 0)
    return "a block that does not match its checksum was left";
  return problem_of(run);
}

engine::errc put_part(store_run& run, const std::string& key, content what, const part_of& shape) {
  auto value = bytes_of(what);
  const auto sums = sums_of(std::span(value).first(length_of(what)));
  engine::put_description description;
  const auto head = id_of(key);
  description.id = shape.part == 0 ? head : engine::part_id(head, shape.put_id, shape.part);
  description.name_space = "tenant";
  description.key = wire::as_bytes_view(key);
  description.length = length_of(what);
  description.value_length = shape.value_length;
  description.part = shape.part;
  description.parts = shape.parts;
  description.put_id = shape.put_id;
  bool answered = false;
  engine::errc answer = engine::errc::cancelled;
  const auto done = [&](engine::errc result) {
    answered = true;
    answer = result;
  };
  run.store->allocate(description, [&](engine::errc result, const engine::reservation& space) {
    if (result != engine::errc::ok)
      return done(result);
    run.store->write(space.token, 0, {value.data(), length_of(what)}, [&, token = space.token](engine::errc) {
      if (shape.part == 0)
        run.store->commit(token, sums, false, 0, [&](engine::errc ended, std::uint64_t) { done(ended); });
      else
        run.store->prepare(token, sums, done);
    });
  });
  (void)run.drive_until([&] { return answered; });
  return answer;
}

engine::superblock superblock_of(const sim::image& drive, int copy) {
  std::vector<std::byte> bytes(engine::page_bytes);
  drive.read(copy == 0 ? 0 : drive.size() - engine::page_bytes, bytes);
  engine::superblock block;
  const auto decoded =
      decode(std::span<const std::byte, engine::page_bytes>(bytes), static_cast<std::uint8_t>(copy), block);
  MEMKV_ASSERT(decoded == engine::errc::ok, "the superblock of a test's drive is good");
  return block;
}

void edit_superblock(sim::image& drive, int copy, const std::function<void(engine::superblock&)>& edit) {
  engine::superblock block = superblock_of(drive, copy);
  edit(block);
  std::vector<std::byte> bytes(engine::page_bytes);
  encode(block, std::span<std::byte, engine::page_bytes>(bytes.data(), std::size_t{engine::page_bytes}));
  drive.write(copy == 0 ? 0 : drive.size() - engine::page_bytes, bytes);
}

} // namespace memkv::crash
