#include "kernels/window_softmax.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "base/error.h"
#include "kernels/call.h"

namespace fathom::kernels {
namespace {

using Pair = std::tuple<at::Tensor, at::Tensor>;

struct WindowSoftmaxFunction : torch::autograd::Function<WindowSoftmaxFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& scores,
                            const at::Tensor& bias_HTT, const std::optional<at::Tensor>& mask_WTT,
                            double scale) {
    static const auto op =
        find_op<at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, double)>(
            "fathom::window_softmax");
    at::AutoDispatchBelowADInplaceOrView below;
    auto p = op.call(scores, bias_HTT, mask_WTT, scale);
    context->save_for_backward({p});
    context->saved_data["scale"] = scale;
    return p;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    static const auto op =
        find_op<Pair(const at::Tensor&, const at::Tensor&, double)>("fathom::window_softmax_backward");
    auto [grad_scores, grad_bias] =
        op.call(grads[0], context->get_saved_variables()[0], context->saved_data["scale"].toDouble());
    return {grad_scores, grad_bias, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor window_softmax(const at::Tensor& scores, const at::Tensor& bias_HTT, const at::Tensor& mask_WTT,
                          double scale) {
  FATHOM_CHECK(scores.dim() == 4 && bias_HTT.dim() == 3 && scores.sizes().slice(1) == bias_HTT.sizes(),
               "[window_softmax] expected scores [N, H, T, T] and a bias [H, T, T], got {} and {} dimensions",
               scores.dim(), bias_HTT.dim());
  FATHOM_CHECK(!mask_WTT.defined() || (mask_WTT.dim() == 3 && scores.size(0) % mask_WTT.size(0) == 0 &&
                                       mask_WTT.size(2) == scores.size(3)),
               "[window_softmax] expected a mask [W, T, T] with W a divisor of {}", scores.size(0));
  const auto mask = mask_WTT.defined() ? std::make_optional(mask_WTT) : std::nullopt;
  return WindowSoftmaxFunction::apply(scores, bias_HTT, mask, scale);
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def("window_softmax(Tensor scores, Tensor bias, Tensor? mask, float scale) -> Tensor");
  library.def("window_softmax_backward(Tensor grad, Tensor p, float scale) -> (Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("window_softmax", window_softmax_ref::forward);
  library.impl("window_softmax_backward", window_softmax_ref::backward);
}

}  // namespace fathom::kernels
