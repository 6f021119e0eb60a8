// fathom::linear_gelu and its gradient on a GPU: checks and registration. What the kernels do not take goes
// to LibTorch's.
#include "cuda/linear_gelu.h"

#include <ATen/cuda/CUDAContextLight.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sum.h>
#include <ATen/record_function.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <tuple>

#include "cuda/registration.h"
#include "cuda/sum_of_parts.h"

namespace fathom::cuda {
namespace {

/// On other cards than Hopper's the activation is a pass of its own.
std::tuple<at::Tensor, at::Tensor> linear_gelu(const at::Tensor& x_in, const at::Tensor& weight_in,
                                               const at::Tensor& bias_in, bool keep) {
  const c10::cuda::CUDAGuard guard(x_in.device());
  const auto x = x_in.contiguous(), weight = weight_in.contiguous(), bias = bias_in.contiguous();
  FATHOM_CHECK(weight.dim() == 2 && x.dim() > 0 && x.size(-1) == weight.size(1) && bias.dim() == 1 &&
                   bias.size(0) == weight.size(0) && weight.device() == x.device() &&
                   bias.device() == x.device(),
               "[linear_gelu] expected a weight of the inputs' features and a bias on {}", x.device().str());
  const ElementType type = element_type_of(x, "linear_gelu");
  const int64_t in = weight.size(1), out = weight.size(0), rows = in > 0 ? x.numel() / in : 0;
  const bool fits = at::cuda::getCurrentDeviceProperties()->major == 9 &&
                    linear_gelu_fits(type, rows, in, out) && weight.scalar_type() == x.scalar_type() &&
                    bias.scalar_type() == x.scalar_type() &&
                    are_aligned16({x.const_data_ptr(), weight.const_data_ptr(), bias.const_data_ptr()});
  const auto nothing = at::empty({0}, x.options());
  if (!fits) {
    const at::DisableRecordFunctionGuard counted_already;
    const auto inner = at::linear(x, weight, bias);
    return {at::gelu(inner), keep ? inner : nothing};
  }
  auto shape = x.sizes().vec();
  shape.back() = out;
  auto y = at::empty(shape, x.options()), inner = keep ? at::empty_like(y) : nothing;
  const LinearGeluArgs args = {.x = x.const_data_ptr(),
                               .weight = weight.const_data_ptr(),
                               .bias = bias.const_data_ptr(),
                               .y = y.mutable_data_ptr(),
                               .inner = keep ? inner.mutable_data_ptr() : nullptr,
                               .rows = rows,
                               .in_dim = in,
                               .out_dim = out};
  C10_CUDA_CHECK(launch_linear_gelu(type, args, c10::cuda::getCurrentCUDAStream()));
  return {y, inner};
}

std::tuple<at::Tensor, at::Tensor> gelu_grad_sum(const at::Tensor& grad_in, const at::Tensor& x_in) {
  const c10::cuda::CUDAGuard guard(x_in.device());
  FATHOM_CHECK(x_in.dim() > 0 && grad_in.sizes() == x_in.sizes() &&
                   grad_in.scalar_type() == x_in.scalar_type() && grad_in.device() == x_in.device(),
               "[gelu_grad_sum] expected a gradient like the input");
  const auto grad = grad_in.contiguous(), x = x_in.contiguous();
  const ElementType type = element_type_of(x, "gelu_grad_sum");
  const int64_t dim = x.size(-1), width = 16 / static_cast<int64_t>(x.element_size());
  if (type == ElementType::kDouble || x.numel() == 0 || dim % width != 0 ||
      !are_aligned16({x.const_data_ptr(), grad.const_data_ptr()})) {
    auto grad_x = at::gelu_backward(grad, x);
    const auto wide = type == ElementType::kDouble ? at::kDouble : at::kFloat;
    auto sum = at::sum(grad_x.view({-1, dim}), {0}, /*keepdim=*/false, wide);
    return {grad_x, sum};
  }
  const int64_t rows = x.numel() / dim, blocks = gelu_grad_blocks(type, rows, dim);
  auto grad_x = at::empty_like(x), partial = at::empty({blocks, dim}, x.options().dtype(at::kFloat));
  const GeluGradArgs args = {.grad = grad.const_data_ptr(),
                             .x = x.const_data_ptr(),
                             .grad_x = grad_x.mutable_data_ptr(),
                             .partial = partial.mutable_data_ptr<float>(),
                             .rows = rows,
                             .dim = dim,
                             .blocks = blocks};
  C10_CUDA_CHECK(launch_gelu_grad(type, args, c10::cuda::getCurrentCUDAStream()));
  return {grad_x, sum_of_parts(partial, at::kFloat)};
}

std::tuple<at::Tensor, at::Tensor> gelu_product_grad(const at::Tensor& grad_in, const at::Tensor& weight_in,
                                                     const at::Tensor& inner_in) {
  const c10::cuda::CUDAGuard guard(inner_in.device());
  const auto grad = grad_in.contiguous(), weight = weight_in.contiguous(), inner = inner_in.contiguous();
  for (const at::Tensor* t : {&grad, &weight})
    FATHOM_CHECK(t->scalar_type() == inner.scalar_type() && t->device() == inner.device(),
                 "[gelu_product_grad] expected operands of one type on one device");
  const ElementType type = element_type_of(inner, "gelu_product_grad");
  GeluProductGradArgs args = {.grad = grad.const_data_ptr(),
                              .weight = weight.const_data_ptr(),
                              .inner = inner.const_data_ptr(),
                              .grad_inner = nullptr,
                              .partial = nullptr,
                              .rows = inner.size(0),
                              .depth = weight.size(0),
                              .columns = weight.size(1)};
  if (at::cuda::getCurrentDeviceProperties()->major != 9 ||
      !linear_gelu_fits(type, args.rows, args.depth, args.columns) ||
      !are_aligned16({args.grad, args.weight, args.inner})) {
    const at::DisableRecordFunctionGuard counted_already;
    return gelu_grad_sum(at::mm(grad, weight), inner);
  }
  auto grad_inner = at::empty_like(inner),
       partial = at::empty({gelu_product_grad_blocks(args), args.columns}, inner.options().dtype(at::kFloat));
  args.grad_inner = grad_inner.mutable_data_ptr();
  args.partial = partial.mutable_data_ptr<float>();
  C10_CUDA_CHECK(launch_gelu_product_grad(type, args, c10::cuda::getCurrentCUDAStream()));
  return {grad_inner, sum_of_parts(partial, at::kFloat)};
}

}  // namespace

void register_linear_gelu(torch::Library& library) {
  library.impl("linear_gelu", linear_gelu);
  library.impl("gelu_grad_sum", gelu_grad_sum);
  library.impl("gelu_product_grad", gelu_product_grad);
}

}  // namespace fathom::cuda
