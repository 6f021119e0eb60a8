// What a program needs of a device beyond tensors: memory figures, waiting, pinned memory, captured graphs.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace fathom {

struct DeviceMemory {
  int64_t total_bytes = 0;
  int64_t used_bytes = 0;  ///< by this process: tensors on a GPU, resident memory on a CPU
  int64_t peak_bytes = 0;  ///< highest `used_bytes` since `reset_peak_memory`
};

/// Work recorded once and replayed without the host's cost of launching it.
class DeviceGraph {
 public:
  virtual ~DeviceGraph() = default;
  /// Records what `work` launches, on a stream of its own. `work` must not wait for the device, and must have
  /// run once before. Tensors it reads and writes keep their addresses, so inputs are copied into place
  /// before `replay`.
  virtual void capture(const std::function<void()>& work) = 0;
  virtual void replay() = 0;
};

/// One device, as seen by this process. Methods may be called from any thread.
class DeviceRuntime {
 public:
  virtual ~DeviceRuntime() = default;
  virtual at::Device device() const = 0;
  virtual std::string name() const = 0;
  /// Why kernels of ours do not run on this device, in a few words; empty where they do.
  virtual std::string missing_kernels() const { return ""; }
  virtual DeviceMemory memory() const = 0;
  virtual void reset_peak_memory() = 0;
  /// Returns memory that is cached but unused to the system.
  virtual void release_cached_memory() = 0;
  /// Waits for all work that was given to the device.
  virtual void synchronize() = 0;
  /// Makes this device the calling thread's current one.
  virtual void activate() = 0;
  /// Host memory from which copies to the device run asynchronously (plain memory on a CPU).
  virtual at::Tensor pinned_empty(at::IntArrayRef sizes, at::ScalarType type) = 0;
  /// FLOP/s that dense matrix products of this type could reach, for utilisation figures; 0 when unknown. On
  /// a GPU the vendor's figure without sparsity; on a CPU measured by a small product (0.1 s, at the first
  /// call).
  virtual double peak_flops(at::ScalarType type) = 0;
  /// Whether `type` runs at speed here (BF16 on a CPU: only with instructions for it).
  virtual bool is_fast(at::ScalarType type) = 0;
  /// Null where graphs do not exist. With `beside` the two share their memory: a replay of one overwrites
  /// what the other computed.
  virtual std::unique_ptr<DeviceGraph> make_graph(DeviceGraph* beside = nullptr) = 0;
};

/// The runtime of `device`, from `select_device`.
std::unique_ptr<DeviceRuntime> make_device_runtime(at::Device device);

}  // namespace fathom
