#include "kernels/linear.h"

#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sum.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "base/error.h"
#include "kernels/call.h"
#include "kernels/product_type.h"

namespace fathom::kernels {
namespace {

/// LibTorch's, but for the bias's gradient: its own sum of columns takes several times as long as reading
/// them.
struct LinearFunction : torch::autograd::Function<LinearFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& weight, const at::Tensor& bias) {
    at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({x, weight});
    return at::linear(x, weight, bias);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1];
    const auto grad = grads[0].contiguous();
    at::Tensor grad_x, grad_weight;
    if (context->needs_input_grad(0)) grad_x = at::matmul(grad, weight);
    if (context->needs_input_grad(1))
      grad_weight = at::mm(grad.view({-1, grad.size(-1)}).t(), x.reshape({-1, x.size(-1)}));
    return {grad_x, grad_weight, context->needs_input_grad(2) ? column_sum(grad) : at::Tensor()};
  }
};

at::Tensor column_sum_ref(const at::Tensor& x) {
  return at::sum(x.reshape({-1, x.size(-1)}), {0});
}

}  // namespace

at::Tensor column_sum(const at::Tensor& x) {
  static const auto op = find_op<at::Tensor(const at::Tensor&)>("fathom::column_sum");
  return op.call(x);
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  FATHOM_CHECK(weight.dim() == 2 && x.dim() > 0 && x.size(-1) == weight.size(1),
               "[linear] expected inputs of {} features, got {}", weight.dim() == 2 ? weight.size(1) : -1,
               x.dim() > 0 ? x.size(-1) : 0);
  const auto type = product_type(x);
  const auto b = bias.defined() ? bias.to(type) : bias;
  if (x.is_cuda() && b.defined()) return LinearFunction::apply(x.to(type), weight.to(type), b);
  return at::linear(x.to(type), weight.to(type), b).to(x.scalar_type());
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def("column_sum(Tensor x) -> Tensor");
}
TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("column_sum", column_sum_ref);
}

}  // namespace fathom::kernels
