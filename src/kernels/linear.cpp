#include "kernels/linear.h"

#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sum.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <vector>

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

/// Operands in FP16, sums in float32.
struct HalfLinearFunction : torch::autograd::Function<HalfLinearFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                            const Products& products, at::ScalarType result) {
    at::AutoDispatchBelowADInplaceOrView below;
    const auto rows = saturated_half(x, products).reshape({-1, x.size(-1)});
    const auto half_weight = saturated_half(weight, products);
    context->save_for_backward({rows, half_weight});
    context->saved_data["biased"] = bias.has_value();
    auto y = wide_product(rows, half_weight.t());
    if (bias) y.add_(*bias);
    std::vector<int64_t> shape = x.sizes().vec();
    shape.back() = weight.size(0);
    return (result == at::kHalf ? saturated_half(y, products) : y.to(result)).view(shape);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &rows = saved[0], &weight = saved[1];
    const auto grad = grads[0].reshape({-1, weight.size(0)}), half_grad = grad.to(at::kHalf);
    std::vector<int64_t> shape = grads[0].sizes().vec();
    shape.back() = weight.size(1);
    at::Tensor grad_x, grad_weight, grad_bias;
    if (context->needs_input_grad(0)) grad_x = wide_product(half_grad, weight).view(shape);
    if (context->needs_input_grad(1)) grad_weight = wide_product(half_grad.t(), rows);
    if (context->saved_data["biased"].toBool() && context->needs_input_grad(2))
      grad_bias = column_sum(wide(grad).contiguous());
    return {grad_x, grad_weight, grad_bias, at::Tensor(), at::Tensor()};
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

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                  const LinearTypes& types) {
  FATHOM_CHECK(weight.dim() == 2 && x.dim() > 0 && x.size(-1) == weight.size(1),
               "[linear] expected inputs of {} features, got {}", weight.dim() == 2 ? weight.size(1) : -1,
               x.dim() > 0 ? x.size(-1) : 0);
  const auto result = types.result.value_or(x.scalar_type());
  if (types.products.narrow(x))
    return HalfLinearFunction::apply(x, weight, optional(bias), types.products, result);
  const auto type = product_type(x);
  const auto b = bias.defined() ? bias.to(type) : bias;
  if (x.is_cuda() && b.defined()) return LinearFunction::apply(x.to(type), weight.to(type), b).to(result);
  return at::linear(x.to(type), weight.to(type), b).to(result);
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def("column_sum(Tensor x) -> Tensor");
}
TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("column_sum", column_sum_ref);
}

}  // namespace fathom::kernels
