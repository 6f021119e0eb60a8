// fathom::residual_rms_norm on a GPU: checks and registration. What the kernel does not take goes through the
// two operations that it stands for.
#include "cuda/residual_rms_norm.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "cuda/norm_tensors.h"
#include "cuda/registration.h"
#include "cuda/saturation_count.h"
#include "cuda/sum_of_parts.h"
#include "kernels/residual_rms_norm_parts.h"

namespace fathom::cuda {
namespace {

using kernels::residual_rms_norm_parts::Three;

Three forward(const at::Tensor& x_in, const at::Tensor& branch_in, const at::Tensor& weight, double eps,
              bool to_half, const std::optional<at::Tensor>& saturated) {
  const c10::cuda::CUDAGuard guard(x_in.device());
  const auto x = x_in.contiguous(), branch = branch_in.contiguous();
  const ElementType type = element_type_of(x, "residual_rms_norm");
  const int64_t dim = weight.numel();
  FATHOM_CHECK(x.sizes() == branch.sizes() && x.scalar_type() == branch.scalar_type() && x.dim() > 0 &&
                   x.size(-1) == dim && branch.device() == x.device() && weight.device() == x.device(),
               "[residual_rms_norm] expected a branch like the input and a weight of its width on {}",
               x.device().str());
  if (!norm_rows_fit(x, {x, branch}, "residual_rms_norm"))
    return kernels::residual_rms_norm_parts::forward(x, branch, weight, eps, to_half, saturated);
  FATHOM_CHECK(!to_half || type == ElementType::kBFloat16,
               "[residual_rms_norm] expected states in bfloat16 to be normed in half");
  auto sum = at::empty_like(x), scale = empty_row_figures(x);
  auto y = at::empty_like(x, x.options().dtype(to_half ? at::kHalf : x.scalar_type()));
  if (x.numel() == 0) return {sum, y, scale};
  const auto wide = wide_parameters(weight);
  const ResidualNormArgs args = {.x = x.const_data_ptr(),
                                 .branch = branch.const_data_ptr(),
                                 .weight = wide.const_data_ptr<float>(),
                                 .sum = sum.mutable_data_ptr(),
                                 .y = y.mutable_data_ptr(),
                                 .scale = scale.mutable_data_ptr<float>(),
                                 .rows = x.numel() / dim,
                                 .dim = dim,
                                 .eps = static_cast<float>(eps),
                                 .to_half = to_half,
                                 .saturated = saturation_count(saturated, x, "residual_rms_norm")};
  C10_CUDA_CHECK(launch_residual_norm(type, args, c10::cuda::getCurrentCUDAStream()));
  return {sum, y, scale};
}

Three backward(const std::optional<at::Tensor>& grad_sum_in, const at::Tensor& grad_in,
               const at::Tensor& sum_in, const at::Tensor& weight, const at::Tensor& scale,
               bool half_branch) {
  const c10::cuda::CUDAGuard guard(sum_in.device());
  const auto grad = grad_in.contiguous(), sum = sum_in.contiguous();
  const auto beside = grad_sum_in ? grad_sum_in->contiguous() : at::Tensor();
  const auto is_like_sum = [&](const at::Tensor& x) {
    return x.sizes() == sum.sizes() && x.scalar_type() == sum.scalar_type() && x.device() == sum.device();
  };
  const int64_t dim = weight.numel();
  FATHOM_CHECK(is_like_sum(grad) && (!beside.defined() || is_like_sum(beside)) && sum.dim() > 0 &&
                   sum.size(-1) == dim && scale.numel() * dim == sum.numel() &&
                   weight.device() == sum.device() && scale.device() == sum.device(),
               "[residual_rms_norm] expected gradients like the sum and a figure of each of its rows");
  auto grad_x = at::empty_like(sum);
  const auto grad_branch =
      half_branch ? at::empty_like(sum, sum.options().dtype(at::kHalf)) : at::Tensor(grad_x);
  if (sum.numel() == 0) return {grad_x, grad_branch, at::zeros_like(weight)};
  const ElementType type = element_type_of(sum, "residual_rms_norm");
  if (!norm_rows_fit(sum, {grad, sum, beside}, "residual_rms_norm"))
    return kernels::residual_rms_norm_parts::backward(grad_sum_in, grad, sum, weight, scale, half_branch);
  FATHOM_CHECK(!half_branch || type == ElementType::kBFloat16,
               "[residual_rms_norm] expected states in bfloat16 whose gradient is to be half, too");
  const int64_t rows = sum.numel() / dim, blocks = norm_row_blocks(type, rows, dim);
  const auto wide = wide_parameters(weight);
  auto partial = at::empty({blocks, dim}, scale.options());
  const ResidualNormGradArgs args = {.grad_sum = beside.defined() ? beside.const_data_ptr() : nullptr,
                                     .grad = grad.const_data_ptr(),
                                     .sum = sum.const_data_ptr(),
                                     .weight = wide.const_data_ptr<float>(),
                                     .scale = scale.const_data_ptr<float>(),
                                     .grad_x = grad_x.mutable_data_ptr(),
                                     .grad_half = half_branch ? grad_branch.mutable_data_ptr() : nullptr,
                                     .partial = partial.mutable_data_ptr<float>(),
                                     .rows = rows,
                                     .dim = dim,
                                     .blocks = blocks};
  C10_CUDA_CHECK(launch_residual_norm_grad(type, args, c10::cuda::getCurrentCUDAStream()));
  return {grad_x, grad_branch, sum_of_parts(partial, weight.scalar_type())};
}

}  // namespace

void register_residual_rms_norm(torch::Library& library) {
  library.impl("residual_rms_norm", forward);
  library.impl("residual_rms_norm_backward", backward);
}

}  // namespace fathom::cuda
