// y = x Wᵀ + b.
#pragma once

#include <ATen/core/Tensor.h>

namespace fathom::kernels {

/// `x`: [..., in]; `weight`: [out, in]; `bias`: [out] or undefined. The result has x's type; parameters of
/// another type are cast. BF16 on a CPU without AVX-512 is computed in float32: LibTorch's own path is some
/// six times slower there.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {});

}  // namespace fathom::kernels
