// A language model that answers questions about pictures. B batch, T tokens, P regions, M memory slots, D
// model width, C classes of answers.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/pimpl.h>

#include "models/fusion/config.h"
#include "models/language/model.h"
#include "models/swin/model.h"
#include "nn/bottleneck.h"
#include "nn/cross_attention.h"
#include "nn/forward_context.h"
#include "nn/init.h"

namespace fathom {

/// A question, and behind it what of the answer is known. Rows are padded at the end.
struct PromptedTokens {
  at::Tensor tokens_BT;          ///< int64
  at::Tensor length_B;           ///< int64: unpadded tokens of each row
  at::Tensor prompt_length_B{};  ///< int64: those of the question; undefined: all of them
};

/// Learned queries that gather regions and question into memory slots, once.
class MemoryAggregatorImpl : public torch::nn::Module, public HasInitialValues {
 public:
  MemoryAggregatorImpl(const CrossAttentionOptions& options, int64_t slots);
  /// `mask_B11S`: which of `states_BSD` may be looked at. [B, M, D].
  at::Tensor forward(const at::Tensor& states_BSD, const at::Tensor& mask_B11S);
  void initialise(ParameterInit& init) const override;

 private:
  at::Tensor query_MD_;
  RMSNorm query_norm_{nullptr};
  RMSNorm state_norm_{nullptr};
  CrossAttention attention_{nullptr};
};
TORCH_MODULE(MemoryAggregator);

/// Progressive fusion (docs/design.md, section 7) and what it is compared with, over the same encoders.
class FusionImpl : public torch::nn::Module, public HasInitialValues {
 public:
  /// Parameters are uninitialised: call `init_parameters` or load a checkpoint. Errors (kConfig): as
  /// `FusionConfig::validate`, classes without answers.
  explicit FusionImpl(const FusionConfig& config);

  /// Regions in the language model's width: [B, P, D] (P = 1 where they are pooled), or undefined for a model
  /// that sees nothing. `image_BCHW` is normalised.
  at::Tensor perceive(const at::Tensor& image_BCHW, const ForwardContext& context = {});
  /// States of the tokens: [B, T, D]. Those of an answer depend on picture, question and the answer's tokens
  /// up to them, no further. `region_BPD` undefined: without a picture.
  at::Tensor hidden(const at::Tensor& region_BPD, const PromptedTokens& text,
                    const ForwardContext& context = {});
  /// Scores of the answers: [B, C]. REQUIRES AnswerKind::kClasses.
  at::Tensor class_logits(const at::Tensor& region_BPD, const PromptedTokens& text,
                          const ForwardContext& context = {});

  LanguageModel text() const { return text_; }
  /// Null for a model that sees nothing.
  Swin vision() const { return vision_; }
  const FusionConfig& config() const { return config_; }
  void initialise(ParameterInit& init) const override;

 private:
  Conditioning progressive_conditioning(const at::Tensor& region_BPD, const PromptedTokens& text);
  at::Tensor remember(const at::Tensor& region_BPD, const at::Tensor& x_BTD, const PromptedTokens& text);

  FusionConfig config_;
  Swin vision_{nullptr};
  LanguageModel text_{nullptr};
  Bottleneck adapter_{nullptr};
  at::Tensor position_PD_;  ///< undefined where regions are pooled
  torch::nn::ModuleList early_;
  torch::nn::ModuleList late_;
  MemoryAggregator aggregator_{nullptr};
  Linear answer_head_{nullptr};
};
TORCH_MODULE(Fusion);

}  // namespace fathom
