#include "kernels/short_attention.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "base/error.h"
#include "kernels/call.h"
#include "kernels/pass_learns.h"
#include "kernels/product_type.h"

namespace fathom::kernels {
namespace {

// Measured on a Xeon with AMX, two threads; docs/performance.md.
constexpr int64_t kLongestHead = 128;
constexpr int64_t kFewestQueries = 8;       ///< below, there is little to save
constexpr int64_t kMostScores = 256 * 256;  ///< of one head of keys: they are to fit into the second cache
constexpr int64_t kMostNumbers = 512 * kLongestHead;  ///< of its keys and queries, likewise
constexpr int64_t kMostHalfScores = 48 * 48;  ///< forward alone, where LibTorch multiplies 16 bits at once

using Optional = std::optional<at::Tensor>;

struct ShortAttentionFunction : torch::autograd::Function<ShortAttentionFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& q,
                            const at::Tensor& k, const at::Tensor& v, const Optional& mask, bool causal) {
    static const auto op =
        find_op<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, const Optional&, bool)>(
            "fathom::short_attention");
    at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({q, k, v, mask.value_or(at::Tensor())});
    context->saved_data["causal"] = causal;
    return op.call(q, k, v, mask, causal);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    static const auto op = find_op<std::tuple<at::Tensor, at::Tensor, at::Tensor>(
        const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, const Optional&, bool)>(
        "fathom::short_attention_backward");
    const auto saved = context->get_saved_variables();
    auto [grad_q, grad_k, grad_v] = op.call(grads[0], saved[0], saved[1], saved[2], optional(saved[3]),
                                            context->saved_data["causal"].toBool());
    return {grad_q, grad_k, grad_v, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

bool has_short_attention(const at::Tensor& q, const at::Tensor& k) {
  if (!q.is_cpu() || !at::isFloatingType(q.scalar_type()) || q.size(3) > kLongestHead || k.size(2) == 0)
    return false;
  const int64_t rows = q.size(1) / k.size(1) * q.size(2), scores = rows * k.size(2);
  if ((rows + k.size(2)) * q.size(3) > kMostNumbers) return false;
  const bool halves = c10::elementSize(product_type(q)) == 2;
  return q.size(2) >= kFewestQueries && scores <= (halves && !pass_learns() ? kMostHalfScores : kMostScores);
}

at::Tensor short_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const at::Tensor& mask, bool causal) {
  FATHOM_CHECK(
      q.dim() == 4 && k.dim() == 4 && v.sizes() == k.sizes() && q.size(0) == k.size(0) &&
          q.size(3) == k.size(3) && k.size(1) > 0 && q.size(1) % k.size(1) == 0 &&
          q.scalar_type() == k.scalar_type() && q.scalar_type() == v.scalar_type(),
      "[short_attention] expected queries [B, H, T, E], keys and values [B, K, S, E] of one type, got "
      "{} and {} dimensions of {} and {}",
      q.dim(), k.dim(), c10::toString(q.scalar_type()), c10::toString(k.scalar_type()));
  FATHOM_CHECK(!mask.defined() || mask.scalar_type() == at::kBool, "[short_attention] expected a bool mask");
  return ShortAttentionFunction::apply(q, k, v, optional(mask), causal);
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def("short_attention(Tensor q, Tensor k, Tensor v, Tensor? mask, bool causal) -> Tensor");
  library.def(
      "short_attention_backward(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor? mask, bool causal) -> "
      "(Tensor, Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("short_attention", short_attention_ref::forward);
  library.impl("short_attention_backward", short_attention_ref::backward);
}

}  // namespace fathom::kernels
