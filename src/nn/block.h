// One layer of a Llama-compatible transformer. B batch, T tokens, N computed tokens, D model width.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

#include "kernels/counted_block.h"
#include "nn/attention.h"
#include "nn/forward_context.h"
#include "nn/mlp.h"
#include "nn/norm.h"
#include "nn/residual.h"
#include "nn/token_gate.h"

namespace fathom {

struct BlockOptions {
  AttentionOptions attention;
  MlpOptions mlp;
  TokenGateOptions gate = {};
  double norm_eps = 1e-5;
  double dropout = 0.0;
  double drop_path = 0.0;
  int64_t layer = 0;  ///< place in the model: keys randomness and finds keys and values in a cache
};

class GatedRows;

/// x + attention(norm(x)), then x + mlp(norm(x)). With a gate (that of a density below 1) only for the tokens
/// that it chooses: the others pass as they are, and leave no key or value.
class BlockImpl : public torch::nn::Module {
 public:
  explicit BlockImpl(const BlockOptions& options);
  /// [B, T, D] → [B, T, D].
  at::Tensor forward(const at::Tensor& x_BTD, const AttentionView& view, const ForwardContext& context);

  /// The same with the stream's sums left to the norms that follow them, here and behind this block.
  Residual forward_stream(const Residual& stream, const AttentionView& view, const ForwardContext& context);

  /// `forward` by kernels/counted_block.h, which waits for nothing, of the part that the gate is for.
  /// REQUIRES a view whose mask knows nothing but padding, and what TokenGate's `counted` does. `overwrites`:
  /// nobody else wants x.
  at::Tensor counted(const at::Tensor& x_BTD, const AttentionView& view, const ForwardContext& context,
                     bool overwrites = false);

  /// Null for a block without one.
  TokenGate gate() const { return gate_; }
  /// Null for a block that computes every token.
  TokenGate acting_gate() const {
    return gate_ && !gate_->bypassed() && !gate_->dense() ? gate_ : TokenGate(nullptr);
  }
  /// Nothing but products with weights, of all tokens or of those that a gate of whole blocks lets through by
  /// itself.
  bool is_plain() const;
  kernels::CountedWeights weights() const;
  const BlockOptions& options() const { return options_; }

 private:
  Residual dense(Residual stream, const AttentionView& view, const ForwardContext& context, GatedPart part);
  at::Tensor partly(const at::Tensor& x_BTD, const AttentionView& view, const ForwardContext& context);
  at::Tensor gated(const at::Tensor& x_BTD, const AttentionView& view, const ForwardContext& context);
  bool counts_rows(const at::Tensor& x_BTD, const AttentionView& view, const ForwardContext& context) const;
  at::Tensor branch(const at::Tensor& x, const GatedRows& rows, const AttentionView& view);

  BlockOptions options_;
  RMSNorm attention_norm_{nullptr};
  Attention attention_{nullptr};
  RMSNorm mlp_norm_{nullptr};
  SwigluMlp mlp_{nullptr};
  TokenGate gate_{nullptr};
};
TORCH_MODULE(Block);

/// One block of a model. Of one that is checkpointed nothing but the sum that enters it is kept.
Residual through_block(BlockImpl& block, const Residual& stream, const AttentionView& view,
                       const ForwardContext& context);

}  // namespace fathom
