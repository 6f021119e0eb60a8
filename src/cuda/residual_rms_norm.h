// What the registration of residual_rms_norm hands to its kernels: raw pointers and a stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/element_type.h"

namespace fathom::cuda {

/// `x`, `branch`, `sum`, `y`: [rows, dim]; `weight`: float32 [dim], rounded to their type before it is used;
/// `scale`: float32 [rows]. With `to_half`, of bfloat16, y is half, and what saturates is added to
/// `saturated`, unless that is null.
struct ResidualNormArgs {
  const void* x;
  const void* branch;
  const float* weight;
  void* sum;
  void* y;
  float* scale;
  int64_t rows;
  int64_t dim;
  float eps;
  bool to_half;
  int64_t* saturated;
};

/// `grad_sum`: that of the sum beside the norm's, or null; `grad_x`: of the sum as a whole; `grad_half`: the
/// same in half, of bfloat16, or null; `partial`: float32 [blocks, dim], the sums of a block's rows for the
/// weight.
struct ResidualNormGradArgs {
  const void* grad_sum;
  const void* grad;
  const void* sum;
  const float* weight;
  const float* scale;
  void* grad_x;
  void* grad_half;
  float* partial;
  int64_t rows;
  int64_t dim;
  int64_t blocks;
};

/// Of rows that fit (norm_shape.h). Pointers have to lie at multiples of 16 bytes.
cudaError_t launch_residual_norm(ElementType type, const ResidualNormArgs& args, cudaStream_t stream);
cudaError_t launch_residual_norm_grad(ElementType type, const ResidualNormGradArgs& args,
                                      cudaStream_t stream);

}  // namespace fathom::cuda
