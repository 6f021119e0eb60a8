// fathom::fp8_tiles and its kind on a GPU: checks, memory, registration. The product is LibTorch's
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

at::Tensor fp8_input(const at::Tensor& x) {
  FATHOM_CHECK(x.dim() == 2, "[fp8_tiles] expected a matrix, got {} dimensions", x.dim());
  return aligned16(x);
}

Fp8Format format_of(at::ScalarType type) {
  return type == at::kFloat8_e4m3fn ? Fp8Format::kE4M3 : Fp8Format::kE5M2;
}

kernels::fp8_tiles_ref::FourTensors fp8_tiles(const at::Tensor& x_in, at::ScalarType type, int64_t plain,
                                              int64_t turned, const std::optional<at::Tensor>& beyond) {
  const c10::cuda::CUDAGuard guard(x_in.device());
  const auto x = fp8_input(x_in);
  const Fp8Forms forms(x.size(0), x.size(1), x.options().dtype(type), plain, turned, beyond);
  if (x.numel() > 0)
    C10_CUDA_CHECK(launch_fp8_tiles(element_type_of(x, "fp8_tiles"), format_of(type),
                                    {.x = x.const_data_ptr(), .result = forms.result},
                                    c10::cuda::getCurrentCUDAStream()));
  return forms.tensors();
}

kernels::fp8_tiles_ref::FourTensors fp8_swiglu(const at::Tensor& gate_up_in, int64_t plain, int64_t turned,
                                               const std::optional<at::Tensor>& beyond) {
  const c10::cuda::CUDAGuard guard(gate_up_in.device());
  const auto gate_up = fp8_input(gate_up_in);
  const int64_t inner = gate_up.size(1) / 2;
  const Fp8Forms forms(gate_up.size(0), inner, gate_up.options().dtype(at::kFloat8_e4m3fn), plain, turned,
                       beyond);
  if (gate_up.numel() > 0)
    C10_CUDA_CHECK(launch_fp8_swiglu(
        {.gate_up = gate_up.const_data_ptr(), .grad = nullptr, .inner = inner, .result = forms.result},
        c10::cuda::getCurrentCUDAStream()));
  return forms.tensors();
}

kernels::fp8_tiles_ref::FourTensors fp8_swiglu_backward(const at::Tensor& grad_in,
                                                        const at::Tensor& gate_up_in, at::ScalarType type,
                                                        int64_t plain, int64_t turned,
                                                        const std::optional<at::Tensor>& beyond) {
  const c10::cuda::CUDAGuard guard(gate_up_in.device());
  const auto grad = fp8_input(grad_in), gate_up = fp8_input(gate_up_in);
  const int64_t inner = grad.size(1);
  FATHOM_CHECK(inner % kernels::kFp8Tile == 0 && gate_up.size(1) == 2 * inner,
               "[fp8_swiglu_backward] expected a width that is a multiple of {}, got {}", kernels::kFp8Tile,
               inner);
  const Fp8Forms forms(gate_up.size(0), 2 * inner, gate_up.options().dtype(type), plain, turned, beyond);
  if (gate_up.numel() > 0)
    C10_CUDA_CHECK(launch_fp8_swiglu_grad(format_of(type),
                                          {.gate_up = gate_up.const_data_ptr(),
                                           .grad = grad.const_data_ptr(),
                                           .inner = inner,
                                           .result = forms.result},
                                          c10::cuda::getCurrentCUDAStream()));
  return forms.tensors();
}

}  // namespace

void register_fp8_tiles(torch::Library& library) {
  library.impl("fp8_tiles", fp8_tiles);
  library.impl("fp8_swiglu", fp8_swiglu);
  library.impl("fp8_swiglu_backward", fp8_swiglu_backward);
}

}  // namespace fathom::cuda
