#include "kernels/local_mixing.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "base/error.h"
#include "kernels/call.h"
#include "kernels/local_mixing_parts.h"
#include "kernels/product_type.h"

namespace fathom::kernels {
namespace {

struct LocalMixingFunction : torch::autograd::Function<LocalMixingFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& weight, const at::Tensor& bias) {
    static const auto op = find_op<local_mixing_parts::Forward>("fathom::local_mixing");
    const at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({x, weight, bias});
    return op.call(x, weight, bias);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    static const auto op = find_op<local_mixing_parts::Backward>("fathom::local_mixing_backward");
    const auto saved = context->get_saved_variables();
    const auto [grad_x, grad_weight, grad_bias] = op.call(grads[0], saved[0], saved[1], saved[2]);
    return {grad_x, grad_weight, grad_bias};
  }
};

at::Tensor local_mixing_ref(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  return local_mixing_parts::forward(x, weight, bias, product_type(x));
}

local_mixing_parts::Three local_mixing_backward_ref(const at::Tensor& grad, const at::Tensor& x,
                                                    const at::Tensor& weight, const at::Tensor& bias) {
  return local_mixing_parts::backward(grad, x, weight, bias, product_type(x));
}

}  // namespace

at::Tensor local_mixing(const at::Tensor& x_BHWD, const at::Tensor& weight, const at::Tensor& bias) {
  FATHOM_CHECK(x_BHWD.dim() == 4 && weight.dim() == 4 && weight.size(0) == x_BHWD.size(3) &&
                   weight.size(1) == 1 && weight.size(2) == weight.size(3) && weight.size(2) % 2 == 1 &&
                   bias.dim() == 1 && bias.size(0) == x_BHWD.size(3),
               "[local_mixing] expected a map and an odd square of weights of each of its channels");
  return LocalMixingFunction::apply(x_BHWD, weight, bias);
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def("local_mixing(Tensor x, Tensor weight, Tensor bias) -> Tensor");
  library.def(
      "local_mixing_backward(Tensor grad, Tensor x, Tensor weight, Tensor bias) -> (Tensor, Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("local_mixing", local_mixing_ref);
  library.impl("local_mixing_backward", local_mixing_backward_ref);
}

}  // namespace fathom::kernels
