#include "kernels/gelu_mlp.h"

#include <ATen/ops/mm.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <utility>
#include <vector>

#include "base/error.h"
#include "kernels/biased_product.h"
#include "kernels/call.h"
#include "kernels/linear_gelu.h"
#include "kernels/linear_gradient.h"

namespace fathom::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The function's inputs.
enum : size_t { kX, kUp, kUpBias, kDown, kDownBias, kInputs };
/// What the backward pass wants.
enum : size_t { kRows, kInner, kGelu, kUpOperand, kDownOperand };

struct MlpHolder : torch::CustomClassHolder {
  MlpHolder(const GeluMlpWeights& w, GradientRooms* rooms)
      : up(w.up, rooms),
        down(w.down, rooms),
        up_bias(w.up_bias.scalar_type()),
        down_bias(w.down_bias.scalar_type()) {}
  WeightHolder up, down;
  at::ScalarType up_bias, down_bias;
};

struct GeluMlpFunction : torch::autograd::Function<GeluMlpFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& up,
                            const at::Tensor& up_bias, const at::Tensor& down, const at::Tensor& down_bias,
                            const LinearTypes& types) {
    const auto narrowed = [&](const at::Tensor& t) {
      return narrowed_weight(t, x.scalar_type(), types.copies);
    };
    const auto up_operand = narrowed(up), up_added = narrowed(up_bias), down_operand = narrowed(down),
               down_added = narrowed(down_bias);
    const at::AutoDispatchBelowADInplaceOrView below;
    const auto rows = x.reshape({-1, x.size(-1)});
    const auto [y, inner] = linear_gelu_of(rows, up_operand, up_added, /*keep=*/true);
    context->save_for_backward({rows, inner, y, up_operand, down_operand});
    context->saved_data["weights"] = c10::IValue::make_capsule(
        c10::make_intrusive<MlpHolder>(GeluMlpWeights{up, up_bias, down, down_bias}, types.rooms));
    return biased_product(y, down_operand, down_added).view(with_last(x, down.size(0)));
  }

  static variable_list backward(AutogradContext* context, const variable_list& above) {
    const auto kept = context->get_saved_variables();
    const auto capsule = context->saved_data["weights"].toCapsule();
    const auto& held = *static_cast<const MlpHolder*>(capsule.get());
    const auto wants = [&](size_t i) { return context->needs_input_grad(i); };
    const auto grad = above[0].contiguous().view({-1, above[0].size(-1)});
    variable_list grads(kInputs + 1);
    if (wants(kDownBias)) grads[kDownBias] = column_sum(grad, held.down_bias);
    if (wants(kDown)) grads[kDown] = held.down.gradient(grad, kept[kGelu]);
    if (!wants(kX) && !wants(kUp) && !wants(kUpBias)) return grads;
    const auto [grad_inner, sum] = gelu_product_grad(grad, kept[kDownOperand], kept[kInner]);
    if (wants(kUpBias)) grads[kUpBias] = sum.to(held.up_bias);
    if (wants(kUp)) grads[kUp] = held.up.gradient(grad_inner, kept[kRows]);
    if (wants(kX))
      grads[kX] = at::mm(grad_inner, kept[kUpOperand]).view(with_last(above[0], kept[kRows].size(1)));
    return grads;
  }
};

std::tuple<at::Tensor, at::Tensor> gelu_product_grad_ref(const at::Tensor& grad, const at::Tensor& weight,
                                                         const at::Tensor& inner) {
  return gelu_grad_sum(at::mm(grad, weight), inner);
}

}  // namespace

at::Tensor gelu_mlp(const at::Tensor& x, const GeluMlpWeights& weights, const LinearTypes& types) {
  FATHOM_CHECK(weights.up.dim() == 2 && x.dim() > 0 && x.size(-1) == weights.up.size(1) &&
                   weights.down.dim() == 2 && weights.down.size(1) == weights.up.size(0) &&
                   weights.up_bias.dim() == 1 && weights.up_bias.size(0) == weights.up.size(0) &&
                   weights.down_bias.dim() == 1 && weights.down_bias.size(0) == weights.down.size(0) &&
                   !types.products.narrow(x),
               "[gelu_mlp] expected weights and biases of two layers behind one another, and inputs of their "
               "features");
  const auto type = product_type(x), result = types.result.value_or(x.scalar_type());
  bool learns = x.requires_grad();
  for (const at::Tensor* weight : {&weights.up, &weights.up_bias, &weights.down, &weights.down_bias})
    learns = learns || weight->requires_grad();
  if (!learns || !c10::GradMode::is_enabled())
    return linear(linear_gelu(x, weights.up, weights.up_bias, types), weights.down, weights.down_bias, types);
  return GeluMlpFunction::apply(x.to(type), weights.up, weights.up_bias, weights.down, weights.down_bias,
                                types)
      .to(result);
}

std::tuple<at::Tensor, at::Tensor> gelu_product_grad(const at::Tensor& grad, const at::Tensor& weight,
                                                     const at::Tensor& inner) {
  static const auto op =
      find_op<std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, const at::Tensor&, const at::Tensor&)>(
          "fathom::gelu_product_grad");
  FATHOM_CHECK(grad.dim() == 2 && weight.dim() == 2 && inner.dim() == 2 && grad.size(0) == inner.size(0) &&
                   grad.size(1) == weight.size(0) && weight.size(1) == inner.size(1),
               "[gelu_product_grad] expected a gradient of {} rows and a weight of {} columns",
               inner.dim() == 2 ? inner.size(0) : -1, inner.dim() == 2 ? inner.size(1) : -1);
  return grad.is_cpu() || has_gelu_product(grad, weight) ? op.call(grad, weight, inner)
                                                         : gelu_product_grad_ref(grad, weight, inner);
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def("gelu_product_grad(Tensor grad, Tensor weight, Tensor inner) -> (Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("gelu_product_grad", gelu_product_grad_ref);
}

}  // namespace fathom::kernels
