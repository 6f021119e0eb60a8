// fathom::residual_layer_norm and merged_layer_norm on a GPU: checks and registration. What the kernels do
// not take goes through the operations that they stand for.
#include "cuda/residual_layer_norm.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros_like.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <limits>

#include "cuda/element_type_of.h"
#include "cuda/registration.h"
#include "kernels/merged_layer_norm_parts.h"
#include "kernels/residual_layer_norm_parts.h"

namespace fathom::cuda {
namespace {

using kernels::residual_layer_norm_parts::Four;
using kernels::residual_layer_norm_parts::Three;

/// Weight and bias as the kernels read them: both in the rows' type as they are, else in float32.
struct NormParameters {
  at::Tensor weight, bias;
  bool narrow;

  NormParameters(const at::Tensor& w, const at::Tensor& b, at::ScalarType type)
      : narrow(type != at::kFloat && w.scalar_type() == type && b.scalar_type() == type) {
    weight = readable(w, narrow ? type : at::kFloat);
    bias = readable(b, narrow ? type : at::kFloat);
  }

 private:
  /// Where vectors of 16 bytes may begin.
  static at::Tensor readable(const at::Tensor& x, at::ScalarType type) {
    const auto dense = x.to(type).contiguous();
    return is_aligned16(dense.const_data_ptr()) ? dense : dense.clone();
  }
};

Four residual_layer_norm(const at::Tensor& x_in, const at::Tensor& branch_in, const at::Tensor& weight,
                         const at::Tensor& bias, double eps) {
  const c10::cuda::CUDAGuard guard(x_in.device());
  const auto x = x_in.contiguous(), branch = branch_in.contiguous();
  const ElementType type = element_type_of(x, "residual_layer_norm");
  const int64_t dim = weight.numel();
  FATHOM_CHECK(
      x.sizes() == branch.sizes() && x.scalar_type() == branch.scalar_type() && x.dim() > 0 &&
          x.size(-1) == dim && bias.numel() == dim && branch.device() == x.device() &&
          weight.device() == x.device() && bias.device() == x.device(),
      "[residual_layer_norm] expected a branch like the input, and a weight and a bias of its width, "
      "on {}",
      x.device().str());
  if (!residual_layer_norm_fits(type, dim) || !is_aligned16(x.const_data_ptr()) ||
      !is_aligned16(branch.const_data_ptr()))
    return kernels::residual_layer_norm_parts::forward(x, branch, weight, bias, eps);
  auto shape = x.sizes().vec();
  shape.back() = 1;
  auto sum = at::empty_like(x), y = at::empty_like(x), mean = at::empty(shape, x.options().dtype(at::kFloat)),
       scale = at::empty_like(mean);
  if (x.numel() == 0) return {sum, y, mean, scale};
  const NormParameters parameters(weight, bias, x.scalar_type());
  const ResidualLayerNormArgs args = {.x = x.const_data_ptr(),
                                      .branch = branch.const_data_ptr(),
                                      .weight = parameters.weight.const_data_ptr(),
                                      .bias = parameters.bias.const_data_ptr(),
                                      .sum = sum.mutable_data_ptr(),
                                      .y = y.mutable_data_ptr(),
                                      .mean = mean.mutable_data_ptr<float>(),
                                      .scale = scale.mutable_data_ptr<float>(),
                                      .rows = x.numel() / dim,
                                      .dim = dim,
                                      .eps = static_cast<float>(eps),
                                      .narrow = parameters.narrow};
  C10_CUDA_CHECK(launch_residual_layer_norm(type, args, c10::cuda::getCurrentCUDAStream()));
  return {sum, y, mean, scale};
}

Three residual_layer_norm_backward(const std::optional<at::Tensor>& grad_sum_in, const at::Tensor& grad_in,
                                   const at::Tensor& sum_in, const at::Tensor& weight, const at::Tensor& bias,
                                   const at::Tensor& mean, const at::Tensor& scale) {
  const c10::cuda::CUDAGuard guard(sum_in.device());
  const auto grad = grad_in.contiguous(), sum = sum_in.contiguous();
  const auto beside = grad_sum_in ? grad_sum_in->contiguous() : at::Tensor();
  const auto is_like_sum = [&](const at::Tensor& x) {
    return x.sizes() == sum.sizes() && x.scalar_type() == sum.scalar_type() && x.device() == sum.device();
  };
  const int64_t dim = weight.numel();
  FATHOM_CHECK(is_like_sum(grad) && (!beside.defined() || is_like_sum(beside)) && sum.dim() > 0 &&
                   sum.size(-1) == dim && bias.numel() == dim && mean.numel() == scale.numel() &&
                   scale.numel() * dim == sum.numel() && weight.device() == sum.device() &&
                   scale.device() == sum.device() && mean.device() == sum.device(),
               "[residual_layer_norm] expected gradients like the sum and figures of each of its rows");
  if (sum.numel() == 0) return {at::empty_like(sum), at::zeros_like(weight), at::zeros_like(bias)};
  const ElementType type = element_type_of(sum, "residual_layer_norm");
  const bool are_aligned = is_aligned16(grad.const_data_ptr()) && is_aligned16(sum.const_data_ptr()) &&
                           (!beside.defined() || is_aligned16(beside.const_data_ptr()));
  if (!residual_layer_norm_fits(type, dim) || !are_aligned)
    return kernels::residual_layer_norm_parts::backward(grad_sum_in, grad, sum, weight, bias, mean, scale);
  const int64_t rows = sum.numel() / dim, blocks = residual_layer_norm_blocks(type, rows, dim);
  const NormParameters parameters(weight, bias, sum.scalar_type());
  auto grad_x = at::empty_like(sum), partial = at::empty({blocks, 2, dim}, scale.options());
  const ResidualLayerNormGradArgs args = {.grad_sum = beside.defined() ? beside.const_data_ptr() : nullptr,
                                          .grad = grad.const_data_ptr(),
                                          .sum = sum.const_data_ptr(),
                                          .weight = parameters.weight.const_data_ptr(),
                                          .mean = mean.const_data_ptr<float>(),
                                          .scale = scale.const_data_ptr<float>(),
                                          .grad_x = grad_x.mutable_data_ptr(),
                                          .partial = partial.mutable_data_ptr<float>(),
                                          .rows = rows,
                                          .dim = dim,
                                          .blocks = blocks,
                                          .narrow = parameters.narrow};
  C10_CUDA_CHECK(launch_residual_layer_norm_grad(type, args, c10::cuda::getCurrentCUDAStream()));
  const auto sums = at::sum(partial, {0});
  return {grad_x, sums.select(0, 0).to(weight.scalar_type()), sums.select(0, 1).to(bias.scalar_type())};
}

/// Whether rows of four neighbours of this map, or of its gradient's, are read and written where they lie.
bool takes_map(ElementType type, const at::Tensor& map, int64_t dim) {
  const int64_t width = type == ElementType::kFloat ? 4 : 8;
  return residual_layer_norm_fits(type, 4 * dim) && dim % width == 0 && map.numel() > 0 &&
         map.numel() / (4 * dim) <= std::numeric_limits<int>::max() && is_aligned16(map.const_data_ptr());
}

RowPlaces places_of(ElementType type, int64_t half_width, int64_t dim) {
  return {.quarter = static_cast<int>(dim / (type == ElementType::kFloat ? 4 : 8)),
          .half_width = static_cast<int>(half_width)};
}

Four merged_layer_norm(const at::Tensor& x_in, const std::optional<at::Tensor>& branch_in,
                       const at::Tensor& weight, const at::Tensor& bias, double eps, bool learns) {
  const c10::cuda::CUDAGuard guard(x_in.device());
  const auto x = x_in.contiguous(), branch = branch_in ? branch_in->contiguous() : at::Tensor();
  const ElementType type = element_type_of(x, "merged_layer_norm");
  FATHOM_CHECK(
      x.dim() == 4 && x.size(1) % 2 == 0 && x.size(2) % 2 == 0 && weight.numel() == 4 * x.size(3) &&
          bias.numel() == weight.numel() && weight.device() == x.device() && bias.device() == x.device() &&
          (!branch.defined() || (branch.sizes() == x.sizes() && branch.device() == x.device() &&
                                 branch.scalar_type() == x.scalar_type())),
      "[merged_layer_norm] expected a map of even sides, a branch like it, and a weight and a bias of "
      "four times its width, on {}",
      x.device().str());
  const int64_t dim = x.size(3), half_width = x.size(2) / 2;
  if (!takes_map(type, x, dim) || (branch.defined() && !is_aligned16(branch.const_data_ptr())))
    return kernels::merged_layer_norm_parts::forward(x, branch_in, weight, bias, eps, learns);
  auto y = at::empty({x.size(0), x.size(1) / 2, half_width, 4 * dim}, x.options());
  auto merged = learns ? at::empty_like(y) : at::empty({0}, x.options());
  auto mean = at::empty({y.size(0), y.size(1), y.size(2), 1}, x.options().dtype(at::kFloat)),
       scale = at::empty_like(mean);
  const NormParameters parameters(weight, bias, x.scalar_type());
  const ResidualLayerNormArgs args = {.x = x.const_data_ptr(),
                                      .branch = branch.defined() ? branch.const_data_ptr() : nullptr,
                                      .weight = parameters.weight.const_data_ptr(),
                                      .bias = parameters.bias.const_data_ptr(),
                                      .sum = learns ? merged.mutable_data_ptr() : nullptr,
                                      .y = y.mutable_data_ptr(),
                                      .mean = mean.mutable_data_ptr<float>(),
                                      .scale = scale.mutable_data_ptr<float>(),
                                      .rows = mean.numel(),
                                      .dim = 4 * dim,
                                      .eps = static_cast<float>(eps),
                                      .narrow = parameters.narrow,
                                      .places = places_of(type, half_width, dim)};
  C10_CUDA_CHECK(launch_residual_layer_norm(type, args, c10::cuda::getCurrentCUDAStream()));
  return {merged, y, mean, scale};
}

Three merged_layer_norm_backward(const at::Tensor& grad_in, const at::Tensor& merged_in,
                                 const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& mean,
                                 const at::Tensor& scale) {
  const c10::cuda::CUDAGuard guard(merged_in.device());
  const auto grad = grad_in.contiguous(), merged = merged_in.contiguous();
  FATHOM_CHECK(merged.dim() == 4 && merged.size(3) == weight.numel() && merged.size(3) % 4 == 0 &&
                   grad.sizes() == merged.sizes() && grad.scalar_type() == merged.scalar_type() &&
                   bias.numel() == weight.numel() && mean.numel() == scale.numel() &&
                   scale.numel() * weight.numel() == merged.numel() && grad.device() == merged.device() &&
                   weight.device() == merged.device() && scale.device() == merged.device() &&
                   mean.device() == merged.device(),
               "[merged_layer_norm] expected a gradient like the merged sum and figures of each of its rows");
  const ElementType type = element_type_of(merged, "merged_layer_norm");
  const int64_t dim = merged.size(3) / 4, rows = scale.numel();
  if (!takes_map(type, merged, dim) || !is_aligned16(grad.const_data_ptr()))
    return kernels::merged_layer_norm_parts::backward(grad, merged, weight, bias, mean, scale);
  const int64_t blocks = residual_layer_norm_blocks(type, rows, 4 * dim);
  const NormParameters parameters(weight, bias, merged.scalar_type());
  auto grad_x = at::empty({merged.size(0), 2 * merged.size(1), 2 * merged.size(2), dim}, merged.options()),
       partial = at::empty({blocks, 2, 4 * dim}, scale.options());
  const ResidualLayerNormGradArgs args = {.grad_sum = nullptr,
                                          .grad = grad.const_data_ptr(),
                                          .sum = merged.const_data_ptr(),
                                          .weight = parameters.weight.const_data_ptr(),
                                          .mean = mean.const_data_ptr<float>(),
                                          .scale = scale.const_data_ptr<float>(),
                                          .grad_x = grad_x.mutable_data_ptr(),
                                          .partial = partial.mutable_data_ptr<float>(),
                                          .rows = rows,
                                          .dim = 4 * dim,
                                          .blocks = blocks,
                                          .narrow = parameters.narrow,
                                          .places = places_of(type, merged.size(2), dim)};
  C10_CUDA_CHECK(launch_residual_layer_norm_grad(type, args, c10::cuda::getCurrentCUDAStream()));
  const auto sums = at::sum(partial, {0});
  return {grad_x, sums.select(0, 0).to(weight.scalar_type()), sums.select(0, 1).to(bias.scalar_type())};
}

}  // namespace

void register_residual_layer_norm(torch::Library& library) {
  library.impl("merged_layer_norm", merged_layer_norm);
  library.impl("merged_layer_norm_backward", merged_layer_norm_backward);
  library.impl("residual_layer_norm", residual_layer_norm);
  library.impl("residual_layer_norm_backward", residual_layer_norm_backward);
}

}  // namespace fathom::cuda
