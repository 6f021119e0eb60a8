#include "nn/grad_reversal.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/torch.h>

namespace fathom {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct ReverseGradient : torch::autograd::Function<ReverseGradient> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& strength) {
    context->save_for_backward({strength});
    return x.view_as(x);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    return {gradients[0] * -context->get_saved_variables()[0], at::Tensor()};
  }
};

}  // namespace

at::Tensor reverse_gradient(const at::Tensor& x, const at::Tensor& strength) {
  return ReverseGradient::apply(x, strength);
}

at::Tensor reversal_strength(const at::Tensor& progress) {
  return 2.0 / (1.0 + (-10.0 * progress).exp()) - 1.0;
}

}  // namespace fathom
