#include "kernels/layer_norm.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "base/error.h"
#include "kernels/call.h"

namespace fathom::kernels {
namespace {

using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

struct LayerNormFunction : torch::autograd::Function<LayerNormFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& weight, const at::Tensor& bias, double eps) {
    static const auto op =
        find_op<Three(const at::Tensor&, const at::Tensor&, const at::Tensor&, double)>("fathom::layer_norm");
    at::AutoDispatchBelowADInplaceOrView below;
    auto [y, mean, scale] = op.call(x, weight, bias, eps);
    context->save_for_backward({x, weight, bias, mean, scale});
    return y;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    static const auto op =
        find_op<Three(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                      const at::Tensor&, const at::Tensor&)>("fathom::layer_norm_backward");
    const auto saved = context->get_saved_variables();
    auto [grad_x, grad_weight, grad_bias] =
        op.call(grads[0], saved[0], saved[1], saved[2], saved[3], saved[4]);
    return {grad_x, grad_weight, grad_bias, at::Tensor()};
  }
};

}  // namespace

at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps) {
  FATHOM_CHECK(
      x.dim() > 0 && weight.dim() == 1 && weight.size(0) == x.size(-1) && bias.sizes() == weight.sizes(),
      "[layer_norm] expected a weight and a bias of the last dimension, got {} and {} for {}", weight.numel(),
      bias.numel(), x.dim() > 0 ? x.size(-1) : 0);
  return LayerNormFunction::apply(x, weight, bias, eps);
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def("layer_norm(Tensor x, Tensor weight, Tensor bias, float eps) -> (Tensor, Tensor, Tensor)");
  library.def(
      "layer_norm_backward(Tensor grad, Tensor x, Tensor weight, Tensor bias, Tensor mean, Tensor scale) -> "
      "(Tensor, Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("layer_norm", layer_norm_ref::forward);
  library.impl("layer_norm_backward", layer_norm_ref::backward);
}

}  // namespace fathom::kernels
