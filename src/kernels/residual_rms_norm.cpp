#include "kernels/residual_rms_norm.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "base/error.h"
#include "kernels/residual_rms_norm_parts.h"

namespace fathom::kernels {
namespace {

namespace parts = residual_rms_norm_parts;

struct ResidualRmsNormFunction : torch::autograd::Function<ResidualRmsNormFunction> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context,
                                                const at::Tensor& x, const at::Tensor& branch,
                                                const at::Tensor& weight, double eps) {
    static const auto op =
        find_op<parts::Three(const at::Tensor&, const at::Tensor&, const at::Tensor&, double)>(
            "fathom::residual_rms_norm");
    at::AutoDispatchBelowADInplaceOrView below;
    auto [sum, y, scale] = op.call(x, branch, weight, eps);
    context->save_for_backward({sum, weight, scale});
    context->set_materialize_grads(false);
    return {sum, y};
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    static const auto op =
        find_op<parts::Pair(const std::optional<at::Tensor>&, const at::Tensor&, const at::Tensor&,
                            const at::Tensor&, const at::Tensor&)>("fathom::residual_rms_norm_backward");
    const auto &grad_sum = grads[0], &grad_y = grads[1];
    if (!grad_y.defined()) return {grad_sum, grad_sum, at::Tensor(), at::Tensor()};
    const auto saved = context->get_saved_variables();
    const auto [grad, grad_weight] = op.call(optional(grad_sum), grad_y, saved[0], saved[1], saved[2]);
    return {grad, grad, grad_weight, at::Tensor()};
  }
};

}  // namespace

NormedSum residual_rms_norm(const at::Tensor& x, const at::Tensor& branch, const at::Tensor& weight,
                            double eps) {
  FATHOM_CHECK(x.dim() > 0 && branch.sizes() == x.sizes() && branch.scalar_type() == x.scalar_type(),
               "[residual_rms_norm] expected a branch like the input, got {} for {} elements, {} for {}",
               branch.numel(), x.numel(), c10::toString(branch.scalar_type()),
               c10::toString(x.scalar_type()));
  FATHOM_CHECK(weight.dim() == 1 && weight.size(0) == x.size(-1),
               "[residual_rms_norm] expected a weight of the last dimension, got {} for {}", weight.numel(),
               x.size(-1));
  const auto result = ResidualRmsNormFunction::apply(x, branch, weight, eps);
  return {result[0], result[1]};
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def(
      "residual_rms_norm(Tensor x, Tensor branch, Tensor weight, float eps) -> (Tensor, Tensor, Tensor)");
  library.def(
      "residual_rms_norm_backward(Tensor? grad_sum, Tensor grad, Tensor sum, Tensor weight, Tensor scale) -> "
      "(Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("residual_rms_norm", parts::forward);
  library.impl("residual_rms_norm_backward", parts::backward);
}

}  // namespace fathom::kernels
