// Types of products and sums.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace fathom::kernels {

/// x's own type, but float32 on a CPU for FP16, and for BF16 without instructions for it (AVX-512 BF16):
/// LibTorch's products and attention of these types are several times slower than its float32 ones there,
/// conversions included.
at::ScalarType product_type(const at::Tensor& x);

/// `x` in float32 or wider.
at::Tensor wide(const at::Tensor& x);

/// a b of two matrices in float32 or wider, summed in it, whatever their type. No gradient.
at::Tensor wide_product(const at::Tensor& a, const at::Tensor& b);
/// Writes that to `result`, which is float32 or wider.
void write_wide_product(at::Tensor& result, const at::Tensor& a, const at::Tensor& b);
/// Adds `factor` times that to `sum`, which is float32 or wider: on a GPU in the product's own pass.
void add_wide_product(at::Tensor& sum, const at::Tensor& a, const at::Tensor& b, double factor = 1);

/// How products are taken of states of 16 bits. The default: in the states' own type.
struct Products {
  /// kHalf: operands are cast to it and their products summed in float32.
  std::optional<at::ScalarType> type = std::nullopt;
  /// int64 scalar on the operands' device, or undefined: counts what did not fit into FP16.
  at::Tensor saturated = {};

  /// Whether `x` becomes an operand of another type: what is wider than 16 bits stays as it is.
  bool narrow(const at::Tensor& x) const {
    return type.has_value() && (x.scalar_type() == at::kBFloat16 || x.scalar_type() == at::kHalf);
  }
  /// Whether what makes an operand of states like `x` may write it in FP16, not in their type.
  bool casts(const at::Tensor& x) const { return type.has_value() && x.scalar_type() == at::kBFloat16; }
};

/// `x` in FP16. What lies beyond its range becomes the end of it, and is counted; NaN stays. No gradient.
at::Tensor saturated_half(const at::Tensor& x, const Products& products);

namespace saturated_half_ref {
at::Tensor apply(const at::Tensor& x, const std::optional<at::Tensor>& saturated);
}  // namespace saturated_half_ref

}  // namespace fathom::kernels
