// One layer of a Swin transformer, and one stage of them. Source: Liu et al., "Swin Transformer", 2021.
// B batch, W windows, T places of a window, H heads, D width.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

#include "kernels/counted_branch.h"
#include "kernels/window.h"
#include "nn/forward_context.h"
#include "nn/linear.h"
#include "nn/local_mixing.h"
#include "nn/mlp.h"
#include "nn/norm.h"
#include "nn/patch.h"
#include "nn/residual.h"
#include "nn/token_gate.h"

namespace fathom {

struct SwinBlockOptions {
  int64_t dim = 0;
  int64_t heads = 0;
  int64_t window = 7;
  bool shifted = false;
  double mlp_ratio = 4.0;
  int64_t local_mixing = 0;  ///< side of the neighbourhood before the block, 0: none
  int64_t mlp_mixing = 0;    ///< … inside its feed-forward layer
  bool qkv_bias = true;
  double norm_eps = 1e-5;
  double dropout = 0.0;
  double drop_path = 0.0;
  int64_t layer = 0;  ///< place in the model: keys randomness
  GateConfig gate = {};
  int64_t index = 0;       ///< of the block in its encoder: finds its gates' density
  int64_t map_places = 0;  ///< of the stage's map, for GateKind::kPooled
};

/// Attention inside windows, with a learned bias by relative position.
class WindowAttentionImpl : public torch::nn::Module, public HasInitialValues {
 public:
  explicit WindowAttentionImpl(const SwinBlockOptions& options);
  /// [B, height, width, D] → the same.
  at::Tensor forward(const at::Tensor& x, const ForwardContext& context = {});
  /// The same for some windows of a map: [N, T, D], which stand at `window_N` (int64) of its windows.
  at::Tensor forward_windows(const at::Tensor& x_NTD, const at::Tensor& window_N,
                             const ForwardContext& context);
  /// Of a layer norm before them and a residual sum behind them, for windows that the device counts
  /// (kernels/counted_branch.h). REQUIRES no adapters, and a map of `windows_of`.
  kernels::CountedWindowWeights weights(const kernels::CountedNorm& norm, const ForwardContext& context);
  /// No adapters.
  bool is_plain() const { return qkv_->adapters().empty() && output_->adapters().empty(); }
  /// Windows over a map of this shape.
  const kernels::WindowShape& windows_of(const at::Tensor& x) { return plan_for(x).shape; }
  void initialise(ParameterInit& init) const override;

 private:
  /// Index and mask for maps of one size, made again when size or device change.
  struct Plan {
    kernels::WindowShape shape;
    at::Tensor index;     ///< int64 [T·T]
    at::Tensor mask_WTT;  ///< undefined without a shift
  };
  const Plan& plan_for(const at::Tensor& x);
  /// What a settled pass keeps of the gathered bias, and of which content of the parameter.
  struct KeptBias {
    at::Tensor bias_HTT;
    at::Tensor index;  ///< the plan's
    kernels::TensorContent content;
  };
  at::Tensor bias_HTT(const ForwardContext& context);
  at::Tensor gathered_bias() const;

  SwinBlockOptions options_;
  at::Tensor position_bias_;  ///< [(2·window − 1)², H]
  Linear qkv_{nullptr};
  Linear output_{nullptr};
  Plan plan_;
  KeptBias kept_;
};
TORCH_MODULE(WindowAttention);

/// x + attention(norm(x)), then x + mlp(norm(x)), behind a mixing of neighbours if there is one. With gates
/// attention works on the windows that one chooses, by their mean, and the feed-forward layer on the tokens
/// that another chooses.
class SwinBlockImpl : public torch::nn::Module {
 public:
  explicit SwinBlockImpl(const SwinBlockOptions& options);
  /// [B, height, width, D] → the same.
  at::Tensor forward(const at::Tensor& x, const ForwardContext& context);
  /// The same with the stream's sums left to the norms that follow them, here and behind this block.
  Residual forward_stream(const Residual& stream, const ForwardContext& context);
  /// `forward` by kernels/counted_branch.h, which waits for nothing. REQUIRES gates for both parts, no
  /// mixing, no adapters, windows that divide the map, and dropout by sample alone.
  at::Tensor counted(const at::Tensor& x, const ForwardContext& context);

 private:
  Residual attend(const Residual& stream, const ForwardContext& context);
  Residual feed_forward(const Residual& stream, const ForwardContext& context);
  at::Tensor attend_gated(const at::Tensor& x, const ForwardContext& context);
  at::Tensor feed_forward_gated(const at::Tensor& x, const ForwardContext& context);
  at::Tensor attend_counted(const at::Tensor& x, const ForwardContext& context);
  at::Tensor feed_forward_counted(const at::Tensor& x, const ForwardContext& context);
  bool counts_windows(const at::Tensor& x, const ForwardContext& context);
  bool counts_tokens(const at::Tensor& x, const ForwardContext& context) const;
  kernels::CountedBranch branch_of(CountedDecision decision, const BranchDrop& drop,
                                   const ForwardContext& context) const;

  SwinBlockOptions options_;
  LocalMixing local_mixing_{nullptr};
  LayerNorm attention_norm_{nullptr};
  WindowAttention attention_{nullptr};
  TokenGate attention_gate_{nullptr};
  LayerNorm mlp_norm_{nullptr};
  GeluMlp mlp_{nullptr};
  TokenGate mlp_gate_{nullptr};
};
TORCH_MODULE(SwinBlock);

/// Blocks, every second one shifted, then (except in the last stage) a merging of patches.
class SwinStageImpl : public torch::nn::Module {
 public:
  SwinStageImpl(const std::vector<SwinBlockOptions>& blocks, bool merge);
  /// [B, height, width, D] → [B, ⌈height/2⌉, ⌈width/2⌉, 2D], or in the last stage the same; there the last
  /// sum is left to the norm behind it.
  Residual forward(const at::Tensor& x, const ForwardContext& context);

 private:
  torch::nn::ModuleList blocks_;
  PatchMerging merge_{nullptr};
};
TORCH_MODULE(SwinStage);

}  // namespace fathom
