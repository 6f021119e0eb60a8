// GELU(x Wᵀ + b) with the exact GELU, x Φ(x). Source: Hendrycks & Gimpel, "Gaussian error linear units",
// 2016.
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

#include "kernels/linear.h"

namespace fathom::kernels {

/// What `at::gelu(linear(x, weight, bias, types))` is, but for roundings between the two: on a Hopper GPU the
/// product itself writes it. For the backward pass x and the product's result are kept, and one pass over the
/// gradient gives that before GELU and the bias's.
at::Tensor linear_gelu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                       const LinearTypes& types = {});

/// Whether a GPU's kernels take such products of `x` with a weight: 16 bits, vectors of 16 bytes.
bool has_gelu_product(const at::Tensor& x, const at::Tensor& weight);
/// The operation, of operands of one type: GELU's result, and with `keep` what it is taken of, else nothing.
/// No gradient.
std::tuple<at::Tensor, at::Tensor> linear_gelu_of(const at::Tensor& x, const at::Tensor& weight,
                                                  const at::Tensor& bias, bool keep);
/// The way back through GELU alone, as `linear_gelu_ref::backward`. No gradient.
std::tuple<at::Tensor, at::Tensor> gelu_grad_sum(const at::Tensor& grad, const at::Tensor& x);

namespace linear_gelu_ref {
/// GELU's result, and with `keep` what it is taken of, else nothing.
std::tuple<at::Tensor, at::Tensor> forward(const at::Tensor& x, const at::Tensor& weight,
                                           const at::Tensor& bias, bool keep);
/// Of a gradient behind GELU(x): that of x, and its sum over all dimensions but the last, in float32 or
/// wider.
std::tuple<at::Tensor, at::Tensor> backward(const at::Tensor& grad, const at::Tensor& x);
}  // namespace linear_gelu_ref

}  // namespace fathom::kernels
