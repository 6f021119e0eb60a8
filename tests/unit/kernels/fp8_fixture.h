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
