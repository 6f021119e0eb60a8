// GELU's backward pass adds up the bias's gradient while it has each row in its hands.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <cmath>

#include "kernels/biased_product.h"
#include "kernels/cpu_vector.h"
#include "kernels/linear_gelu.h"

namespace fathom::kernels {
namespace {

/// Φ(x), and what its derivative is but for a factor.
template <typename C>
struct Gaussian {
  C below;  ///< Φ(x)
  C bell;   ///< exp(−x²/2)
};

/// Φ to 1e-7. Source: Abramowitz & Stegun, "Handbook of mathematical functions", 1964, formula 7.1.26, whose
/// error function is turned into the smaller tail, so that nothing cancels.
FATHOM_INLINE Gaussian<float> gaussian(float x) {
  const float bell = fast_exp(-0.5f * x * x);
  const float t = 1.0f / (1.0f + 0.2316418883f * std::abs(x));
  float tail = 0.5307027145f;
  tail = tail * t - 0.7265760135f;
  tail = tail * t + 0.7107068705f;
  tail = tail * t - 0.1422483680f;
  tail = tail * t + 0.1274147960f;
  tail *= t * bell;
  return {x < 0.0f ? tail : 1.0f - tail, bell};
}
FATHOM_INLINE Gaussian<double> gaussian(double x) {
  return {0.5 * std::erfc(-x * M_SQRT1_2), std::exp(-0.5 * x * x)};
}

/// Writes the gradient of x, adds it to that of the bias.
template <typename T>
FATHOM_CPU_CLONES void gelu_row_backward(const T* __restrict grad, const T* __restrict inner,
                                         T* __restrict grad_inner, Compute<T>* __restrict sum, int64_t size) {
  using C = Compute<T>;
  constexpr C kInverseRootOfTwoPi = C(0.39894228040143267794);
  for (int64_t i = 0; i < size; ++i) {
    const C x = load(inner[i]);
    const Gaussian<C> at = gaussian(x);
    const C g = load(grad[i]) * (at.below + x * at.bell * kInverseRootOfTwoPi);
    store(grad_inner[i], g);
    sum[i] += g;
  }
}

std::tuple<at::Tensor, at::Tensor> forward_cpu(const at::Tensor& x, const at::Tensor& weight,
                                               const at::Tensor& bias, bool keep) {
  auto inner = biased_product(x, weight, bias);
  auto y = at::gelu(inner);
  return {std::move(y), keep ? std::move(inner) : at::empty({0}, x.options())};
}

std::tuple<at::Tensor, at::Tensor> grad_sum_cpu(const at::Tensor& grad_in, const at::Tensor& x_in) {
  const auto grad = grad_in.contiguous(), x = x_in.contiguous();
  const int64_t size = x.size(-1), rows = x.numel() / std::max<int64_t>(1, size);
  auto grad_x = at::empty_like(x);
  const RowChunks chunks(rows, size);
  auto partial = at::zeros({chunks.count, size}, x.options().dtype(compute_type(x.scalar_type())));
  dispatch_floating(x.scalar_type(), "gelu_grad_sum", [&]<typename T>(T) {
    auto* sums = partial.mutable_data_ptr<Compute<T>>();
    at::parallel_for(0, chunks.count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin * chunks.rows; row < std::min(rows, end * chunks.rows); ++row)
        gelu_row_backward(grad.const_data_ptr<T>() + row * size, x.const_data_ptr<T>() + row * size,
                          grad_x.mutable_data_ptr<T>() + row * size, sums + row / chunks.rows * size, size);
    });
  });
  return {grad_x, at::sum(partial, {0})};
}

}  // namespace

TORCH_LIBRARY_IMPL(fathom, CPU, library) {
  library.impl("linear_gelu", forward_cpu);
  library.impl("gelu_grad_sum", grad_sum_cpu);
}

}  // namespace fathom::kernels
