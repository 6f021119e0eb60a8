// The sum of a residual stream and a branch, and its RMS norm (rms_norm.h), which reads the sum while it is
// made.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/product_type.h"

namespace fathom::kernels {

struct NormedSum {
  at::Tensor sum;  ///< x + branch, rounded to their type
  at::Tensor y;    ///< its norm
};

/// `x`, `branch`: [..., D] of one type; `weight`: [D], rounded to that type before it is used; its gradient
/// has its own. The same numbers as `rms_norm(x + branch)`. Where `products` casts states like x, y is an
/// operand of theirs, rounded once, saturated and counted; its gradient comes in the states' type, and that
/// of the branch goes back in FP16, unsaturated, if what made the branch takes it so.
NormedSum residual_rms_norm(const at::Tensor& x, const at::Tensor& branch, const at::Tensor& weight,
                            double eps, const Products& products = {});

}  // namespace fathom::kernels
