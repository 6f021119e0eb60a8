// fathom::swiglu on a GPU: checks and registration.
#include "cuda/swiglu.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <optional>

#include "cuda/element_type_of.h"
#include "cuda/registration.h"
#include "cuda/saturation_count.h"

namespace fathom::cuda {
namespace {

/// Of a tensor's type, or with `to_half`, of bfloat16, in half.
at::ScalarType result_type(const at::Tensor& x, bool to_half) {
  FATHOM_CHECK(!to_half || x.scalar_type() == at::kBFloat16, "[swiglu] expected states in bfloat16, got {}",
               c10::toString(x.scalar_type()));
  return to_half ? at::kHalf : x.scalar_type();
}

at::Tensor run_forward(const at::Tensor& gate_up_in, bool to_half,
                       const std::optional<at::Tensor>& saturated) {
  const c10::cuda::CUDAGuard guard(gate_up_in.device());
  FATHOM_CHECK(gate_up_in.dim() > 0 && gate_up_in.size(-1) % 2 == 0,
               "[swiglu] expected an even last dimension");
  const auto gate_up = gate_up_in.contiguous();
  auto shape = gate_up.sizes().vec();
  const int64_t inner = shape.back() /= 2;
  auto y = at::empty(shape, gate_up.options().dtype(result_type(gate_up, to_half)));
  if (y.numel() == 0) return y;
  const SwigluArgs args = {.gate_up = gate_up.const_data_ptr(),
                           .y = y.mutable_data_ptr(),
                           .to_half = to_half,
                           .saturated = saturation_count(saturated, gate_up, "swiglu"),
                           .rows = y.numel() / inner,
                           .inner = inner};
  C10_CUDA_CHECK(launch_swiglu(element_type_of(gate_up, "swiglu"), args, c10::cuda::getCurrentCUDAStream()));
  return y;
}

at::Tensor run_backward(const at::Tensor& grad_in, const at::Tensor& gate_up_in, bool to_half) {
  const c10::cuda::CUDAGuard guard(gate_up_in.device());
  FATHOM_CHECK(grad_in.dim() > 0 && 2 * grad_in.numel() == gate_up_in.numel() &&
                   2 * grad_in.size(-1) == gate_up_in.size(-1) &&
                   grad_in.scalar_type() == gate_up_in.scalar_type() &&
                   grad_in.device() == gate_up_in.device(),
               "[swiglu] expected a gradient of half the input's width, of its type");
  const auto grad = grad_in.contiguous(), gate_up = gate_up_in.contiguous();
  auto result = at::empty_like(gate_up, gate_up.options().dtype(result_type(gate_up, to_half)));
  if (grad.numel() == 0) return result;
  const int64_t inner = grad.size(-1);
  const SwigluGradArgs args = {.grad = grad.const_data_ptr(),
                               .gate_up = gate_up.const_data_ptr(),
                               .grad_gate_up = result.mutable_data_ptr(),
                               .to_half = to_half,
                               .rows = grad.numel() / inner,
                               .inner = inner};
  C10_CUDA_CHECK(
      launch_swiglu_grad(element_type_of(grad, "swiglu"), args, c10::cuda::getCurrentCUDAStream()));
  return result;
}

at::Tensor forward(const at::Tensor& gate_up) {
  return run_forward(gate_up, false, std::nullopt);
}

at::Tensor backward(const at::Tensor& grad, const at::Tensor& gate_up) {
  return run_backward(grad, gate_up, false);
}

at::Tensor half_forward(const at::Tensor& gate_up, const std::optional<at::Tensor>& saturated) {
  return run_forward(gate_up, true, saturated);
}

at::Tensor half_backward(const at::Tensor& grad, const at::Tensor& gate_up) {
  return run_backward(grad, gate_up, true);
}

}  // namespace

void register_swiglu(torch::Library& library) {
  library.impl("swiglu", forward);
  library.impl("swiglu_backward", backward);
  library.impl("half_swiglu", half_forward);
  library.impl("half_swiglu_backward", half_backward);
}

}  // namespace fathom::cuda
