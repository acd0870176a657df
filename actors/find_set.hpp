// Which set the drives of a server belong to, found out by looking at all of them before any is opened.
//
// A drive that is there and does not answer may be the one that knows who took part last: without it another
// one would be judged by an older epoch, and give back what was overwritten since. So a start waits for it. A
// drive that is gone, or answers with an error, has answered.
//
// Threading: one thread, which waits; each drive is read in a thread of its own, which ends when the drive
// answers and holds nothing of the caller's. Errors: those of engine::find_set; cancelled when
// told_to_stop said so, with stopped_while_starting. Limits: none on the time; every peek_warning_ms a line
// of the log names the drives that are waited for.
#pragma once

#include "actors/server_options.hpp"
#include "engine/drive_set.hpp"

#include <optional>
#include <vector>

namespace memkv::actors {

/// `out.set_id` other than zeros: the drives must have that one. `registries`: see server_options.
engine::status find_set(const server_options& options, engine::set_facts& out,
                        std::vector<std::optional<engine::failure_registry>>& registries);

} // namespace memkv::actors
