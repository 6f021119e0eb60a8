// Encoders' layers over counted rows, on a GPU: checks, memory and registration.
#include "cuda/counted_layers.h"

#include <ATen/cuda/CUDAContextLight.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <torch/library.h>

#include "cuda/bias_gemm.h"
#include "cuda/column_sum.h"
#include "cuda/linear_gelu.h"
#include "cuda/registration.h"
#include "cuda/rows_of.h"
#include "cuda/sum_of_parts.h"

namespace fathom::cuda {
namespace {

using Two = std::tuple<at::Tensor, at::Tensor>;
using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
using Optional = std::optional<at::Tensor>;

at::Tensor wide_parameter(const at::Tensor& x, int64_t dim, const char* op) {
  FATHOM_CHECK(x.numel() == dim, "[{}] expected {} parameters, got {}", op, dim, x.numel());
  return aligned16(x.to(at::kFloat));
}

at::Tensor norm(const at::Tensor& x_in, const at::Tensor& weight_in, const at::Tensor& bias_in, double eps,
                const at::Tensor& place, const at::Tensor& start) {
  constexpr const char* kOp = "gathered_layer_norm";
  const c10::cuda::CUDAGuard guard(x_in.device());
  const auto x = x_in.contiguous();
  const ElementType type = check_dense(x, kOp);
  const int64_t dim = x.size(-1);
  const auto weight = wide_parameter(weight_in, dim, kOp), bias = wide_parameter(bias_in, dim, kOp);
  FATHOM_CHECK(x.numel() == place.numel() * dim && gathered_norm_fits(type, dim),
               "[{}] expected states of {} places", kOp, place.numel());
  auto y = at::empty({place.numel(), dim}, x.options());
  const GatheredNormArgs args = {.rows = rows_of(place, start),
                                 .x = x.const_data_ptr(),
                                 .weight = weight.const_data_ptr<float>(),
                                 .bias = bias.const_data_ptr<float>(),
                                 .y = y.mutable_data_ptr(),
                                 .dim = dim,
                                 .eps = static_cast<float>(eps)};
  C10_CUDA_CHECK(launch_gathered_norm(type, args, stream()));
  return y;
}

Two norm_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight_in, double eps,
                  at::Tensor& grad_x, const at::Tensor& place, const at::Tensor& start) {
  constexpr const char* kOp = "gathered_layer_norm_backward";
  const c10::cuda::CUDAGuard guard(grad.device());
  const ElementType type = check_dense(grad, kOp);
  const int64_t dim = grad.size(1), room = grad.size(0);
  const auto weight = wide_parameter(weight_in, dim, kOp);
  FATHOM_CHECK(check_dense(x, kOp) == type && check_dense(grad_x, kOp) == type && x.numel() == grad.numel() &&
                   grad_x.numel() == grad.numel() && room == place.numel() && gathered_norm_fits(type, dim),
               "[{}] expected {} rows of {} elements of one type", kOp, room, dim);
  const int64_t blocks = gathered_norm_blocks(type, room, dim);
  auto partial = at::empty({blocks, 2, dim}, grad.options().dtype(at::kFloat));
  const GatheredNormGradArgs args = {.rows = rows_of(place, start),
                                     .grad = grad.const_data_ptr(),
                                     .x = x.const_data_ptr(),
                                     .weight = weight.const_data_ptr<float>(),
                                     .grad_x = grad_x.mutable_data_ptr(),
                                     .partial = partial.mutable_data_ptr<float>(),
                                     .dim = dim,
                                     .blocks = blocks,
                                     .eps = static_cast<float>(eps)};
  C10_CUDA_CHECK(launch_gathered_norm_grad(type, args, stream()));
  const auto sums = sum_of_parts(partial, at::kFloat);
  return {sums.select(0, 0), sums.select(0, 1)};
}

/// Whether there is a product of these with a bias: on other cards than Hopper's all rows are multiplied.
bool takes_product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  return at::cuda::getCurrentDeviceProperties()->major == 9 && x.is_contiguous() && weight.is_contiguous() &&
         bias.is_contiguous() && weight.scalar_type() == x.scalar_type() &&
         bias.scalar_type() == x.scalar_type() &&
         counted_product_fits(element_type_of(x, "counted_linear"), x.size(0), weight.size(1),
                              weight.size(0)) &&
         are_aligned16({x.const_data_ptr(), weight.const_data_ptr(), bias.const_data_ptr()});
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                  const at::Tensor& start, int64_t expected) {
  const c10::cuda::CUDAGuard guard(x.device());
  if (!takes_product(x, weight, bias)) return at::addmm(bias, x, weight.t());
  const int64_t rows = x.size(0), in = x.size(1), out = weight.size(0);
  auto y = at::empty({rows, out}, x.options());
  if (rows == 0) return y;
  const CountedProductArgs args = {.x = x.const_data_ptr(),
                                   .weight = weight.const_data_ptr(),
                                   .y = y.mutable_data_ptr(),
                                   .count = count_of(start),
                                   .rows = rows,
                                   .expected = expected_of(expected, rows),
                                   .in_dim = in,
                                   .out_dim = out};
  const void* added = bias.const_data_ptr();
  C10_CUDA_CHECK(x.scalar_type() == at::kHalf ? BiasGemm<__half>::run(args, added, stream())
                                              : BiasGemm<__nv_bfloat16>::run(args, added, stream()));
  return y;
}

Two gelu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& start,
         int64_t expected, bool keep) {
  const c10::cuda::CUDAGuard guard(x.device());
  const auto nothing = at::empty({0}, x.options());
  if (!takes_product(x, weight, bias)) {
    const auto inner = at::addmm(bias, x, weight.t());
    return {at::gelu(inner), keep ? inner : nothing};
  }
  const int64_t rows = x.size(0), in = x.size(1), out = weight.size(0);
  auto y = at::empty({rows, out}, x.options()), inner = keep ? at::empty_like(y) : nothing;
  if (rows == 0) return {y, inner};
  const LinearGeluArgs args = {.x = x.const_data_ptr(),
                               .weight = weight.const_data_ptr(),
                               .bias = bias.const_data_ptr(),
                               .y = y.mutable_data_ptr(),
                               .inner = keep ? inner.mutable_data_ptr() : nullptr,
                               .rows = rows,
                               .in_dim = in,
                               .out_dim = out,
                               .count = count_of(start),
                               .expected = expected_of(expected, rows)};
  C10_CUDA_CHECK(launch_linear_gelu(element_type_of(x, "counted_linear_gelu"), args, stream()));
  return {y, inner};
}

Two gelu_backward(const at::Tensor& grad, const at::Tensor& inner, const at::Tensor& start) {
  constexpr const char* kOp = "counted_gelu_backward";
  const c10::cuda::CUDAGuard guard(grad.device());
  const ElementType type = check_dense(grad, kOp);
  FATHOM_CHECK(check_dense(inner, kOp) == type && inner.sizes() == grad.sizes(),
               "[{}] expected a gradient like the input", kOp);
  const int64_t rows = grad.size(0), dim = grad.size(1), blocks = gelu_grad_blocks(type, rows, dim);
  auto grad_x = at::empty_like(grad), partial = at::empty({blocks, dim}, grad.options().dtype(at::kFloat));
  const GeluGradArgs args = {.grad = grad.const_data_ptr(),
                             .x = inner.const_data_ptr(),
                             .grad_x = grad_x.mutable_data_ptr(),
                             .partial = partial.mutable_data_ptr<float>(),
                             .rows = rows,
                             .dim = dim,
                             .blocks = blocks,
                             .count = count_of(start)};
  C10_CUDA_CHECK(launch_gelu_grad(type, args, stream()));
  return {grad_x, sum_of_parts(partial, at::kFloat)};
}

at::Tensor column_sum(const at::Tensor& x, const at::Tensor& start) {
  const c10::cuda::CUDAGuard guard(x.device());
  const ElementType type = check_dense(x, "counted_column_sum");
  const int64_t rows = x.size(0), dim = x.size(1), blocks = column_sum_blocks(type, rows, dim);
  auto partial = at::empty({blocks, dim}, x.options().dtype(at::kFloat));
  const ColumnSumArgs args = {.x = x.const_data_ptr(),
                              .partial = partial.mutable_data_ptr<float>(),
                              .rows = rows,
                              .dim = dim,
                              .blocks = blocks,
                              .count = count_of(start)};
  C10_CUDA_CHECK(launch_column_sum(type, args, stream()));
  return sum_of_parts(partial, at::kFloat);
}

Three window_rows(const at::Tensor& slot, const at::Tensor& start, const Optional& used, int64_t height,
                  int64_t width, int64_t side, int64_t shift) {
  const c10::cuda::CUDAGuard guard(slot.device());
  const int64_t images = start.numel() - 1, places = images * height * width;
  FATHOM_CHECK(slot.scalar_type() == at::kInt && start.scalar_type() == at::kInt && slot.is_contiguous() &&
                   start.is_contiguous() && images > 0 && slot.numel() * side * side == places,
               "[window_rows] expected the windows of maps of {} × {}", height, width);
  auto border = at::empty({images + 2}, start.options()), place = at::empty({places}, start.options()),
       own = at::empty_like(place);
  const WindowRowsArgs args = {.window_slot = slot.const_data_ptr<int32_t>(),
                               .window_start = start.const_data_ptr<int32_t>(),
                               .window_used = count_of(used ? *used : start),
                               .place = place.mutable_data_ptr<int32_t>(),
                               .slot = own.mutable_data_ptr<int32_t>(),
                               .border = border.mutable_data_ptr<int32_t>(),
                               .images = images,
                               .height = static_cast<int>(height),
                               .width = static_cast<int>(width),
                               .side = static_cast<int>(side),
                               .shift = static_cast<int>(shift)};
  C10_CUDA_CHECK(launch_window_rows(args, stream()));
  return {place, own, border};
}

at::Tensor window_means(const at::Tensor& x_in, int64_t side, int64_t shift) {
  const c10::cuda::CUDAGuard guard(x_in.device());
  const auto x = x_in.contiguous();
  const ElementType type = check_dense(x, "window_means");
  FATHOM_CHECK(x.dim() == 4 && x.size(1) % side == 0 && x.size(2) % side == 0,
               "[window_means] expected maps that windows of {} divide", side);
  auto y = at::empty({x.size(0), x.size(1) / side * (x.size(2) / side), x.size(3)}, x.options());
  const WindowMeanArgs args = {.x = x.const_data_ptr(),
                               .y = y.mutable_data_ptr(),
                               .images = x.size(0),
                               .dim = x.size(3),
                               .height = static_cast<int>(x.size(1)),
                               .width = static_cast<int>(x.size(2)),
                               .side = static_cast<int>(side),
                               .shift = static_cast<int>(shift)};
  C10_CUDA_CHECK(launch_window_means(type, args, stream()));
  return y;
}

at::Tensor window_score_grad(const at::Tensor& brought, const at::Tensor& score,
                             const Optional& multiplier_in, double share, double explore,
                             const at::Tensor& slot, const at::Tensor& start) {
  const c10::cuda::CUDAGuard guard(score.device());
  const int64_t windows = slot.numel(), places = brought.numel() / std::max<int64_t>(windows, 1);
  FATHOM_CHECK(brought.is_contiguous() && brought.scalar_type() == at::kFloat && score.is_contiguous() &&
                   score.scalar_type() == at::kFloat && score.numel() == windows && slot.is_contiguous() &&
                   brought.numel() == windows * places,
               "[window_score_grad] expected dense float32 scores of {} windows", windows);
  auto grad_score = at::empty_like(score);
  const auto multiplier = multiplier_in ? multiplier_in->to(score.device(), at::kDouble) : at::Tensor();
  const WindowScoreGradArgs args = {
      .slot = slot.const_data_ptr<int32_t>(),
      .active = count_of(start),
      .brought = brought.const_data_ptr<float>(),
      .score = score.const_data_ptr<float>(),
      .multiplier = multiplier.defined() ? multiplier.const_data_ptr<double>() : nullptr,
      .share = static_cast<float>(share),
      .explored_weight = static_cast<float>(1 / explore),
      .grad_score = grad_score.mutable_data_ptr<float>(),
      .windows = windows,
      .places = static_cast<int>(places)};
  C10_CUDA_CHECK(launch_window_score_grad(args, stream()));
  return grad_score;
}

}  // namespace

void register_counted_layers(torch::Library& library) {
  library.impl("gathered_layer_norm", norm);
  library.impl("gathered_layer_norm_backward_", norm_backward);
  library.impl("counted_linear_bias", linear);
  library.impl("counted_linear_gelu", gelu);
  library.impl("counted_gelu_backward", gelu_backward);
  library.impl("counted_column_sum", column_sum);
  library.impl("window_means", window_means);
  library.impl("window_rows", window_rows);
  library.impl("window_score_grad", window_score_grad);
}

}  // namespace fathom::cuda
