// The tensor-core products behind linear_gelu.h, one an element type; each is compiled in its own file.
#pragma once

#include "cuda/linear_gelu.h"

namespace fathom::cuda {

/// `T`: __half or __nv_bfloat16. Sizes have been checked.
template <typename T>
struct GeluGemm {
  static cudaError_t run(const LinearGeluArgs& args, cudaStream_t stream);
};

}  // namespace fathom::cuda
