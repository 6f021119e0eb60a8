// What the registration of AdamW's steps hands to their kernels: raw pointers and a stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/element_type.h"
#include "kernels/adamw_formula.h"

namespace fathom::cuda {

/// A parameter and what goes with it, double where the gradient is and float elsewhere. `gradient_type`: any;
/// `copy_type`: half or bfloat16.
struct AdamWTensor {
  void* parameter;
  const void* gradient;
  void* first;
  void* second;
  void* average;  ///< or null
  void* copy;     ///< or null
  double learning_rate_scale;
  double weight_decay;
  ElementType gradient_type;
  ElementType copy_type;
  bool is_aligned;           ///< all but the gradient, for vectors of four elements
  bool gradient_is_aligned;  ///< seldom, since gradients lie behind each other in buckets
};

/// Elements of one tensor that a block takes, from `begin` to `begin + kAdamWChunkSize` or the tensor's end.
struct AdamWChunk {
  int64_t tensor;
  int64_t begin;
  int64_t end;
};
constexpr int64_t kAdamWChunkSize = 4096;

/// On the device.
struct AdamWTableArgs {
  const AdamWTensor* tensors;
  const AdamWChunk* chunks;
  int64_t num_chunks;
};

/// `partial`: [num_chunks]; `divisor` or null.
struct GradientNormArgs {
  AdamWTableArgs table;
  const float* divisor;
  double* partial;
  double* norm;
};

struct AdamWStepArgs {
  AdamWTableArgs table;
  kernels::AdamWScalarPointers pointers;
  kernels::AdamWSettings settings;
  kernels::AdamWScalars* scalars;  ///< room for one
  int64_t* saturated;              ///< counts elements of copies that lay beyond half; or null
};

cudaError_t launch_gradient_norm(const GradientNormArgs& args, cudaStream_t stream);
cudaError_t launch_adamw_step(const AdamWStepArgs& args, cudaStream_t stream);

}  // namespace fathom::cuda
