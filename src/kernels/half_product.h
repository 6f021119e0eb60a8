// Products of matrices in FP16 whose sums are float32 and rounded once.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "kernels/product_type.h"

namespace fathom::kernels {

/// What becomes of a product's sums.
struct HalfResult {
  at::ScalarType type = at::kBFloat16;   ///< or FP16, or float32
  at::Tensor bias = {};                  ///< [N], added to sums; or undefined
  const Products* saturating = nullptr;  ///< FP16 saturates, and is counted there; null: it may be infinite
};

/// a b of FP16 matrices [M, K] and [K, N]; either may lie transposed. On a Hopper GPU nothing wider than the
/// result is written, where sizes are multiples of 8. No gradient.
at::Tensor half_product(const at::Tensor& a_MK, const at::Tensor& b_KN, const HalfResult& result);

}  // namespace fathom::kernels
