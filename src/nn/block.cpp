#include "nn/block.h"

#include <ATen/ATen.h>

#include "kernels/counted_rows.h"
#include "nn/gated_rows.h"

namespace fathom {
namespace {

/// What the kernels of kernels/counted_rows.h take of a block: vectors of 16 bytes, warps of a bottleneck.
bool widths_fit(const BlockOptions& options) {
  const GateConfig& gate = options.gate.config;
  const int64_t inner = gate.inner_of(options.attention.dim);
  const bool scores = gate.kind == GateKind::kCausal;
  return options.mlp.inner % 8 == 0 && (!scores || (inner % 32 == 0 && inner <= 1024));
}

}  // namespace

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
  if (gate_.is_empty() || gate_->bypassed()) return dense(x_BTD, view, context, GatedPart::kBlock);
  switch (options_.gate.config.part) {
    case GatedPart::kBlock:
      return counts_rows(x_BTD, view, context) ? counted(x_BTD, view, context) : gated(x_BTD, view, context);
    case GatedPart::kAttention:
      return dense(gated(x_BTD, view, context), view, context, GatedPart::kMlp);
    case GatedPart::kMlp:
      return gated(dense(x_BTD, view, context, GatedPart::kAttention), view, context);
  }
  return {};
}

/// A part of the layer for every token.
at::Tensor BlockImpl::dense(const at::Tensor& x_BTD, const AttentionView& view, const ForwardContext& context,
                            GatedPart part) {
  BranchDrop drop = {options_.dropout, options_.drop_path, 2 * options_.layer};
  auto y_BTD = x_BTD;
  if (part != GatedPart::kMlp)
    y_BTD =
        add_branch(y_BTD, attention_(attention_norm_(y_BTD), view, options_.layer, context), drop, context);
  drop.stream += 1;
  if (part != GatedPart::kAttention)
    y_BTD = add_branch(y_BTD, mlp_(mlp_norm_(y_BTD), context), drop, context);
  return y_BTD;
}

at::Tensor BlockImpl::gated(const at::Tensor& x_BTD, const AttentionView& view,
                            const ForwardContext& context) {
  const GateDecision decision = gate_(x_BTD, view, context);
  const GatedRows rows(decision, view, context);
  return rows.added(x_BTD, [&](const at::Tensor& x) { return branch(x, rows, view); });
}

/// Whether the device may count for itself what the gate lets through: texts that begin here, computed
/// without gradients, in the type of their cache.
bool BlockImpl::counts_rows(const at::Tensor& x_BTD, const AttentionView& view,
                            const ForwardContext& context) const {
  const bool plain = attention_->is_plain() && mlp_->is_plain() && options_.gate.config.is_causal();
  const bool begins = view.causal && !view.present_BT.defined();
  if (view.cache != nullptr && view.cache->room(options_.layer).first.scalar_type() != x_BTD.scalar_type())
    return false;
  return plain && begins && widths_fit(options_) && !context.training && !at::GradMode::is_enabled() &&
         kernels::has_counted_rows(x_BTD, options_.attention.head_dim);
}

at::Tensor BlockImpl::counted(const at::Tensor& x_BTD, const AttentionView& view,
                              const ForwardContext& context) {
  const kernels::CountedRows rows = gate_->counted(x_BTD, view, context);
  const auto type = x_BTD.scalar_type();
  const auto normed =
      kernels::gathered_rms_norm(x_BTD, attention_norm_->weight().to(type), attention_norm_->eps(), rows);
  const auto attended = attention_->forward_rows(normed, rows, view, options_.layer);
  const auto [h_ND, h_normed] =
      kernels::added_rms_norm(x_BTD, attended, mlp_norm_->weight().to(type), mlp_norm_->eps(), rows);
  return kernels::merged_rows(x_BTD, h_ND, mlp_->forward_rows(h_normed, rows), rows);
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

}  // namespace fathom
