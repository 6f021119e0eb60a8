// Products with a bias whose number of rows is known on the device only: raw pointers and a stream. One set
// an element type, each compiled in its own file.
#pragma once

#include <cuda_runtime_api.h>

#include "cuda/counted_product.h"

namespace fathom::cuda {

/// `T`: __half or __nv_bfloat16. y = x weightᵀ + bias, added in float32. `bias`: [out_dim], of the operands'
/// type. Sizes have been checked (`counted_product_fits`), and there are rows.
template <typename T>
struct BiasGemm {
  static cudaError_t run(const CountedProductArgs& args, const void* bias, cudaStream_t stream);
};

}  // namespace fathom::cuda
