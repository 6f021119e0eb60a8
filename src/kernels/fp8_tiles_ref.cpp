#include <ATen/TensorOperators.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/where.h>

#include <limits>

#include "kernels/fp8_tiles.h"
#include "kernels/product_type.h"

namespace fathom::kernels::fp8_tiles_ref {
namespace {

constexpr int64_t kExponentBias = 127, kMantissaBits = 23;
/// Below it the reciprocal of a scale would leave float32.
constexpr int64_t kLeastScaleExponent = -100;

int64_t tiles_of(int64_t size) {
  return (size + kFp8Tile - 1) / kFp8Tile;
}

/// 2^exponent, built of its bits: a power function need not be exact.
at::Tensor power_of_two(const at::Tensor& exponent) {
  return exponent.add(kExponentBias).bitwise_left_shift(kMantissaBits).view(at::kFloat);
}

/// One for each tile: the scale, and the exponent of its reciprocal.
struct Scales {
  at::Tensor scale, inverse;
};

Scales scales_of(const at::Tensor& largest, at::ScalarType type) {
  // Both types end at 1.75 times a power of two.
  constexpr int64_t kMantissaOfEnd = 0x600000, kMantissa = 0x7fffff;
  const int64_t top = type == at::kFloat8_e4m3fn ? 8 : 15;
  const auto bits = largest.view(at::kInt);
  const auto exponent = bits.bitwise_right_shift(kMantissaBits)
                            .sub(kExponentBias + top)
                            .add(bits.bitwise_and(kMantissa).gt(kMantissaOfEnd).to(at::kInt))
                            .clamp_min(kLeastScaleExponent);
  const auto scale = power_of_two(exponent);
  const auto none = at::full_like(scale, std::numeric_limits<float>::quiet_NaN());
  return {at::where(largest.isfinite(), scale, none), power_of_two(exponent.neg())};
}

/// A value a tile, for each element of a matrix of so many rows and columns.
at::Tensor for_elements(const at::Tensor& tile, int64_t rows, int64_t columns) {
  return tile.repeat_interleave(kFp8Tile, 0)
      .narrow(0, 0, rows)
      .repeat_interleave(kFp8Tile, 1)
      .narrow(1, 0, columns);
}

at::Tensor laid_out(const at::Tensor& scale, int64_t rows, TileScales layout) {
  if (layout == TileScales::kByRow)
    return scale.repeat_interleave(kFp8Tile, 0).narrow(0, 0, rows).t().contiguous();
  const int64_t columns = scale.size(1);
  return at::constant_pad_nd(scale, {0, (columns + 3) / 4 * 4 - columns}, 0).contiguous();
}

}  // namespace

FourTensors tiles(const at::Tensor& x_RC, at::ScalarType type, int64_t plain, int64_t turned,
                  const std::optional<at::Tensor>& beyond) {
  const int64_t rows = x_RC.size(0), columns = x_RC.size(1);
  const auto wide_RC = x_RC.to(at::kFloat).contiguous();
  const auto whole = at::constant_pad_nd(
      wide_RC.abs(), {0, tiles_of(columns) * kFp8Tile - columns, 0, tiles_of(rows) * kFp8Tile - rows}, 0);
  const auto largest =
      whole.view({tiles_of(rows), kFp8Tile, tiles_of(columns), kFp8Tile}).amax({1, 3}).contiguous();
  const Scales scales = scales_of(largest, type);
  const auto values_RC = wide_RC.mul(for_elements(scales.inverse, rows, columns)).to(type).contiguous();
  if (beyond) {
    at::Tensor count = *beyond;
    count.add_(wide_RC.isfinite().logical_not().sum());
  }
  FourTensors found;
  if (const auto layout = static_cast<TileScales>(plain); layout != TileScales::kUnwanted) {
    std::get<0>(found) = values_RC;
    std::get<1>(found) = laid_out(scales.scale, rows, layout);
  }
  if (const auto layout = static_cast<TileScales>(turned); layout != TileScales::kUnwanted) {
    std::get<2>(found) = values_RC.t().contiguous();
    std::get<3>(found) = laid_out(scales.scale.t(), columns, layout);
  }
  return found;
}

at::Tensor exact(const Fp8Matrix& matrix, TileScales scales) {
  const int64_t rows = matrix.values_RK.size(0), columns = matrix.values_RK.size(1);
  const auto scale = scales == TileScales::kByRow
                         ? matrix.scales.t().repeat_interleave(kFp8Tile, 1).narrow(1, 0, columns)
                         : for_elements(matrix.scales, rows, columns);
  return matrix.values_RK.to(at::kFloat).mul(scale);
}

void product(const at::Tensor& left, const at::Tensor& left_scales, const at::Tensor& right,
             const at::Tensor& right_scales, const std::optional<at::Tensor>& bias, at::Tensor& result) {
  auto a = exact({left, left_scales}, TileScales::kByRow),
       b = exact({right, right_scales}, TileScales::kByTile);
  // Which holds them as they are, and which a GPU multiplies faster.
  if (left.is_cuda()) a = a.to(at::kBFloat16), b = b.to(at::kBFloat16);
  const auto sum = wide_product(a, b.t());
  result.copy_(bias ? sum.add(*bias) : sum);
}

}  // namespace fathom::kernels::fp8_tiles_ref
