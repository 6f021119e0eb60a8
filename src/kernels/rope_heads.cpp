#include "kernels/rope_heads.h"

#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <tuple>

#include "base/error.h"
#include "kernels/call.h"

namespace fathom::kernels {
namespace {

Heads call_forward(const at::Tensor& qkv, const at::Tensor& cos_TF, const at::Tensor& sin_TF, int64_t heads,
                   int64_t kv_heads) {
  static const auto op =
      find_op<Heads(const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t, int64_t)>(
          "fathom::rope_heads");
  return op.call(qkv, cos_TF, sin_TF, heads, kv_heads);
}

at::Tensor call_backward(const torch::autograd::variable_list& grads, const at::Tensor& cos_TF,
                         const at::Tensor& sin_TF) {
  static const auto op =
      find_op<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                         const at::Tensor&)>("fathom::rope_heads_backward");
  return op.call(grads[0], grads[1], grads[2], cos_TF, sin_TF);
}

struct RopeHeadsFunction : torch::autograd::Function<RopeHeadsFunction> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context,
                                                const at::Tensor& qkv, const at::Tensor& cos_TF,
                                                const at::Tensor& sin_TF, int64_t heads, int64_t kv_heads) {
    at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({cos_TF, sin_TF});
    auto [q, k, v] = call_forward(qkv, cos_TF, sin_TF, heads, kv_heads);
    return {q, k, v};
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = context->get_saved_variables();
    return {call_backward(grads, saved[0], saved[1]), at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

void check(const at::Tensor& qkv, const at::Tensor& cos_TF, const at::Tensor& sin_TF, HeadLayout layout) {
  const int64_t slots = layout.heads + 2 * layout.kv_heads;
  FATHOM_CHECK(qkv.dim() == 3 && slots > 0 && qkv.size(2) % (2 * slots) == 0,
               "[rope_heads] expected [B, T, {} heads of even size], got {} dimensions, the last of {}",
               slots, qkv.dim(), qkv.size(-1));
  FATHOM_CHECK(cos_TF.dim() == 2 && cos_TF.sizes() == sin_TF.sizes() && cos_TF.size(0) == qkv.size(1) &&
                   cos_TF.size(1) == qkv.size(2) / slots / 2 && cos_TF.scalar_type() == at::kFloat &&
                   sin_TF.scalar_type() == at::kFloat,
               "[rope_heads] expected float32 angles [{}, {}], got [{}, {}]", qkv.size(1),
               qkv.size(2) / slots / 2, cos_TF.size(0), cos_TF.size(-1));
}

Heads kept(const at::Tensor& qkv, const at::Tensor& cos_TF, const at::Tensor& sin_TF, int64_t heads,
           int64_t kv_heads, const at::Tensor& keys_BKTE, const at::Tensor& values_BKTE) {
  auto made = call_forward(qkv, cos_TF, sin_TF, heads, kv_heads);
  keys_BKTE.copy_(std::get<1>(made));
  values_BKTE.copy_(std::get<2>(made));
  return made;
}

}  // namespace

Heads rope_heads(const at::Tensor& qkv, const at::Tensor& cos_TF, const at::Tensor& sin_TF,
                 HeadLayout layout) {
  check(qkv, cos_TF, sin_TF, layout);
  const auto parts = RopeHeadsFunction::apply(qkv, cos_TF, sin_TF, layout.heads, layout.kv_heads);
  return {parts[0], parts[1], parts[2]};
}

Heads rope_heads_kept(const at::Tensor& qkv, const at::Tensor& cos_TF, const at::Tensor& sin_TF,
                      HeadLayout layout, const at::Tensor& keys_BKTE, const at::Tensor& values_BKTE) {
  static const auto op =
      find_op<Heads(const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t, int64_t,
                    const at::Tensor&, const at::Tensor&)>("fathom::rope_heads_kept");
  check(qkv, cos_TF, sin_TF, layout);
  FATHOM_CHECK(
      keys_BKTE.dim() == 4 && keys_BKTE.size(0) == qkv.size(0) && keys_BKTE.size(1) == layout.kv_heads &&
          keys_BKTE.size(2) == qkv.size(1) && keys_BKTE.size(3) == 2 * cos_TF.size(1) &&
          keys_BKTE.stride(3) == 1 && values_BKTE.sizes() == keys_BKTE.sizes() && values_BKTE.stride(3) == 1,
      "[rope_heads] expected places for {} keys and values of {} heads", qkv.size(1), layout.kv_heads);
  if (!c10::GradMode::is_enabled() || !qkv.requires_grad()) {
    const at::AutoDispatchBelowADInplaceOrView below;
    return op.call(qkv, cos_TF, sin_TF, layout.heads, layout.kv_heads, keys_BKTE, values_BKTE);
  }
  auto made = rope_heads(qkv, cos_TF, sin_TF, layout);
  keys_BKTE.copy_(std::get<1>(made).detach());
  values_BKTE.copy_(std::get<2>(made).detach());
  return made;
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def(
      "rope_heads(Tensor qkv, Tensor cos_TF, Tensor sin_TF, int heads, int kv_heads) -> (Tensor, Tensor, "
      "Tensor)");
  library.def(
      "rope_heads_kept(Tensor qkv, Tensor cos_TF, Tensor sin_TF, int heads, int kv_heads, Tensor(a!) keys, "
      "Tensor(b!) values) -> (Tensor, Tensor, Tensor)");
  library.def(
      "rope_heads_backward(Tensor grad_q, Tensor grad_k, Tensor grad_v, Tensor cos_TF, Tensor sin_TF) -> "
      "Tensor");
}
TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("rope_heads", rope_heads_ref::forward);
  library.impl("rope_heads_kept", kept);
  library.impl("rope_heads_backward", rope_heads_ref::backward);
}

}  // namespace fathom::kernels
