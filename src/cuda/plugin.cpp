// The plug-in's entry.
#include "cuda/plugin.h"

#include <torch/version.h>

extern "C" __attribute__((visibility("default"))) const fathom::CudaPlugin* fathom_cuda_plugin() {
  using namespace fathom;
  static constexpr CudaPlugin kPlugin{
      .version = CudaPlugin::kVersion,
      .torch_version = TORCH_VERSION,
      .num_devices = cuda::num_devices,
      .make_runtime = cuda::make_runtime,
      .make_nccl = cuda::make_nccl,
      .nccl_version = cuda::nccl_version,
  };
  return &kPlugin;
}
