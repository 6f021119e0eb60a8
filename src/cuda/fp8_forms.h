// Memory for both forms of a matrix in FP8 (kernels/fp8_tiles.h). For files that see LibTorch.
#pragma once

#include <ATen/ops/empty.h>

#include <optional>

#include "base/error.h"
#include "cuda/fp8_tiles.h"
#include "kernels/fp8_tiles.h"

namespace fathom::cuda {

/// Of a grid's second dimension.
constexpr int64_t kMostTileRows = 65535;

inline int64_t fp8_tiles_of(int64_t size) {
  return (size + kernels::kFp8Tile - 1) / kernels::kFp8Tile;
}

inline Fp8Format format_of(at::ScalarType type) {
  return type == at::kFloat8_e4m3fn ? Fp8Format::kE4M3 : Fp8Format::kE5M2;
}

/// Memory for a matrix of so many rows and columns, or for none.
inline kernels::Fp8Matrix fp8_room(int64_t rows, int64_t columns, kernels::TileScales layout,
                                   const at::TensorOptions& options) {
  if (layout == kernels::TileScales::kUnwanted) return {};
  const int64_t tiles = fp8_tiles_of(columns);
  const auto floats = options.dtype(at::kFloat);
  return {at::empty({rows, columns}, options),
          layout == kernels::TileScales::kByRow
              ? at::empty({tiles, rows}, floats)
              : at::empty({fp8_tiles_of(rows), (tiles + 3) / 4 * 4}, floats)};
}

inline Fp8Room pointers_of(const kernels::Fp8Matrix& matrix, kernels::TileScales layout) {
  if (!matrix.values_RK.defined()) return {};
  return {.values = static_cast<uint8_t*>(matrix.values_RK.mutable_data_ptr()),
          .scales = matrix.scales.mutable_data_ptr<float>(),
          .is_by_row = layout == kernels::TileScales::kByRow};
}

/// What is asked for: memory for both forms, and where kernels find it.
struct Fp8Forms {
  kernels::Fp8Matrix plain, turned;
  Fp8Result result;

  Fp8Forms(int64_t rows, int64_t columns, const at::TensorOptions& options, int64_t plain_scales,
           int64_t turned_scales, const std::optional<at::Tensor>& beyond) {
    FATHOM_CHECK(
        rows <= kMostTileRows * kernels::kFp8Tile && rows % kernels::kFp8Multiple == 0 &&
            columns % kernels::kFp8Multiple == 0 &&
            (!beyond || (beyond->scalar_type() == at::kLong && beyond->device() == options.device())),
        "[fp8_tiles] expected multiples of {}, got {} rows of {}", kernels::kFp8Multiple, rows, columns);
    const auto plain_layout = static_cast<kernels::TileScales>(plain_scales),
               turned_layout = static_cast<kernels::TileScales>(turned_scales);
    plain = fp8_room(rows, columns, plain_layout, options);
    turned = fp8_room(columns, rows, turned_layout, options);
    result = {.plain = pointers_of(plain, plain_layout),
              .turned = pointers_of(turned, turned_layout),
              .beyond = beyond ? reinterpret_cast<unsigned long long*>(beyond->mutable_data_ptr<int64_t>())
                               : nullptr,
              .rows = rows,
              .columns = columns};
  }
  kernels::fp8_tiles_ref::FourTensors tensors() const {
    return {plain.values_RK, plain.scales, turned.values_RK, turned.scales};
  }
};

}  // namespace fathom::cuda
