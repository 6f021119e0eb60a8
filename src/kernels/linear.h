// y = x Wᵀ + b.
#pragma once

#include <ATen/core/Tensor.h>

namespace fathom::kernels {

/// `x`: [..., in]; `weight`: [out, in]; `bias`: [out] or undefined. The result has x's type; parameters of
/// another type are cast. Computed in `product_type(x)`.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {});

}  // namespace fathom::kernels
