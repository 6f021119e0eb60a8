#include "kernels/swiglu.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "base/error.h"
#include "kernels/call.h"

namespace fathom::kernels {
namespace {

struct SwigluFunction : torch::autograd::Function<SwigluFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& gate_up) {
    static const auto op = find_op<at::Tensor(const at::Tensor&)>("fathom::swiglu");
    at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({gate_up});
    return op.call(gate_up);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    static const auto op =
        find_op<at::Tensor(const at::Tensor&, const at::Tensor&)>("fathom::swiglu_backward");
    return {op.call(grads[0], context->get_saved_variables()[0])};
  }
};

}  // namespace

at::Tensor swiglu(const at::Tensor& gate_up) {
  FATHOM_CHECK(gate_up.dim() > 0 && gate_up.size(-1) % 2 == 0,
               "[swiglu] expected an even last dimension, got {}", gate_up.dim() > 0 ? gate_up.size(-1) : 0);
  return SwigluFunction::apply(gate_up);
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def("swiglu(Tensor gate_up) -> Tensor");
  library.def("swiglu_backward(Tensor grad, Tensor gate_up) -> Tensor");
}
TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("swiglu", swiglu_ref::forward);
  library.impl("swiglu_backward", swiglu_ref::backward);
}

}  // namespace fathom::kernels
