// One layer of a Llama-compatible transformer. B batch, T tokens, D model width.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

#include "nn/attention.h"
#include "nn/forward_context.h"
#include "nn/mlp.h"
#include "nn/norm.h"

namespace fathom {

struct BlockOptions {
  AttentionOptions attention;
  MlpOptions mlp;
  double norm_eps = 1e-5;
  double dropout = 0.0;
  double drop_path = 0.0;
  int64_t layer = 0;  ///< place in the model: keys randomness and finds keys and values in a cache
};

/// x + attention(norm(x)), then x + mlp(norm(x)).
class BlockImpl : public torch::nn::Module {
 public:
  explicit BlockImpl(const BlockOptions& options);
  /// [B, T, D] → [B, T, D].
  at::Tensor forward(const at::Tensor& x_BTD, const AttentionView& view, const ForwardContext& context);

 private:
  BlockOptions options_;
  RMSNorm attention_norm_{nullptr};
  Attention attention_{nullptr};
  RMSNorm mlp_norm_{nullptr};
  SwigluMlp mlp_{nullptr};
};
TORCH_MODULE(Block);

}  // namespace fathom
