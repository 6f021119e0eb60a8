#include "nn/block.h"

#include "nn/residual.h"

namespace fathom {

BlockImpl::BlockImpl(const BlockOptions& options) : options_(options) {
  attention_norm_ = register_module("attention_norm", RMSNorm(options.attention.dim, options.norm_eps));
  attention_ = register_module("attention", Attention(options.attention));
  mlp_norm_ = register_module("mlp_norm", RMSNorm(options.mlp.dim, options.norm_eps));
  mlp_ = register_module("mlp", SwigluMlp(options.mlp));
}

at::Tensor BlockImpl::forward(const at::Tensor& x_BTD, const AttentionView& view,
                              const ForwardContext& context) {
  BranchDrop drop = {options_.dropout, options_.drop_path, 2 * options_.layer};
  const auto h_BTD =
      add_branch(x_BTD, attention_(attention_norm_(x_BTD), view, options_.layer, context), drop, context);
  drop.stream += 1;
  return add_branch(h_BTD, mlp_(mlp_norm_(h_BTD), context), drop, context);
}

}  // namespace fathom
