#include "kernels/counted_gradients.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/remainder.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <cmath>
#include <limits>

#include "kernels/counted_rows_ref.h"
#include "kernels/rms_norm.h"
#include "kernels/rope_heads.h"
#include "kernels/swiglu.h"

namespace fathom::kernels {
namespace counted_rows_ref {
namespace {

using Two = std::tuple<at::Tensor, at::Tensor>;
using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
using Four = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
using Optional = std::optional<at::Tensor>;

at::Tensor first(const at::Tensor& x, const at::Tensor& start_S1) {
  return x.narrow(0, 0, count_of(start_S1));
}

Two merged_rows_backward(const at::Tensor& grad_BTD, const Optional& part, const at::Tensor& y,
                         const Optional& score_BT, const Optional& multiplier, const Optional& sequence_share,
                         double share, double explore, bool by_row, const at::Tensor& slot_N,
                         const at::Tensor& start_S1) {
  const auto grad = grad_BTD.flatten(0, 1);
  const auto [place_n, row_n] = places_in_use(slot_N, start_S1);
  auto grad_rows = at::zeros_like(y);
  grad_rows.index_copy_(0, row_n, grad.index_select(0, place_n));
  const auto type = score_BT ? score_BT->scalar_type() : c10::promoteTypes(y.scalar_type(), at::kFloat);
  if (!score_BT && !by_row) return {grad_rows, at::empty({0}, grad.options().dtype(type))};
  const auto place_m = slot_N.ge(0).nonzero().squeeze(1);
  const auto slot_m = slot_N.index_select(0, place_m);
  auto brought = y.index_select(0, slot_m).to(type);
  if (part) brought = brought + part->index_select(0, slot_m).to(type);
  const auto gain_m = (grad.index_select(0, place_m).to(type) * brought).sum(1);
  if (!score_BT) {
    auto gain_N = at::zeros({y.size(0)}, gain_m.options());
    gain_N.index_copy_(0, slot_m.to(at::kLong), gain_m);
    return {grad_rows, gain_N};
  }
  const auto weight_m = at::full_like(slot_m, 1, slot_m.options().dtype(type))
                            .masked_fill(slot_m.ge(count_of(start_S1)), 1 / explore);
  auto gain_N = at::full_like(slot_N, 0, slot_N.options().dtype(type));
  const int64_t sequences = start_S1.numel() - 1;
  if (multiplier && sequence_share)
    gain_N.view({sequences, -1}).add_(multiplier->to(type) * sequence_share->to(type).unsqueeze(1));
  else if (multiplier)
    gain_N.add_(multiplier->to(type), share);
  gain_N.index_add_(0, place_m, gain_m * weight_m);
  gain_N.masked_fill_(slot_N.eq(CountedSlots::kPadding), 0);
  const auto p = at::sigmoid(*score_BT);
  return {grad_rows, gain_N.view_as(p) * p * (1 - p)};
}

at::Tensor counted_input_grad(const at::Tensor& grad, const at::Tensor& weight, const at::Tensor& start_S1,
                              int64_t /*expected*/) {
  return with_room(at::matmul(first(grad, start_S1), weight), grad.size(0));
}

void counted_weight_grad(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& start_S1,
                         at::Tensor& result, int64_t /*expected*/) {
  result.copy_(at::matmul(first(grad, start_S1).t(), first(x, start_S1)));
}

at::Tensor counted_swiglu_backward(const at::Tensor& grad, const at::Tensor& gate_up,
                                   const at::Tensor& start_S1) {
  return with_room(swiglu_ref::backward(first(grad, start_S1), first(gate_up, start_S1)), grad.size(0));
}

/// Of the rows alone.
Two norm_backward(const at::Tensor& grad, const at::Tensor& rows, const at::Tensor& weight, double eps,
                  const at::Tensor& added, const at::Tensor& start_S1) {
  const auto [y, scale] = rms_norm_ref::forward(rows, weight, eps);
  const auto [grad_rows, grad_weight] = rms_norm_ref::backward(first(grad, start_S1), rows, weight, scale);
  return {first(added, start_S1) + grad_rows, grad_weight};
}

Two counted_rms_norm_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight,
                              double eps, const at::Tensor& added, const at::Tensor& start_S1) {
  const auto [sum, grad_weight] = norm_backward(grad, first(x, start_S1), weight, eps, added, start_S1);
  return {with_room(sum, grad.size(0)), grad_weight};
}

at::Tensor gathered_rms_norm_backward(const at::Tensor& grad, const at::Tensor& x_BTD,
                                      const at::Tensor& weight, double eps, const at::Tensor& added,
                                      at::Tensor& grad_BTD, const at::Tensor& place_N,
                                      const at::Tensor& start_S1) {
  const auto place_n = places(place_N, start_S1);
  const auto [sum, grad_weight] =
      norm_backward(grad, x_BTD.flatten(0, 1).index_select(0, place_n), weight, eps, added, start_S1);
  grad_BTD.view({place_N.numel(), -1}).index_copy_(0, place_n, sum);
  return grad_weight;
}

/// The gradients of softmax(q kᵀ / √E) v, of [H, n, E] each.
Three attention_backward(const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k,
                         const at::Tensor& v, const at::Tensor& sees) {
  const double scale = 1 / std::sqrt(static_cast<double>(q.size(2)));
  const auto logits = (at::matmul(q, k.transpose(1, 2)) * scale)
                          .masked_fill(sees.logical_not(), -std::numeric_limits<double>::infinity());
  const auto p = at::softmax(logits, 2);
  const auto grad_p = at::matmul(grad, v.transpose(1, 2));
  const auto grad_logits = p * (grad_p - (grad_p * p).sum(2, /*keepdim=*/true)) * scale;
  return {at::matmul(grad_logits, k), at::matmul(grad_logits.transpose(1, 2), q),
          at::matmul(p.transpose(1, 2), grad)};
}

Three counted_attention_backward(const at::Tensor& grad, const at::Tensor& qkv, const at::Tensor& /*y*/,
                                 const at::Tensor& /*sums*/, const at::Tensor& /*offsets*/, int64_t heads,
                                 int64_t kv_heads, bool causal, const at::Tensor& place_N,
                                 const at::Tensor& start_S1) {
  const auto place_n = places(place_N, start_S1);
  const int64_t used = place_n.numel(), all_heads = heads + 2 * kv_heads, repeats = heads / kv_heads;
  const auto split = [&](const at::Tensor& x, int64_t parts) {
    return first(x, start_S1).view({used, parts, x.size(1) / parts}).transpose(0, 1);
  };
  const auto all = split(qkv, all_heads);
  const auto shared = [&](int64_t from) {
    return all.narrow(0, from, kv_heads).repeat_interleave(repeats, 0);
  };
  const auto [grad_q, grad_k, grad_v] =
      attention_backward(split(grad, heads), all.narrow(0, 0, heads), shared(heads), shared(heads + kv_heads),
                         rows_seen(place_n, used, place_N.numel() / (start_S1.numel() - 1), causal));
  const auto rows = [&](const at::Tensor& x) { return with_room(x.transpose(0, 1).flatten(1), qkv.size(0)); };
  const auto summed = [&](const at::Tensor& x) {
    return x.view({kv_heads, repeats, used, x.size(2)}).sum(1);
  };
  const auto by_head = [&](const at::Tensor& x, int64_t parts) {
    return rows(x).view({qkv.size(0), parts, -1});
  };
  return {by_head(grad_q, heads), by_head(summed(grad_k), kv_heads), by_head(summed(grad_v), kv_heads)};
}

at::Tensor counted_rope_backward(const at::Tensor& grad_q, const at::Tensor& grad_k, const at::Tensor& grad_v,
                                 const at::Tensor& cos_TF, const at::Tensor& sin_TF,
                                 const at::Tensor& place_N, const at::Tensor& start_S1) {
  const auto place_n = places(place_N, start_S1);
  const auto position_n = at::remainder(place_n, place_N.numel() / (start_S1.numel() - 1));
  const auto part = [&](const at::Tensor& x) { return first(x, start_S1).transpose(0, 1).unsqueeze(0); };
  const auto grad =
      rope_heads_ref::backward(part(grad_q), part(grad_k), part(grad_v), cos_TF.index_select(0, position_n),
                               sin_TF.index_select(0, position_n));
  const int64_t heads = grad_q.size(1) + 2 * grad_k.size(1);
  return with_room(grad.view({place_n.numel(), heads * grad_q.size(2)}), place_N.numel());
}

Four causal_scores_backward(const at::Tensor& grad_BT, const at::Tensor& both, const Optional& /*chunk_sums*/,
                            const at::Tensor& shift, const at::Tensor& out_I, const at::Tensor& scale,
                            at::ScalarType grad_type) {
  const auto type = both.scalar_type();
  const int64_t inner = out_I.numel(), tokens = both.size(1);
  const auto shifted = both + shift.to(type);
  const auto count_T1 = at::arange(1, tokens + 1, both.options()).unsqueeze(1);
  const auto hidden = shifted.slice(2, 0, inner) + at::cumsum(shifted.slice(2, inner), 1) / count_T1;
  const auto grad_BT1 = grad_BT.unsqueeze(2);
  const auto grad_own = at::gelu_backward(grad_BT1 * out_I.to(type), hidden);
  const auto grad_mean = grad_own / count_T1;
  const auto grad_other = grad_mean.flip(1).cumsum(1).flip(1);
  const auto grad_both = at::cat({grad_own, grad_other}, 2);
  return {(grad_both * scale.view({both.size(0), tokens, 1})).to(grad_type), grad_both.flatten(0, 1).sum(0),
          (grad_BT1 * at::gelu(hidden)).flatten(0, 1).sum(0), grad_BT.sum().view({1})};
}

at::Tensor scorer_weight_grad(const at::Tensor& joint, const at::Tensor& norm, const at::Tensor& project,
                              at::Tensor& grad_project) {
  at::mul_outf(joint, norm, grad_project);
  return at::sum(joint * project, {0});
}

}  // namespace
}  // namespace counted_rows_ref

TORCH_LIBRARY_IMPL(fathom, CompositeExplicitAutograd, library) {
  library.impl("merged_rows_backward", counted_rows_ref::merged_rows_backward);
  library.impl("counted_input_grad", counted_rows_ref::counted_input_grad);
  library.impl("counted_weight_grad", counted_rows_ref::counted_weight_grad);
  library.impl("counted_swiglu_backward", counted_rows_ref::counted_swiglu_backward);
  library.impl("counted_rms_norm_backward", counted_rows_ref::counted_rms_norm_backward);
  library.impl("gathered_rms_norm_backward_", counted_rows_ref::gathered_rms_norm_backward);
  library.impl("counted_attention_backward", counted_rows_ref::counted_attention_backward);
  library.impl("counted_rope_backward", counted_rows_ref::counted_rope_backward);
  library.impl("causal_scores_backward", counted_rows_ref::causal_scores_backward);
  library.impl("scorer_weight_grad", counted_rows_ref::scorer_weight_grad);
}

}  // namespace fathom::kernels
