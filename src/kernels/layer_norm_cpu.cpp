// A row lies in the first cache while it is read again: for its mean, its deviation and its result.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <cmath>
#include <vector>

#include "kernels/cpu_vector.h"
#include "kernels/residual_layer_norm_parts.h"

namespace fathom::kernels {
namespace {

namespace parts = residual_layer_norm_parts;

/// Σ of (x − mean)^power, power 1 or 2, in independent lanes.
template <int power, typename T>
FATHOM_INLINE Compute<T> moment(const T* x, Compute<T> mean, int64_t size) {
  using C = Compute<T>;
  const auto term = [mean](const T& element) {
    const C centred = load(element) - mean;
    return power == 1 ? centred : centred * centred;
  };
  C lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes)
    for (int64_t j = 0; j < kLanes; ++j) lanes[j] += term(x[i + j]);
  for (; i < size; ++i) lanes[0] += term(x[i]);
  C sum = 0;
  for (int64_t j = 0; j < kLanes; ++j) sum += lanes[j];
  return sum;
}

/// x + factor · branch, in x's type.
template <typename T>
FATHOM_CPU_CLONES void add_row(const T* __restrict x, const T* __restrict branch, Compute<T> factor,
                               T* __restrict sum, int64_t size) {
  for (int64_t i = 0; i < size; ++i) store(sum[i], load(x[i]) + factor * load(branch[i]));
}

template <typename T>
struct Moments {
  Compute<T> mean, scale;  ///< scale: 1 / deviation
};

template <typename T>
FATHOM_CPU_CLONES void norm_row(const T* __restrict x, const Compute<T>* __restrict weight,
                                const Compute<T>* __restrict bias, T* __restrict y, Moments<T>& of,
                                int64_t size, double eps) {
  using C = Compute<T>;
  const C count = static_cast<C>(size), mean = moment<1>(x, C(0), size) / count;
  const C scale = C(1) / std::sqrt(moment<2>(x, mean, size) / count + static_cast<C>(eps));
  for (int64_t i = 0; i < size; ++i) store(y[i], (load(x[i]) - mean) * scale * weight[i] + bias[i]);
  of = {mean, scale};
}

/// The gradient of x with `added` (or null), and times `factor` that of the branch (or null); adds to those
/// of weight and bias.
template <typename T>
struct BackwardRow {
  using C = Compute<T>;
  const T* grad;
  const T* x;
  const T* added;
  const C* weight;
  T* grad_x;
  T* grad_branch;
  C factor;
  C *grad_weight, *grad_bias;
  Moments<T> moments;
  int64_t size;
};

template <typename T>
FATHOM_CPU_CLONES void norm_row_backward(const BackwardRow<T>& of) {
  using C = Compute<T>;
  const T* __restrict grad = of.grad, * __restrict x = of.x;
  const C* __restrict weight = of.weight;
  const C mean = of.moments.mean, scale = of.moments.scale;
  C first[kLanes] = {}, second[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= of.size; i += kLanes)
    for (int64_t j = 0; j < kLanes; ++j) {
      const C g = load(grad[i + j]) * weight[i + j];
      first[j] += g;
      second[j] += g * (load(x[i + j]) - mean);
    }
  for (; i < of.size; ++i) {
    const C g = load(grad[i]) * weight[i];
    first[0] += g;
    second[0] += g * (load(x[i]) - mean);
  }
  C along = 0, turned = 0;
  for (int64_t j = 0; j < kLanes; ++j) {
    along += first[j];
    turned += second[j];
  }
  const C count = static_cast<C>(of.size);
  along /= count;
  turned *= scale * scale / count;
  T* __restrict grad_x = of.grad_x;
  C* __restrict grad_weight = of.grad_weight, * __restrict grad_bias = of.grad_bias;
  for (i = 0; i < of.size; ++i) {
    const C g = load(grad[i]), centred = load(x[i]) - mean;
    grad_weight[i] += g * centred * scale;
    grad_bias[i] += g;
    store(grad_x[i], scale * (g * weight[i] - along - centred * turned));
  }
  // By itself, so that it rounds as LibTorch's addition does where a checkpoint parts the two.
  if (const T* __restrict added = of.added)
    for (i = 0; i < of.size; ++i) store(grad_x[i], load(grad_x[i]) + load(added[i]));
  if (T* __restrict grad_branch = of.grad_branch)
    for (i = 0; i < of.size; ++i) store(grad_branch[i], load(grad_x[i]) * of.factor);
}

/// A dense tensor's rows, and the samples that share a factor.
struct Rows {
  explicit Rows(const at::Tensor& x, const std::optional<at::Tensor>& scale_B)
      : size(x.size(-1)),
        count(x.numel() / std::max<int64_t>(1, size)),
        of_sample(scale_B ? std::max<int64_t>(1, count / std::max<int64_t>(1, scale_B->size(0))) : 1) {}
  int64_t size, count, of_sample;
};

/// [..., 1].
at::Tensor empty_moments(const at::Tensor& x) {
  auto shape = x.sizes().vec();
  shape.back() = 1;
  return at::empty(shape, x.options().dtype(compute_type(x.scalar_type())));
}

/// With `sum` to be written, of x + scale · branch.
parts::Three norm_rows(const at::Tensor& x, const at::Tensor& branch,
                       const std::optional<at::Tensor>& scale_B, const at::Tensor& sum,
                       const at::Tensor& weight_in, const at::Tensor& bias_in, double eps) {
  const auto type = compute_type(x.scalar_type());
  const auto weight = weight_in.to(type).contiguous(), bias = bias_in.to(type).contiguous();
  const auto factors = scale_B ? scale_B->contiguous() : at::Tensor();
  const Rows rows(x, scale_B);
  auto y = at::empty_like(x), mean = empty_moments(x), scale = empty_moments(x);
  dispatch_floating(x.scalar_type(), "layer_norm", [&]<typename T>(T) {
    using C = Compute<T>;
    const T* added = branch.defined() ? branch.const_data_ptr<T>() : nullptr;
    const T* factor = factors.defined() ? factors.const_data_ptr<T>() : nullptr;
    const T* from = x.const_data_ptr<T>();
    T* normed = y.mutable_data_ptr<T>();
    T* summed = sum.defined() ? sum.mutable_data_ptr<T>() : nullptr;
    C *means = mean.mutable_data_ptr<C>(), *scales = scale.mutable_data_ptr<C>();
    at::parallel_for(0, rows.count, row_grain(rows.size), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t at = row * rows.size;
        if (added != nullptr)
          add_row(from + at, added + at, factor ? load(factor[row / rows.of_sample]) : C(1), summed + at,
                  rows.size);
        Moments<T> moments;
        norm_row((added != nullptr ? summed : from) + at, weight.const_data_ptr<C>(),
                 bias.const_data_ptr<C>(), normed + at, moments, rows.size, eps);
        means[row] = moments.mean;
        scales[row] = moments.scale;
      }
    });
  });
  return {y, mean, scale};
}

parts::Four norm_rows_backward(const at::Tensor& grad, const at::Tensor& added, const at::Tensor& x,
                               const std::optional<at::Tensor>& scale_B, const at::Tensor& weight_in,
                               const at::Tensor& bias, const at::Tensor& mean, const at::Tensor& scale) {
  const auto type = compute_type(x.scalar_type());
  const auto weight = weight_in.to(type).contiguous();
  const auto factors = scale_B ? scale_B->contiguous() : at::Tensor();
  const Rows rows(x, scale_B);
  auto grad_x = at::empty_like(x), grad_branch = scale_B ? at::empty_like(x) : at::empty({0}, x.options());
  const RowChunks chunks(rows.count, rows.size);
  auto partial = at::zeros({chunks.count, 2, rows.size}, x.options().dtype(type));
  dispatch_floating(x.scalar_type(), "layer_norm", [&]<typename T>(T) {
    using C = Compute<T>;
    const T* from = x.const_data_ptr<T>();
    const T* learned = grad.const_data_ptr<T>();
    const T* plus = added.defined() ? added.const_data_ptr<T>() : nullptr;
    const T* factor = factors.defined() ? factors.const_data_ptr<T>() : nullptr;
    T* to = grad_x.mutable_data_ptr<T>();
    T* to_branch = scale_B ? grad_branch.mutable_data_ptr<T>() : nullptr;
    const C *means = mean.const_data_ptr<C>(), *scales = scale.const_data_ptr<C>();
    C* sums = partial.mutable_data_ptr<C>();
    at::parallel_for(0, chunks.count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin * chunks.rows; row < std::min(rows.count, end * chunks.rows); ++row) {
        const int64_t at = row * rows.size;
        C* chunk = sums + row / chunks.rows * 2 * rows.size;
        const BackwardRow<T> of = {.grad = learned + at,
                                   .x = from + at,
                                   .added = plus != nullptr ? plus + at : nullptr,
                                   .weight = weight.const_data_ptr<C>(),
                                   .grad_x = to + at,
                                   .grad_branch = to_branch != nullptr ? to_branch + at : nullptr,
                                   .factor = factor ? load(factor[row / rows.of_sample]) : C(1),
                                   .grad_weight = chunk,
                                   .grad_bias = chunk + rows.size,
                                   .moments = {means[row], scales[row]},
                                   .size = rows.size};
        norm_row_backward(of);
      }
    });
  });
  const auto total = at::sum(partial, {0});
  return {grad_x, grad_branch, total[0].to(weight_in.scalar_type()), total[1].to(bias.scalar_type())};
}

parts::Three forward_cpu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps) {
  return norm_rows(x.contiguous(), {}, std::nullopt, {}, weight, bias, eps);
}

parts::Three backward_cpu(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight,
                          const at::Tensor& bias, const at::Tensor& mean, const at::Tensor& scale) {
  auto [grad_x, grad_branch, grad_weight, grad_bias] =
      norm_rows_backward(grad.contiguous(), {}, x.contiguous(), std::nullopt, weight, bias, mean, scale);
  return {std::move(grad_x), std::move(grad_weight), std::move(grad_bias)};
}

parts::Four residual_cpu(const at::Tensor& x_in, const at::Tensor& branch,
                         const std::optional<at::Tensor>& scale_B, const at::Tensor& weight,
                         const at::Tensor& bias, double eps) {
  const auto x = x_in.contiguous();
  auto sum = at::empty_like(x);
  auto [y, mean, scale] = norm_rows(x, branch.contiguous(), scale_B, sum, weight, bias, eps);
  return {std::move(sum), std::move(y), std::move(mean), std::move(scale)};
}

parts::Four residual_backward_cpu(const std::optional<at::Tensor>& grad_sum, const at::Tensor& grad,
                                  const at::Tensor& sum, const std::optional<at::Tensor>& scale_B,
                                  const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& mean,
                                  const at::Tensor& scale) {
  return norm_rows_backward(grad.contiguous(), grad_sum ? grad_sum->contiguous() : at::Tensor(),
                            sum.contiguous(), scale_B, weight, bias, mean, scale);
}

}  // namespace

TORCH_LIBRARY_IMPL(fathom, CPU, library) {
  library.impl("layer_norm", forward_cpu);
  library.impl("layer_norm_backward", backward_cpu);
  library.impl("residual_layer_norm", residual_cpu);
  library.impl("residual_layer_norm_backward", residual_backward_cpu);
}

}  // namespace fathom::kernels
