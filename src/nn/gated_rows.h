// The rows of a batch that a layer with a gate computes, and how they come back.
// B batch, T tokens (or windows of a map), N computed ones.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <functional>

#include "nn/attention.h"
#include "nn/forward_context.h"
#include "nn/residual.h"
#include "nn/token_gate.h"

namespace fathom {

/// Rows are [N, ...], those of x.flatten(0, 1) that are computed, or, where these are all, the batch [B, T,
/// ...] as it is.
class GatedRows {
 public:
  /// REQUIRES `decision` to outlive it.
  GatedRows(const GateDecision& decision, const AttentionView& view, const ForwardContext& context);

  /// Where rows are [N, ...].
  bool packed() const { return packed_; }
  const ComputedTokens& tokens() const { return tokens_; }
  /// With a key a row.
  const ForwardContext& context() const { return context_; }

  /// What dropout and stochastic depth leave of a branch's rows.
  at::Tensor dropped(const at::Tensor& y, const BranchDrop& drop) const;
  /// `x` [B, T, ...] with what `branch` makes of its rows added to them, as far as they are active.
  at::Tensor added(const at::Tensor& x,
                   const std::function<at::Tensor(const at::Tensor& rows)>& branch) const;

 private:
  at::Tensor take(const at::Tensor& x) const;
  at::Tensor put(const at::Tensor& x, const at::Tensor& y) const;

  const GateDecision& decision_;
  ComputedTokens tokens_;
  bool packed_ = false;
  ForwardContext context_;
  ForwardContext whole_;  ///< with a key a sample
  at::Tensor sample_N_;   ///< the sample of each row, where packed
};

/// Parameters of a part of a layer: what its gate's density is weighed by.
int64_t num_weights(const torch::nn::Module& module);

}  // namespace fathom
