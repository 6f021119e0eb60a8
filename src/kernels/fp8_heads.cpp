#include "kernels/fp8_heads.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "base/error.h"
#include "kernels/call.h"
#include "kernels/fp8_heads_parts.h"
#include "kernels/fp8_parts.h"

namespace fathom::kernels {
namespace {

using FourOfFp8 = fp8_tiles_ref::FourTensors;
using MaybeTensor = std::optional<at::Tensor>;

/// Of packed projections, with strides of theirs.
Heads heads_of(const at::Tensor& qkv, HeadLayout layout) {
  const int64_t slots = layout.heads + 2 * layout.kv_heads;
  const auto all_BSTE = qkv.view({qkv.size(0), qkv.size(1), slots, qkv.size(2) / slots}).transpose(1, 2);
  return {all_BSTE.narrow(1, 0, layout.heads), all_BSTE.narrow(1, layout.heads, layout.kv_heads),
          all_BSTE.narrow(1, layout.heads + layout.kv_heads, layout.kv_heads)};
}

void heads_in_place_ref(at::Tensor& qkv, const at::Tensor& cos_TF, const at::Tensor& sin_TF, int64_t heads,
                        int64_t kv_heads) {
  static const auto op =
      find_op<Heads(const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t, int64_t)>(
          "fathom::rope_heads");
  const auto [q, k, v] = op.call(qkv, cos_TF, sin_TF, heads, kv_heads);
  auto [to_q, to_k, as_it_is] = heads_of(qkv, {heads, kv_heads});
  to_q.copy_(q);
  to_k.copy_(k);
}

FourOfFp8 heads_backward_ref(const at::Tensor& grad_q, const at::Tensor& grad_k, const at::Tensor& grad_v,
                             const at::Tensor& cos_TF, const at::Tensor& sin_TF, at::ScalarType type,
                             int64_t plain, int64_t turned, const MaybeTensor& beyond) {
  return fp8_heads_parts::backward({grad_q, grad_k, grad_v, cos_TF, sin_TF}, type, plain, turned, beyond);
}

struct Fp8HeadsFunction : torch::autograd::Function<Fp8HeadsFunction> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context,
                                                const at::Tensor& states, const at::Tensor& weight,
                                                const Fp8Pair& in_fp8, const HeadRotation& rotation,
                                                const Fp8Products& products, GradientRooms* rooms,
                                                bool learns) {
    at::AutoDispatchBelowADInplaceOrView below;
    const Fp8Pair rows = rows_in_fp8({states, in_fp8}, learns, products),
                  factor = weight_in_fp8(weight, products);
    context->save_for_backward({rows.turned.values_RK, rows.turned.scales, factor.turned.values_RK,
                                factor.turned.scales, rotation.cos_TF, rotation.sin_TF});
    context->saved_data["holder"] = c10::IValue::make_capsule(
        c10::make_intrusive<Fp8Holder>(std::vector<at::Tensor>{weight}, products, rooms));
    const auto qkv = narrow_product(rows.plain, factor.plain).view(with_last(states, weight.size(0)));
    rope_heads_in_place(qkv, rotation);
    const auto [q, k, v] = heads_of(qkv, rotation.layout);
    return {q, k, v};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const Fp8Matrix turned_rows = {saved[0], saved[1]}, turned_weight = {saved[2], saved[3]};
    const auto capsule = context->saved_data["holder"].toCapsule();
    const auto& held = *static_cast<Fp8Holder*>(capsule.get());
    const bool of_x = context->needs_input_grad(0), of_weight = context->needs_input_grad(1);
    const HeadRotation rotation = {.cos_TF = saved[4], .sin_TF = saved[5], .layout = {}};
    const Fp8Pair narrow = fp8_rope_heads_backward({grads[0], grads[1], grads[2]}, rotation,
                                                   held.wish(of_x, of_weight), held.beyond);
    at::Tensor grad_x, grad_weight;
    if (of_x)
      grad_x = narrow_product(narrow.plain, turned_weight)
                   .view({grads[0].size(0), grads[0].size(2), held.weights[0].size(1)});
    if (of_weight) fp8_product(narrow.turned, turned_rows, {}, grad_weight = held.room(0));
    return {grad_x, grad_weight, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

void rope_heads_in_place(at::Tensor qkv, const HeadRotation& rotation) {
  static const auto op = find_op<void(at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t, int64_t)>(
      "fathom::rope_heads_in_place");
  const int64_t slots = rotation.layout.heads + 2 * rotation.layout.kv_heads;
  FATHOM_CHECK(
      qkv.dim() == 3 && qkv.is_contiguous() && slots > 0 && qkv.size(2) % (2 * slots) == 0 &&
          rotation.cos_TF.dim() == 2 && rotation.cos_TF.sizes() == rotation.sin_TF.sizes() &&
          rotation.cos_TF.size(0) == qkv.size(1) && rotation.cos_TF.size(1) == qkv.size(2) / slots / 2,
      "[rope_heads_in_place] expected dense [B, T, {} heads of even size] and angles of its tokens", slots);
  op.call(qkv, rotation.cos_TF, rotation.sin_TF, rotation.layout.heads, rotation.layout.kv_heads);
}

Fp8Pair fp8_rope_heads_backward(const Heads& grads, const HeadRotation& rotation, const Fp8Wish& wish,
                                const at::Tensor& beyond) {
  static const auto op =
      find_op<FourOfFp8(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                        const at::Tensor&, at::ScalarType, int64_t, int64_t, const MaybeTensor&)>(
          "fathom::fp8_rope_heads_backward");
  const auto& [q, k, v] = grads;
  return pair_of(op.call(q, k, v, rotation.cos_TF, rotation.sin_TF, wish.type,
                         static_cast<int64_t>(wish.plain), static_cast<int64_t>(wish.turned),
                         optional(beyond)));
}

Heads fp8_heads(const Fp8Rows& x, const at::Tensor& weight, const HeadRotation& rotation,
                const Fp8Products& products, GradientRooms* rooms) {
  FATHOM_CHECK(x.states.dim() == 3, "[fp8_heads] expected [B, T, D], got {} dimensions", x.states.dim());
  const auto parts =
      Fp8HeadsFunction::apply(x.states, weight, x.in_fp8, rotation, products, rooms, learns(weight));
  return {parts[0], parts[1], parts[2]};
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def(
      "rope_heads_in_place(Tensor(a!) qkv, Tensor cos_TF, Tensor sin_TF, int heads, int kv_heads) -> ()");
  library.def(
      "fp8_rope_heads_backward(Tensor grad_q, Tensor grad_k, Tensor grad_v, Tensor cos_TF, Tensor sin_TF, "
      "ScalarType type, int plain, int turned, Tensor(a!)? beyond) -> (Tensor, Tensor, Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("rope_heads_in_place", heads_in_place_ref);
  library.impl("fp8_rope_heads_backward", heads_backward_ref);
}

}  // namespace fathom::kernels
