// Attention from one sequence to another. B batch, T tokens, S states attended to, D model width, H heads, E
// head size.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

#include "nn/forward_context.h"
#include "nn/init.h"
#include "nn/linear.h"
#include "nn/norm.h"

namespace fathom {

struct CrossAttentionOptions {
  int64_t dim = 0;
  int64_t heads = 0;
  int64_t head_dim = 0;  ///< heads × head_dim may be less than dim
  double norm_eps = 1e-5;
  double output_deviation = 0.02;  ///< initial deviation of the output projection
  double initial_gate = 0.0;       ///< of a gated one
};

/// What is attended to.
struct AttendedStates {
  at::Tensor state_BSD;
  /// Bool, true where a query may look, broadcast to [B, H, T, S]; undefined: everywhere. A row that may look
  /// nowhere gives no number: see to it that there is none.
  at::Tensor mask = {};
  at::Tensor weight_BS = {};  ///< what each state's value is multiplied with; undefined: 1
};

/// Queries from x, keys and values from other states of the same width; no positions of its own.
class CrossAttentionImpl : public torch::nn::Module {
 public:
  explicit CrossAttentionImpl(const CrossAttentionOptions& options);
  /// [B, T, D]. `attention_BTS`, where given, receives the mean over heads of each query's shares, in float32
  /// or wider, which costs the first of the two products once more.
  at::Tensor forward(const at::Tensor& x_BTD, const AttendedStates& attended,
                     const ForwardContext& context = {}, at::Tensor* attention_BTS = nullptr);

 private:
  at::Tensor heads_of(const at::Tensor& x) const;

  CrossAttentionOptions options_;
  Linear query_{nullptr};
  Linear key_value_{nullptr};  ///< keys, then values: [2·H·E, D]
  Linear output_{nullptr};
};
TORCH_MODULE(CrossAttention);

/// x + tanh(gate) · attention(norm(x), norm(states)). With a gate that begins at 0, a model to which this is
/// added starts as what it was. Source: Alayrac et al., "Flamingo: a visual language model for few-shot
/// learning", NeurIPS 2022.
class GatedCrossAttentionImpl : public torch::nn::Module, public HasInitialValues {
 public:
  explicit GatedCrossAttentionImpl(const CrossAttentionOptions& options);
  /// As `CrossAttentionImpl::forward`, with x added.
  at::Tensor forward(const at::Tensor& x_BTD, const AttendedStates& attended,
                     const ForwardContext& context = {}, at::Tensor* attention_BTS = nullptr);
  void initialise(ParameterInit& init) const override;

 private:
  double initial_gate_;
  RMSNorm norm_{nullptr};
  RMSNorm state_norm_{nullptr};
  CrossAttention attention_{nullptr};
  at::Tensor gate_;  ///< scalar
};
TORCH_MODULE(GatedCrossAttention);

}  // namespace fathom
