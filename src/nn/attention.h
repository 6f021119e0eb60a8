// Multi-head attention with grouped key-value heads and rotary positions. Source: Ainslie et al., "GQA:
// training generalized multi-query transformer models from multi-head checkpoints", EMNLP 2023.
// B batch, T tokens, S tokens seen so far, D model width, H heads, K key-value heads, E head size.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

#include "kernels/varlen_attention.h"
#include "nn/forward_context.h"
#include "nn/kv_cache.h"
#include "nn/linear.h"
#include "nn/rope.h"

namespace fathom {

struct AttentionOptions {
  int64_t dim = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  bool qkv_bias = false;
  double output_deviation = 0.02;  ///< initial deviation of the output projection
};

/// What all layers of one forward pass share: where the tokens stand and what they may look at.
struct AttentionView {
  RopeAngles angles;
  bool causal = false;  ///< each token sees itself and those before; excludes a mask
  at::Tensor mask;  ///< bool, true where a query may look; broadcasts to [B, H, T, S]; undefined: everywhere
  bool ordered = false;   ///< no token sees a later one, be it by `causal` or by the mask
  at::Tensor present_BT;  ///< bool: unpadded tokens; undefined: all
  at::Tensor segment_BT;  ///< int64: the text of each token where a row holds several, or undefined
  int64_t map_rows = 1;   ///< of the map that the tokens are, row by row; 1 for a sequence
  KeyValueCache* cache = nullptr;
};

/// What the tokens `x_BTD` may look at. `length_B`: unpadded tokens of each row, or undefined; padding stands
/// behind, so a causal view needs no mask for it. With a cache the tokens follow what it holds.
AttentionView make_attention_view(const at::Tensor& x_BTD, const at::Tensor& length_B, bool causal,
                                  Rope& rope, KeyValueCache* cache = nullptr);

/// Lets the tokens of a causal view see those of their own segment only: several texts in one row.
/// `segment_BT`: int64, one number a text. REQUIRES a view without a cache.
void separate_segments(AttentionView& view, const at::Tensor& segment_BT);

/// Some tokens of a batch [B, T], as rows of x_BTD.flatten(0, 1) in rising order. N of them.
struct ComputedTokens {
  at::Tensor place_N;            ///< int64: b·T + t
  kernels::VarlenLayout layout;  ///< sequences are the batch's rows, or the texts in them
  at::Tensor value_weight_N;     ///< 1, for the gradient through it; undefined: nobody asks
  int64_t tokens = 0;            ///< T
  bool is_all = false;           ///< N = B·T
};

class AttentionImpl : public torch::nn::Module {
 public:
  explicit AttentionImpl(const AttentionOptions& options);
  /// [B, T, D] → [B, T, D]. `layer` is this layer's place in the cache.
  at::Tensor forward(const at::Tensor& x_BTD, const AttentionView& view, int64_t layer,
                     const ForwardContext& context = {});
  /// The same for single tokens of the batch, which see one another alone (and, with a cache, what it holds
  /// of their row): [N, D] → [N, D].
  at::Tensor forward_tokens(const at::Tensor& x_ND, const ComputedTokens& tokens, const AttentionView& view,
                            int64_t layer, const ForwardContext& context = {});
  /// Nothing but two products: no biases, no adapters.
  bool is_plain() const { return qkv_->is_plain() && output_->is_plain(); }

  Linear qkv() const { return qkv_; }
  Linear output() const { return output_; }

 private:
  AttentionOptions options_;
  Linear qkv_{nullptr};  ///< queries, keys and values in one product: [(H + 2K)·E, D]
  Linear output_{nullptr};
};
TORCH_MODULE(Attention);

}  // namespace fathom
