// The loss of a language model's head without keeping its logits.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "kernels/linear.h"

namespace fathom {

/// Σ over rows of −log softmax(hidden · headᵀ)[target]; rows whose target is negative are left out. Logits
/// exist for one chunk of rows at a time, forward and backward: each chunk's gradients are computed with its
/// loss, as in Hsu et al., "Liger kernel", 2024, section 3.2. Products run in hidden's type, statistics in
/// float32 at least; the head's copy is taken where `types` has one. Where it says so, operands are FP16 and
/// logits float32; the gradient by the logits is then multiplied by 2^15 for its product, of which FP16 would
/// lose the small ones.
///
/// Shapes: N rows, D width, V vocabulary; `target_N` int64. Result: scalar, float32 (float64 for float64).
/// `chunk_rows` 0 takes what keeps a chunk's logits near 32 million numbers, on a GPU near 128 million.
at::Tensor linear_cross_entropy(const at::Tensor& hidden_ND, const at::Tensor& head_VD,
                                const at::Tensor& target_N, int64_t chunk_rows = 0,
                                const kernels::LinearTypes& types = {});

}  // namespace fathom
