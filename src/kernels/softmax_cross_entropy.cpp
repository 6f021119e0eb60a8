#include "kernels/softmax_cross_entropy.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "base/error.h"
#include "kernels/call.h"

namespace fathom::kernels {
namespace {

bool takes_gradient_of(const at::Tensor& logits, const at::Tensor& gradient) {
  const auto type = logits.scalar_type(), as = gradient.scalar_type();
  return gradient.is_contiguous() && gradient.sizes() == logits.sizes() &&
         gradient.device() == logits.device() && (as == type || (type == at::kFloat && as == at::kHalf));
}

}  // namespace

at::Tensor softmax_cross_entropy(const at::Tensor& logits_NV, const at::Tensor& target_N,
                                 const at::Tensor& gradient_NV, double gradient_scale,
                                 const at::Tensor& divisor) {
  FATHOM_CHECK(logits_NV.dim() == 2 && logits_NV.size(1) > 0 && logits_NV.is_contiguous(),
               "[softmax_cross_entropy] expected dense rows of logits");
  FATHOM_CHECK(target_N.dim() == 1 && target_N.size(0) == logits_NV.size(0) &&
                   target_N.scalar_type() == at::kLong && target_N.device() == logits_NV.device(),
               "[softmax_cross_entropy] expected {} int64 targets on {}", logits_NV.size(0),
               logits_NV.device().str());
  FATHOM_CHECK(!gradient_NV.defined() || takes_gradient_of(logits_NV, gradient_NV),
               "[softmax_cross_entropy] expected dense room for a gradient of the logits' shape and type, or "
               "of FP16 where they are float32");
  FATHOM_CHECK(
      !divisor.defined() || (divisor.numel() == 1 && divisor.device() == logits_NV.device() &&
                             divisor.scalar_type() == c10::promoteTypes(logits_NV.scalar_type(), at::kFloat)),
      "[softmax_cross_entropy] expected a divisor of the losses' type on {}", logits_NV.device().str());
  static const auto op =
      find_op<at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, double,
                         const std::optional<at::Tensor>&)>("fathom::softmax_cross_entropy");
  const at::AutoDispatchBelowADInplaceOrView below;
  return op.call(logits_NV, target_N, optional(gradient_NV), gradient_scale, optional(divisor));
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def(
      "softmax_cross_entropy(Tensor logits, Tensor target, Tensor(a!)? gradient, float gradient_scale, "
      "Tensor? divisor=None) -> Tensor");
}
TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("softmax_cross_entropy", softmax_cross_entropy_ref::apply);
}

}  // namespace fathom::kernels
