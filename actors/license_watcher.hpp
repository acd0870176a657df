// The LICENSE WATCHER actor: looks after the licence while the server runs. Interface: interfaces.hpp; what
// it does at each look: license_watch.hpp.
//
// Threading: scheduled; a look must not wait for a file (patient_reader.hpp). Ownership: shares the watch
// with SERVER, which gives it to the next one when this one dies. Errors: a licence that ended is told to
// SERVER at each look until the server stops; everything else goes to the log.
#pragma once

#include "actors/interfaces.hpp"
#include "actors/license_watch.hpp"

#include <caf/typed_event_based_actor.hpp>

#include <chrono>
#include <memory>

namespace memkv::actors {

constexpr std::chrono::milliseconds license_look_interval{1000};

license_watcher_actor::behavior_type license_watcher(license_watcher_actor::pointer self,
                                                     std::shared_ptr<license_watch> watch,
                                                     server_actor server);

} // namespace memkv::actors
