// A feed-forward layer with GELU: GELU(x W₁ᵀ + b₁) W₂ᵀ + b₂.
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

#include "kernels/linear.h"

namespace fathom::kernels {

/// Of any floating type: M inner width.
struct GeluMlpWeights {
  at::Tensor up;         ///< [M, D]
  at::Tensor up_bias;    ///< [M]
  at::Tensor down;       ///< [D', M]
  at::Tensor down_bias;  ///< [D']
};

/// [..., D] → [..., D']: the numbers of `linear_gelu` and `linear` behind it, but for the gradient between
/// the two, which on a Hopper GPU is not rounded before it goes back through GELU, nor written: the product
/// that makes it does. REQUIRES products in the states' own type.
at::Tensor gelu_mlp(const at::Tensor& x, const GeluMlpWeights& weights, const LinearTypes& types = {});

/// Of a gradient behind GELU(inner) Wᵀ, [R, D]: that of `inner` [R, M], and its sum over all rows, in float32
/// or wider. `weight`: [D, M]. No gradient.
std::tuple<at::Tensor, at::Tensor> gelu_product_grad(const at::Tensor& grad, const at::Tensor& weight,
                                                     const at::Tensor& inner);

}  // namespace fathom::kernels
