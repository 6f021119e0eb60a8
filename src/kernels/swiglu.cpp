#include "kernels/swiglu.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "base/error.h"
#include "kernels/call.h"
#include "kernels/gradient_type.h"

namespace fathom::kernels {
namespace {

struct SwigluFunction : torch::autograd::Function<SwigluFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& gate_up,
                            const Products& products, bool half_gradient) {
    static const auto op = find_op<at::Tensor(const at::Tensor&)>("fathom::swiglu");
    static const auto half =
        find_op<at::Tensor(const at::Tensor&, const std::optional<at::Tensor>&)>("fathom::half_swiglu");
    at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({gate_up});
    context->saved_data["half_gradient"] = half_gradient;
    return products.casts(gate_up) ? half.call(gate_up, optional(products.saturated)) : op.call(gate_up);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    static const auto op =
        find_op<at::Tensor(const at::Tensor&, const at::Tensor&)>("fathom::swiglu_backward");
    static const auto half =
        find_op<at::Tensor(const at::Tensor&, const at::Tensor&)>("fathom::half_swiglu_backward");
    const auto gate_up = context->get_saved_variables()[0];
    const bool half_gradient = context->saved_data["half_gradient"].toBool();
    return {half_gradient ? half.call(grads[0], gate_up) : op.call(grads[0], gate_up), at::Tensor(),
            at::Tensor()};
  }
};

}  // namespace

at::Tensor swiglu(const at::Tensor& gate_up, const Products& products) {
  FATHOM_CHECK(gate_up.dim() > 0 && gate_up.size(-1) % 2 == 0,
               "[swiglu] expected an even last dimension, got {}", gate_up.dim() > 0 ? gate_up.size(-1) : 0);
  const bool casts = products.casts(gate_up);
  const auto y = SwigluFunction::apply(gate_up, products, casts && !gradient_type(gate_up).has_value());
  if (casts) take_gradients_in(y, gate_up.scalar_type());
  return y;
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def("swiglu(Tensor gate_up) -> Tensor");
  library.def("swiglu_backward(Tensor grad, Tensor gate_up) -> Tensor");
  library.def("half_swiglu(Tensor gate_up, Tensor(a!)? saturated) -> Tensor");
  library.def("half_swiglu_backward(Tensor grad, Tensor gate_up) -> Tensor");
}
TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("swiglu", swiglu_ref::forward);
  library.impl("swiglu_backward", swiglu_ref::backward);
  library.impl("half_swiglu", swiglu_ref::half);
  library.impl("half_swiglu_backward", swiglu_ref::half_backward);
}

}  // namespace fathom::kernels
