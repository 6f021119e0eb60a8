// fathom::fp8_tiles and its kind on a GPU: checks, memory, registration. The product is LibTorch's
// (kernels/fp8_product_cuda.cpp).
#include "cuda/fp8_tiles.h"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <optional>

#include "cuda/element_type_of.h"
#include "cuda/fp8_forms.h"
#include "cuda/registration.h"

namespace fathom::cuda {
namespace {

at::Tensor fp8_input(const at::Tensor& x) {
  FATHOM_CHECK(x.dim() == 2, "[fp8_tiles] expected a matrix, got {} dimensions", x.dim());
  return aligned16(x);
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
