// fathom::fp8_rms_norm on a GPU: checks, memory, registration. What the kernels do not take goes through the
// operations that it stands for.
#include "cuda/fp8_rms_norm.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <tuple>

#include "cuda/fp8_forms.h"
#include "cuda/norm_tensors.h"
#include "cuda/registration.h"
#include "cuda/sum_of_parts.h"
#include "kernels/fp8_rms_norm_parts.h"

namespace fathom::cuda {
namespace {

namespace parts = kernels::fp8_rms_norm_parts;
using parts::MaybeTensor;
using parts::Six;

Six six_of(at::Tensor first, at::Tensor second, const Fp8Forms& forms) {
  return std::tuple_cat(std::make_tuple(std::move(first), std::move(second)), forms.tensors());
}

Six forward(const at::Tensor& x_in, const MaybeTensor& branch_in, const at::Tensor& weight, double eps,
            int64_t plain, int64_t turned, const MaybeTensor& beyond) {
  const c10::cuda::CUDAGuard guard(x_in.device());
  const auto x = aligned16(x_in), branch = branch_in ? aligned16(*branch_in) : at::Tensor();
  const int64_t columns = weight.numel();
  FATHOM_CHECK(
      x.scalar_type() == at::kBFloat16 && x.dim() > 0 && x.size(-1) == columns &&
          weight.device() == x.device() &&
          (!branch_in || (branch.sizes() == x.sizes() && branch.scalar_type() == x.scalar_type() &&
                          branch.device() == x.device())),
      "[fp8_rms_norm] expected bfloat16 states, a branch like them and a weight of their width on {}",
      x.device().str());
  if (x.numel() == 0 || columns > kMostFp8NormColumns)
    return parts::forward(x, branch_in, weight, eps, {at::kFloat8_e4m3fn, plain, turned, beyond});
  const auto sum = branch_in ? at::empty_like(x) : at::Tensor(), scale = empty_row_figures(x),
             wide = wide_parameters(weight);
  const Fp8Forms forms(x.numel() / columns, columns, x.options().dtype(at::kFloat8_e4m3fn), plain, turned,
                       beyond);
  C10_CUDA_CHECK(launch_fp8_norm({.x = x.const_data_ptr(),
                                  .branch = branch_in ? branch.const_data_ptr() : nullptr,
                                  .weight = wide.const_data_ptr<float>(),
                                  .sum = branch_in ? sum.mutable_data_ptr() : nullptr,
                                  .scale = scale.mutable_data_ptr<float>(),
                                  .eps = static_cast<float>(eps),
                                  .result = forms.result},
                                 c10::cuda::getCurrentCUDAStream()));
  return six_of(sum, scale, forms);
}

Six backward(const MaybeTensor& grad_sum_in, const at::Tensor& grad_in, const at::Tensor& sum_in,
             const at::Tensor& weight, const at::Tensor& scale, at::ScalarType type, int64_t plain,
             int64_t turned, const MaybeTensor& beyond) {
  const c10::cuda::CUDAGuard guard(sum_in.device());
  const auto grad = aligned16(grad_in), sum = aligned16(sum_in);
  const auto beside = grad_sum_in ? aligned16(*grad_sum_in) : at::Tensor();
  const auto is_like_sum = [&](const at::Tensor& x) {
    return x.sizes() == sum.sizes() && x.scalar_type() == at::kBFloat16 && x.device() == sum.device();
  };
  const int64_t columns = weight.numel();
  FATHOM_CHECK(is_like_sum(sum) && is_like_sum(grad) && (!grad_sum_in || is_like_sum(beside)) &&
                   sum.dim() > 0 && sum.size(-1) == columns && scale.numel() * columns == sum.numel() &&
                   scale.scalar_type() == at::kFloat && scale.is_contiguous() &&
                   weight.device() == sum.device() && scale.device() == sum.device(),
               "[fp8_rms_norm] expected bfloat16 gradients like the sum and a figure of each of its rows");
  if (sum.numel() == 0 || columns > kMostFp8NormGradColumns)
    return parts::backward(grad_sum_in, grad, {sum, weight, scale}, {type, plain, turned, beyond});
  const int64_t rows = sum.numel() / columns;
  const auto grad_x = at::empty_like(sum), wide = wide_parameters(weight),
             partial = at::empty({fp8_tiles_of(rows), columns}, scale.options());
  const Fp8Forms forms(rows, columns, sum.options().dtype(type), plain, turned, beyond);
  C10_CUDA_CHECK(launch_fp8_norm_grad(format_of(type),
                                      {.grad_sum = grad_sum_in ? beside.const_data_ptr() : nullptr,
                                       .grad = grad.const_data_ptr(),
                                       .sum = sum.const_data_ptr(),
                                       .weight = wide.const_data_ptr<float>(),
                                       .scale = scale.const_data_ptr<float>(),
                                       .grad_x = grad_x.mutable_data_ptr(),
                                       .partial = partial.mutable_data_ptr<float>(),
                                       .result = forms.result},
                                      c10::cuda::getCurrentCUDAStream()));
  return six_of(grad_x, sum_of_parts(partial, weight.scalar_type()), forms);
}

}  // namespace

void register_fp8_rms_norm(torch::Library& library) {
  library.impl("fp8_rms_norm", forward);
  library.impl("fp8_rms_norm_backward", backward);
}

}  // namespace fathom::cuda
