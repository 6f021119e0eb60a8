// fathom::fp8_tiles on a GPU: checks, memory, registration. The product is LibTorch's
// (kernels/fp8_product_cuda.cpp).
#include "cuda/fp8_tiles.h"

#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <optional>

#include "cuda/element_type_of.h"
#include "cuda/registration.h"
#include "kernels/fp8_tiles.h"

namespace fathom::cuda {
namespace {

/// Of a grid's second dimension.
constexpr int64_t kMostTileRows = 65535;

/// Memory for a matrix of so many rows and columns, or for none.
kernels::Fp8Matrix fp8_room(int64_t rows, int64_t columns, kernels::TileScales layout,
                            const at::TensorOptions& options) {
  if (layout == kernels::TileScales::kUnwanted) return {};
  const auto tiles_of = [](int64_t size) { return (size + kernels::kFp8Tile - 1) / kernels::kFp8Tile; };
  const int64_t tiles = tiles_of(columns);
  const auto floats = options.dtype(at::kFloat);
  return {at::empty({rows, columns}, options),
          layout == kernels::TileScales::kByRow ? at::empty({tiles, rows}, floats)
                                                : at::empty({tiles_of(rows), (tiles + 3) / 4 * 4}, floats)};
}

Fp8Room pointers_of(const kernels::Fp8Matrix& matrix, kernels::TileScales layout) {
  if (!matrix.values_RK.defined()) return {};
  return {.values = static_cast<uint8_t*>(matrix.values_RK.mutable_data_ptr()),
          .scales = matrix.scales.mutable_data_ptr<float>(),
          .is_by_row = layout == kernels::TileScales::kByRow};
}

kernels::fp8_tiles_ref::FourTensors fp8_tiles(const at::Tensor& x_in, at::ScalarType type, int64_t plain_in,
                                              int64_t turned_in, const std::optional<at::Tensor>& beyond) {
  const c10::cuda::CUDAGuard guard(x_in.device());
  const auto x = x_in.contiguous();
  FATHOM_CHECK(x.dim() == 2 && x.size(0) % kernels::kFp8Multiple == 0 &&
                   x.size(1) % kernels::kFp8Multiple == 0 && are_aligned16({x.const_data_ptr()}) &&
                   x.size(0) <= kMostTileRows * kernels::kFp8Tile &&
                   (!beyond || (beyond->scalar_type() == at::kLong && beyond->device() == x.device())),
               "[fp8_tiles] expected an aligned matrix of multiples of {}, got {} dimensions",
               kernels::kFp8Multiple, x.dim());
  const auto plain = static_cast<kernels::TileScales>(plain_in),
             turned = static_cast<kernels::TileScales>(turned_in);
  const int64_t rows = x.size(0), columns = x.size(1);
  const auto options = x.options().dtype(type);
  const kernels::Fp8Matrix as_it_is = fp8_room(rows, columns, plain, options),
                           on_its_side = fp8_room(columns, rows, turned, options);
  const Fp8TilesArgs args = {
      .x = x.const_data_ptr(),
      .plain = pointers_of(as_it_is, plain),
      .turned = pointers_of(on_its_side, turned),
      .beyond = beyond ? reinterpret_cast<unsigned long long*>(beyond->mutable_data_ptr<int64_t>()) : nullptr,
      .rows = rows,
      .columns = columns};
  if (x.numel() > 0)
    C10_CUDA_CHECK(launch_fp8_tiles(element_type_of(x, "fp8_tiles"),
                                    type == at::kFloat8_e4m3fn ? Fp8Format::kE4M3 : Fp8Format::kE5M2, args,
                                    c10::cuda::getCurrentCUDAStream()));
  return {as_it_is.values_RK, as_it_is.scales, on_its_side.values_RK, on_its_side.scales};
}

}  // namespace

void register_fp8_tiles(torch::Library& library) {
  library.impl("fp8_tiles", fp8_tiles);
}

}  // namespace fathom::cuda
