// Scores of a gate that sees all of its row. Letters as in counted_rows.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <utility>

#include "kernels/counted_rows.h"

namespace fathom::kernels {

/// Of a bottleneck I, for kernels on a GPU.
constexpr int64_t kMostRowScoreInner = 2048;

/// outᵀ GELU(own + mean of other over the row's present tokens) + bias, own and other being the halves of
/// `both` [B, T, 2I] + shift; a row without such tokens has a mean of 0. `present_BT`: bool; undefined: all.
/// Of `both`'s type, float32 or wider: [B, T], and the sums that the backward pass wants.
std::pair<at::Tensor, at::Tensor> row_scores(const at::Tensor& both, const ScorerWeights& weights,
                                             const at::Tensor& present_BT);

/// Gradients of `product.both` (of `type`), each token's times its `scale_BT1`, and of the weights.
/// `product.chunk_sums`: those sums.
std::pair<at::Tensor, ScorerWeights> row_scores_backward(const at::Tensor& grad_BT,
                                                         const ScorerProduct& product,
                                                         const ScorerWeights& weights,
                                                         const at::Tensor& present_BT, at::ScalarType type);

}  // namespace fathom::kernels
