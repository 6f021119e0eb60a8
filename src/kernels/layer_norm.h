// Layer normalisation over the last dimension. Source: Ba et al., "Layer normalization", 2016.
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

namespace fathom::kernels {

/// (x − mean) / sqrt(variance + eps) · weight + bias. `x`: [..., D]; `weight`, `bias`: [D], of x's type or
/// float32 (parameters need no copy in x's type on a GPU). Sums in float32 or wider. Result: like x.
at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps);

namespace layer_norm_ref {
/// LibTorch's own: y, mean and 1 / deviation of each row.
std::tuple<at::Tensor, at::Tensor, at::Tensor> forward(const at::Tensor& x, const at::Tensor& weight,
                                                       const at::Tensor& bias, double eps);
/// Gradients of x, weight and bias.
std::tuple<at::Tensor, at::Tensor, at::Tensor> backward(const at::Tensor& grad, const at::Tensor& x,
                                                        const at::Tensor& weight, const at::Tensor& bias,
                                                        const at::Tensor& mean, const at::Tensor& scale);
}  // namespace layer_norm_ref

}  // namespace fathom::kernels
