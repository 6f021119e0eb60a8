#include "kernels/fp8_mlp.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "base/error.h"
#include "kernels/call.h"
#include "kernels/fp8_parts.h"

namespace fathom::kernels {
namespace {

using FourOfFp8 = fp8_tiles_ref::FourTensors;
using MaybeTensor = std::optional<at::Tensor>;

Fp8Pair pair_of(FourOfFp8 found) {
  auto& [plain, plain_scales, turned, turned_scales] = found;
  return {{std::move(plain), std::move(plain_scales)}, {std::move(turned), std::move(turned_scales)}};
}

FourOfFp8 fp8_swiglu_ref(const at::Tensor& gate_up, int64_t plain, int64_t turned,
                         const MaybeTensor& beyond) {
  static const auto op = find_op<at::Tensor(const at::Tensor&)>("fathom::swiglu");
  return fp8_tiles_ref::tiles(op.call(gate_up), at::kFloat8_e4m3fn, plain, turned, beyond);
}

FourOfFp8 fp8_swiglu_backward_ref(const at::Tensor& grad, const at::Tensor& gate_up, at::ScalarType type,
                                  int64_t plain, int64_t turned, const MaybeTensor& beyond) {
  static const auto op = find_op<at::Tensor(const at::Tensor&, const at::Tensor&)>("fathom::swiglu_backward");
  return fp8_tiles_ref::tiles(op.call(grad, gate_up), type, plain, turned, beyond);
}

struct Fp8MlpFunction : torch::autograd::Function<Fp8MlpFunction> {
  enum : size_t { kGateUp, kDown };

  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& gate_up, const at::Tensor& down, const Fp8Products& products,
                            GradientRooms* rooms, bool learns_gate_up, bool learns_down) {
    at::AutoDispatchBelowADInplaceOrView below;
    const Fp8Pair rows = fp8_tiles(x.reshape({-1, gate_up.size(1)}).contiguous(),
                                   activation_wish(learns_gate_up), products.beyond);
    const Fp8Pair first = weight_in_fp8(gate_up, products), second = weight_in_fp8(down, products);
    const auto both = narrow_product(rows.plain, first.plain);
    const Fp8Pair inner = fp8_swiglu(both, activation_wish(learns_down), products.beyond);
    context->save_for_backward({rows.turned.values_RK, rows.turned.scales, first.turned.values_RK,
                                first.turned.scales, inner.turned.values_RK, inner.turned.scales,
                                second.turned.values_RK, second.turned.scales, both});
    context->saved_data["holder"] = c10::IValue::make_capsule(
        c10::make_intrusive<Fp8Holder>(std::vector<at::Tensor>{gate_up, down}, products, rooms));
    return narrow_product(inner.plain, second.plain).view(with_last(x, down.size(0)));
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto matrix = [&](size_t i) { return Fp8Matrix{saved[2 * i], saved[2 * i + 1]}; };
    const Fp8Matrix turned_rows = matrix(0), turned_gate_up = matrix(1), turned_inner = matrix(2),
                    turned_down = matrix(3);
    const auto capsule = context->saved_data["holder"].toCapsule();
    const auto& held = *static_cast<Fp8Holder*>(capsule.get());
    const bool of_x = context->needs_input_grad(0), of_gate_up = context->needs_input_grad(1),
               of_down = context->needs_input_grad(2);
    const auto grad = grads[0].contiguous().view({-1, grads[0].size(-1)});
    at::Tensor grad_x, grad_gate_up, grad_down;
    const Fp8Pair above = fp8_tiles(grad, held.wish(of_x || of_gate_up, of_down), held.beyond);
    if (of_down) fp8_product(above.turned, turned_inner, {}, grad_down = held.room(kDown));
    if (of_x || of_gate_up) {
      const Fp8Pair between = fp8_swiglu_backward(narrow_product(above.plain, turned_down), saved[8],
                                                  held.wish(of_x, of_gate_up), held.beyond);
      if (of_gate_up) fp8_product(between.turned, turned_rows, {}, grad_gate_up = held.room(kGateUp));
      if (of_x)
        grad_x = narrow_product(between.plain, turned_gate_up)
                     .view(with_last(grads[0], held.weights[kGateUp].size(1)));
    }
    return {grad_x, grad_gate_up, grad_down, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

Fp8Pair fp8_swiglu(const at::Tensor& gate_up_RC, const Fp8Wish& wish, const at::Tensor& beyond) {
  static const auto op =
      find_op<FourOfFp8(const at::Tensor&, int64_t, int64_t, const MaybeTensor&)>("fathom::fp8_swiglu");
  FATHOM_CHECK(gate_up_RC.dim() == 2 && gate_up_RC.size(0) % kFp8Multiple == 0 &&
                   gate_up_RC.size(1) % (2 * kFp8Multiple) == 0 &&
                   gate_up_RC.scalar_type() == at::kBFloat16 && wish.type == at::kFloat8_e4m3fn,
               "[fp8_swiglu] expected a bfloat16 matrix of multiples of {}, to be E4M3", kFp8Multiple);
  return pair_of(op.call(gate_up_RC, static_cast<int64_t>(wish.plain), static_cast<int64_t>(wish.turned),
                         optional(beyond)));
}

Fp8Pair fp8_swiglu_backward(const at::Tensor& grad_RM, const at::Tensor& gate_up_RC, const Fp8Wish& wish,
                            const at::Tensor& beyond) {
  static const auto op = find_op<FourOfFp8(const at::Tensor&, const at::Tensor&, at::ScalarType, int64_t,
                                           int64_t, const MaybeTensor&)>("fathom::fp8_swiglu_backward");
  FATHOM_CHECK(grad_RM.dim() == 2 && gate_up_RC.dim() == 2 && grad_RM.size(0) == gate_up_RC.size(0) &&
                   2 * grad_RM.size(1) == gate_up_RC.size(1) && grad_RM.size(0) % kFp8Multiple == 0 &&
                   grad_RM.size(1) % kFp8Tile == 0 && grad_RM.scalar_type() == at::kBFloat16 &&
                   gate_up_RC.scalar_type() == at::kBFloat16,
               "[fp8_swiglu_backward] expected bfloat16 matrices, of a width that is a multiple of {}",
               kFp8Tile);
  return pair_of(op.call(grad_RM, gate_up_RC, wish.type, static_cast<int64_t>(wish.plain),
                         static_cast<int64_t>(wish.turned), optional(beyond)));
}

bool is_fp8_mlp(const at::Tensor& x, const at::Tensor& gate_up, const at::Tensor& down,
                const Fp8Products& products) {
  return multiplies_in_fp8(x, gate_up, products) && down.scalar_type() == at::kFloat &&
         down.size(1) % kFp8Tile == 0 && multiplies_in_fp8(x.numel() / x.size(-1), down, products);
}

at::Tensor fp8_mlp(const at::Tensor& x, const at::Tensor& gate_up, const at::Tensor& down,
                   const Fp8Products& products, GradientRooms* rooms) {
  return Fp8MlpFunction::apply(x, gate_up, down, products, rooms, learns(gate_up), learns(down));
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def(
      "fp8_swiglu(Tensor gate_up, int plain, int turned, Tensor(a!)? beyond) -> "
      "(Tensor, Tensor, Tensor, Tensor)");
  library.def(
      "fp8_swiglu_backward(Tensor grad, Tensor gate_up, ScalarType type, int plain, int turned, "
      "Tensor(a!)? beyond) -> (Tensor, Tensor, Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("fp8_swiglu", fp8_swiglu_ref);
  library.impl("fp8_swiglu_backward", fp8_swiglu_backward_ref);
}

}  // namespace fathom::kernels
