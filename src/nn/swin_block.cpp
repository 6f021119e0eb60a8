#include "nn/swin_block.h"

#include <ATen/ATen.h>

#include <cmath>

#include "kernels/shifted_window_attention.h"
#include "kernels/window_attention.h"
#include "nn/checkpointing.h"
#include "nn/residual.h"
#include "nn/window_plan.h"

namespace fathom {

WindowAttentionImpl::WindowAttentionImpl(const SwinBlockOptions& options) : options_(options) {
  const int64_t span = 2 * options.window - 1;
  position_bias_ = register_parameter("position_bias", at::empty({span * span, options.heads}));
  qkv_ = register_module(
      "qkv", Linear(LinearOptions{.in = options.dim, .out = 3 * options.dim, .bias = options.qkv_bias}));
  output_ = register_module("output", Linear(LinearOptions{.in = options.dim, .out = options.dim}));
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

at::Tensor WindowAttentionImpl::forward(const at::Tensor& x, const ForwardContext& context) {
  const Plan& plan = plan_for(x);
  const int64_t places = plan.shape.side * plan.shape.side;
  const auto bias_HTT = at::index_select(position_bias_, 0, plan.index)
                            .view({places, places, options_.heads})
                            .permute({2, 0, 1})
                            .contiguous();
  if (kernels::has_shifted_window_attention(x, plan.shape, options_.dim / options_.heads))
    return output_(kernels::shifted_window_attention(qkv_(x, context), bias_HTT, plan.shape), context);
  const auto windows = kernels::window_partition(x, plan.shape);
  const auto attended = kernels::window_attention(qkv_(windows, context), bias_HTT, plan.mask_WTT);
  return kernels::window_merge(output_(attended, context), plan.shape);
}

void WindowAttentionImpl::initialise(ParameterInit& init) const {
  init.normal("position_bias", 0.02);
}

SwinBlockImpl::SwinBlockImpl(const SwinBlockOptions& options) : options_(options) {
  attention_norm_ = register_module("attention_norm", LayerNorm(options.dim, options.norm_eps));
  attention_ = register_module("attention", WindowAttention(options));
  mlp_norm_ = register_module("mlp_norm", LayerNorm(options.dim, options.norm_eps));
  const auto inner = static_cast<int64_t>(static_cast<double>(options.dim) * options.mlp_ratio);
  mlp_ = register_module("mlp", GeluMlp(MlpOptions{.dim = options.dim, .inner = inner}));
}

at::Tensor SwinBlockImpl::forward(const at::Tensor& x, const ForwardContext& context) {
  BranchDrop drop = {options_.dropout, options_.drop_path, 2 * options_.layer};
  const auto h = add_branch(x, attention_(attention_norm_(x), context), drop, context);
  drop.stream += 1;
  return add_branch(h, mlp_(mlp_norm_(h), context), drop, context);
}

SwinStageImpl::SwinStageImpl(const std::vector<SwinBlockOptions>& blocks, bool merge) {
  blocks_ = register_module("blocks", torch::nn::ModuleList());
  for (const auto& options : blocks) blocks_->push_back(SwinBlock(options));
  if (merge) merge_ = register_module("merge", PatchMerging(blocks.front().dim, blocks.front().norm_eps));
}

at::Tensor SwinStageImpl::forward(const at::Tensor& x, const ForwardContext& context) {
  auto y = x;
  for (const auto& module : *blocks_) {
    auto* block = module->as<SwinBlock>();
    const auto run = [block, context](const at::Tensor& input) { return block->forward(input, context); };
    y = context.checkpoint_blocks ? checkpoint(*block, run, y) : run(y);
  }
  return merge_.is_empty() ? y : merge_(y, context);
}

}  // namespace fathom
