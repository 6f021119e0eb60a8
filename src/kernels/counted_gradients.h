// Backward passes of counted_rows.h. Of the active rows alone: what a layer makes of explored ones reaches
// nothing but their scores. Gradients of rows that are not in use mean nothing. Letters as there.
#pragma once

#include <ATen/core/Tensor.h>

#include <utility>

#include "kernels/counted_rows.h"

namespace fathom::kernels {

/// What the scores of a layer's tokens learn from (docs/design.md, "TokenGate").
struct ScoreGradient {
  at::Tensor score_BT;    ///< before the sigmoid, float32; undefined: they learn nothing
  double explore = 1;     ///< an explored token stands for 1 / explore
  at::Tensor multiplier;  ///< float64 scalar: what a token's sigmoid costs, times `share`; undefined: nothing
  double share = 0;
  at::Tensor share_B;   ///< of their type, a sequence's own; undefined: `share`
  bool values = false;  ///< they also learn from what their tokens' values bring to others
};

/// Gradients [N, D] of the rows that `merged_rows` added, of `grad_BTD`, and of the scores: float32 [B, T],
/// the derivative of the sigmoid times ⟨grad, part + y⟩ and what the token costs. `part`, `y`: [N, D], what
/// both parts of the layer added; an undefined `part`: it has one alone. Padding learns nothing.
std::pair<at::Tensor, at::Tensor> merged_rows_backward(const at::Tensor& grad_BTD, const at::Tensor& part,
                                                       const at::Tensor& y, const ScoreGradient& score,
                                                       const CountedRows& rows);
/// The first of these, and ⟨grad, y⟩ of each row, active or explored: float32 [N].
std::pair<at::Tensor, at::Tensor> rows_brought(const at::Tensor& grad_BTD, const at::Tensor& y,
                                               const CountedRows& rows);
/// grad W: [N, out] → [N, in].
at::Tensor counted_input_grad(const at::Tensor& grad, const at::Tensor& weight, const CountedRows& rows);
/// Writes gradᵀ x over the rows to `result`: [out, in], dense, of the rows' type or float32.
void counted_weight_grad(const at::Tensor& grad, const at::Tensor& x, const CountedRows& rows,
                         at::Tensor& result);
at::Tensor counted_swiglu_backward(const at::Tensor& grad, const at::Tensor& gate_up,
                                   const CountedRows& rows);
/// Of `rms_norm` of rows `x` [N, D] whose own gradient is `added` [N, D] beside: that of x, and of the weight
/// (float32 on a GPU).
std::pair<at::Tensor, at::Tensor> counted_rms_norm_backward(const at::Tensor& grad, const at::Tensor& x,
                                                            const at::Tensor& weight, double eps,
                                                            const at::Tensor& added, const CountedRows& rows);
/// The same of `gathered_rms_norm`: that of x is written over `grad_BTD`, dense, at active tokens alone, that
/// of the weight returned.
at::Tensor gathered_rms_norm_backward(const at::Tensor& grad, const at::Tensor& x_BTD,
                                      const at::Tensor& weight, double eps, const at::Tensor& added,
                                      at::Tensor& grad_BTD, const CountedRows& rows);
/// Gradients of queries [N, H, E], keys and values [N, K, E].
struct HeadGradients {
  at::Tensor q, k, v;
};
/// Of those in `qkv`, which `counted_rope` turned. `made`: of `counted_attention`.
HeadGradients counted_attention_backward(const at::Tensor& grad, const at::Tensor& qkv,
                                         const CountedAttention& made, HeadLayout layout, bool causal,
                                         const CountedRows& rows);
/// The gradient of `qkv` before `counted_rope` turned it.
at::Tensor counted_rope_backward(const HeadGradients& turned, const at::Tensor& cos_TF,
                                 const at::Tensor& sin_TF, const CountedRows& rows);
/// What scores learn from values, as if an active token's were multiplied with its score: the derivative of
/// the sigmoid times ⟨grad_v, v⟩, 0 where a token is not active. `grad_v`: [N, K, E]; as `score_BT`.
at::Tensor value_score_grad(const at::Tensor& grad_v, const at::Tensor& qkv, const at::Tensor& score_BT,
                            const CountedRows& rows);
/// Gradients of `product.both` (of `type`), each token's times its `scale_BT1`, and of the weights, of
/// `causal_scores`.
std::pair<at::Tensor, ScorerWeights> causal_scores_backward(const at::Tensor& grad_BT,
                                                            const ScorerProduct& product,
                                                            const ScorerWeights& weights,
                                                            at::ScalarType type);
/// Of `joint` [2I, D], the gradient of the projection times the norm's weight, as `scorer_product` knows
/// them: that of the norm's weight, and in `grad_project`, dense and of the type of `joint`, the
/// projection's.
at::Tensor scorer_weight_grad(const at::Tensor& joint, const at::Tensor& norm, const at::Tensor& project,
                              at::Tensor& grad_project);

}  // namespace fathom::kernels
