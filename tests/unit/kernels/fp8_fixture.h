// What tests of operands in FP8 share.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <limits>

#include "cuda_fp8_fixture.h"
#include "kernels/fp8_tiles.h"

namespace fathom::testing {

using cuda_test::CudaFp8;
using kernels::Fp8Matrix;
using kernels::Fp8Pair;
using kernels::TileScales;
using kernels::fp8_tiles_ref::exact;

/// What a GPU's product may differ by from that of the same operands in float64, as a share of the largest
/// result. Products of E4M3 numbers are exact, but Hopper adds 32 of them, and their sum so far, aligned to
/// the largest and cut off 13 binary digits below it (Khattak and Mikaitis, "Accurate models of NVIDIA tensor
/// cores", arXiv 2512.07004), until 128 of K are scaled and added in float32. A model of that leaves 3e-4 to
/// 5.2e-4 of `uneven` matrices, and 1.3e-3 with one digit fewer. E5M2 is multiplied in BF16, which holds both
/// operands as they are: at most K / 16 = 176 sums, cut off at 2^-23.
inline double product_error(at::ScalarType left) {
  return left == at::kFloat8_e4m3fn ? 1e-3 : 3e-5;
}
/// Of a result that is rounded to bfloat16.
constexpr double kBFloat16Rounding = 1.0 / 256;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr at::ScalarType kTypes[] = {at::kFloat8_e4m3fn, at::kFloat8_e5m2};

inline at::Tensor count_on(at::Device device = at::kCPU) {
  return at::zeros({}, at::TensorOptions().dtype(at::kLong).device(device));
}

/// Random, of another size in each tile, so that no scale can stand for its neighbour's.
inline at::Tensor uneven(int64_t rows, int64_t columns) {
  const auto tiles_of = [](int64_t size) { return (size + 127) / 128; };
  const at::Tensor size = at::randint(-3, 4, {tiles_of(rows), tiles_of(columns)}).exp2();
  return at::randn({rows, columns}) *
         size.repeat_interleave(128, 0).narrow(0, 0, rows).repeat_interleave(128, 1).narrow(1, 0, columns);
}

inline Fp8Pair both(const at::Tensor& x, at::ScalarType type = at::kFloat8_e4m3fn,
                    const at::Tensor& beyond = {}) {
  return kernels::fp8_tiles(x, {.type = type, .plain = TileScales::kByRow, .turned = TileScales::kByTile},
                            beyond);
}

/// What `x` becomes, float32.
inline at::Tensor rounded(const at::Tensor& x, at::ScalarType type = at::kFloat8_e4m3fn) {
  return exact(both(x, type).plain, TileScales::kByRow);
}

}  // namespace fathom::testing
