// The sum of a residual stream and a branch, and its layer norm (layer_norm.h), which reads the sum while it
// is made.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/residual_rms_norm.h"

namespace fathom::kernels {

/// `x`, `branch`: [..., D] of one type; `weight`, `bias`: [D], of that type or float32; their gradients have
/// their own. The same numbers as `layer_norm(x + branch)`.
NormedSum residual_layer_norm(const at::Tensor& x, const at::Tensor& branch, const at::Tensor& weight,
                              const at::Tensor& bias, double eps);

}  // namespace fathom::kernels
