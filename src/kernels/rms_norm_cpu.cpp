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

namespace parts = residual_rms_norm_parts;

template <typename T>
FATHOM_CPU_CLONES void sum_row(const T* __restrict x, const T* __restrict y, T* __restrict sum,
                               int64_t size) {
  for (int64_t i = 0; i < size; ++i) store(sum[i], load(x[i]) + load(y[i]));
}

template <typename T>
FATHOM_CPU_CLONES void add_to_row(T* __restrict sum, const T* __restrict x, int64_t size) {
  for (int64_t i = 0; i < size; ++i) store(sum[i], load(x[i]) + load(sum[i]));
}

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

/// With `sum` to be written, of x + branch.
parts::Pair norm_rows(const at::Tensor& x, const at::Tensor& branch, const at::Tensor& sum,
                      const at::Tensor& weight_in, double eps) {
  const auto weight = weight_in.contiguous();
  const int64_t size = weight.size(0), rows = x.numel() / std::max<int64_t>(1, size);
  auto y = at::empty_like(x);
  auto scale_shape = x.sizes().vec();
  scale_shape.back() = 1;
  auto scale = at::empty(scale_shape, x.options().dtype(compute_type(x.scalar_type())));
  dispatch_floating(x.scalar_type(), "rms_norm", [&]<typename T>(T) {
    const T* from = x.const_data_ptr<T>();
    const T* added = branch.defined() ? branch.const_data_ptr<T>() : nullptr;
    T* summed = sum.defined() ? sum.mutable_data_ptr<T>() : nullptr;
    at::parallel_for(0, rows, row_grain(size), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t at = row * size;
        if (added != nullptr) sum_row(from + at, added + at, summed + at, size);
        forward_row((added != nullptr ? summed : from) + at, weight.const_data_ptr<T>(),
                    y.mutable_data_ptr<T>() + at, scale.mutable_data_ptr<Compute<T>>() + row, size, eps);
      }
    });
  });
  return {y, scale};
}

/// Of x (with `added`, which may be undefined) and of the weight.
parts::Pair norm_rows_backward(const at::Tensor& grad, const at::Tensor& added, const at::Tensor& x,
                               const at::Tensor& weight_in, const at::Tensor& scale) {
  const auto weight = weight_in.contiguous();
  const int64_t size = weight.size(0), rows = x.numel() / std::max<int64_t>(1, size);
  auto grad_x = at::empty_like(x);
  const RowChunks chunks(rows, size);
  auto partial = at::zeros({chunks.count, size}, scale.options());
  dispatch_floating(x.scalar_type(), "rms_norm", [&]<typename T>(T) {
    const T* plus = added.defined() ? added.const_data_ptr<T>() : nullptr;
    at::parallel_for(0, chunks.count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin * chunks.rows; row < std::min(rows, end * chunks.rows); ++row) {
        T* to = grad_x.mutable_data_ptr<T>() + row * size;
        backward_row(grad.const_data_ptr<T>() + row * size, x.const_data_ptr<T>() + row * size,
                     weight.const_data_ptr<T>(), scale.const_data_ptr<Compute<T>>()[row], to,
                     partial.mutable_data_ptr<Compute<T>>() + row / chunks.rows * size, size);
        // By itself, so that it rounds as LibTorch's addition does where a checkpoint parts the two.
        if (plus != nullptr) add_to_row(to, plus + row * size, size);
      }
    });
  });
  return {grad_x, at::sum(partial, {0}).to(weight.scalar_type())};
}

parts::Pair forward_cpu(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return norm_rows(x.contiguous(), {}, {}, weight, eps);
}

parts::Pair backward_cpu(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight,
                         const at::Tensor& scale) {
  return norm_rows_backward(grad.contiguous(), {}, x.contiguous(), weight, scale);
}

parts::Three residual_cpu(const at::Tensor& x_in, const at::Tensor& branch, const at::Tensor& weight,
                          double eps, bool to_half, const std::optional<at::Tensor>& saturated) {
  if (to_half) return parts::forward(x_in, branch, weight, eps, to_half, saturated);
  const auto x = x_in.contiguous();
  auto sum = at::empty_like(x);
  auto [y, scale] = norm_rows(x, branch.contiguous(), sum, weight.to(x.scalar_type()), eps);
  return {std::move(sum), std::move(y), std::move(scale)};
}

parts::Three residual_backward_cpu(const std::optional<at::Tensor>& grad_sum, const at::Tensor& grad,
                                   const at::Tensor& sum, const at::Tensor& weight, const at::Tensor& scale,
                                   bool half_branch) {
  if (half_branch || grad.scalar_type() != sum.scalar_type())
    return parts::backward(grad_sum, grad, sum, weight, scale, half_branch);
  const auto [grad_x, grad_weight] =
      norm_rows_backward(grad.contiguous(), grad_sum ? grad_sum->contiguous() : at::Tensor(),
                         sum.contiguous(), weight.to(sum.scalar_type()), scale);
  return {grad_x, grad_x, grad_weight.to(weight.scalar_type())};
}

}  // namespace

TORCH_LIBRARY_IMPL(fathom, CPU, library) {
  library.impl("rms_norm", forward_cpu);
  library.impl("rms_norm_backward", backward_cpu);
  library.impl("residual_rms_norm", residual_cpu);
  library.impl("residual_rms_norm_backward", residual_backward_cpu);
}

}  // namespace fathom::kernels
