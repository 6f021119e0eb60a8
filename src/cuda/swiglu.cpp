// fathom::swiglu on a GPU: checks and registration.
#include "cuda/swiglu.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "cuda/element_type_of.h"
#include "cuda/registration.h"

namespace fathom::cuda {
namespace {

at::Tensor forward(const at::Tensor& gate_up_in) {
  const c10::cuda::CUDAGuard guard(gate_up_in.device());
  FATHOM_CHECK(gate_up_in.dim() > 0 && gate_up_in.size(-1) % 2 == 0,
               "[swiglu] expected an even last dimension");
  const auto gate_up = gate_up_in.contiguous();
  auto shape = gate_up.sizes().vec();
  const int64_t inner = shape.back() /= 2;
  auto y = at::empty(shape, gate_up.options());
  if (y.numel() == 0) return y;
  const SwigluArgs args = {.gate_up = gate_up.const_data_ptr(),
                           .y = y.mutable_data_ptr(),
                           .rows = y.numel() / inner,
                           .inner = inner};
  C10_CUDA_CHECK(launch_swiglu(element_type_of(y, "swiglu"), args, c10::cuda::getCurrentCUDAStream()));
  return y;
}

at::Tensor backward(const at::Tensor& grad_in, const at::Tensor& gate_up_in) {
  const c10::cuda::CUDAGuard guard(gate_up_in.device());
  FATHOM_CHECK(grad_in.dim() > 0 && 2 * grad_in.numel() == gate_up_in.numel() &&
                   2 * grad_in.size(-1) == gate_up_in.size(-1) &&
                   grad_in.scalar_type() == gate_up_in.scalar_type() &&
                   grad_in.device() == gate_up_in.device(),
               "[swiglu] expected a gradient of half the input's width, of its type");
  const auto grad = grad_in.contiguous(), gate_up = gate_up_in.contiguous();
  auto result = at::empty_like(gate_up);
  if (grad.numel() == 0) return result;
  const int64_t inner = grad.size(-1);
  const SwigluGradArgs args = {.grad = grad.const_data_ptr(),
                               .gate_up = gate_up.const_data_ptr(),
                               .grad_gate_up = result.mutable_data_ptr(),
                               .rows = grad.numel() / inner,
                               .inner = inner};
  C10_CUDA_CHECK(
      launch_swiglu_grad(element_type_of(grad, "swiglu"), args, c10::cuda::getCurrentCUDAStream()));
  return result;
}

}  // namespace

void register_swiglu(torch::Library& library) {
  library.impl("swiglu", forward);
  library.impl("swiglu_backward", backward);
}

}  // namespace fathom::cuda
