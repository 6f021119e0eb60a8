#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "kernels/cpu_vector.h"
#include "kernels/residual_rms_norm_parts.h"
#include "kernels/rms_norm.h"

namespace fathom::kernels {
namespace {

template <typename T>
FATHOM_INLINE Compute<T> weighted_product(const T* grad, const T* x, const T* weight, int64_t size) {
  Compute<T> lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes)
    for (int64_t j = 0; j < kLanes; ++j) lanes[j] += load(grad[i + j]) * load(weight[i + j]) * load(x[i + j]);
  for (; i < size; ++i) lanes[0] += load(grad[i]) * load(weight[i]) * load(x[i]);
  Compute<T> sum = 0;
  for (int64_t j = 0; j < kLanes; ++j) sum += lanes[j];
  return sum;
}

template <typename T>
FATHOM_CPU_CLONES void forward_row(const T* x, const T* weight, T* y, Compute<T>* scale, int64_t size,
                                   double eps) {
  using C = Compute<T>;
  const C s = C(1) / std::sqrt(sum_of_squares(x, size) / static_cast<C>(size) + static_cast<C>(eps));
  *scale = s;
  for (int64_t i = 0; i < size; ++i) store(y[i], load(x[i]) * s * load(weight[i]));
}

/// Writes the gradient of x, adds that of the weight.
template <typename T>
FATHOM_CPU_CLONES void backward_row(const T* grad, const T* x, const T* weight, Compute<T> scale, T* grad_x,
                                    Compute<T>* grad_weight, int64_t size) {
  using C = Compute<T>;
  const C projection = weighted_product(grad, x, weight, size) * scale * scale / static_cast<C>(size);
  for (int64_t i = 0; i < size; ++i) {
    const C g = load(grad[i]), value = load(x[i]);
    store(grad_x[i], scale * (g * load(weight[i]) - value * projection));
    grad_weight[i] += g * value * scale;
  }
}

template <typename T>
FATHOM_CPU_CLONES void sum_row(const T* __restrict x, const T* __restrict branch, T* __restrict sum,
                               int64_t size) {
  for (int64_t i = 0; i < size; ++i) store(sum[i], load(x[i]) + load(branch[i]));
}

template <typename T>
FATHOM_CPU_CLONES void add_row(T* __restrict to, const T* __restrict added, int64_t size) {
  for (int64_t i = 0; i < size; ++i) store(to[i], load(to[i]) + load(added[i]));
}

at::ScalarType compute_type(at::ScalarType dtype) {
  return dtype == at::kDouble ? at::kDouble : at::kFloat;
}

/// Of x, or of x + branch, which is written to `sum`, where there is one.
std::tuple<at::Tensor, at::Tensor> forward_of(const at::Tensor& x, const std::optional<at::Tensor>& branch,
                                              const at::Tensor& sum, const at::Tensor& weight, double eps) {
  const int64_t size = weight.size(0), rows = x.numel() / std::max<int64_t>(1, size);
  auto y = at::empty_like(x);
  auto scale_shape = x.sizes().vec();
  scale_shape.back() = 1;
  auto scale = at::empty(scale_shape, x.options().dtype(compute_type(x.scalar_type())));
  dispatch_floating(x.scalar_type(), "rms_norm", [&]<typename T>(T) {
    const T *from = x.const_data_ptr<T>(), *added = branch ? branch->const_data_ptr<T>() : nullptr;
    T* normed = branch ? sum.mutable_data_ptr<T>() : nullptr;
    at::parallel_for(0, rows, row_grain(size), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t at = row * size;
        if (added != nullptr) sum_row(from + at, added + at, normed + at, size);
        forward_row(added != nullptr ? normed + at : from + at, weight.const_data_ptr<T>(),
                    y.mutable_data_ptr<T>() + at, scale.mutable_data_ptr<Compute<T>>() + row, size, eps);
      }
    });
  });
  return {y, scale};
}

std::tuple<at::Tensor, at::Tensor> forward_cpu(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return forward_of(x.contiguous(), std::nullopt, {}, weight.contiguous(), eps);
}

residual_rms_norm_parts::Three sum_forward_cpu(const at::Tensor& x_in, const at::Tensor& branch,
                                               const at::Tensor& weight, double eps, bool to_half,
                                               const std::optional<at::Tensor>& saturated) {
  if (to_half) return residual_rms_norm_parts::forward(x_in, branch, weight, eps, to_half, saturated);
  const auto x = x_in.contiguous();
  auto sum = at::empty_like(x);
  auto [y, scale] = forward_of(x, branch.contiguous(), sum, weight.to(x.scalar_type()).contiguous(), eps);
  return {std::move(sum), std::move(y), std::move(scale)};
}

/// With `added` to the gradient of x, where there is any.
std::tuple<at::Tensor, at::Tensor> backward_of(const at::Tensor& grad, const at::Tensor& x,
                                               const at::Tensor& weight, const at::Tensor& scale,
                                               const std::optional<at::Tensor>& added) {
  const int64_t size = weight.size(0), rows = x.numel() / std::max<int64_t>(1, size);
  auto grad_x = at::empty_like(x);
  // The weight's gradient is summed in chunks of fixed size, so it does not depend on the number of threads.
  const int64_t chunk_rows = std::max<int64_t>(row_grain(size), (rows + 63) / 64);
  const int64_t chunks = (rows + chunk_rows - 1) / chunk_rows;
  auto partial = at::zeros({chunks, size}, scale.options());
  dispatch_floating(x.scalar_type(), "rms_norm", [&]<typename T>(T) {
    T* to = grad_x.mutable_data_ptr<T>();
    at::parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin * chunk_rows; row < std::min(rows, end * chunk_rows); ++row) {
        backward_row(grad.const_data_ptr<T>() + row * size, x.const_data_ptr<T>() + row * size,
                     weight.const_data_ptr<T>(), scale.const_data_ptr<Compute<T>>()[row], to + row * size,
                     partial.mutable_data_ptr<Compute<T>>() + row / chunk_rows * size, size);
        if (added) add_row(to + row * size, added->const_data_ptr<T>() + row * size, size);
      }
    });
  });
  return {grad_x, at::sum(partial, {0})};
}

std::tuple<at::Tensor, at::Tensor> backward_cpu(const at::Tensor& grad, const at::Tensor& x,
                                                const at::Tensor& weight, const at::Tensor& scale) {
  const auto [grad_x, grad_weight] =
      backward_of(grad.contiguous(), x.contiguous(), weight.contiguous(), scale, std::nullopt);
  return {grad_x, grad_weight.to(weight.scalar_type())};
}

residual_rms_norm_parts::Three sum_backward_cpu(const std::optional<at::Tensor>& grad_sum,
                                                const at::Tensor& grad, const at::Tensor& sum,
                                                const at::Tensor& weight, const at::Tensor& scale,
                                                bool half_branch) {
  if (half_branch || grad.scalar_type() != sum.scalar_type())
    return residual_rms_norm_parts::backward(grad_sum, grad, sum, weight, scale, half_branch);
  std::optional<at::Tensor> added;
  if (grad_sum) added = grad_sum->contiguous();
  const auto [grad_x, grad_weight] = backward_of(grad.contiguous(), sum.contiguous(),
                                                 weight.to(sum.scalar_type()).contiguous(), scale, added);
  return {grad_x, grad_x, grad_weight.to(weight.scalar_type())};
}

}  // namespace

TORCH_LIBRARY_IMPL(fathom, CPU, library) {
  library.impl("rms_norm", forward_cpu);
  library.impl("rms_norm_backward", backward_cpu);
  library.impl("residual_rms_norm", sum_forward_cpu);
  library.impl("residual_rms_norm_backward", sum_backward_cpu);
}

}  // namespace fathom::kernels
