// A row of logits at a time: its exponentials are kept while its sum is made, so each is taken once and the
// gradient may lie where the logits were.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <cmath>
#include <vector>

#include "kernels/cpu_vector.h"
#include "kernels/softmax_cross_entropy.h"

namespace fathom::kernels {
namespace {

/// exp(x − top) of a row, its sum, and top.
template <typename T>
FATHOM_CPU_CLONES void exponentials_of_row(const T* __restrict logits, Compute<T>* __restrict powers,
                                           int64_t size, Compute<T>* top_and_sum) {
  using C = Compute<T>;
  C lanes[kLanes];
  for (int64_t j = 0; j < kLanes; ++j) lanes[j] = load(logits[0]);
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes)
    for (int64_t j = 0; j < kLanes; ++j) {
      const C x = load(logits[i + j]);
      lanes[j] = x > lanes[j] ? x : lanes[j];
    }
  for (; i < size; ++i) lanes[0] = load(logits[i]) > lanes[0] ? load(logits[i]) : lanes[0];
  C top = lanes[0];
  for (int64_t j = 1; j < kLanes; ++j) top = lanes[j] > top ? lanes[j] : top;
  for (i = 0; i < size; ++i) powers[i] = fast_exp(load(logits[i]) - top);
  for (int64_t j = 0; j < kLanes; ++j) lanes[j] = 0;
  for (i = 0; i + kLanes <= size; i += kLanes)
    for (int64_t j = 0; j < kLanes; ++j) lanes[j] += powers[i + j];
  for (; i < size; ++i) lanes[0] += powers[i];
  C sum = 0;
  for (int64_t j = 0; j < kLanes; ++j) sum += lanes[j];
  top_and_sum[0] = top;
  top_and_sum[1] = sum;
}

template <typename C, typename G>
FATHOM_CPU_CLONES void scale_row(const C* __restrict powers, G* __restrict gradient, int64_t size, C factor) {
  for (int64_t i = 0; i < size; ++i) store(gradient[i], powers[i] * factor);
}

/// The loss of one row; `powers`: room for it. Writes the gradient unless that is null.
template <typename T, typename G>
Compute<T> row_loss(const T* logits, int64_t target, std::vector<Compute<T>>& powers, G* gradient,
                    double gradient_scale) {
  using C = Compute<T>;
  const auto size = static_cast<int64_t>(powers.size());
  if (target < 0) {
    if (gradient != nullptr) std::fill_n(gradient, size, G(0));
    return C(0);
  }
  FATHOM_CHECK(target < size, "[softmax_cross_entropy] expected targets below {}, got {}", size, target);
  C top_and_sum[2];
  exponentials_of_row(logits, powers.data(), size, top_and_sum);
  const C loss = std::log(top_and_sum[1]) + top_and_sum[0] - load(logits[target]);
  if (gradient == nullptr) return loss;
  const C factor = static_cast<C>(gradient_scale) / top_and_sum[1];
  powers[static_cast<size_t>(target)] -= top_and_sum[1];
  scale_row(powers.data(), gradient, size, factor);
  return loss;
}

template <typename T, typename G>
void row_losses(const at::Tensor& logits_NV, const at::Tensor& target_N, const at::Tensor& loss_N,
                G* gradient, double gradient_scale) {
  using C = Compute<T>;
  const int64_t size = logits_NV.size(1);
  const T* logits = logits_NV.const_data_ptr<T>();
  const auto* target = target_N.const_data_ptr<int64_t>();
  C* loss = loss_N.mutable_data_ptr<C>();
  at::parallel_for(0, logits_NV.size(0), row_grain(size), [&](int64_t begin, int64_t end) {
    std::vector<C> powers(static_cast<size_t>(size));
    for (int64_t row = begin; row < end; ++row)
      loss[row] = row_loss(logits + row * size, target[row], powers,
                           gradient != nullptr ? gradient + row * size : gradient, gradient_scale);
  });
}

at::Tensor apply_cpu(const at::Tensor& logits_NV, const at::Tensor& target_in,
                     const std::optional<at::Tensor>& gradient_NV, double gradient_scale,
                     const std::optional<at::Tensor>& divisor) {
  if (divisor) gradient_scale /= divisor->item<double>();
  const auto type = logits_NV.scalar_type();
  const auto target_N = target_in.contiguous();
  const auto loss_N = at::empty({logits_NV.size(0)},
                                logits_NV.options().dtype(type == at::kDouble ? at::kDouble : at::kFloat));
  dispatch_floating(type, "softmax_cross_entropy", [&]<typename T>(T) {
    if (gradient_NV && gradient_NV->scalar_type() != type)  // FP16 beside float32
      row_losses<T>(logits_NV, target_N, loss_N, gradient_NV->mutable_data_ptr<c10::Half>(), gradient_scale);
    else
      row_losses<T>(logits_NV, target_N, loss_N, gradient_NV ? gradient_NV->mutable_data_ptr<T>() : nullptr,
                    gradient_scale);
  });
  return loss_N;
}

}  // namespace

TORCH_LIBRARY_IMPL(fathom, CPU, library) {
  library.impl("softmax_cross_entropy", apply_cpu);
}

}  // namespace fathom::kernels
