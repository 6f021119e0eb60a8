// Whether kernels may be launched before their predecessors end (awaited.cuh).
#pragma once

#include <cuda_runtime_api.h>

namespace fathom::cuda {

/// Of the current device: from compute capability 9.0 on, unless the environment says FATHOM_EARLY_LAUNCH=0.
bool launches_early();

/// The attribute that asks for it.
inline cudaLaunchAttribute early_launch() {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  return attribute;
}

}  // namespace fathom::cuda
