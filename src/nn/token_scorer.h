// What a gate thinks of each token. B batch, T tokens, D model width, H width of the bottleneck, S places.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

#include "kernels/token_scorer.h"
#include "nn/attention.h"
#include "nn/forward_context.h"
#include "nn/init.h"
#include "nn/linear.h"
#include "nn/norm.h"

namespace fathom {

struct TokenScorerOptions {
  int64_t dim = 0;
  int64_t inner = 0;
  double norm_eps = 1e-5;
  bool causal = true;  ///< the mean of a token and those before it in its text; otherwise of all of its row
  int64_t layer = 0;   ///< finds the running sum in a cache
};

/// wᵀ GELU(W [x̂, mean x̂] + b) + c with x̂ = norm(x), computed in float32 or wider. The mean is taken behind
/// the projection, which is linear, so that a sum of H numbers is all that a cache keeps.
class TokenScorerImpl : public torch::nn::Module, public HasInitialValues {
 public:
  explicit TokenScorerImpl(const TokenScorerOptions& options);
  /// Scores before the sigmoid: [B, T, D] → [B, T]. With a cache in the view its sum is brought up to date.
  at::Tensor forward(const at::Tensor& x_BTD, const AttentionView& view, const ForwardContext& context);
  /// The same by kernels/token_scorer.h, whose gradient goes to parameters alone. REQUIRES texts that begin
  /// here, one a row.
  at::Tensor counted(const at::Tensor& x_BTD, const AttentionView& view, const ForwardContext& context) const;
  /// As they are, in their own type.
  kernels::TokenScorerWeights weights() const;
  double eps() const { return norm_->eps(); }
  void initialise(ParameterInit& init) const override;

 private:
  TokenScorerOptions options_;
  RMSNorm norm_{nullptr};
  Linear project_{nullptr};  ///< [2H, D]: of the token itself, of the mean
  at::Tensor out_H_;
  at::Tensor bias_;
};
TORCH_MODULE(TokenScorer);

struct PooledScorerOptions {
  int64_t dim = 0;
  int64_t places = 0;    ///< S, of the largest map; an eighth of it is the bottleneck
  int64_t map_rows = 1;  ///< of that map; 1 for a sequence
  bool is_picture = false;
  double norm_eps = 1e-5;
};

/// W₂ GELU(W₁ mean x̂): a score for each place, from the mean of all alone.
class PooledScorerImpl : public torch::nn::Module {
 public:
  explicit PooledScorerImpl(const PooledScorerOptions& options);
  /// [B, T, D] → [B, T]. Where the map has another size, a picture takes the scores interpolated along both
  /// sides, anything else those of each row's first places. REQUIRES of the latter as many rows, and no more
  /// places in one.
  at::Tensor forward(const at::Tensor& x_BTD, const AttentionView& view, const ForwardContext& context);

 private:
  PooledScorerOptions options_;
  RMSNorm norm_{nullptr};
  Linear down_{nullptr};
  Linear up_{nullptr};
};
TORCH_MODULE(PooledScorer);

/// True at the unpadded tokens of `x_BTD`: [B, T].
at::Tensor present_tokens(const at::Tensor& x_BTD, const AttentionView& view);

}  // namespace fathom
