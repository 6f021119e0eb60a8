// What the registration of scaling in place hands to its kernel: raw pointers and a stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/element_type.h"

namespace fathom::cuda {

/// `x`: `size` numbers; `factor`: one, double where x is and float elsewhere.
struct ScaleArgs {
  void* x;
  const void* factor;
  int64_t size;
};

cudaError_t launch_scale(ElementType type, const ScaleArgs& args, cudaStream_t stream);

}  // namespace fathom::cuda
