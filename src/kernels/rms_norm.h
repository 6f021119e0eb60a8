// y = x / sqrt(mean(x²) + eps) · weight. Source: Zhang and Sennrich, "Root mean square layer normalization",
// NeurIPS 2019.
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

namespace fathom::kernels {

/// Over the last dimension D of `x`, computed in float32 (float64 for float64). `weight`: [D], of x's type.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

namespace rms_norm_ref {
/// Output and 1 / root mean square of each row ([..., 1], float32 or float64).
std::tuple<at::Tensor, at::Tensor> forward(const at::Tensor& x, const at::Tensor& weight, double eps);
/// Gradients of x and weight.
std::tuple<at::Tensor, at::Tensor> backward(const at::Tensor& grad, const at::Tensor& x,
                                            const at::Tensor& weight, const at::Tensor& scale);
}  // namespace rms_norm_ref

}  // namespace fathom::kernels
