#include "kernels/linear.h"

#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sum.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <optional>
#include <utility>

#include "base/error.h"
#include "kernels/biased_product.h"
#include "kernels/call.h"
#include "kernels/gradient_type.h"
#include "kernels/half_product.h"
#include "kernels/linear_gradient.h"
#include "kernels/product_type.h"

namespace fathom::kernels {
namespace {

/// LibTorch's, but for weights of another type, whose cast may be a copy and whose gradient needs none on a
/// GPU, and for the bias's gradient: LibTorch's sum of columns takes several times as long as reading them.
struct LinearFunction : torch::autograd::Function<LinearFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                            const LinearTypes& types) {
    const auto operand = narrowed_weight(weight, x.scalar_type(), types.copies);
    std::optional<at::Tensor> added;
    if (bias) added = narrowed_weight(*bias, x.scalar_type(), types.copies);
    at::AutoDispatchBelowADInplaceOrView below;
    const auto rows = x.reshape({-1, x.size(-1)});
    context->save_for_backward({rows, operand});
    keep_parameters(*context, weight, bias, types.rooms);
    return biased_product(rows, operand, added).view(with_last(x, weight.size(0)));
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &rows = saved[0], &weight = saved[1];
    const auto grad = grads[0].contiguous().view({-1, weight.size(0)});
    at::Tensor grad_x, grad_weight, grad_bias;
    if (context->needs_input_grad(0)) grad_x = at::mm(grad, weight).view(with_last(grads[0], weight.size(1)));
    grad_weight = weight_gradient(*context, grad, rows);
    if (const auto type = bias_type(*context)) grad_bias = column_sum(grad, type);
    return {grad_x, grad_weight, grad_bias, at::Tensor()};
  }
};

/// Operands in FP16, sums in float32.
struct HalfLinearFunction : torch::autograd::Function<HalfLinearFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                            const LinearTypes& types, at::ScalarType result, at::ScalarType gradient) {
    const Products& products = types.products;
    const auto operand = half_weight(weight, products, types.copies);
    at::AutoDispatchBelowADInplaceOrView below;
    const auto rows = saturated_half(x, products).reshape({-1, x.size(-1)});
    context->save_for_backward({rows, operand});
    keep_parameters(*context, weight, bias, types.rooms);
    context->saved_data["gradient"] = static_cast<int64_t>(gradient);
    return half_product(rows, operand.t(),
                        {.type = result, .bias = bias.value_or(at::Tensor()), .saturating = &products})
        .view(with_last(x, weight.size(0)));
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &rows = saved[0], &weight = saved[1];
    const auto grad = grads[0].reshape({-1, weight.size(0)}), half_grad = grad.to(at::kHalf);
    at::Tensor grad_x, grad_weight, grad_bias;
    if (context->needs_input_grad(0)) {
      const auto type = static_cast<at::ScalarType>(context->saved_data["gradient"].toInt());
      grad_x = half_product(half_grad, weight, {.type = type}).view(with_last(grads[0], weight.size(1)));
    }
    grad_weight = weight_gradient(*context, half_grad, rows);
    if (const auto type = bias_type(*context)) grad_bias = column_sum(grad, type);
    return {grad_x, grad_weight, grad_bias, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

/// The gradient of x is written as what made x takes it, and that of the result is an operand: it may come in
/// FP16 already.
at::Tensor half_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                       const LinearTypes& types, at::ScalarType result) {
  const at::ScalarType gradient = gradient_type(x).value_or(x.scalar_type());
  const at::Tensor y = HalfLinearFunction::apply(x, weight, optional(bias), types, result, gradient);
  take_gradients_in(y, std::nullopt);
  return y;
}

at::Tensor column_sum_ref(const at::Tensor& x, std::optional<at::ScalarType> type) {
  return at::sum(x.reshape({-1, x.size(-1)}), {0}, /*keepdim=*/false, type);
}

}  // namespace

void keep_parameters(torch::autograd::AutogradContext& context, const at::Tensor& weight,
                     const std::optional<at::Tensor>& bias, GradientRooms* rooms) {
  context.saved_data["weight"] = c10::IValue::make_capsule(c10::make_intrusive<WeightHolder>(weight, rooms));
  keep_bias_type(context, bias);
}

void keep_bias_type(torch::autograd::AutogradContext& context, const std::optional<at::Tensor>& bias) {
  if (bias) context.saved_data["bias_type"] = static_cast<int64_t>(bias->scalar_type());
}

at::Tensor WeightHolder::gradient(const at::Tensor& grad, const at::Tensor& rows) const {
  const auto type = weight.scalar_type();
  const bool has_wide = grad.is_cuda() || grad.scalar_type() == at::kHalf;
  const bool is_wide = has_wide && type == at::kFloat && grad.scalar_type() != at::kDouble;
  at::Tensor room = rooms != nullptr ? rooms->take(weight) : at::Tensor();
  if (!room.defined()) return is_wide ? wide_product(grad.t(), rows) : at::mm(grad.t(), rows).to(type);
  if (is_wide)
    write_wide_product(room, grad.t(), rows);
  else
    room.copy_(at::mm(grad.t(), rows));
  return room;
}

at::Tensor weight_gradient(torch::autograd::AutogradContext& context, const at::Tensor& grad,
                           const at::Tensor& rows) {
  if (!context.needs_input_grad(1)) return {};
  const auto capsule = context.saved_data["weight"].toCapsule();
  return static_cast<const WeightHolder*>(capsule.get())->gradient(grad, rows);
}

std::optional<at::ScalarType> bias_type(torch::autograd::AutogradContext& context) {
  const auto found = context.saved_data.find("bias_type");
  if (found == context.saved_data.end() || !context.needs_input_grad(2)) return std::nullopt;
  return static_cast<at::ScalarType>(found->second.toInt());
}

at::Tensor column_sum(const at::Tensor& x, std::optional<at::ScalarType> type) {
  static const auto op =
      find_op<at::Tensor(const at::Tensor&, std::optional<at::ScalarType>)>("fathom::column_sum");
  return op.call(x, type);
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                  const LinearTypes& types) {
  FATHOM_CHECK(weight.dim() == 2 && x.dim() > 0 && x.size(-1) == weight.size(1),
               "[linear] expected inputs of {} features, got {}", weight.dim() == 2 ? weight.size(1) : -1,
               x.dim() > 0 ? x.size(-1) : 0);
  const auto result = types.result.value_or(x.scalar_type());
  if (types.products.narrow(x)) return half_linear(x, weight, bias, types, result);
  if (types.fp8 != nullptr && multiplies_in_fp8(x, weight, *types.fp8))
    return fp8_linear(x, weight, bias, *types.fp8, types.rooms).to(result);
  const auto type = product_type(x);
  if (weight.scalar_type() != type || (x.is_cuda() && bias.defined()))
    return LinearFunction::apply(x.to(type), weight, optional(bias), types).to(result);
  return at::linear(x.to(type), weight, bias.defined() ? bias.to(type) : bias).to(result);
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def("column_sum(Tensor x, ScalarType? type=None) -> Tensor");
}
TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("column_sum", column_sum_ref);
}

}  // namespace fathom::kernels
