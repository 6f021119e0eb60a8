// A row of the sum is normed while the first cache holds it. The backward pass is LibTorch's, which is
// faster.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <cmath>

#include "kernels/cpu_vector.h"
#include "kernels/residual_layer_norm_parts.h"

namespace fathom::kernels {
namespace {

/// x + factor · branch, which is written to `sum`, and its norm; `mean_and_scale`: of the row, its mean and
/// 1 / deviation.
template <typename T>
FATHOM_CPU_CLONES void sum_and_norm_row(const T* __restrict x, const T* __restrict branch, T factor,
                                        T* __restrict sum, const T* __restrict weight,
                                        const T* __restrict bias, T* __restrict y, int64_t size, double eps,
                                        T* mean_and_scale) {
  T lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes)
    for (int64_t j = 0; j < kLanes; ++j) {
      sum[i + j] = x[i + j] + branch[i + j] * factor;
      lanes[j] += sum[i + j];
    }
  for (; i < size; ++i) {
    sum[i] = x[i] + branch[i] * factor;
    lanes[0] += sum[i];
  }
  T mean = 0, variance = 0;
  for (int64_t j = 0; j < kLanes; ++j) mean += lanes[j];
  mean /= static_cast<T>(size);
  for (int64_t j = 0; j < kLanes; ++j) lanes[j] = 0;
  for (i = 0; i + kLanes <= size; i += kLanes)
    for (int64_t j = 0; j < kLanes; ++j) lanes[j] += (sum[i + j] - mean) * (sum[i + j] - mean);
  for (; i < size; ++i) lanes[0] += (sum[i] - mean) * (sum[i] - mean);
  for (int64_t j = 0; j < kLanes; ++j) variance += lanes[j];
  const T scale = T(1) / std::sqrt(variance / static_cast<T>(size) + static_cast<T>(eps));
  for (i = 0; i < size; ++i) y[i] = (sum[i] - mean) * scale * weight[i] + bias[i];
  mean_and_scale[0] = mean;
  mean_and_scale[1] = scale;
}

template <typename T>
residual_layer_norm_parts::Four sum_and_norm(const at::Tensor& x_in, const at::Tensor& branch_in,
                                             const std::optional<at::Tensor>& scale_B,
                                             const at::Tensor& weight_in, const at::Tensor& bias_in,
                                             double eps) {
  const auto x = x_in.contiguous(), branch = branch_in.contiguous();
  const auto weight = weight_in.to(x.scalar_type()).contiguous(),
             bias = bias_in.to(x.scalar_type()).contiguous();
  const auto factor_B = scale_B ? scale_B->contiguous() : at::Tensor();
  const int64_t size = x.size(-1), rows = x.numel() / std::max<int64_t>(1, size),
                sample_rows = std::max<int64_t>(1, rows / std::max<int64_t>(1, x.size(0)));
  auto shape = x.sizes().vec();
  shape.back() = 1;
  auto sum = at::empty_like(x), y = at::empty_like(x), mean = at::empty(shape, x.options()),
       scale = at::empty(shape, x.options());
  T *to_sum = sum.mutable_data_ptr<T>(), *to = y.mutable_data_ptr<T>(), *means = mean.mutable_data_ptr<T>(),
    *scales = scale.mutable_data_ptr<T>();
  at::parallel_for(0, rows, row_grain(size), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t first = row * size;
      const T factor = factor_B.defined() ? factor_B.const_data_ptr<T>()[row / sample_rows] : T(1);
      T found[2];
      sum_and_norm_row(x.const_data_ptr<T>() + first, branch.const_data_ptr<T>() + first, factor,
                       to_sum + first, weight.const_data_ptr<T>(), bias.const_data_ptr<T>(), to + first, size,
                       eps, found);
      means[row] = found[0];
      scales[row] = found[1];
    }
  });
  return {std::move(sum), std::move(y), std::move(mean), std::move(scale)};
}

/// LibTorch's backward pass takes moments of 16-bit rows in a type of its choice, so those stay its own.
residual_layer_norm_parts::Four forward_cpu(const at::Tensor& x, const at::Tensor& branch,
                                            const std::optional<at::Tensor>& scale_B,
                                            const at::Tensor& weight, const at::Tensor& bias, double eps) {
  if (x.scalar_type() == at::kFloat) return sum_and_norm<float>(x, branch, scale_B, weight, bias, eps);
  if (x.scalar_type() == at::kDouble) return sum_and_norm<double>(x, branch, scale_B, weight, bias, eps);
  return residual_layer_norm_parts::forward(x, branch, scale_B, weight, bias, eps);
}

}  // namespace

TORCH_LIBRARY_IMPL(fathom, CPU, library) {
  library.impl("residual_layer_norm", forward_cpu);
}

}  // namespace fathom::kernels
