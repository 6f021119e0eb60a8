// LibTorch's fused CUDA kernel, through its operator: no CUDA header and no link to its CUDA library.
#include <ATen/ops/_fused_rms_norm.h>
#include <ATen/ops/_fused_rms_norm_backward.h>
#include <torch/library.h>

#include "kernels/rms_norm.h"

namespace fathom::kernels {
namespace {

std::tuple<at::Tensor, at::Tensor> forward_cuda(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return at::_fused_rms_norm(x.contiguous(), weight.sizes(), weight, eps);
}

std::tuple<at::Tensor, at::Tensor> backward_cuda(const at::Tensor& grad, const at::Tensor& x,
                                                 const at::Tensor& weight, const at::Tensor& scale) {
  return at::_fused_rms_norm_backward(grad.contiguous(), x, weight.sizes(), scale, weight, {true, true});
}

}  // namespace

TORCH_LIBRARY_IMPL(fathom, CUDA, library) {
  library.impl("rms_norm", forward_cuda);
  library.impl("rms_norm_backward", backward_cuda);
}

}  // namespace fathom::kernels
