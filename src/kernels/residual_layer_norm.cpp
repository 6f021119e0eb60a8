#include "kernels/residual_layer_norm.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "base/error.h"
#include "kernels/residual_layer_norm_parts.h"

namespace fathom::kernels {
namespace {

struct ResidualLayerNormFunction : torch::autograd::Function<ResidualLayerNormFunction> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context,
                                                const at::Tensor& x, const at::Tensor& branch,
                                                const std::optional<at::Tensor>& scale_B,
                                                const at::Tensor& weight, const at::Tensor& bias,
                                                double eps) {
    static const auto op = find_op<residual_layer_norm_parts::Forward>("fathom::residual_layer_norm");
    at::AutoDispatchBelowADInplaceOrView below;
    auto [sum, y, mean, scale] = op.call(x, branch, scale_B, weight, bias, eps);
    context->save_for_backward({sum, weight, bias, mean, scale, scale_B.value_or(at::Tensor())});
    context->set_materialize_grads(false);
    return {sum, y};
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    static const auto op =
        find_op<residual_layer_norm_parts::Backward>("fathom::residual_layer_norm_backward");
    const auto &grad_sum = grads[0], &grad_y = grads[1];
    const auto saved = context->get_saved_variables();
    const auto scale_B = optional(saved[5]);
    if (!grad_y.defined()) {
      const auto grad_branch = residual_layer_norm_parts::branch_gradient(grad_sum, scale_B);
      return {grad_sum,    scale_B ? grad_branch : grad_sum, at::Tensor(), at::Tensor(), at::Tensor(),
              at::Tensor()};
    }
    const auto [grad, grad_branch, grad_weight, grad_bias] =
        op.call(optional(grad_sum), grad_y, saved[0], scale_B, saved[1], saved[2], saved[3], saved[4]);
    return {grad, scale_B ? grad_branch : grad, at::Tensor(), grad_weight, grad_bias, at::Tensor()};
  }
};

}  // namespace

bool Branch::fits(const at::Tensor& x) const {
  const bool scale_fits = !scale_B.defined() || (scale_B.dim() == 1 && scale_B.size(0) == x.size(0) &&
                                                 scale_B.scalar_type() == x.scalar_type());
  return value.sizes() == x.sizes() && value.scalar_type() == x.scalar_type() && scale_fits;
}

NormedSum residual_layer_norm(const at::Tensor& x, const Branch& added, const at::Tensor& weight,
                              const at::Tensor& bias, double eps) {
  const at::Tensor& branch = added.value;
  FATHOM_CHECK(x.dim() > 0 && added.fits(x),
               "[residual_layer_norm] expected a branch like the input, got {} for {} elements, {} for {}",
               branch.numel(), x.numel(), c10::toString(branch.scalar_type()),
               c10::toString(x.scalar_type()));
  FATHOM_CHECK(
      weight.dim() == 1 && weight.size(0) == x.size(-1) && bias.sizes() == weight.sizes(),
      "[residual_layer_norm] expected a weight and a bias of the last dimension, got {} and {} for {}",
      weight.numel(), bias.numel(), x.size(-1));
  const auto result = ResidualLayerNormFunction::apply(x, branch, optional(added.scale_B), weight, bias, eps);
  return {result[0], result[1]};
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def(
      "residual_layer_norm(Tensor x, Tensor branch, Tensor? scale_B, Tensor weight, Tensor bias, float eps) "
      "-> "
      "(Tensor, Tensor, Tensor, Tensor)");
  library.def(
      "residual_layer_norm_backward(Tensor? grad_sum, Tensor grad, Tensor sum, Tensor? scale_B, Tensor "
      "weight, "
      "Tensor bias, Tensor mean, Tensor scale) -> (Tensor, Tensor, Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("residual_layer_norm", residual_layer_norm_parts::forward);
  library.impl("residual_layer_norm_backward", residual_layer_norm_parts::backward);
}

}  // namespace fathom::kernels
