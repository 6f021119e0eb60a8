// Whether kernels may be launched before their predecessors end (awaited.cuh).
#pragma once

#include <cuda_runtime_api.h>

namespace fathom::cuda {

/// Of the current device: from compute capability 9.0 on.
bool launches_early();

/// The attribute that asks for it.
inline cudaLaunchAttribute early_launch() {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  return attribute;
}

}  // namespace fathom::cuda
