// The seam between libfathom, which links no CUDA, and libfathom_cuda.so, which does.
#pragma once

#include <c10/core/Device.h>
#include <c10/util/intrusive_ptr.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

namespace c10d {
class Backend;
class Store;
}  // namespace c10d

namespace fathom {

class DeviceRuntime;

/// What the plug-in offers. Its only exported function, `fathom_cuda_plugin`, returns a table with static
/// lifetime.
struct CudaPlugin {
  static constexpr const char* kEntry = "fathom_cuda_plugin";
  static constexpr int64_t kVersion = 3;  ///< raised with every change of this struct or of DeviceRuntime

  using Entry = const CudaPlugin* (*)();

  int64_t version;
  const char* torch_version;  ///< the one it was compiled against
  /// GPUs that can be used; when none, `reason` receives a line that says why.
  int64_t (*num_devices)(std::string& reason);
  std::unique_ptr<DeviceRuntime> (*make_runtime)(at::Device device);
  /// A process group over NCCL, bound to `device`.
  c10::intrusive_ptr<c10d::Backend> (*make_nccl)(const c10::intrusive_ptr<c10d::Store>& store, int64_t rank,
                                                 int64_t size, at::Device device,
                                                 std::chrono::milliseconds timeout);
  std::string (*nccl_version)();
};

/// What came of looking for the plug-in: its table, or the reason why there is none.
struct CudaPluginSearch {
  const CudaPlugin* plugin = nullptr;
  std::string path;
  std::string reason;
};

/// Opens the plug-in at the first call: the file that FATHOM_PLUGIN names, or libfathom_cuda.so beside the
/// library that holds this code. FATHOM_PLUGIN=none forbids it. It is never closed. Thread-safe.
const CudaPluginSearch& find_cuda_plugin();

}  // namespace fathom
