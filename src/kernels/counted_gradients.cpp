#include "kernels/counted_gradients.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/sigmoid.h>
#include <torch/library.h>

#include "base/error.h"
#include "kernels/call.h"

namespace fathom::kernels {
namespace {

using Two = std::tuple<at::Tensor, at::Tensor>;
using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
using Four = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
using Optional = std::optional<at::Tensor>;

void check_norm(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight,
                const at::Tensor& added, const CountedRows& rows) {
  FATHOM_CHECK(added.sizes() == grad.sizes() && grad.size(0) == rows.place_N.numel() &&
                   x.numel() == grad.numel() && x.size(-1) == grad.size(1) && weight.numel() == grad.size(1),
               "[counted_rms_norm_backward] expected {} rows of {}", rows.place_N.numel(), weight.numel());
}

}  // namespace

using MergeBackward = Two(const at::Tensor&, const Optional&, const at::Tensor&, const Optional&,
                          const Optional&, const Optional&, double, double, bool, const at::Tensor&,
                          const at::Tensor&);
constexpr const char* kMergeBackward = "fathom::merged_rows_backward";

std::pair<at::Tensor, at::Tensor> merged_rows_backward(const at::Tensor& grad_BTD, const at::Tensor& part,
                                                       const at::Tensor& y, const ScoreGradient& score,
                                                       const CountedRows& rows) {
  static const auto op = find_op<MergeBackward>(kMergeBackward);
  FATHOM_CHECK(
      grad_BTD.numel() == y.numel() && (!part.defined() || part.sizes() == y.sizes()) && score.explore > 0,
      "[merged_rows_backward] expected gradients of {} rows", y.size(0));
  auto [grad_rows, grad_score] = op.call(grad_BTD, optional(part), y, optional(score.score_BT),
                                         optional(score.multiplier), optional(score.share_B), score.share,
                                         score.explore, /*by_row=*/false, rows.slot_N, rows.start_S1);
  return {grad_rows, grad_score};
}

std::pair<at::Tensor, at::Tensor> rows_brought(const at::Tensor& grad_BTD, const at::Tensor& y,
                                               const CountedRows& rows) {
  static const auto op = find_op<MergeBackward>(kMergeBackward);
  FATHOM_CHECK(grad_BTD.numel() == y.numel(), "[rows_brought] expected gradients of {} rows", y.size(0));
  auto [grad_rows, brought_N] = op.call(grad_BTD, {}, y, {}, {}, {}, /*share=*/0, /*explore=*/1,
                                        /*by_row=*/true, rows.slot_N, rows.start_S1);
  return {grad_rows, brought_N};
}

at::Tensor counted_input_grad(const at::Tensor& grad, const at::Tensor& weight, const CountedRows& rows) {
  static const auto op =
      find_op<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t)>(
          "fathom::counted_input_grad");
  return op.call(grad, weight, rows.start_S1, rows.expected);
}

void counted_weight_grad(const at::Tensor& grad, const at::Tensor& x, const CountedRows& rows,
                         at::Tensor& result) {
  static const auto op =
      find_op<void(const at::Tensor&, const at::Tensor&, const at::Tensor&, at::Tensor&, int64_t)>(
          "fathom::counted_weight_grad");
  FATHOM_CHECK(grad.size(0) == x.size(0) && result.is_contiguous() &&
                   result.sizes() == at::IntArrayRef({grad.size(1), x.size(1)}),
               "[counted_weight_grad] expected as many rows, got {} and {}, and dense room for {} × {}",
               grad.size(0), x.size(0), grad.size(1), x.size(1));
  op.call(grad, x, rows.start_S1, result, rows.expected);
}

at::Tensor counted_swiglu_backward(const at::Tensor& grad, const at::Tensor& gate_up,
                                   const CountedRows& rows) {
  static const auto op = find_op<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&)>(
      "fathom::counted_swiglu_backward");
  return op.call(grad, gate_up, rows.start_S1);
}

std::pair<at::Tensor, at::Tensor> counted_rms_norm_backward(const at::Tensor& grad, const at::Tensor& x,
                                                            const at::Tensor& weight, double eps,
                                                            const at::Tensor& added,
                                                            const CountedRows& rows) {
  static const auto op =
      find_op<Two(const at::Tensor&, const at::Tensor&, const at::Tensor&, double, const at::Tensor&,
                  const at::Tensor&)>("fathom::counted_rms_norm_backward");
  check_norm(grad, x, weight, added, rows);
  auto [grad_x, grad_weight] = op.call(grad, x, weight, eps, added, rows.start_S1);
  return {grad_x, grad_weight};
}

at::Tensor gathered_rms_norm_backward(const at::Tensor& grad, const at::Tensor& x_BTD,
                                      const at::Tensor& weight, double eps, const at::Tensor& added,
                                      at::Tensor& grad_BTD, const CountedRows& rows) {
  static const auto op =
      find_op<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, double, const at::Tensor&,
                         at::Tensor&, const at::Tensor&, const at::Tensor&)>(
          "fathom::gathered_rms_norm_backward_");
  check_norm(grad, x_BTD, weight, added, rows);
  FATHOM_CHECK(grad_BTD.sizes() == x_BTD.sizes() && grad_BTD.is_contiguous(),
               "[gathered_rms_norm_backward] expected a dense gradient like the states");
  return op.call(grad, x_BTD, weight, eps, added, grad_BTD, rows.place_N, rows.start_S1);
}

HeadGradients counted_attention_backward(const at::Tensor& grad, const at::Tensor& qkv,
                                         const CountedAttention& made, HeadLayout layout, bool causal,
                                         const CountedRows& rows) {
  static const auto op =
      find_op<Three(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                    const at::Tensor&, int64_t, int64_t, bool, const at::Tensor&, const at::Tensor&)>(
          "fathom::counted_attention_backward");
  auto [grad_q, grad_k, grad_v] = op.call(grad, qkv, made.y, made.sums, made.offsets, layout.heads,
                                          layout.kv_heads, causal, rows.place_N, rows.start_S1);
  return {grad_q, grad_k, grad_v};
}

at::Tensor counted_rope_backward(const HeadGradients& turned, const at::Tensor& cos_TF,
                                 const at::Tensor& sin_TF, const CountedRows& rows) {
  static const auto op =
      find_op<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                         const at::Tensor&, const at::Tensor&, const at::Tensor&)>(
          "fathom::counted_rope_backward");
  return op.call(turned.q, turned.k, turned.v, cos_TF, sin_TF, rows.place_N, rows.start_S1);
}

at::Tensor value_score_grad(const at::Tensor& grad_v, const at::Tensor& qkv, const at::Tensor& score_BT,
                            const CountedRows& rows) {
  const auto type = score_BT.scalar_type();
  const auto grad = grad_v.flatten(1);
  const auto v = qkv.narrow(1, qkv.size(1) - grad.size(1), grad.size(1));
  const auto brought_N = (grad.to(type) * v.to(type)).sum(1);
  // A select, since a product would let what lies in rows that are not in use through.
  const auto idle_N = rows.slot_N.lt(0) | rows.slot_N.ge(rows.start_S1.select(0, -1));
  const auto gain_N = brought_N.index_select(0, rows.slot_N.clamp_min(0)).masked_fill(idle_N, 0);
  const auto p = at::sigmoid(score_BT);
  return gain_N.view_as(p) * p * (1 - p);
}

std::pair<at::Tensor, ScorerWeights> causal_scores_backward(const at::Tensor& grad_BT,
                                                            const ScorerProduct& product,
                                                            const ScorerWeights& weights,
                                                            at::ScalarType type) {
  static const auto op =
      find_op<Four(const at::Tensor&, const at::Tensor&, const Optional&, const at::Tensor&,
                   const at::Tensor&, const at::Tensor&, at::ScalarType)>("fathom::causal_scores_backward");
  const at::Tensor& scale_BT1 = product.scale_BT1;
  FATHOM_CHECK(scale_BT1.numel() == grad_BT.numel(), "[causal_scores_backward] expected {} scales, got {}",
               grad_BT.numel(), scale_BT1.numel());
  auto [grad_both, shift, out, bias] =
      op.call(grad_BT, product.both, known_sums(product), weights.shift, weights.out, scale_BT1, type);
  return {grad_both, {shift, out, bias}};
}

at::Tensor scorer_weight_grad(const at::Tensor& joint, const at::Tensor& norm, const at::Tensor& project,
                              at::Tensor& grad_project) {
  static const auto op =
      find_op<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, at::Tensor&)>(
          "fathom::scorer_weight_grad");
  return op.call(joint, norm, project, grad_project);
}

TORCH_LIBRARY_FRAGMENT(fathom, library) {
  library.def(
      "merged_rows_backward(Tensor grad, Tensor? part, Tensor y, Tensor? score, Tensor? multiplier, Tensor? "
      "sequence_share, float share, float explore, bool by_row, Tensor slot, Tensor start) -> (Tensor, "
      "Tensor)");
  library.def("counted_input_grad(Tensor grad, Tensor weight, Tensor start, int expected) -> Tensor");
  library.def(
      "counted_weight_grad(Tensor grad, Tensor x, Tensor start, Tensor(a!) result, int expected) -> ()");
  library.def("counted_swiglu_backward(Tensor grad, Tensor gate_up, Tensor start) -> Tensor");
  library.def(
      "counted_rms_norm_backward(Tensor grad, Tensor x, Tensor weight, float eps, Tensor added, Tensor "
      "start) -> (Tensor, Tensor)");
  library.def(
      "gathered_rms_norm_backward_(Tensor grad, Tensor x, Tensor weight, float eps, Tensor added, Tensor(a!) "
      "grad_x, Tensor place, Tensor start) -> Tensor");
  library.def(
      "counted_attention_backward(Tensor grad, Tensor qkv, Tensor y, Tensor sums, Tensor offsets, int heads, "
      "int kv_heads, bool causal, Tensor place, Tensor start) -> (Tensor, Tensor, Tensor)");
  library.def(
      "counted_rope_backward(Tensor grad_q, Tensor grad_k, Tensor grad_v, Tensor cos, Tensor sin, Tensor "
      "place, Tensor start) -> Tensor");
  library.def(
      "causal_scores_backward(Tensor grad, Tensor both, Tensor? chunk_sums, Tensor shift, Tensor out, Tensor "
      "scale, ScalarType type) -> (Tensor, Tensor, Tensor, Tensor)");
  library.def(
      "scorer_weight_grad(Tensor joint, Tensor norm, Tensor project, Tensor(a!) grad_project) -> Tensor");
}

}  // namespace fathom::kernels
