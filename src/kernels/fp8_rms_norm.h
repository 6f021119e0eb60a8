// The residual sum and its RMS norm (residual_rms_norm.h) where the norm goes into a product in FP8 alone.
#pragma once

#include "kernels/fp8_linear.h"
#include "kernels/fp8_rows.h"

namespace fathom::kernels {

struct Fp8NormedSum {
  at::Tensor sum;  ///< x + branch, or x
  Fp8Rows rows;    ///< its norm
};

struct RmsNormFactors {
  at::Tensor weight;  ///< [D], rounded to bfloat16 before it is used; its gradient has its own type
  double eps = 0;
};

/// `x`, `branch`: bfloat16 [..., D], a multiple of 16 rows; the branch may be undefined. The numbers of
/// `residual_rms_norm`, rounded to bfloat16 and then as `fp8_tiles` does, for a product whose weight learns
/// or does not; but bfloat16 is not written. Where a layer in FP8 made the branch, the gradient of that is
/// handed to it in FP8, too.
Fp8NormedSum fp8_rms_norm(const at::Tensor& x, const at::Tensor& branch, const RmsNormFactors& norm,
                          bool learns, const Fp8Products& products);

}  // namespace fathom::kernels
