// fathom::layer_norm on a GPU: checks and registration. What the kernel does not take goes to LibTorch's.
#include "cuda/layer_norm.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/native_layer_norm.h>
#include <ATen/ops/native_layer_norm_backward.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "cuda/norm_tensors.h"
#include "cuda/registration.h"
#include "cuda/sum_of_parts.h"

namespace fathom::cuda {
namespace {

using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

void check(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  FATHOM_CHECK(x.dim() > 0 && weight.dim() == 1 && weight.size(0) == x.size(-1) &&
                   bias.sizes() == weight.sizes() && weight.device() == x.device() &&
                   bias.device() == x.device(),
               "[layer_norm] expected a weight and a bias of {} elements on {}", x.dim() > 0 ? x.size(-1) : 0,
               x.device().str());
}

Three forward(const at::Tensor& x_in, const at::Tensor& weight, const at::Tensor& bias, double eps) {
  const c10::cuda::CUDAGuard guard(x_in.device());
  check(x_in, weight, bias);
  const auto x = x_in.contiguous();
  const ElementType type = element_type_of(x, "layer_norm");
  const int64_t dim = x.size(-1);
  if (!norm_rows_fit(x, {x}, "layer_norm"))
    return at::native_layer_norm(x, {dim}, weight.to(x.scalar_type()), bias.to(x.scalar_type()), eps);
  auto y = at::empty_like(x), mean = empty_row_figures(x), scale = at::empty_like(mean);
  if (x.numel() == 0) return {y, mean, scale};
  const auto w = wide_parameters(weight), b = wide_parameters(bias);
  const LayerNormArgs args = {.x = x.const_data_ptr(),
                              .weight = w.const_data_ptr(),
                              .bias = b.const_data_ptr(),
                              .y = y.mutable_data_ptr(),
                              .mean = mean.mutable_data_ptr<float>(),
                              .scale = scale.mutable_data_ptr<float>(),
                              .rows = x.numel() / dim,
                              .dim = dim,
                              .eps = static_cast<float>(eps)};
  C10_CUDA_CHECK(launch_layer_norm(type, args, c10::cuda::getCurrentCUDAStream()));
  return {y, mean, scale};
}

Three backward(const at::Tensor& grad_in, const at::Tensor& x_in, const at::Tensor& weight,
               const at::Tensor& bias, const at::Tensor& mean, const at::Tensor& scale) {
  const c10::cuda::CUDAGuard guard(x_in.device());
  check(x_in, weight, bias);
  FATHOM_CHECK(grad_in.sizes() == x_in.sizes() && grad_in.scalar_type() == x_in.scalar_type() &&
                   grad_in.device() == x_in.device() && mean.numel() == scale.numel() &&
                   mean.numel() * x_in.size(-1) == x_in.numel(),
               "[layer_norm] expected a gradient like the input and figures of each of its rows");
  const auto x = x_in.contiguous(), grad = grad_in.contiguous();
  const ElementType type = element_type_of(x, "layer_norm");
  const int64_t dim = x.size(-1), rows = x.numel() / dim;
  if (!norm_rows_fit(x, {x, grad}, "layer_norm") || rows == 0) {
    const auto w = weight.to(x.scalar_type()), b = bias.to(x.scalar_type());
    auto [grad_x, grad_weight, grad_bias] =
        at::native_layer_norm_backward(grad, x, {dim}, mean, scale, w, b, {true, true, true});
    return {grad_x, grad_weight.to(weight.scalar_type()), grad_bias.to(bias.scalar_type())};
  }
  const auto w = wide_parameters(weight);
  auto grad_x = at::empty_like(x);
  const int64_t blocks = norm_row_blocks(type, rows, dim);
  auto partial = at::empty({blocks, 2, dim}, x.options().dtype(at::kFloat));
  const LayerNormGradArgs args = {.grad = grad.const_data_ptr(),
                                  .sum = x.const_data_ptr(),
                                  .weight = w.const_data_ptr(),
                                  .mean = mean.const_data_ptr<float>(),
                                  .scale = scale.const_data_ptr<float>(),
                                  .grad_x = grad_x.mutable_data_ptr(),
                                  .partial = partial.mutable_data_ptr<float>(),
                                  .rows = rows,
                                  .dim = dim,
                                  .blocks = blocks};
  C10_CUDA_CHECK(launch_layer_norm_grad(type, args, c10::cuda::getCurrentCUDAStream()));
  const auto sums = sum_of_parts(partial, weight.scalar_type());
  return {grad_x, sums.select(0, 0), sums.select(0, 1).to(bias.scalar_type())};
}

}  // namespace

void register_layer_norm(torch::Library& library) {
  library.impl("layer_norm", forward);
  library.impl("layer_norm_backward", backward);
}

}  // namespace fathom::cuda
