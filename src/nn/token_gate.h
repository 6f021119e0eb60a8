// A gate that chooses, for one layer, which tokens are computed (docs/design.md, section 7). Sources: the
// straight-through estimator of Bengio et al., "Estimating or propagating gradients through stochastic
// neurons", 2013; top-k routing of Raposo et al., "Mixture-of-Depths", 2024.
// B batch, T tokens, N tokens that are computed, D model width.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernels/counted_gradients.h"
#include "nn/attention.h"
#include "nn/forward_context.h"
#include "nn/gate_config.h"
#include "nn/token_scorer.h"

namespace fathom {

/// What a gate made of one batch.
struct GateDecision {
  at::Tensor active_BT;    ///< bool; never at padding
  at::Tensor computed_BT;  ///< bool: those, and in training what is explored beside them
  /// What the layer's output is multiplied with. Its value is 1 at active and 0 at explored tokens (but the
  /// router's for top_k), its gradient that of the score. Undefined: no more than 1 where active.
  at::Tensor weight_BT;
  /// What values are multiplied with where attention is gated: 1, with the score's gradient at active tokens.
  at::Tensor value_weight_BT;
  at::Tensor side_BT;           ///< what has a gradient beside the objective's, or undefined
  at::Tensor side_gradient_BT;  ///< that gradient
};

struct CountedDecision {
  kernels::CountedRows rows;
  kernels::ScoreGradient score;
};

struct TokenGateOptions {
  GateConfig config;
  int64_t dim = 0;
  int64_t layer = 0;        ///< of all gates that one context reaches: keys draws, finds sums in a cache
  int64_t index = 0;        ///< of the block among those of its encoder: finds densities
  int64_t places = 0;       ///< of a row as the model is made for it: decisions that its layer takes
  int64_t map_rows = 1;     ///< of the map that these are; 1 for a sequence
  bool is_picture = false;  ///< for GateKind::kPooled: the map may have another size
  double norm_eps = 1e-5;
  int64_t gated_weights = 0;  ///< token-parameters of a decision: products that one against does without
};

/// Counts of a gate since they were last taken, over unpadded tokens.
struct GateCounts {
  enum : int64_t { kActive, kTokens, kEntropy, kSize };  ///< the last in bits, summed
};

class TokenGateImpl : public torch::nn::Module {
 public:
  explicit TokenGateImpl(const TokenGateOptions& options);

  /// REQUIRES a kind that fits the view: causal ones alone where tokens do not see later ones.
  GateDecision forward(const at::Tensor& x_BTD, const AttentionView& view, const ForwardContext& context);
  /// The same for a device that counts the rows itself. REQUIRES texts that begin here, one a row, and no
  /// GateKind::kTopK.
  CountedDecision counted(const at::Tensor& x_BTD, const AttentionView& view, const ForwardContext& context);

  /// Whether `counted` has kernels for this gate, on a GPU that has those of counted rows, where it decides
  /// about so many rows of tokens.
  bool has_kernels(int64_t rows) const;

  /// Decisions that no score takes, bool [B, T]: forced or drawn ones. Undefined: the scorer decides.
  at::Tensor given(const at::Tensor& x_BTD, const AttentionView& view, const ForwardContext& context) const;
  /// Null where nothing is learned.
  TokenScorer scorer() const { return scorer_; }

  /// Everything is computed, as in the first steps of training, and scores learn nothing: what a layer that
  /// has learned nothing yet brings would only drive them all to one side.
  void set_dense(bool dense) { dense_ = dense; }
  bool dense() const { return dense_; }
  /// The layer is to compute everything as if it had no gate, and nothing is scored.
  void set_bypassed(bool bypassed) { bypassed_ = bypassed; }
  bool bypassed() const { return bypassed_; }
  /// Weight (a scalar on the model's device) of this layer's density in the objective; undefined: none.
  void set_multiplier(at::Tensor multiplier) { multiplier_ = std::move(multiplier); }
  /// Float64 [GateCounts::kSize], on the model's device.
  const at::Tensor& counts() const { return counts_; }
  at::Tensor& counts_on(at::Device device);
  void reset_counts();

  const TokenGateOptions& options() const { return options_; }

 private:
  at::Tensor counted_scores(const at::Tensor& x_BTD, const AttentionView& view,
                            const ForwardContext& context);
  int64_t expected_rows(int64_t tokens, double explore) const;
  at::Tensor chosen(const at::Tensor& own_BT, const at::Tensor& present_BT,
                    const ForwardContext& context) const;
  GateDecision learned(const at::Tensor& score_BT, const at::Tensor& present_BT,
                       const ForwardContext& context) const;
  GateDecision top_k(const at::Tensor& x_BTD, const AttentionView& view, const at::Tensor& present_BT,
                     const ForwardContext& context);
  at::Tensor drawn(const at::Tensor& x_BTD, const AttentionView& view, const ForwardContext& context) const;
  void count(const GateDecision& decision, const at::Tensor& score_BT, const at::Tensor& present_BT);

  TokenGateOptions options_;
  TokenScorer scorer_{nullptr};
  PooledScorer pooled_{nullptr};
  Linear router_{nullptr};
  bool dense_ = false;
  bool bypassed_ = false;
  at::Tensor multiplier_;
  at::Tensor counts_;
};
TORCH_MODULE(TokenGate);

/// A gate, and where it is: "3" for the fourth block of a language model, "vision.0.1.mlp" for that of the
/// second block of a dual tower's first stage of pictures.
struct NamedGate {
  std::string name;
  TokenGate gate;
};
/// All gates of a model, in the order of its layers.
std::vector<NamedGate> gates_of(const torch::nn::Module& model);
/// Share of the gated layers' token-parameters that were activated since the counts were reset: each decision
/// counts for the products that it stands for, so a costly token for more than a cheap one. Nothing without
/// gates, or before any pass. Waits for the device.
std::optional<double> activated_share(const torch::nn::Module& model);
/// Share of decisions, over all layers, that two passes over the same tokens took alike.
double agreement(const GateTrace& one, const GateTrace& other);

/// What a layer has to compute.
ComputedTokens computed_tokens(const GateDecision& decision, const AttentionView& view);

}  // namespace fathom
