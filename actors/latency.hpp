// How long requests take: engine/latency.hpp under the names of this room.
#pragma once

#include "engine/latency.hpp"

namespace memkv::actors {

using engine::latency_bound_ns;
using engine::latency_bucket;
using engine::latency_buckets;
using engine::latency_counts;
using engine::latency_histogram;
using engine::latency_series;

} // namespace memkv::actors
