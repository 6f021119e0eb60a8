#include "kernels/counted_block.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

#include "base/error.h"
#include "kernels/call.h"
#include "kernels/product_type.h"

namespace fathom::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The function's inputs beside x; then the scores, where they learn.
enum : size_t { kAttentionNorm, kQkv, kOutput, kMlpNorm, kGateUp, kDown, kWeights };
/// What the backward pass wants beside the weights.
enum : size_t { kX, kNormed, kTurned, kAttended, kSums, kPart, kH, kHNormed, kUp, kGated, kAdded };
constexpr size_t kKept = kAdded + 1;

struct BlockHolder : torch::CustomClassHolder {
  explicit BlockHolder(CountedBlock b) : block(std::move(b)) {}
  CountedBlock block;
};

/// What is left of a branch's rows: of the attention's (0) or the other's (1).
at::Tensor dropped(const at::Tensor& y, const CountedBlock& block, int64_t branch,
                   const at::Tensor& count_S1) {
  RowDrop drop = block.drop;
  if (!block.key_B.defined() || (drop.dropout == 0 && drop.drop_path == 0)) return y;
  drop.stream += branch;
  return counted_dropout(y, block.key_B, drop, block.rows, count_S1);
}

/// Gradients of a product with a weight, of its type, and of its rows.
struct ProductGradient {
  AutogradContext& context;
  const variable_list& saved;
  const CountedRows& rows;
  variable_list& grads;

  at::Tensor operator()(const at::Tensor& grad, const at::Tensor& x, size_t weight) const {
    const at::Tensor& cast = saved[kKept + weight];
    if (context.needs_input_grad(1 + weight)) {
      const bool wide = context.saved_data["wide"].toBool();
      grads[1 + weight] = counted_weight_grad(grad, x, wide ? at::kFloat : cast.scalar_type(), rows);
    }
    return counted_input_grad(grad, cast, rows);
  }
};

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
  auto y = keep(kNormed, gathered_rms_norm(x, weight(kAttentionNorm), block.eps, rows));
  y = keep(kTurned, counted_linear(y, weight(kQkv), rows));
  counted_rope(y, block.cos_TF, block.sin_TF, block.heads, rows, block.keys, block.values);
  at::Tensor sums, h;
  std::tie(y, sums) = counted_attention(y, block.heads, rows);
  keep(kSums, sums);
  y = counted_linear(keep(kAttended, y), weight(kOutput), rows);
  y = keep(kPart, dropped(y, block, 0, rows.all()));
  std::tie(h, y) = added_rms_norm(x, y, weight(kMlpNorm), block.eps, rows);
  y = keep(kUp, counted_linear(keep(kHNormed, y), weight(kGateUp), rows));
  y = keep(kGated, counted_swiglu(y, rows));
  y = keep(kAdded, dropped(counted_linear(y, weight(kDown), rows), block, 1, rows.all()));
  return merged_rows(x, keep(kH, h), y, rows);
}

/// One function for all: its gradients meet in the kernels, not in sums over all tokens.
struct BlockFunction : torch::autograd::Function<BlockFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_BTD, at::TensorList inputs,
                            const CountedBlock& block) {
    variable_list kept(kKept + kWeights);
    const auto y = block_forward(x_BTD, inputs, block, &kept);
    context->saved_data["wide"] = inputs[kQkv].scalar_type() == at::kFloat;
    auto holder = c10::make_intrusive<BlockHolder>(block);
    at::Tensor& score_BT = holder->block.score.score_BT;
    if (score_BT.defined()) score_BT = score_BT.detach();
    context->saved_data["block"] = c10::IValue::make_capsule(std::move(holder));
    context->save_for_backward(std::move(kept));
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& above) {
    const variable_list kept = context->get_saved_variables();
    const auto holder = context->saved_data["block"].toCapsule();
    const CountedBlock& block = static_cast<BlockHolder*>(holder.get())->block;
    const CountedRows& rows = block.rows;
    const auto grad = above[0].contiguous();
    const bool learns = block.score.score_BT.defined();
    variable_list grads(1 + kWeights + (learns ? 1 : 0));
    const ProductGradient product = {*context, kept, rows, grads};

    const auto [grad_rows, grad_score] =
        merged_rows_backward(grad, kept[kPart], kept[kAdded], block.score, rows);
    const auto grad_added = dropped(grad_rows, block, 1, rows.start_S1);
    const auto grad_up = counted_swiglu_backward(product(grad_added, kept[kGated], kDown), kept[kUp], rows);
    at::Tensor grad_h;
    std::tie(grad_h, grads[1 + kMlpNorm]) =
        counted_rms_norm_backward(product(grad_up, kept[kHNormed], kGateUp), kept[kH], kept[kKept + kMlpNorm],
                                  block.eps, grad_rows, rows);
    const auto grad_attended = product(dropped(grad_h, block, 0, rows.start_S1), kept[kAttended], kOutput);
    const HeadGradients turned = counted_attention_backward(grad_attended, kept[kTurned], kept[kAttended],
                                                            kept[kSums], block.heads, rows);
    const auto grad_qkv = counted_rope_backward(turned, block.cos_TF, block.sin_TF, rows);
    std::tie(grads[0], grads[1 + kAttentionNorm]) =
        gathered_rms_norm_backward(product(grad_qkv, kept[kNormed], kQkv), kept[kX],
                                   kept[kKept + kAttentionNorm], block.eps, grad_h, grad, rows);
    if (learns) grads.back() = grad_score;
    if (learns && block.score.values)
      grads.back() = grad_score + value_score_grad(turned.v, kept[kTurned], block.score.score_BT, rows);
    grads.emplace_back();
    return grads;
  }
};

using Two = std::tuple<at::Tensor, at::Tensor>;

struct ScorerFunction : torch::autograd::Function<ScorerFunction> {
  enum : size_t { kNorm, kProject, kShift, kOut, kBias, kInputs };

  static variable_list forward(AutogradContext* context, const at::Tensor& x_BTD, at::TensorList inputs,
                               double eps) {
    static const auto norm = find_op<Two(const at::Tensor&, const at::Tensor&, double)>("fathom::rms_norm");
    at::AutoDispatchBelowADInplaceOrView below;
    const auto type = x_BTD.scalar_type();
    const auto norm_weight = inputs[kNorm].to(type), project = inputs[kProject].to(type);
    const auto [normed_BTD, scale] = norm.call(x_BTD, norm_weight, eps);
    const auto both = wide_product(normed_BTD.flatten(0, 1), project.t())
                          .view({x_BTD.size(0), x_BTD.size(1), project.size(0)});
    auto sum_B1I = at::empty({x_BTD.size(0), 1, project.size(0) / 2}, both.options());
    const auto score_BT = causal_scores(both, {inputs[kShift], inputs[kOut], inputs[kBias]}, sum_B1I);
    context->save_for_backward(
        {x_BTD, norm_weight, scale, normed_BTD, project, both, inputs[kShift], inputs[kOut], inputs[kBias]});
    context->mark_non_differentiable({sum_B1I});
    return {score_BT, sum_B1I};
  }

  static variable_list backward(AutogradContext* context, const variable_list& above) {
    static const auto norm_backward =
        find_op<Two(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&)>(
            "fathom::rms_norm_backward");
    const auto kept = context->get_saved_variables();
    const at::Tensor &x = kept[0], &norm_weight = kept[1], &scale = kept[2], &project = kept[4],
                     &both = kept[5];
    const auto normed = kept[3].flatten(0, 1), grad_BT = above[0].contiguous();
    // The type of products, as in the layers.
    const auto type = x.is_cuda() ? x.scalar_type() : both.scalar_type();
    const auto [grad_both, grad_shift, grad_out] =
        causal_scores_backward(grad_BT, both, {kept[6], kept[7], kept[8]}, type);
    const auto rows = grad_both.flatten(0, 1);
    const auto grad_normed = at::mm(rows, project.to(type)).to(x.scalar_type()).view_as(x);
    return {at::Tensor(),
            std::get<1>(norm_backward.call(grad_normed, x, norm_weight, scale)),
            wide_product(rows.t(), normed),
            grad_shift,
            grad_out,
            grad_BT.sum().view({1}),
            at::Tensor()};
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

std::pair<at::Tensor, at::Tensor> causal_scorer(const at::Tensor& x_BTD, const CausalScorerWeights& weights,
                                                double eps) {
  const variable_list inputs = {weights.norm, weights.project, weights.behind.shift, weights.behind.out,
                                weights.behind.bias};
  const auto found = ScorerFunction::apply(x_BTD.detach().contiguous(), at::TensorList(inputs), eps);
  return {found[0], found[1]};
}

}  // namespace fathom::kernels
