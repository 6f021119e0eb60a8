// x Wᵀ + b, the bias added while the product is written.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace fathom::kernels {

/// LibTorch's `linear` of operands of one type. `x`: [N, in]; `weight`: [out, in]; `bias`: [out]. On a CPU
/// that multiplies BF16, oneDNN adds the bias to what it writes, where LibTorch copies it to every row first.
/// No gradient.
at::Tensor biased_product(const at::Tensor& x, const at::Tensor& weight,
                          const std::optional<at::Tensor>& bias);

}  // namespace fathom::kernels
