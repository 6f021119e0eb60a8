#include "kernels/merged_layer_norm.h"

#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "base/error.h"
#include "kernels/merged_layer_norm_parts.h"

namespace fathom::kernels {
namespace {

merged_layer_norm_parts::Four call_merged_norm(const at::Tensor& x, const std::optional<at::Tensor>& branch,
                                               const std::optional<at::Tensor>& scale_B,
                                               const at::Tensor& weight, const at::Tensor& bias, double eps,
                                               bool learns) {
  static const auto op = find_op<merged_layer_norm_parts::Forward>("fathom::merged_layer_norm");
  const at::AutoDispatchBelowADInplaceOrView below;
  return op.call(x, branch, scale_B, weight, bias, eps, learns);
}

struct MergedLayerNormFunction : torch::autograd::Function<MergedLayerNormFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const std::optional<at::Tensor>& branch, const std::optional<at::Tensor>& scale_B,
                            const at::Tensor& weight, const at::Tensor& bias, double eps) {
    auto [merged, y, mean, scale] = call_merged_norm(x, branch, scale_B, weight, bias, eps, true);
    context->save_for_backward({merged, weight, bias, mean, scale, scale_B.value_or(at::Tensor())});
    context->saved_data["branched"] = branch.has_value();
    return y;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    static const auto op = find_op<merged_layer_norm_parts::Backward>("fathom::merged_layer_norm_backward");
    const auto saved = context->get_saved_variables();
    const auto scale_B = optional(saved[5]);
    auto [grad, grad_branch, grad_weight, grad_bias] =
        op.call(grads[0], saved[0], scale_B, saved[1], saved[2], saved[3], saved[4]);
    if (!scale_B) grad_branch = context->saved_data["branched"].toBool() ? grad : at::Tensor();
    return {grad, grad_branch, at::Tensor(), grad_weight, grad_bias, at::Tensor()};
  }
};

}  // namespace

at::Tensor merged_layer_norm(const at::Tensor& x, const Branch& added, const at::Tensor& weight,
                             const at::Tensor& bias, double eps) {
  const at::Tensor& branch = added.value;
  FATHOM_CHECK(x.dim() == 4 && x.size(1) % 2 == 0 && x.size(2) % 2 == 0,
               "[merged_layer_norm] expected [B, height, width, D] with even sides, got {} dimensions",
               x.dim());
  FATHOM_CHECK(branch.defined() ? added.fits(x) : !added.scale_B.defined(),
               "[merged_layer_norm] expected a branch like the input, got {} for {} elements",
               branch.defined() ? branch.numel() : 0, x.numel());
  FATHOM_CHECK(weight.dim() == 1 && weight.size(0) == 4 * x.size(3) && bias.sizes() == weight.sizes(),
               "[merged_layer_norm] expected a weight and a bias of {}, got {} and {}", 4 * x.size(3),
               weight.numel(), bias.numel());
  const bool learns =
      c10::GradMode::is_enabled() && (x.requires_grad() || (branch.defined() && branch.requires_grad()) ||
                                      weight.requires_grad() || bias.requires_grad());
  if (!learns)
    return std::get<1>(
        call_merged_norm(x, optional(branch), optional(added.scale_B), weight, bias, eps, false));
  return MergedLayerNormFunction::apply(x, optional(branch), optional(added.scale_B), weight, bias, eps);
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def(
      "merged_layer_norm(Tensor x, Tensor? branch, Tensor? scale_B, Tensor weight, Tensor bias, float eps, "
      "bool learns) -> "
      "(Tensor, Tensor, Tensor, Tensor)");
  library.def(
      "merged_layer_norm_backward(Tensor grad, Tensor merged, Tensor? scale_B, Tensor weight, Tensor bias, "
      "Tensor mean, Tensor scale) -> (Tensor, Tensor, Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("merged_layer_norm", merged_layer_norm_parts::forward);
  library.impl("merged_layer_norm_backward", merged_layer_norm_parts::backward);
}

}  // namespace fathom::kernels
