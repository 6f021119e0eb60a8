// What the registration of saturated_half hands to its kernel: raw pointers and a stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/element_type.h"

namespace fathom::cuda {

/// `x`: [size]; `y`: half [size]; `saturated` is added to, or null.
struct SaturatedHalfArgs {
  const void* x;
  void* y;
  int64_t* saturated;
  int64_t size;
};

/// `type` of x: float, half or bfloat16. REQUIRES 1 ≤ size.
cudaError_t launch_saturated_half(ElementType type, const SaturatedHalfArgs& args, cudaStream_t stream);

}  // namespace fathom::cuda
