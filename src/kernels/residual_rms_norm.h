// The sum of a residual stream and a branch, and its RMS norm (rms_norm.h), which reads the sum while it is
// made.
#pragma once

#include <ATen/core/Tensor.h>

namespace fathom::kernels {

struct NormedSum {
  at::Tensor sum;  ///< x + branch, rounded to their type
  at::Tensor y;    ///< its norm
};

/// `x`, `branch`: [..., D] of one type; `weight`: [D], rounded to that type before it is used; its gradient
/// has its own. The same numbers as `rms_norm(x + branch)`.
NormedSum residual_rms_norm(const at::Tensor& x, const at::Tensor& branch, const at::Tensor& weight,
                            double eps);

}  // namespace fathom::kernels
