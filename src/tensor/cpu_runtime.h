// The CPU as a device.
#pragma once

#include <memory>

#include "tensor/device_runtime.h"

namespace fathom {

/// Bytes this process may use: the machine's memory, or its control group's limit where that is lower.
int64_t usable_memory_bytes();

std::unique_ptr<DeviceRuntime> make_cpu_runtime();

}  // namespace fathom
