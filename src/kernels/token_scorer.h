// What a gate thinks of each token (nn/token_scorer.h), where the device counts its layer's rows: with
// gradients. Letters as in counted_rows.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <utility>

#include "kernels/counted_rows.h"
#include "kernels/linear.h"

namespace fathom::kernels {

/// Of any floating type, one for all.
struct TokenScorerWeights {
  at::Tensor norm;     ///< [D]
  at::Tensor project;  ///< [2I, D]
  ScorerWeights behind;
};

/// `causal_scores` of a product with norm(x), [B, T], and the sums that it takes, [B, 1, I]. No gradient
/// flows to x. Of `types` copies and rooms count.
std::pair<at::Tensor, at::Tensor> causal_scorer(const at::Tensor& x_BTD, const TokenScorerWeights& weights,
                                                double eps, const LinearTypes& types = {});

/// `row_scores` of such a product, likewise.
at::Tensor row_scorer(const at::Tensor& x_BTD, const TokenScorerWeights& weights, double eps,
                      const at::Tensor& present_BT, const LinearTypes& types = {});

}  // namespace fathom::kernels
