#include "nn/block.h"

#include <ATen/ATen.h>

#include "nn/checkpointing.h"
#include "nn/gated_rows.h"

namespace fathom {

BlockImpl::BlockImpl(const BlockOptions& options) : options_(options) {
  attention_norm_ = register_module("attention_norm", RMSNorm(options.attention.dim, options.norm_eps));
  attention_ = register_module("attention", Attention(options.attention));
  mlp_norm_ = register_module("mlp_norm", RMSNorm(options.mlp.dim, options.norm_eps));
  mlp_ = register_module("mlp", SwigluMlp(options.mlp));
  if (!options.gate.config.gates_layer(options.gate.index)) return;
  TokenGateOptions gate = options.gate;
  if (gate.config.part != GatedPart::kMlp) gate.gated_weights += num_weights(*attention_);
  if (gate.config.part != GatedPart::kAttention) gate.gated_weights += num_weights(*mlp_);
  gate_ = register_module("gate", TokenGate(gate));
}

at::Tensor BlockImpl::forward(const at::Tensor& x_BTD, const AttentionView& view,
                              const ForwardContext& context) {
  return forward_stream({x_BTD}, view, context).sum();
}

Residual BlockImpl::forward_stream(const Residual& stream, const AttentionView& view,
                                   const ForwardContext& context) {
  if (gate_.is_empty() || gate_->bypassed()) return dense(stream, view, context, GatedPart::kBlock);
  const auto x_BTD = stream.sum();
  switch (options_.gate.config.part) {
    case GatedPart::kBlock: {
      if (!counts_rows(x_BTD, view, context)) return {gated(x_BTD, view, context)};
      const bool is_spare = stream.is_spare || stream.branch.defined(), learns = at::GradMode::is_enabled();
      return {.x = counted(x_BTD, view, context, is_spare), .is_spare = !learns};
    }
    case GatedPart::kAttention:
      return dense({partly(x_BTD, view, context)}, view, context, GatedPart::kMlp);
    case GatedPart::kMlp:
      return {partly(dense({x_BTD}, view, context, GatedPart::kAttention).sum(), view, context)};
  }
  return {};
}

at::Tensor BlockImpl::partly(const at::Tensor& x_BTD, const AttentionView& view,
                             const ForwardContext& context) {
  return counts_rows(x_BTD, view, context) ? counted(x_BTD, view, context) : gated(x_BTD, view, context);
}

/// A part of the layer for every token.
Residual BlockImpl::dense(Residual stream, const AttentionView& view, const ForwardContext& context,
                          GatedPart part) {
  BranchDrop drop = {options_.dropout, options_.drop_path, 2 * options_.layer};
  if (part != GatedPart::kMlp) {
    const auto [x_BTD, y_BTD] = normed_sum(stream, attention_norm_, context.products);
    stream = with_branch(x_BTD, attention_(y_BTD, view, options_.layer, context), drop, context);
  }
  drop.stream += 1;
  if (part != GatedPart::kAttention) {
    const auto [x_BTD, y_BTD] = normed_sum(stream, mlp_norm_, context.products);
    stream = with_branch(x_BTD, mlp_(y_BTD, context), drop, context);
  }
  return stream;
}

at::Tensor BlockImpl::gated(const at::Tensor& x_BTD, const AttentionView& view,
                            const ForwardContext& context) {
  const GateDecision decision = gate_(x_BTD, view, context);
  const GatedRows rows(decision, view, context);
  return rows.added(x_BTD, [&](const at::Tensor& x) { return branch(x, rows, view); });
}

/// Whether the device may count for itself what the gate lets through: texts that begin here, one a row; with
/// a cache of their type, without gradients.
bool BlockImpl::counts_rows(const at::Tensor& x_BTD, const AttentionView& view,
                            const ForwardContext& context) const {
  const bool plain = attention_->is_plain() && mlp_->is_plain();
  const bool fits = options_.mlp.inner % kernels::kCountedVector == 0 && gate_->has_kernels(x_BTD.size(0));
  // All tokens see each other, or those before them: a mask says no more than which are padding.
  const bool sees_all = !view.ordered && (!view.mask.defined() || view.present_BT.defined());
  const bool begins = !view.segment_BT.defined() && (view.causal || sees_all) &&
                      (view.cache == nullptr || !view.present_BT.defined());
  const bool learned_elsewhere = context.training && view.cache != nullptr;
  // The kernels take operands in the states' type.
  if (context.products.narrow(x_BTD)) return false;
  if (view.cache != nullptr && view.cache->room(options_.layer).first.scalar_type() != x_BTD.scalar_type())
    return false;
  return plain && fits && begins && !learned_elsewhere &&
         kernels::has_counted_rows(x_BTD, options_.attention.head_dim);
}

at::Tensor BlockImpl::counted(const at::Tensor& x_BTD, const AttentionView& view,
                              const ForwardContext& context, bool overwrites) {
  CountedDecision decision = gate_->counted(x_BTD, view, context);
  const GatedPart part = options_.gate.config.part;
  kernels::CountedBlock block{.part = part == GatedPart::kBlock       ? kernels::CountedPart::kBlock
                                      : part == GatedPart::kAttention ? kernels::CountedPart::kAttention
                                                                      : kernels::CountedPart::kMlp,
                              .heads = {options_.attention.heads, options_.attention.kv_heads},
                              .causal = view.causal,
                              .eps = options_.norm_eps,
                              .drop = {options_.dropout, options_.drop_path, 2 * options_.layer},
                              .key_B = context.drops() ? context.key_B : at::Tensor(),
                              .cos_TF = view.angles.cos_TF,
                              .sin_TF = view.angles.sin_TF,
                              .rows = std::move(decision.rows),
                              .score = std::move(decision.score),
                              .overwrites = overwrites,
                              .copies = context.copies,
                              .rooms = context.rooms};
  if (view.cache != nullptr && part != GatedPart::kMlp) {
    std::tie(block.keys, block.values) = view.cache->room(options_.layer);
    view.cache->filled(options_.layer, block.rows.start_S1);
  }
  return kernels::counted_block(x_BTD, weights(), block);
}

kernels::CountedWeights BlockImpl::weights() const {
  return {.attention_norm = attention_norm_->weight(),
          .qkv = attention_->qkv()->weight(),
          .output = attention_->output()->weight(),
          .mlp_norm = mlp_norm_->weight(),
          .gate_up = mlp_->gate_up()->weight(),
          .down = mlp_->down()->weight()};
}

bool BlockImpl::is_plain() const {
  if (!attention_->is_plain() || !mlp_->is_plain()) return false;
  const GateConfig& gate = options_.gate.config;
  // Mixture-of-Depths multiplies with its scores.
  return acting_gate().is_empty() ||
         (gate.part == GatedPart::kBlock && gate.is_causal() && gate.kind != GateKind::kTopK);
}

/// What the gated part adds to the rows.
at::Tensor BlockImpl::branch(const at::Tensor& x, const GatedRows& rows, const AttentionView& view) {
  const GatedPart part = options_.gate.config.part;
  BranchDrop drop = {options_.dropout, options_.drop_path, 2 * options_.layer};
  at::Tensor sum;
  auto h = x;
  if (part != GatedPart::kMlp) {
    const auto normed = attention_norm_(x);
    sum = rows.dropped(rows.packed() ? attention_->forward_tokens(normed, rows.tokens(), view, options_.layer,
                                                                  rows.context())
                                     : attention_(normed, view, options_.layer, rows.context()),
                       drop);
    h = x + sum;
  }
  if (part == GatedPart::kAttention) return sum;
  drop.stream += 1;
  const auto added = rows.dropped(mlp_(mlp_norm_(h), rows.context()), drop);
  return sum.defined() ? sum + added : added;
}

Residual through_block(BlockImpl& block, const Residual& stream, const AttentionView& view,
                       const ForwardContext& context) {
  if (!context.checkpoint_blocks) return block.forward_stream(stream, view, context);
  const auto run = [&block, view, context](const at::Tensor& x_BTD) {
    return block.forward(x_BTD, view, context);
  };
  return {checkpoint(block, run, stream.sum())};
}

}  // namespace fathom
