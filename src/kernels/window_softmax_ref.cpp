#include <ATen/TensorOperators.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/sum.h>

#include "kernels/window_softmax.h"

namespace fathom::kernels::window_softmax_ref {

at::Tensor forward(const at::Tensor& scores, const at::Tensor& bias_HTT,
                   const std::optional<at::Tensor>& mask_WTT, double scale) {
  auto logits = scores * scale + bias_HTT;
  if (mask_WTT) {
    const int64_t windows = mask_WTT->size(0);
    const auto sizes = scores.sizes();
    logits = (logits.view({-1, windows, sizes[1], sizes[2], sizes[3]}) + mask_WTT->unsqueeze(1)).view(sizes);
  }
  return at::softmax(logits, -1);
}

std::tuple<at::Tensor, at::Tensor> backward(const at::Tensor& grad, const at::Tensor& p, double scale) {
  const auto product = grad * p;
  const auto grad_logits = product - p * at::sum(product, {-1}, true);
  return {grad_logits * scale, at::sum(grad_logits, {0})};
}

}  // namespace fathom::kernels::window_softmax_ref
