// y = x Wᵀ + b.
#pragma once

#include <ATen/core/Tensor.h>

namespace fathom::kernels {

/// `x`: [..., in]; `weight`: [out, in]; `bias`: [out] or undefined. The result has x's type; parameters of
/// another type are cast. Computed in `product_type(x)`.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {});

/// The sum over all dimensions but the last: the gradient of a bias. Of x's type, summed in float32. No
/// gradient.
at::Tensor column_sum(const at::Tensor& x);

}  // namespace fathom::kernels
