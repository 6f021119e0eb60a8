#include "kernels/counted_block.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
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
  if (!block.key_B.defined() || (drop.dropout == 0 && drop.drop_path == 0)) return y;
  drop.stream += branch;
  return counted_dropout(y, block.key_B, drop, block.rows, count_S1);
}

/// Whether autograd keeps the gradient of a step's first pass as it is: it neither hands it on nor casts it
/// nor adds it to others.
bool is_kept(const at::Tensor& weight) {
  return weight.is_leaf() && weight.scalar_type() == at::kFloat && !weight.grad().defined();
}

/// Gradients of a product with a weight, of its type, and of its rows.
struct ProductGradient {
  AutogradContext& context;
  const variable_list& saved;
  const BlockHolder& holder;
  variable_list& grads;
  bool are_kept = true;  ///< all gradients so far, by autograd, as they are

  at::Tensor operator()(const at::Tensor& grad, const at::Tensor& x, size_t weight) {
    const at::Tensor& cast = saved[kKept + weight];
    if (!context.needs_input_grad(1 + weight)) return counted_input_grad(grad, cast, holder.block.rows);
    const CountedRows& rows = holder.block.rows;
    at::Tensor room = room_of(holder.weights[weight], cast);
    if (SideStream* side = side_stream())
      side->run([&] { counted_weight_grad(grad, x, rows, room); }, {grad, x});
    else
      counted_weight_grad(grad, x, rows, room);
    grads[1 + weight] = std::move(room);
    return counted_input_grad(grad, cast, rows);
  }

  /// To be called before these gradients are handed on. Nobody reads those that are kept before the step's
  /// are whole, so the next layer may begin beside the last of them.
  void join() const {
    SideStream* side = side_stream();
    if (side == nullptr) return;
    if (are_kept)
      side->join_former();
    else
      side->join();
  }

 private:
  SideStream* side_stream() const {
    return holder.block.rooms != nullptr ? holder.block.rooms->side() : nullptr;
  }

  /// Float32 for a weight of that type, and then where it is to lie.
  at::Tensor room_of(const at::Tensor& weight, const at::Tensor& cast) {
    const auto type = weight.scalar_type() == at::kFloat ? at::kFloat : cast.scalar_type();
    at::Tensor room;
    if (holder.block.rooms != nullptr && weight.scalar_type() == type)
      room = holder.block.rooms->take(weight);
    are_kept = are_kept && room.defined() && is_kept(weight);
    return room.defined() ? room : at::empty(cast.sizes(), cast.options().dtype(type));
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
  CountedAttention attended = counted_attention(y, block.heads, rows);
  keep(kSums, attended.sums);
  keep(kOffsets, attended.offsets);
  y = keep(kAttended, std::move(attended.y));
  y = counted_linear(y, weight(kOutput), rows);
  y = keep(kPart, dropped(y, block, 0, rows.all()));
  at::Tensor h;
  std::tie(h, y) = added_rms_norm(x, y, weight(kMlpNorm), block.eps, rows);
  y = keep(kUp, counted_linear(keep(kHNormed, y), weight(kGateUp), rows));
  y = keep(kGated, counted_swiglu(y, rows));
  y = keep(kAdded, dropped(counted_linear(y, weight(kDown), rows), block, 1, rows.all()));
  if (kept != nullptr || !block.overwrites) return merged_rows(x, keep(kH, h), y, rows);
  at::Tensor result = x;
  merge_rows(result, h, y, rows);
  return result;
}

/// Whether nobody but the caller holds `grad`, or its elements.
bool is_spare(const at::Tensor& grad) {
  return grad.use_count() == 1 && grad.storage().use_count() == 1;
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
    const bool spare = is_spare(above[0]);
    at::Tensor grad = above[0].contiguous();
    const bool learns = block.score.score_BT.defined();
    variable_list grads(1 + kWeights + (learns ? 1 : 0));
    ProductGradient product = {*context, kept, held, grads};

    const auto [grad_rows, grad_score] =
        merged_rows_backward(grad, kept[kPart], kept[kAdded], block.score, rows);
    const auto grad_added = dropped(grad_rows, block, 1, rows.start_S1);
    const auto grad_up = counted_swiglu_backward(product(grad_added, kept[kGated], kDown), kept[kUp], rows);
    at::Tensor grad_h;
    std::tie(grad_h, grads[1 + kMlpNorm]) =
        counted_rms_norm_backward(product(grad_up, kept[kHNormed], kGateUp), kept[kH], kept[kKept + kMlpNorm],
                                  block.eps, grad_rows, rows);
    const auto grad_attended = product(dropped(grad_h, block, 0, rows.start_S1), kept[kAttended], kOutput);
    const CountedAttention attended = {kept[kAttended], kept[kSums], kept[kOffsets]};
    const HeadGradients turned =
        counted_attention_backward(grad_attended, kept[kTurned], attended, block.heads, rows);
    const auto grad_qkv = counted_rope_backward(turned, block.cos_TF, block.sin_TF, rows);
    // What skipped tokens pass on is theirs already.
    if (grad.is_same(above[0]) && !spare) grad = grad.clone();
    grads[1 + kAttentionNorm] =
        gathered_rms_norm_backward(product(grad_qkv, kept[kNormed], kQkv), kept[kX],
                                   kept[kKept + kAttentionNorm], block.eps, grad_h, grad, rows);
    product.join();
    grads[0] = std::move(grad);
    if (learns) grads.back() = grad_score;
    if (learns && block.score.values)
      grads.back() = grad_score + value_score_grad(turned.v, kept[kTurned], block.score.score_BT, rows);
    grads.emplace_back();
    return grads;
  }
};

/// The scorer's inputs beside x.
enum : size_t { kNorm, kProject, kShift, kOut, kBias };
constexpr size_t kScorerGradients = 8;  ///< of x and these; the numbers behind them have none

/// The scorer's inputs, whose gradients may have rooms. The rooms' owner outlives the pass.
struct ScorerHolder : torch::CustomClassHolder {
  ScorerHolder(at::TensorList w, GradientRooms* r) : weights(w.vec()), rooms(r) {}

  /// Where the projection's gradient of `type` is to lie, or undefined: it is no step's first.
  at::Tensor room(at::ScalarType type) const {
    const at::Tensor& project = weights[kProject];
    return rooms != nullptr && project.scalar_type() == type ? rooms->take(project) : at::Tensor();
  }

  bool are_kept() const { return std::all_of(weights.begin(), weights.end(), is_kept); }

  std::vector<at::Tensor> weights;
  GradientRooms* rooms;
};

/// Scores and sums. `kept`, or null, takes what the backward pass wants beside the inputs.
struct ScorerKept {
  ScorerProduct product;
  at::Tensor norm, project;  ///< in the states' type
};
variable_list scored(const at::Tensor& x_BTD, at::TensorList inputs, double eps, const LinearTypes& types,
                     ScorerKept* kept) {
  const at::AutoDispatchBelowADInplaceOrView below;
  const auto type = x_BTD.scalar_type();
  const auto norm = narrowed_weight(inputs[kNorm], type, types.copies),
             project = narrowed_weight(inputs[kProject], type, types.copies);
  const ScorerProduct product = scorer_product(x_BTD, norm, project, eps);
  auto sum_B1I = at::empty({x_BTD.size(0), 1, project.size(0) / 2}, product.both.options());
  const auto score_BT = causal_scores(product, {inputs[kShift], inputs[kOut], inputs[kBias]}, sum_B1I);
  if (kept != nullptr) *kept = {product, norm, project};
  return {score_BT, sum_B1I};
}

struct ScorerFunction : torch::autograd::Function<ScorerFunction> {
  static variable_list forward(AutogradContext* context, const at::Tensor& x_BTD, at::TensorList inputs,
                               double eps, const LinearTypes& types) {
    ScorerKept kept;
    auto result = scored(x_BTD, inputs, eps, types, &kept);
    context->save_for_backward({x_BTD, kept.norm, kept.project, kept.product.both, kept.product.scale_BT1,
                                kept.product.chunk_sums, inputs[kShift], inputs[kOut], inputs[kBias]});
    context->saved_data["weights"] =
        c10::IValue::make_capsule(c10::make_intrusive<ScorerHolder>(inputs, types.rooms));
    context->mark_non_differentiable({result[1]});
    context->set_materialize_grads(false);  // of the sums: zeros that nobody reads
    return result;
  }

  static variable_list backward(AutogradContext* context, const variable_list& above) {
    if (!above[0].defined()) return variable_list(kScorerGradients);
    const auto kept = context->get_saved_variables();
    const auto capsule = context->saved_data["weights"].toCapsule();
    const auto& holder = *static_cast<ScorerHolder*>(capsule.get());
    const at::Tensor grad_BT = above[0].contiguous();
    const at::Tensor room = holder.room(c10::promoteTypes(kept[0].scalar_type(), at::kFloat));
    SideStream* side = holder.rooms != nullptr ? holder.rooms->side() : nullptr;
    if (side == nullptr || !room.defined() || !holder.are_kept()) {
      if (side != nullptr) side->join();  // autograd may add what is made here to what was made there
      return gradients(grad_BT, kept, room);
    }
    variable_list read = kept, made;
    read.push_back(grad_BT);
    side->run([&] { made = gradients(grad_BT, kept, room); }, read);
    return made;
  }

 private:
  /// `room`: of the projection's gradient, or undefined.
  static variable_list gradients(const at::Tensor& grad_BT, const variable_list& kept,
                                 const at::Tensor& room) {
    const at::Tensor &x = kept[0], &norm = kept[1], &project = kept[2];
    const ScorerProduct product = {.both = kept[3], .scale_BT1 = kept[4], .chunk_sums = kept[5]};
    // The type of products, as in the layers.
    const auto type = x.is_cuda() ? x.scalar_type() : product.both.scalar_type();
    const auto [grad_both, behind] =
        causal_scores_backward(grad_BT, product, {kept[6], kept[7], kept[8]}, type);
    // Of the projection with the norm's weight in it, which multiplies rows that are normed alone: nothing
    // flows on to these, so that is all that both need.
    const auto joint = wide_product(grad_both.flatten(0, 1).t(), x.flatten(0, 1));
    at::Tensor grad_project = room.defined() ? room : at::empty_like(joint);
    const auto grad_norm = scorer_weight_grad(joint, norm, project, grad_project);
    return {at::Tensor(), grad_norm,   grad_project, behind.shift,
            behind.out,   behind.bias, at::Tensor(), at::Tensor()};
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
                                                double eps, const LinearTypes& types) {
  const variable_list inputs = {weights.norm, weights.project, weights.behind.shift, weights.behind.out,
                                weights.behind.bias};
  const auto x = x_BTD.detach().contiguous();
  const auto found = at::GradMode::is_enabled() ? ScorerFunction::apply(x, at::TensorList(inputs), eps, types)
                                                : scored(x, inputs, eps, types, nullptr);
  return {found[0], found[1]};
}

}  // namespace fathom::kernels
