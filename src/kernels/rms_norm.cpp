#include "kernels/rms_norm.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "base/error.h"
#include "kernels/call.h"

namespace fathom::kernels {
namespace {

using Pair = std::tuple<at::Tensor, at::Tensor>;

Pair call_forward(const at::Tensor& x, const at::Tensor& weight, double eps) {
  static const auto op = find_op<Pair(const at::Tensor&, const at::Tensor&, double)>("fathom::rms_norm");
  return op.call(x, weight, eps);
}

Pair call_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight,
                   const at::Tensor& scale) {
  static const auto op =
      find_op<Pair(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&)>(
          "fathom::rms_norm_backward");
  return op.call(grad, x, weight, scale);
}

struct RmsNormFunction : torch::autograd::Function<RmsNormFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& weight, double eps) {
    at::AutoDispatchBelowADInplaceOrView below;
    auto [y, scale] = call_forward(x, weight, eps);
    context->save_for_backward({x, weight, scale});
    return y;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = context->get_saved_variables();
    auto [grad_x, grad_weight] = call_backward(grads[0], saved[0], saved[1], saved[2]);
    return {grad_x, grad_weight, at::Tensor()};
  }
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  FATHOM_CHECK(x.dim() > 0 && weight.dim() == 1 && weight.size(0) == x.size(-1),
               "[rms_norm] expected a weight of the last dimension, got {} for {}", weight.numel(),
               x.dim() > 0 ? x.size(-1) : 0);
  FATHOM_CHECK(x.scalar_type() == weight.scalar_type(), "[rms_norm] expected one type, got {} and {}",
               c10::toString(x.scalar_type()), c10::toString(weight.scalar_type()));
  return RmsNormFunction::apply(x, weight, eps);
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def("rms_norm(Tensor x, Tensor weight, float eps) -> (Tensor, Tensor)");
  library.def("rms_norm_backward(Tensor grad, Tensor x, Tensor weight, Tensor scale) -> (Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("rms_norm", rms_norm_ref::forward);
  library.impl("rms_norm_backward", rms_norm_ref::backward);
}

}  // namespace fathom::kernels
