// What the registration of layer norm hands to its kernels: raw pointers and a stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/element_type.h"

namespace fathom::cuda {

/// `x`, `y`: [rows, dim]; `weight`, `bias`: float32 [dim]; `mean`, `scale`: float32 [rows].
struct LayerNormForwardArgs {
  const void* x;
  const float* weight;
  const float* bias;
  void* y;
  float* mean;
  float* scale;
  int64_t rows;
  int64_t dim;
  float eps;
};

/// `grad_x` like `x`; `partial`: float32 [blocks, 2, dim], the sums of a block's rows for weight and bias.
struct LayerNormBackwardArgs {
  const void* grad;
  const void* x;
  const float* weight;
  const float* mean;
  const float* scale;
  void* grad_x;
  float* partial;
  int64_t rows;
  int64_t dim;
  int64_t blocks;
};

/// Of rows that fit (norm_shape.h). Pointers have to lie at multiples of 16 bytes, those of weight and bias
/// as well.
cudaError_t launch_layer_norm(ElementType type, const LayerNormForwardArgs& args, cudaStream_t stream);
cudaError_t launch_layer_norm_backward(ElementType type, const LayerNormBackwardArgs& args,
                                       cudaStream_t stream);

}  // namespace fathom::cuda
