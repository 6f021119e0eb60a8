#include <ATen/ops/full_like.h>
#include <ATen/ops/log_softmax.h>

#include "kernels/softmax_cross_entropy.h"

namespace fathom::kernels::softmax_cross_entropy_ref {

at::Tensor apply(const at::Tensor& logits_NV, const at::Tensor& target_N,
                 const std::optional<at::Tensor>& gradient_NV, double gradient_scale,
                 const std::optional<at::Tensor>& divisor) {
  const auto statistics = c10::promoteTypes(logits_NV.scalar_type(), at::kFloat);
  const auto log_probability_NV = at::log_softmax(logits_NV, 1, statistics);
  const auto ignored_N1 = target_N.lt(0).unsqueeze(1), index_N1 = target_N.clamp_min(0).unsqueeze(1);
  const auto loss_N1 = log_probability_NV.gather(1, index_N1).masked_fill(ignored_N1, 0).neg();
  if (gradient_NV) {
    const auto found_NV = log_probability_NV.exp_();
    found_NV.scatter_add_(1, index_N1, at::full_like(index_N1, -1, found_NV.options()));
    found_NV.masked_fill_(ignored_N1, 0);
    if (divisor) found_NV.div_(*divisor);
    gradient_NV->copy_(gradient_scale == 1 ? found_NV : found_NV.mul_(gradient_scale));
  }
  return loss_N1.squeeze(1);
}

}  // namespace fathom::kernels::softmax_cross_entropy_ref
