#include "kernels/fp8_rms_norm.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <optional>
#include <tuple>

#include "base/error.h"
#include "kernels/call.h"
#include "kernels/fp8_parts.h"
#include "kernels/fp8_rms_norm_parts.h"
#include "kernels/gradient_type.h"

namespace fathom::kernels {
namespace {

using Six = fp8_rms_norm_parts::Six;
using MaybeTensor = std::optional<at::Tensor>;

Six normed_ref(const at::Tensor& x, const MaybeTensor& branch, const at::Tensor& weight, double eps,
               int64_t plain, int64_t turned, const MaybeTensor& beyond) {
  return fp8_rms_norm_parts::forward(x, branch, weight, eps, {at::kFloat8_e4m3fn, plain, turned, beyond});
}

Six normed_backward_ref(const MaybeTensor& grad_sum, const at::Tensor& grad, const at::Tensor& sum,
                        const at::Tensor& weight, const at::Tensor& scale, at::ScalarType type, int64_t plain,
                        int64_t turned, const MaybeTensor& beyond) {
  return fp8_rms_norm_parts::backward(grad_sum, grad, {sum, weight, scale}, {type, plain, turned, beyond});
}

/// The layer in FP8 that made `branch`, or null.
c10::intrusive_ptr<Fp8Holder> layer_below(const at::Tensor& branch) {
  if (!branch.defined()) return {};
  auto linear = fp8_linear_of(branch);
  return linear ? linear : fp8_mlp_of(branch);
}

struct SumGradients {
  at::Tensor sum, weight;
};

/// Of the sum, once more in FP8 where `below` takes it so.
SumGradients gradients_of(const MaybeTensor& grad_sum, const at::Tensor& grad,
                          const fp8_rms_norm_parts::Saved& saved, Fp8Holder* below) {
  static const auto alone = find_op<std::tuple<at::Tensor, at::Tensor, at::Tensor>(
      const MaybeTensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, bool)>(
      "fathom::residual_rms_norm_backward");
  static const auto with_fp8 =
      find_op<Six(const MaybeTensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                  const at::Tensor&, at::ScalarType, int64_t, int64_t, const MaybeTensor&)>(
          "fathom::fp8_rms_norm_backward");
  if (below == nullptr) {
    auto [grad_x, same, grad_weight] =
        alone.call(grad_sum, grad, saved.sum, saved.weight, saved.scale, false);
    return {std::move(grad_x), std::move(grad_weight)};
  }
  const Fp8Wish& wish = below->awaited;
  auto [grad_x, grad_weight, plain, plain_scales, turned, turned_scales] = with_fp8.call(
      grad_sum, grad, saved.sum, saved.weight, saved.scale, wish.type, static_cast<int64_t>(wish.plain),
      static_cast<int64_t>(wish.turned), optional(below->beyond));
  below->hand(grad_x,
              {{std::move(plain), std::move(plain_scales)}, {std::move(turned), std::move(turned_scales)}});
  return {std::move(grad_x), std::move(grad_weight)};
}

struct Fp8RmsNormFunction : torch::autograd::Function<Fp8RmsNormFunction> {
  /// The sum, if there is a branch, and what stands for `rows`.
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context,
                                                const at::Tensor& x, const MaybeTensor& branch,
                                                const at::Tensor& weight, double eps, const Fp8Wish& wish,
                                                const Fp8Products& products,
                                                const c10::intrusive_ptr<Fp8Holder>& below, Fp8Pair* rows) {
    static const auto op = find_op<Six(const at::Tensor&, const MaybeTensor&, const at::Tensor&, double,
                                       int64_t, int64_t, const MaybeTensor&)>("fathom::fp8_rms_norm");
    at::AutoDispatchBelowADInplaceOrView under;
    auto [sum, scale, plain, plain_scales, turned, turned_scales] =
        op.call(x, branch, weight, eps, static_cast<int64_t>(wish.plain), static_cast<int64_t>(wish.turned),
                optional(products.beyond));
    context->save_for_backward({branch ? sum : x, weight, scale});
    if (below) context->saved_data["below"] = c10::IValue::make_capsule(below);
    context->set_materialize_grads(false);
    const auto states = plain.view(x.sizes());
    *rows = {{std::move(plain), std::move(plain_scales)}, {std::move(turned), std::move(turned_scales)}};
    if (!branch) return {states};
    return {sum, states};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const bool has_branch = grads.size() == 2;
    const at::Tensor grad_sum = has_branch ? grads[0] : at::Tensor(), &grad = grads.back();
    SumGradients found = {.sum = grad_sum, .weight = {}};
    if (grad.defined()) {
      const auto saved = context->get_saved_variables();
      c10::intrusive_ptr<torch::CustomClassHolder> below;
      if (const auto kept = context->saved_data.find("below"); kept != context->saved_data.end())
        below = kept->second.toCapsule();
      found = gradients_of(optional(grad_sum), grad, {saved[0], saved[1], saved[2]},
                           static_cast<Fp8Holder*>(below.get()));
    }
    return {found.sum,    has_branch ? found.sum : at::Tensor(),
            found.weight, at::Tensor(),
            at::Tensor(), at::Tensor(),
            at::Tensor(), at::Tensor()};
  }
};

}  // namespace

Fp8NormedSum fp8_rms_norm(const at::Tensor& x, const at::Tensor& branch, const RmsNormFactors& norm,
                          bool learns, const Fp8Products& products) {
  FATHOM_CHECK(
      x.dim() > 1 && x.scalar_type() == at::kBFloat16 &&
          (!branch.defined() || (branch.sizes() == x.sizes() && branch.scalar_type() == x.scalar_type())),
      "[fp8_rms_norm] expected bfloat16 states and a branch like them, or none");
  FATHOM_CHECK(norm.weight.dim() == 1 && norm.weight.size(0) == x.size(-1),
               "[fp8_rms_norm] expected a weight of the last dimension, got {} for {}", norm.weight.numel(),
               x.size(-1));
  Fp8NormedSum found;
  const auto result =
      Fp8RmsNormFunction::apply(x, optional(branch), norm.weight, norm.eps, activation_wish(learns), products,
                                layer_below(branch), &found.rows.in_fp8);
  found.sum = branch.defined() ? result[0] : x;
  found.rows.states = result.back();
  take_gradients_in(found.rows.states, x.scalar_type());
  return found;
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def(
      "fp8_rms_norm(Tensor x, Tensor? branch, Tensor weight, float eps, int plain, int turned, "
      "Tensor(a!)? beyond) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  library.def(
      "fp8_rms_norm_backward(Tensor? grad_sum, Tensor grad, Tensor sum, Tensor weight, Tensor scale, "
      "ScalarType type, int plain, int turned, Tensor(a!)? beyond) -> "
      "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("fp8_rms_norm", normed_ref);
  library.impl("fp8_rms_norm_backward", normed_backward_ref);
}

}  // namespace fathom::kernels
