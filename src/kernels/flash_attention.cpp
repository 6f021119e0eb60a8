#include "kernels/flash_attention.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "base/error.h"
#include "kernels/call.h"
#include "kernels/pass_learns.h"

namespace fathom::kernels {
namespace {

struct FlashAttentionFunction : torch::autograd::Function<FlashAttentionFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& q,
                            const at::Tensor& k, const at::Tensor& v, bool causal) {
    static const auto op = find_op<std::tuple<at::Tensor, at::Tensor>(
        const at::Tensor&, const at::Tensor&, const at::Tensor&, bool)>("fathom::flash_attention");
    at::AutoDispatchBelowADInplaceOrView below;
    auto [y, sums_BHT] = op.call(q, k, v, causal);
    context->save_for_backward({q, k, v, y, sums_BHT});
    context->saved_data["causal"] = causal;
    return y;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    static const auto op = find_op<std::tuple<at::Tensor, at::Tensor, at::Tensor>(
        const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
        const at::Tensor&, bool)>("fathom::flash_attention_backward");
    const auto saved = context->get_saved_variables();
    auto [grad_q, grad_k, grad_v] = op.call(grads[0], saved[0], saved[1], saved[2], saved[3], saved[4],
                                            context->saved_data["causal"].toBool());
    return {grad_q, grad_k, grad_v, at::Tensor()};
  }
};

/// Where no kernel is registered for the device.
bool has_no_flash_kernel(const at::Tensor& /*q*/, const at::Tensor& /*k*/, const at::Tensor& /*v*/,
                         bool /*learns*/) {
  return false;
}

}  // namespace

bool has_flash_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         const at::Tensor& mask) {
  static const auto fits = find_op<bool(const at::Tensor&, const at::Tensor&, const at::Tensor&, bool)>(
      "fathom::flash_attention_fits");
  if (!q.is_cuda() || mask.defined() || q.size(2) != k.size(2) || v.sizes() != k.sizes() ||
      k.scalar_type() != q.scalar_type() || v.scalar_type() != q.scalar_type())
    return false;
  at::AutoDispatchBelowADInplaceOrView below;
  return fits.call(q, k, v, pass_learns());
}

at::Tensor flash_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool causal) {
  FATHOM_CHECK(
      q.dim() == 4 && k.dim() == 4 && v.sizes() == k.sizes() && q.size(0) == k.size(0) &&
          q.size(2) == k.size(2) && q.size(3) == k.size(3) && k.size(1) > 0 && q.size(1) % k.size(1) == 0 &&
          q.scalar_type() == k.scalar_type() && q.scalar_type() == v.scalar_type(),
      "[flash_attention] expected queries [B, H, T, E], keys and values [B, K, T, E] of one type, got "
      "{} and {} dimensions of {} and {}",
      q.dim(), k.dim(), c10::toString(q.scalar_type()), c10::toString(k.scalar_type()));
  return FlashAttentionFunction::apply(q, k, v, causal);
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def("flash_attention(Tensor q, Tensor k, Tensor v, bool causal) -> (Tensor, Tensor)");
  library.def(
      "flash_attention_backward(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor y, Tensor sums, bool "
      "causal) -> "
      "(Tensor, Tensor, Tensor)");
  library.def("flash_attention_fits(Tensor q, Tensor k, Tensor v, bool learns) -> bool");
}
TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("flash_attention", flash_attention_ref::forward);
  library.impl("flash_attention_backward", flash_attention_ref::backward);
  library.impl("flash_attention_fits", has_no_flash_kernel);
}

}  // namespace fathom::kernels
