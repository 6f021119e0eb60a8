#include "tensor/device_runtime.h"

#include "base/error.h"
#include "tensor/cpu_runtime.h"
#include "tensor/cuda_plugin.h"

namespace fathom {

std::unique_ptr<DeviceRuntime> make_device_runtime(at::Device device) {
  if (device.is_cpu()) return make_cpu_runtime();
  const CudaPluginSearch& search = find_cuda_plugin();
  if (!device.is_cuda() || !search.plugin) {
    fail(ErrorKind::kConfig, "device {}: {}", device.str(),
         search.reason.empty() ? "not supported" : search.reason);
  }
  return search.plugin->make_runtime(device);
}

}  // namespace fathom
