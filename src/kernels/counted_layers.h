// What encoders' layers do to the rows that the device counts, and their backward passes. Letters and rules
// as in counted_rows.h and counted_gradients.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <utility>

#include "kernels/counted_gradients.h"
#include "kernels/counted_rows.h"

namespace fathom::kernels {

/// Whether there are kernels for states `x`: those of `has_counted_rows`, at most 2,048 wide.
bool has_counted_layers(const at::Tensor& x_BTD);

/// `layer_norm` of the rows' tokens: [B, T, D] → [N, D]. `weight`, `bias`: [D], of any floating type.
at::Tensor gathered_layer_norm(const at::Tensor& x_BTD, const at::Tensor& weight, const at::Tensor& bias,
                               double eps, const CountedRows& rows);
/// x Wᵀ + b: [N, in] → [N, out], all of one type.
at::Tensor counted_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                          const CountedRows& rows);
/// GELU of that, and with `keep` what it is taken of.
struct CountedGelu {
  at::Tensor y, inner;
};
CountedGelu counted_linear_gelu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                                const CountedRows& rows, bool keep);

/// Adds the gradient of x to `grad_BTD`, dense, at active tokens; returns those of weight and bias (float32
/// on a GPU).
std::pair<at::Tensor, at::Tensor> gathered_layer_norm_backward(const at::Tensor& grad,
                                                               const at::Tensor& x_BTD,
                                                               const at::Tensor& weight, double eps,
                                                               at::Tensor& grad_BTD, const CountedRows& rows);
/// The gradient of `inner`, and its sum over the active rows, in float32 or wider.
std::pair<at::Tensor, at::Tensor> counted_gelu_backward(const at::Tensor& grad, const at::Tensor& inner,
                                                        const CountedRows& rows);
/// The sum over the active rows, in float32 or wider: [N, D] → [D].
at::Tensor counted_column_sum(const at::Tensor& x, const CountedRows& rows);

}  // namespace fathom::kernels
