#include "kernels/linear_gelu.h"

#include <ATen/ops/gelu.h>
#include <ATen/ops/mm.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <vector>

#include "base/error.h"
#include "kernels/call.h"
#include "kernels/linear_gradient.h"

namespace fathom::kernels {
namespace {

struct LinearGeluFunction : torch::autograd::Function<LinearGeluFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& weight, const at::Tensor& bias, const LinearTypes& types) {
    const auto operand = narrowed_weight(weight, x.scalar_type(), types.copies),
               added = narrowed_weight(bias, x.scalar_type(), types.copies);
    const at::AutoDispatchBelowADInplaceOrView below;
    const auto rows = x.reshape({-1, x.size(-1)});
    const auto [y, inner] = linear_gelu_of(rows, operand, added, true);
    context->save_for_backward({rows, operand, inner});
    keep_parameters(*context, weight, bias, types.rooms);
    return y.view(with_last(x, weight.size(0)));
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &rows = saved[0], &weight = saved[1], &inner = saved[2];
    const auto [grad, sum] = gelu_grad_sum(grads[0].reshape(inner.sizes()), inner);
    at::Tensor grad_x, grad_bias;
    if (context->needs_input_grad(0)) grad_x = at::mm(grad, weight).view(with_last(grads[0], weight.size(1)));
    if (const auto type = bias_type(*context)) grad_bias = sum.to(*type);
    return {grad_x, weight_gradient(*context, grad, rows), grad_bias, at::Tensor()};
  }
};

}  // namespace

bool has_gelu_product(const at::Tensor& x, const at::Tensor& weight) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("fathom::linear_gelu", "");
  return x.is_cuda() && (x.scalar_type() == at::kHalf || x.scalar_type() == at::kBFloat16) &&
         weight.size(0) % 8 == 0 && weight.size(1) % 8 == 0 &&
         op.hasKernelForDispatchKey(c10::DispatchKey::CUDA);
}

std::tuple<at::Tensor, at::Tensor> linear_gelu_of(const at::Tensor& x, const at::Tensor& weight,
                                                  const at::Tensor& bias, bool keep) {
  static const auto op = find_op<std::tuple<at::Tensor, at::Tensor>(
      const at::Tensor&, const at::Tensor&, const at::Tensor&, bool)>("fathom::linear_gelu");
  const at::AutoDispatchBelowADInplaceOrView below;
  return x.is_cpu() || has_gelu_product(x, weight) ? op.call(x, weight, bias, keep)
                                                   : linear_gelu_ref::forward(x, weight, bias, keep);
}

std::tuple<at::Tensor, at::Tensor> gelu_grad_sum(const at::Tensor& grad, const at::Tensor& x) {
  static const auto op = find_op<std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, const at::Tensor&)>(
      "fathom::gelu_grad_sum");
  return op.call(grad, x);
}

at::Tensor linear_gelu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                       const LinearTypes& types) {
  FATHOM_CHECK(weight.dim() == 2 && x.dim() > 0 && x.size(-1) == weight.size(1) && bias.dim() == 1 &&
                   bias.size(0) == weight.size(0),
               "[linear_gelu] expected inputs of {} features and a bias, got {}",
               weight.dim() == 2 ? weight.size(1) : -1, x.dim() > 0 ? x.size(-1) : 0);
  if (types.products.narrow(x)) return at::gelu(linear(x, weight, bias, types));
  const auto type = product_type(x), result = types.result.value_or(x.scalar_type());
  const bool learns =
      c10::GradMode::is_enabled() && (x.requires_grad() || weight.requires_grad() || bias.requires_grad());
  if (!learns)
    return std::get<0>(linear_gelu_of(x.to(type), narrowed_weight(weight, type, types.copies),
                                      narrowed_weight(bias, type, types.copies), false))
        .to(result);
  return LinearGeluFunction::apply(x.to(type), weight, bias, types).to(result);
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def("linear_gelu(Tensor x, Tensor weight, Tensor bias, bool keep) -> (Tensor, Tensor)");
  library.def("gelu_grad_sum(Tensor grad, Tensor x) -> (Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("linear_gelu", linear_gelu_ref::forward);
  library.impl("gelu_grad_sum", linear_gelu_ref::backward);
}

}  // namespace fathom::kernels
