#include <ATen/Parallel.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "kernels/cpu_vector.h"
#include "kernels/window_softmax.h"

namespace fathom::kernels {
namespace {

/// Longest row whose logits are kept on the stack: windows of up to 32 × 32 places.
constexpr int64_t kMaxRow = 1024;

template <typename T>
FATHOM_CPU_CLONES void forward_row(const T* scores, const T* bias, const T* mask, T* p, int64_t size,
                                   double scale) {
  using C = Compute<T>;
  C logits[kMaxRow];
  const C factor = static_cast<C>(scale);
  for (int64_t i = 0; i < size; ++i) logits[i] = load(scores[i]) * factor + load(bias[i]);
  if (mask != nullptr)
    for (int64_t i = 0; i < size; ++i) logits[i] += load(mask[i]);
  C top = logits[0];
  for (int64_t i = 1; i < size; ++i) top = logits[i] > top ? logits[i] : top;
  for (int64_t i = 0; i < size; ++i) logits[i] = fast_exp(logits[i] - top);
  C lanes[8] = {};
  int64_t i = 0;
  for (; i + 8 <= size; i += 8)
    for (int64_t j = 0; j < 8; ++j) lanes[j] += logits[i + j];
  C sum = 0;
  for (; i < size; ++i) sum += logits[i];
  for (int64_t j = 0; j < 8; ++j) sum += lanes[j];
  const C inverse = C(1) / sum;
  for (i = 0; i < size; ++i) store(p[i], logits[i] * inverse);
}

/// Writes the gradient of the scores, adds that of the bias.
template <typename T>
FATHOM_CPU_CLONES void backward_row(const T* grad, const T* p, T* grad_scores, Compute<T>* grad_bias,
                                    int64_t size, double scale) {
  using C = Compute<T>;
  C lanes[8] = {};
  int64_t i = 0;
  for (; i + 8 <= size; i += 8)
    for (int64_t j = 0; j < 8; ++j) lanes[j] += load(grad[i + j]) * load(p[i + j]);
  C sum = 0;
  for (; i < size; ++i) sum += load(grad[i]) * load(p[i]);
  for (int64_t j = 0; j < 8; ++j) sum += lanes[j];
  const C factor = static_cast<C>(scale);
  for (i = 0; i < size; ++i) {
    const C g = load(p[i]) * (load(grad[i]) - sum);
    store(grad_scores[i], g * factor);
    grad_bias[i] += g;
  }
}

at::Tensor forward_cpu(const at::Tensor& scores_in, const at::Tensor& bias_in,
                       const std::optional<at::Tensor>& mask_in, double scale) {
  if (scores_in.size(3) > kMaxRow) return window_softmax_ref::forward(scores_in, bias_in, mask_in, scale);
  const auto scores = scores_in.contiguous(), bias = bias_in.contiguous();
  const auto mask = mask_in ? mask_in->contiguous() : at::Tensor();
  auto p = at::empty_like(scores);
  const int64_t heads = scores.size(1), size = scores.size(3), area = scores.size(2) * size;
  const int64_t windows = mask.defined() ? mask.size(0) : 1;
  dispatch_floating(scores.scalar_type(), "window_softmax", [&]<typename T>(T) {
    const T* no_mask = nullptr;
    at::parallel_for(0, scores.size(0) * heads, row_grain(area), [&](int64_t begin, int64_t end) {
      for (int64_t matrix = begin; matrix < end; ++matrix) {
        const T* from = scores.const_data_ptr<T>() + matrix * area;
        const T* added = bias.const_data_ptr<T>() + matrix % heads * area;
        const T* masked =
            mask.defined() ? mask.const_data_ptr<T>() + matrix / heads % windows * area : no_mask;
        T* to = p.mutable_data_ptr<T>() + matrix * area;
        for (int64_t row = 0; row < area; row += size)
          forward_row(from + row, added + row, masked ? masked + row : no_mask, to + row, size, scale);
      }
    });
  });
  return p;
}

std::tuple<at::Tensor, at::Tensor> backward_cpu(const at::Tensor& grad_in, const at::Tensor& p_in,
                                                double scale) {
  const auto grad = grad_in.contiguous(), p = p_in.contiguous();
  auto grad_scores = at::empty_like(p);
  const int64_t heads = p.size(1), size = p.size(3), area = p.size(2) * size, count = p.size(0);
  // The bias's gradient is summed in chunks of fixed size, so it does not depend on the number of threads.
  const int64_t chunk = std::max<int64_t>(1, (count + 15) / 16), chunks = (count + chunk - 1) / chunk;
  const auto wide = p.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  auto partial = at::zeros({chunks, heads, p.size(2), size}, p.options().dtype(wide));
  dispatch_floating(p.scalar_type(), "window_softmax", [&]<typename T>(T) {
    at::parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t matrix = begin * chunk * heads; matrix < std::min(count, end * chunk) * heads; ++matrix) {
        const int64_t start = matrix * area;
        Compute<T>* grad_bias =
            partial.mutable_data_ptr<Compute<T>>() + (matrix / heads / chunk * heads + matrix % heads) * area;
        for (int64_t row = 0; row < area; row += size)
          backward_row(grad.const_data_ptr<T>() + start + row, p.const_data_ptr<T>() + start + row,
                       grad_scores.mutable_data_ptr<T>() + start + row, grad_bias + row, size, scale);
      }
    });
  });
  return {grad_scores, at::sum(partial, {0}).to(p.scalar_type())};
}

}  // namespace

TORCH_LIBRARY_IMPL(fathom, CPU, library) {
  library.impl("window_softmax", forward_cpu);
  library.impl("window_softmax_backward", backward_cpu);
}

}  // namespace fathom::kernels
