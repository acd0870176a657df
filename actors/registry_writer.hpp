// Writes into the registry of a drive that it is blacklisted, on a thread of its own: the drive is a failing
// one, the call may never come back, and nobody waits for it, not even the end of the process.
//
// Threading: any thread; returns at once. Errors: logged; the server keeps the drive offline all the same,
// and a later start counts its failures anew.
#pragma once

#include "engine/drive_store.hpp"

#include <string>

namespace memkv::actors {

void write_registry_aside(std::string path, engine::drive_failures failures);

} // namespace memkv::actors
