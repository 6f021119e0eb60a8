// The CPU as a device.
#pragma once

#include <memory>

#include "tensor/device_runtime.h"

namespace fathom {

/// Bytes this process may use: the machine's memory, or its control group's limit where that is lower.
int64_t usable_memory_bytes();

/// From here on memory that is freed stays with the process, large pieces too, until `release_cached_memory`:
/// for programs that free and take the same sizes again and again. The system gives a page back empty, which
/// takes longer than most of what is then done with it.
void keep_freed_memory();

std::unique_ptr<DeviceRuntime> make_cpu_runtime();

}  // namespace fathom
