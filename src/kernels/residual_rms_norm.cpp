#include "kernels/residual_rms_norm.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <tuple>

#include "base/error.h"
#include "kernels/gradient_type.h"
#include "kernels/residual_rms_norm_parts.h"

namespace fathom::kernels {
namespace {

namespace parts = residual_rms_norm_parts;

struct ResidualRmsNormFunction : torch::autograd::Function<ResidualRmsNormFunction> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context,
                                                const at::Tensor& x, const at::Tensor& branch,
                                                const at::Tensor& weight, double eps,
                                                const Products& products, bool half_branch) {
    static const auto op =
        find_op<parts::Three(const at::Tensor&, const at::Tensor&, const at::Tensor&, double, bool,
                             const std::optional<at::Tensor>&)>("fathom::residual_rms_norm");
    at::AutoDispatchBelowADInplaceOrView below;
    auto [sum, y, scale] = op.call(x, branch, weight, eps, products.casts(x), optional(products.saturated));
    context->save_for_backward({sum, weight, scale});
    context->saved_data["half_branch"] = half_branch;
    context->set_materialize_grads(false);
    return {sum, y};
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    static const auto op =
        find_op<parts::Three(const std::optional<at::Tensor>&, const at::Tensor&, const at::Tensor&,
                             const at::Tensor&, const at::Tensor&, bool)>(
            "fathom::residual_rms_norm_backward");
    const auto &grad_sum = grads[0], &grad_y = grads[1];
    at::Tensor grad = grad_sum, grad_branch = grad_sum, grad_weight;
    if (grad_y.defined()) {
      const auto saved = context->get_saved_variables();
      std::tie(grad, grad_branch, grad_weight) =
          op.call(optional(grad_sum), grad_y, saved[0], saved[1], saved[2],
                  context->saved_data["half_branch"].toBool());
    }
    return {grad, grad_branch, grad_weight, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

NormedSum residual_rms_norm(const at::Tensor& x, const at::Tensor& branch, const at::Tensor& weight,
                            double eps, const Products& products) {
  FATHOM_CHECK(x.dim() > 0 && branch.sizes() == x.sizes() && branch.scalar_type() == x.scalar_type(),
               "[residual_rms_norm] expected a branch like the input, got {} for {} elements, {} for {}",
               branch.numel(), x.numel(), c10::toString(branch.scalar_type()),
               c10::toString(x.scalar_type()));
  FATHOM_CHECK(weight.dim() == 1 && weight.size(0) == x.size(-1),
               "[residual_rms_norm] expected a weight of the last dimension, got {} for {}", weight.numel(),
               x.size(-1));
  const bool casts = products.casts(x);
  const auto result = ResidualRmsNormFunction::apply(x, branch, weight, eps, products,
                                                     casts && !gradient_type(branch).has_value());
  if (casts) take_gradients_in(result[1], x.scalar_type());
  return {result[0], result[1]};
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def(
      "residual_rms_norm(Tensor x, Tensor branch, Tensor weight, float eps, bool to_half, "
      "Tensor(a!)? saturated) -> (Tensor, Tensor, Tensor)");
  library.def(
      "residual_rms_norm_backward(Tensor? grad_sum, Tensor grad, Tensor sum, Tensor weight, Tensor scale, "
      "bool half_branch) -> (Tensor, Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("residual_rms_norm", parts::forward);
  library.impl("residual_rms_norm_backward", parts::backward);
}

}  // namespace fathom::kernels
