// What the parts of the plug-in offer to its table.
#pragma once

#include <memory>

#include "tensor/cuda_plugin.h"
#include "tensor/device_runtime.h"

namespace fathom::cuda {

int64_t num_devices(std::string& reason);
std::unique_ptr<DeviceRuntime> make_runtime(at::Device device);
std::unique_ptr<DeviceGraph> make_graph(at::Device device, DeviceGraph* beside);

c10::intrusive_ptr<c10d::Backend> make_nccl(const c10::intrusive_ptr<c10d::Store>& store, int64_t rank,
                                            int64_t size, at::Device device,
                                            std::chrono::milliseconds timeout);
std::string nccl_version();

/// Vendor's dense FLOP/s for a GPU by name, or 0. `float_type` FP32 means TF32 products where `allows_tf32`.
double peak_flops_of(const std::string& name, at::ScalarType type, bool allows_tf32);

}  // namespace fathom::cuda
