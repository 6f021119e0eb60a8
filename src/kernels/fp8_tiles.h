// Matrices in FP8 with a scale for each tile, and their products. R rows, C columns, K what a product sums
// over.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <tuple>

namespace fathom::kernels {

/// Side of a tile; those at the ends of a matrix may be smaller.
constexpr int64_t kFp8Tile = 128;
/// Rows and columns are multiples of it: vectors of 16 bytes.
constexpr int64_t kFp8Multiple = 16;

/// How the scales of a matrix [R, K] lie, float32. Both are what cuBLASLt reads on Hopper ("128-element 1D
/// and 128x128 2D block scaling for FP8 data types").
enum class TileScales : int64_t {
  kUnwanted,  ///< nor is the matrix
  kByRow,     ///< [⌈K/128⌉, R], each row with its tile's: of a product's left factor
  kByTile,    ///< [⌈R/128⌉, ⌈K/128⌉ and zeros up to a multiple of 4]: of its right factor
};

/// values_RK · scale of their tile.
struct Fp8Matrix {
  at::Tensor values_RK;  ///< float8_e4m3fn or float8_e5m2, dense
  at::Tensor scales;
};

struct Fp8Pair {
  Fp8Matrix plain, turned;
};

/// What becomes of a matrix.
struct Fp8Wish {
  at::ScalarType type = at::kFloat8_e4m3fn;
  TileScales plain = TileScales::kUnwanted;
  TileScales turned = TileScales::kUnwanted;
};

/// `x_RC`: float32 or bfloat16, read once; both forms hold the same numbers. A tile's scale is the smallest
/// power of two, at least 2⁻¹⁰⁰, that brings its largest number into the type's range, so nothing saturates,
/// what is scaled back is exact in bfloat16, and a number more than 2¹⁵ (E4M3) below its tile's largest loses
/// digits. A tile that holds what is no finite number has no scale: NaN, which every product with it becomes;
/// such elements are added to `beyond`, an int64 scalar, where that is defined. No gradient.
Fp8Pair fp8_tiles(const at::Tensor& x_RC, const Fp8Wish& wish, const at::Tensor& beyond = {});

/// Writes left rightᵀ (+ bias) to `result`: [rows of left, rows of right], float32 or, alone with a bias,
/// bfloat16. Scales of `left` lie by row, of `right` by tile; at most one of them is E5M2. Summed in float32.
/// On a GPU whose cuBLASLt has no such product, operands are brought back to bfloat16. No gradient.
void fp8_product(const Fp8Matrix& left, const Fp8Matrix& right, const at::Tensor& bias, at::Tensor result);

/// Whether the device has kernels for both; it is asked by a small product. False on a CPU, where the
/// references run.
bool has_fp8_products(at::Device device);

/// Plain ATen, on any device.
namespace fp8_tiles_ref {
using FourTensors = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

FourTensors tiles(const at::Tensor& x_RC, at::ScalarType type, int64_t plain, int64_t turned,
                  const std::optional<at::Tensor>& beyond);
void product(const at::Tensor& left, const at::Tensor& left_scales, const at::Tensor& right,
             const at::Tensor& right_scales, const std::optional<at::Tensor>& bias, at::Tensor& result);
/// What the matrix stands for, float32.
at::Tensor exact(const Fp8Matrix& matrix, TileScales scales);
}  // namespace fp8_tiles_ref

}  // namespace fathom::kernels
