// The loss of a language model's head without keeping its logits.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "kernels/linear.h"

namespace fathom {

struct LinearCrossEntropyOptions {
  /// 0: what keeps a chunk's logits near 32 million numbers, on a GPU near 128 million.
  int64_t chunk_rows = 0;
  kernels::LinearTypes types = {};
  at::Tensor divisor = {};  ///< of the sum, above 0: one number on hidden's device; undefined: 1
};

/// Σ over rows of −log softmax(hidden · headᵀ)[target], ÷ divisor; rows whose target is negative are left
/// out. Logits exist for one chunk of rows at a time, forward and backward: each chunk's gradients are
/// computed with its loss, as in Hsu et al., "Liger kernel", 2024, section 3.2. Products run in hidden's
/// type, statistics in float32 at least; the head's copy, and the place of its gradient, are taken where
/// `types` has them. Where it says so, operands are FP16 and logits float32; the gradient by the logits is
/// then multiplied by 2^15 for its product, of which FP16 would lose the small ones.
///
/// The backward pass gives those gradients away. It multiplies them, in place, by the gradient of the loss,
/// which costs nothing where that is exactly 1: hence the divisor. With a graph that is retained it keeps
/// them, until the step's gradients are whole.
///
/// Shapes: N rows, D width, V vocabulary; `target_N` int64. Result: scalar, float32 (float64 for float64).
at::Tensor linear_cross_entropy(const at::Tensor& hidden_ND, const at::Tensor& head_VD,
                                const at::Tensor& target_N, const LinearCrossEntropyOptions& options = {});

}  // namespace fathom
