#include "kernels/fp8_linear.h"

#include <torch/csrc/autograd/custom_function.h>

#include <optional>

#include "kernels/call.h"
#include "kernels/fp8_parts.h"
#include "kernels/linear.h"

namespace fathom::kernels {
namespace {

struct Fp8LinearFunction : torch::autograd::Function<Fp8LinearFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                            const Fp8Products& products, GradientRooms* rooms, bool learns) {
    at::AutoDispatchBelowADInplaceOrView below;
    const Fp8Pair rows =
        fp8_tiles(x.reshape({-1, weight.size(1)}).contiguous(), activation_wish(learns), products.beyond);
    const Fp8Pair factor = weight_in_fp8(weight, products);
    context->save_for_backward(
        {rows.turned.values_RK, rows.turned.scales, factor.turned.values_RK, factor.turned.scales});
    context->saved_data["holder"] = c10::IValue::make_capsule(
        c10::make_intrusive<Fp8Holder>(std::vector<at::Tensor>{weight}, products, rooms));
    keep_bias_type(*context, bias);
    return narrow_product(rows.plain, factor.plain, bias ? bias->to(x.scalar_type()) : at::Tensor())
        .view(with_last(x, weight.size(0)));
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto capsule = context->saved_data["holder"].toCapsule();
    const auto& held = *static_cast<Fp8Holder*>(capsule.get());
    const Fp8Matrix turned_rows = {saved[0], saved[1]}, turned_weight = {saved[2], saved[3]};
    const bool of_x = context->needs_input_grad(0), of_weight = context->needs_input_grad(1);
    const auto grad = grads[0].contiguous().view({-1, grads[0].size(-1)});
    const Fp8Pair narrow = fp8_tiles(grad, held.wish(of_x, of_weight), held.beyond);
    at::Tensor grad_x, grad_weight, grad_bias;
    if (of_x)
      grad_x = narrow_product(narrow.plain, turned_weight).view(with_last(grads[0], held.weights[0].size(1)));
    if (of_weight) fp8_product(narrow.turned, turned_rows, {}, grad_weight = held.room(0));
    if (const auto type = bias_type(*context)) grad_bias = column_sum(grad, type);
    return {grad_x, grad_weight, grad_bias, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

const Fp8Pair& Fp8Weights::of(const at::Tensor& weight, const at::Tensor& beyond) {
  Entry& entry = entries_[weight.unsafeGetTensorImpl()];
  if (!entry.made.is_of(weight)) {
    const at::AutoDispatchBelowADInplaceOrView below;
    entry = {weight, TensorContent::of(weight),
             fp8_tiles(weight, {.plain = TileScales::kByTile, .turned = TileScales::kByTile}, beyond)};
  }
  return entry.pair;
}

bool multiplies_in_fp8(const at::Tensor& x, const at::Tensor& weight, const Fp8Products& products) {
  if (x.scalar_type() != at::kBFloat16 || weight.scalar_type() != at::kFloat) return false;
  return multiplies_in_fp8(x.numel() / weight.size(1), weight, products);
}

bool multiplies_in_fp8(int64_t rows, const at::Tensor& weight, const Fp8Products& products) {
  const int64_t in = weight.size(1), out = weight.size(0);
  if (rows == 0 || rows % kFp8Multiple != 0 || in % kFp8Multiple != 0 || out % kFp8Multiple != 0)
    return false;
  const auto product = [](int64_t a, int64_t b) { return static_cast<double>(a) * static_cast<double>(b); };
  return product(rows, in) * static_cast<double>(out) >=
         products.least_intensity * (product(rows, in) + product(rows, out) + product(in, out));
}

at::Tensor fp8_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      const Fp8Products& products, GradientRooms* rooms) {
  return Fp8LinearFunction::apply(x, weight, optional(bias), products, rooms, learns(weight));
}

}  // namespace fathom::kernels
