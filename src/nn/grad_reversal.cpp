#include "nn/grad_reversal.h"

#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

namespace fathom {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct ReverseGradient : torch::autograd::Function<ReverseGradient> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, double strength) {
    context->saved_data["strength"] = strength;
    return x.view_as(x);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    return {gradients[0] * -context->saved_data["strength"].toDouble(), at::Tensor()};
  }
};

}  // namespace

at::Tensor reverse_gradient(const at::Tensor& x, double strength) {
  return ReverseGradient::apply(x, strength);
}

double reversal_strength(double progress) {
  return 2.0 / (1.0 + std::exp(-10.0 * progress)) - 1.0;
}

}  // namespace fathom
