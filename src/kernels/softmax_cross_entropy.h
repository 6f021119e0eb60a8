// Cross-entropy of rows of logits, with its gradient in one pass. N rows, V vocabulary.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace fathom::kernels {

/// −log softmax(logits)[target] of each row: [N], float32 (float64 for float64); 0 where the target is
/// negative. `logits_NV`: dense, of any floating type; `target_N`: int64 below V (beyond it a CPU complains,
/// a GPU's row is no number). `gradient_NV`, unless undefined, takes gradient_scale ÷ divisor ·
/// (softmax(logits) − one-hot) and zeros where the target is negative; it may be `logits_NV` itself, and else
/// is of its type, or FP16 for float32. `divisor`: a scalar on the logits' device of the losses' type, or
/// undefined: 1. Statistics in float32 at least, rounded once. For losses with a function of their own: no
/// gradient flows through it.
at::Tensor softmax_cross_entropy(const at::Tensor& logits_NV, const at::Tensor& target_N,
                                 const at::Tensor& gradient_NV = {}, double gradient_scale = 1,
                                 const at::Tensor& divisor = {});

namespace softmax_cross_entropy_ref {
at::Tensor apply(const at::Tensor& logits_NV, const at::Tensor& target_N,
                 const std::optional<at::Tensor>& gradient_NV, double gradient_scale,
                 const std::optional<at::Tensor>& divisor);
}  // namespace softmax_cross_entropy_ref

}  // namespace fathom::kernels
