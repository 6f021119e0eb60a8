// Loops over the threads of this machine.
#pragma once

#include <cstdint>
#include <functional>

namespace fathom {

/// Hardware threads of this machine, at least 1.
int64_t num_hardware_threads();

/// Calls `body(i)` for i in [0, count) on `num_threads` threads and waits; rethrows the first exception by
/// index. Indices are handed out one at a time, so uneven work balances.
void parallel_for_each(int64_t count, int64_t num_threads, const std::function<void(int64_t)>& body);

}  // namespace fathom
