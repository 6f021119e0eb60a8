#include "nn/swin_block.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "kernels/counted_layers.h"
#include "kernels/shifted_window_attention.h"
#include "kernels/window_attention.h"
#include "nn/checkpointing.h"
#include "nn/gated_rows.h"
#include "nn/residual.h"
#include "nn/window_plan.h"

namespace fathom {
namespace {

/// Tells the gate of a block's feed-forward layer from that of its attention.
constexpr int64_t kMlpGate = int64_t{1} << 24;

/// Of a square map of so many places.
int64_t side_of(int64_t places) {
  return static_cast<int64_t>(std::lround(std::sqrt(static_cast<double>(places))));
}

/// Along one side of the map.
int64_t windows_across(const SwinBlockOptions& options) {
  return (side_of(options.map_places) + options.window - 1) / options.window;
}

/// Of one window: no more than the map's.
int64_t window_places(const SwinBlockOptions& options) {
  const int64_t side = std::min(options.window, side_of(options.map_places));
  return std::max<int64_t>(1, side * side);
}

/// True at the places of these windows that lie outside of the map: [N, T, 1]; undefined where none can.
at::Tensor padded_places(const at::Tensor& x, const kernels::WindowShape& shape, const at::Tensor& place_N) {
  if (shape.height % shape.side == 0 && shape.width % shape.side == 0) return {};
  return places_on_map(shape, x.device()).index_select(0, place_N).lt(0.5);
}

kernels::CountedNorm parts_of(const LayerNorm& norm) {
  return {norm->weight(), norm->bias(), norm->eps()};
}

/// Of a block that is checkpointed nothing but the sum that enters it is kept.
Residual through_swin_block(SwinBlockImpl& block, const Residual& stream, const ForwardContext& context) {
  if (!context.checkpoint_blocks) return block.forward_stream(stream, context);
  const auto run = [&block, context](const at::Tensor& x) { return block.forward(x, context); };
  return {checkpoint(block, run, stream.sum())};
}

}  // namespace

WindowAttentionImpl::WindowAttentionImpl(const SwinBlockOptions& options) : options_(options) {
  const int64_t span = 2 * options.window - 1;
  position_bias_ = register_parameter("position_bias", at::empty({span * span, options.heads}));
  qkv_ = register_module(
      "qkv", Linear(LinearOptions{
                 .in = options.dim, .out = 3 * options.dim, .bias = options.qkv_bias, .in_block = true}));
  output_ = register_module("output",
                            Linear(LinearOptions{.in = options.dim, .out = options.dim, .in_block = true}));
}

const WindowAttentionImpl::Plan& WindowAttentionImpl::plan_for(const at::Tensor& x) {
  const bool fits = plan_.index.defined() && plan_.shape.height == x.size(1) &&
                    plan_.shape.width == x.size(2) && plan_.index.device() == x.device();
  if (!fits) {
    plan_.shape = fit_windows(x.size(1), x.size(2), options_.window, options_.shifted);
    plan_.index = relative_position_index(plan_.shape.side, options_.window).flatten().to(x.device());
    plan_.mask_WTT = plan_.shape.shift > 0 ? shift_mask(plan_.shape).to(x.device()) : at::Tensor();
  }
  return plan_;
}

at::Tensor WindowAttentionImpl::bias_HTT(const ForwardContext& context) {
  if (!context.keeps()) return gathered_bias();
  const bool fits =
      kept_.bias_HTT.defined() && kept_.index.is_same(plan_.index) && kept_.content.is_of(position_bias_);
  if (!fits) kept_ = {gathered_bias(), plan_.index, kernels::TensorContent::of(position_bias_)};
  return kept_.bias_HTT;
}

at::Tensor WindowAttentionImpl::gathered_bias() const {
  const int64_t places = plan_.shape.side * plan_.shape.side;
  return at::index_select(position_bias_, 0, plan_.index)
      .view({places, places, options_.heads})
      .permute({2, 0, 1})
      .contiguous();
}

at::Tensor WindowAttentionImpl::forward_windows(const at::Tensor& x_NTD, const at::Tensor& window_N,
                                                const ForwardContext& context) {
  const auto mask_NTT = plan_.mask_WTT.defined() ? plan_.mask_WTT.index_select(0, window_N) : at::Tensor();
  const auto attended = kernels::window_attention(qkv_(x_NTD, context, Feeds::kProduct).unsqueeze(0),
                                                  bias_HTT(context), mask_NTT);
  return output_(attended.squeeze(0), context);
}

kernels::CountedWindowWeights WindowAttentionImpl::weights(const kernels::CountedNorm& norm,
                                                           const ForwardContext& context) {
  return {.norm = norm,
          .qkv = qkv_->weight(),
          .qkv_bias = qkv_->bias(),
          .output = output_->weight(),
          .output_bias = output_->bias(),
          .position_HTT = bias_HTT(context)};
}

at::Tensor WindowAttentionImpl::forward(const at::Tensor& x, const ForwardContext& context) {
  const Plan& plan = plan_for(x);
  const auto bias_HTT = this->bias_HTT(context);
  if (kernels::has_shifted_window_attention(x, plan.shape, options_.dim / options_.heads))
    return output_(kernels::shifted_window_attention(qkv_(x, context, Feeds::kProduct), bias_HTT, plan.shape),
                   context);
  const auto windows = kernels::window_partition(x, plan.shape);
  const auto attended =
      kernels::window_attention(qkv_(windows, context, Feeds::kProduct), bias_HTT, plan.mask_WTT);
  return kernels::window_merge(output_(attended, context), plan.shape);
}

void WindowAttentionImpl::initialise(ParameterInit& init) const {
  init.normal("position_bias", 0.02);
}

SwinBlockImpl::SwinBlockImpl(const SwinBlockOptions& options) : options_(options) {
  if (options.local_mixing > 0)
    local_mixing_ = register_module("local_mixing", LocalMixing(options.dim, options.local_mixing));
  attention_norm_ = register_module("attention_norm", LayerNorm(options.dim, options.norm_eps));
  attention_ = register_module("attention", WindowAttention(options));
  mlp_norm_ = register_module("mlp_norm", LayerNorm(options.dim, options.norm_eps));
  const auto inner = static_cast<int64_t>(static_cast<double>(options.dim) * options.mlp_ratio);
  mlp_ = register_module(
      "mlp", GeluMlp(MlpOptions{.dim = options.dim, .inner = inner, .local_mixing = options.mlp_mixing}));
  const auto gate = [&](int64_t weights, int64_t layer, int64_t side) {
    return TokenGate(TokenGateOptions{.config = options.gate,
                                      .dim = options.dim,
                                      .layer = layer,
                                      .index = options.index,
                                      .places = side * side,
                                      .map_rows = side,
                                      .is_picture = true,
                                      .norm_eps = options.norm_eps,
                                      .gated_weights = weights});
  };
  if (!options.gate.gates_layer(options.index)) return;
  if (options.gate.part != GatedPart::kMlp)
    attention_gate_ = register_module(
        "attention_gate",
        gate(num_weights(*attention_) * window_places(options), options.layer, windows_across(options)));
  if (options.gate.part != GatedPart::kAttention)
    mlp_gate_ = register_module(
        "mlp_gate", gate(num_weights(*mlp_), kMlpGate + options.layer, side_of(options.map_places)));
}

at::Tensor SwinBlockImpl::forward(const at::Tensor& x, const ForwardContext& context) {
  return forward_stream({x}, context).sum();
}

Residual SwinBlockImpl::forward_stream(const Residual& stream, const ForwardContext& context) {
  const Residual mixed = local_mixing_.is_empty() ? stream : Residual{local_mixing_(stream.sum())};
  return feed_forward(attend(mixed, context), context);
}

Residual SwinBlockImpl::attend(const Residual& stream, const ForwardContext& context) {
  if (!attention_gate_.is_empty() && !attention_gate_->bypassed())
    return {attend_gated(stream.sum(), context)};
  const BranchDrop drop = {options_.dropout, options_.drop_path, 2 * options_.layer};
  const auto [x, y] = normed_sum(stream, attention_norm_);
  return with_branch(x, attention_(y, context), drop, context);
}

Residual SwinBlockImpl::feed_forward(const Residual& stream, const ForwardContext& context) {
  if (!mlp_gate_.is_empty() && !mlp_gate_->bypassed()) return {feed_forward_gated(stream.sum(), context)};
  const BranchDrop drop = {options_.dropout, options_.drop_path, 2 * options_.layer + 1};
  const auto [x, y] = normed_sum(stream, mlp_norm_);
  return with_branch(x, mlp_(y, context), drop, context);
}

/// Whether the device may count for itself what a gate lets through.
bool SwinBlockImpl::counts_windows(const at::Tensor& x, const ForwardContext& context) {
  const bool drops = context.drops() && options_.dropout > 0;  // of elements, by their windows' keys
  return !context.products.narrow(x) && !drops && attention_->is_plain() &&
         attention_gate_->has_kernels(x.size(0)) &&
         kernels::has_counted_windows(x, attention_->windows_of(x), options_.dim / options_.heads);
}

bool SwinBlockImpl::counts_tokens(const at::Tensor& x_BTD, const ForwardContext& context) const {
  const int64_t inner = mlp_->up()->options().out;
  return !context.products.narrow(x_BTD) && mlp_->is_plain() && inner % kernels::kCountedVector == 0 &&
         mlp_gate_->has_kernels(x_BTD.size(0)) && kernels::has_counted_layers(x_BTD);
}

kernels::CountedBranch SwinBlockImpl::branch_of(CountedDecision decision, const BranchDrop& drop,
                                                const ForwardContext& context) const {
  return {.rows = std::move(decision.rows),
          .score = std::move(decision.score),
          .drop = {context.drops() ? drop.dropout : 0, drop.drop_path, drop.stream},
          .key_B = context.drops() ? context.key_B : at::Tensor(),
          .copies = context.copies,
          .rooms = context.rooms};
}

at::Tensor SwinBlockImpl::attend_counted(const at::Tensor& x, const ForwardContext& context) {
  const BranchDrop drop = {options_.dropout, options_.drop_path, 2 * options_.layer};
  const kernels::WindowShape shape = attention_->windows_of(x);
  // Of gates that look at nothing the sizes are enough.
  const auto mean_BWD = attention_gate_->options().config.learns()
                            ? kernels::window_means(x.detach(), shape)
                            : x.detach().flatten(1, 2).narrow(1, 0, shape.count());
  auto decision = attention_gate_->counted(mean_BWD, AttentionView{.map_rows = shape.rows()}, context);
  return kernels::counted_window_branch(x, attention_->weights(parts_of(attention_norm_), context), shape,
                                        branch_of(std::move(decision), drop, context));
}

at::Tensor SwinBlockImpl::feed_forward_counted(const at::Tensor& x, const ForwardContext& context) {
  const BranchDrop drop = {options_.dropout, options_.drop_path, 2 * options_.layer + 1};
  const auto x_BTD = x.flatten(1, 2);
  const kernels::CountedFeedForwardWeights weights = {.norm = parts_of(mlp_norm_),
                                                      .up = mlp_->up()->weight(),
                                                      .up_bias = mlp_->up()->bias(),
                                                      .down = mlp_->down()->weight(),
                                                      .down_bias = mlp_->down()->bias()};
  auto decision = mlp_gate_->counted(x_BTD, AttentionView{.map_rows = x.size(1)}, context);
  return kernels::counted_feed_forward(x_BTD, weights, branch_of(std::move(decision), drop, context))
      .view_as(x);
}

at::Tensor SwinBlockImpl::counted(const at::Tensor& x, const ForwardContext& context) {
  return feed_forward_counted(attend_counted(x, context), context);
}

at::Tensor SwinBlockImpl::attend_gated(const at::Tensor& x, const ForwardContext& context) {
  const BranchDrop drop = {options_.dropout, options_.drop_path, 2 * options_.layer};
  if (counts_windows(x, context)) return attend_counted(x, context);
  const kernels::WindowShape shape = attention_->windows_of(x);
  const auto window_BWTD = kernels::window_partition(x, shape);
  const GateDecision decision =
      attention_gate_(window_mean(window_BWTD, shape), AttentionView{.map_rows = shape.rows()}, context);
  const GatedRows rows(decision, {}, context);
  const auto place_N = at::remainder(rows.tokens().place_N, shape.count());
  const auto absent_NT1 = padded_places(x, shape, place_N);
  const auto branch = [&](const at::Tensor& y) {
    auto normed_NTD = attention_norm_(y.flatten(0, -3));
    // As without a gate, where the map is padded behind the norm.
    if (absent_NT1.defined()) normed_NTD = normed_NTD.masked_fill(absent_NT1, 0);
    return rows.dropped(attention_->forward_windows(normed_NTD, place_N, rows.context()).view_as(y), drop);
  };
  return kernels::window_merge(rows.added(window_BWTD, branch), shape);
}

at::Tensor SwinBlockImpl::feed_forward_gated(const at::Tensor& x, const ForwardContext& context) {
  const BranchDrop drop = {options_.dropout, options_.drop_path, 2 * options_.layer + 1};
  const auto x_BTD = x.flatten(1, 2);
  if (counts_tokens(x_BTD, context)) return feed_forward_counted(x, context);
  const GateDecision decision = mlp_gate_(x_BTD, AttentionView{.map_rows = x.size(1)}, context);
  const GatedRows rows(decision, {}, context);
  return rows
      .added(x_BTD,
             [&](const at::Tensor& y) { return rows.dropped(mlp_(mlp_norm_(y), rows.context()), drop); })
      .view_as(x);
}

SwinStageImpl::SwinStageImpl(const std::vector<SwinBlockOptions>& blocks, bool merge) {
  blocks_ = register_module("blocks", torch::nn::ModuleList());
  for (const auto& options : blocks) blocks_->push_back(SwinBlock(options));
  if (merge) merge_ = register_module("merge", PatchMerging(blocks.front().dim, blocks.front().norm_eps));
}

Residual SwinStageImpl::forward(const at::Tensor& x, const ForwardContext& context) {
  Residual stream = {x};
  for (const auto& module : *blocks_) stream = through_swin_block(*module->as<SwinBlock>(), stream, context);
  return merge_.is_empty() ? stream : Residual{merge_->forward_stream(stream, context)};
}

}  // namespace fathom
