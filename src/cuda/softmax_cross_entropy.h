// What the registration of cross-entropies hands to their kernel: raw pointers and a stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/element_type.h"

namespace fathom::cuda {

/// `logits`, `gradient`: [rows, vocabulary], the second null, or the first, or apart from it; `target`:
/// [rows]; `loss`: [rows], double where the logits are and float elsewhere.
struct SoftmaxCrossEntropyArgs {
  const void* logits;
  const int64_t* target;
  void* gradient;
  void* loss;
  const void* divisor;  ///< of `gradient_scale`, one number of the losses' type; or null: 1
  int64_t rows;
  int64_t vocabulary;
  double gradient_scale;
  bool is_aligned;  ///< both begin where vectors of 16 bytes may
};

/// `gradient`: the logits' type, or half where they are float.
cudaError_t launch_softmax_cross_entropy(ElementType logits, ElementType gradient,
                                         const SoftmaxCrossEntropyArgs& args, cudaStream_t stream);

}  // namespace fathom::cuda
