#include "kernels/counted_block.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "kernels/counted_product_gradient.h"
#include "kernels/pass_learns.h"
#include "kernels/product_type.h"

namespace fathom::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The function's inputs beside x; then the scores, where they learn.
enum : size_t { kAttentionNorm, kQkv, kOutput, kMlpNorm, kGateUp, kDown, kWeights };
/// What the backward pass wants beside the weights.
enum : size_t { kX, kNormed, kTurned, kAttended, kSums, kOffsets, kPart, kH, kHNormed, kUp, kGated, kAdded };
constexpr size_t kKept = kAdded + 1;

/// `weights`: the function's inputs, of which `block` may know the gradients' places.
struct BlockHolder : torch::CustomClassHolder {
  BlockHolder(CountedBlock b, at::TensorList w) : block(std::move(b)), weights(w.vec()) {}
  CountedBlock block;
  std::vector<at::Tensor> weights;
};

/// What is left of a branch's rows: of the attention's (0) or the other's (1).
at::Tensor dropped(const at::Tensor& y, const CountedBlock& block, int64_t branch,
                   const at::Tensor& count_S1) {
  RowDrop drop = block.drop;
  drop.stream += branch;
  return dropped_rows(y, block.key_B, drop, block.rows, count_S1);
}

/// The layer, step by step. `kept` takes what the backward pass wants; null: whatever is used is freed.
at::Tensor block_forward(const at::Tensor& x_BTD, at::TensorList inputs, const CountedBlock& block,
                         variable_list* kept) {
  const at::AutoDispatchBelowADInplaceOrView below;
  const CountedRows& rows = block.rows;
  const auto keep = [kept](size_t i, at::Tensor made) {
    if (kept != nullptr) (*kept)[i] = made;
    return made;
  };
  const auto x = keep(kX, x_BTD.contiguous());
  const auto weight = [&](size_t i) {
    return keep(kKept + i, narrowed_weight(inputs[i], x.scalar_type(), block.copies));
  };
  at::Tensor h, y;
  if (block.part != CountedPart::kMlp) {
    y = keep(kNormed, gathered_rms_norm(x, weight(kAttentionNorm), block.eps, rows));
    y = keep(kTurned, counted_linear(y, weight(kQkv), rows));
    counted_rope(y, block.cos_TF, block.sin_TF, block.heads, rows, block.keys, block.values);
    CountedAttention attended = counted_attention(y, block.heads, block.causal, rows);
    keep(kSums, attended.sums);
    keep(kOffsets, attended.offsets);
    y = keep(kAttended, std::move(attended.y));
    y = counted_linear(y, weight(kOutput), rows);
    y = keep(kPart, dropped(y, block, 0, rows.all()));
  }
  if (block.part == CountedPart::kBlock)
    std::tie(h, y) = added_rms_norm(x, y, weight(kMlpNorm), block.eps, rows);
  else if (block.part == CountedPart::kMlp)
    y = gathered_rms_norm(x, weight(kMlpNorm), block.eps, rows);
  if (block.part != CountedPart::kAttention) {
    const bool learns = kept != nullptr || pass_learns();  // a pass that is taken again has the same numbers
    auto [gated, gate_up] = counted_linear_swiglu(keep(kHNormed, y), weight(kGateUp), rows, learns);
    keep(kUp, std::move(gate_up));
    y = keep(kGated, std::move(gated));
    y = keep(kAdded, dropped(counted_linear(y, weight(kDown), rows), block, 1, rows.all()));
  }
  if (kept != nullptr || !block.overwrites) return merged_rows(x, keep(kH, h), y, rows);
  at::Tensor result = x;
  merge_rows(result, h, y, rows);
  return result;
}

/// One function for all: its gradients meet in the kernels, not in sums over all tokens.
struct BlockFunction : torch::autograd::Function<BlockFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_BTD, at::TensorList inputs,
                            const CountedBlock& block) {
    variable_list kept(kKept + kWeights);
    const auto y = block_forward(x_BTD, inputs, block, &kept);
    auto holder = c10::make_intrusive<BlockHolder>(block, inputs.slice(0, kWeights));
    at::Tensor& score_BT = holder->block.score.score_BT;
    if (score_BT.defined()) score_BT = score_BT.detach();
    context->saved_data["block"] = c10::IValue::make_capsule(std::move(holder));
    context->save_for_backward(std::move(kept));
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& above) {
    const variable_list kept = context->get_saved_variables();
    const auto holder = context->saved_data["block"].toCapsule();
    const auto& held = *static_cast<BlockHolder*>(holder.get());
    const CountedBlock& block = held.block;
    const CountedRows& rows = block.rows;
    at::Tensor grad = own_gradient(above[0]);
    const bool learns = block.score.score_BT.defined();
    variable_list grads(1 + kWeights + (learns ? 1 : 0));
    CountedProductGradient gradient(*context, held.weights, block.rooms, rows, grads);
    const auto product = [&](const at::Tensor& of_result, const at::Tensor& x, size_t weight) {
      return gradient(of_result, x, kept[kKept + weight], weight);
    };

    const bool has_attention = block.part != CountedPart::kMlp,
               has_mlp = block.part != CountedPart::kAttention, has_both = has_attention && has_mlp;
    // What skipped tokens pass on is theirs already.
    const auto [grad_rows, grad_score] =
        has_mlp ? merged_rows_backward(grad, kept[kPart], kept[kAdded], block.score, rows)
                : merged_rows_backward(grad, {}, kept[kPart], block.score, rows);
    at::Tensor grad_h = grad_rows;
    if (has_mlp) {
      const auto grad_added = dropped(grad_rows, block, 1, rows.start_S1);
      const auto grad_up = counted_swiglu_backward(product(grad_added, kept[kGated], kDown), kept[kUp], rows);
      const auto grad_normed = product(grad_up, kept[kHNormed], kGateUp);
      const auto& norm = kept[kKept + kMlpNorm];
      if (has_both)
        std::tie(grad_h, grads[1 + kMlpNorm]) =
            counted_rms_norm_backward(grad_normed, kept[kH], norm, block.eps, grad_rows, rows);
      else
        grads[1 + kMlpNorm] =
            gathered_rms_norm_backward(grad_normed, kept[kX], norm, block.eps, grad_rows, grad, rows);
    }
    at::Tensor grad_v;
    if (has_attention) {
      const auto grad_attended = product(dropped(grad_h, block, 0, rows.start_S1), kept[kAttended], kOutput);
      const CountedAttention attended = {kept[kAttended], kept[kSums], kept[kOffsets]};
      const HeadGradients turned =
          counted_attention_backward(grad_attended, kept[kTurned], attended, block.heads, block.causal, rows);
      const auto grad_qkv = counted_rope_backward(turned, block.cos_TF, block.sin_TF, rows);
      grads[1 + kAttentionNorm] =
          gathered_rms_norm_backward(product(grad_qkv, kept[kNormed], kQkv), kept[kX],
                                     kept[kKept + kAttentionNorm], block.eps, grad_h, grad, rows);
      if (block.score.values) grad_v = turned.v;
    }
    gradient.join();
    grads[0] = std::move(grad);
    if (learns) grads.back() = grad_score;
    if (learns && grad_v.defined())
      grads.back() = grad_score + value_score_grad(grad_v, kept[kTurned], block.score.score_BT, rows);
    grads.emplace_back();
    return grads;
  }
};

}  // namespace

at::Tensor counted_block(const at::Tensor& x_BTD, const CountedWeights& weights, const CountedBlock& block) {
  FATHOM_CHECK(
      x_BTD.dim() == 3 && x_BTD.size(0) * x_BTD.size(1) == block.rows.place_N.numel() && x_BTD.numel() > 0,
      "[counted_block] expected states of {} tokens", block.rows.place_N.numel());
  variable_list inputs = {weights.attention_norm, weights.qkv,     weights.output,
                          weights.mlp_norm,       weights.gate_up, weights.down};
  if (block.score.score_BT.defined()) inputs.push_back(block.score.score_BT);
  if (!at::GradMode::is_enabled()) return block_forward(x_BTD, inputs, block, nullptr);
  return BlockFunction::apply(x_BTD, at::TensorList(inputs), block);
}

}  // namespace fathom::kernels
