// A language model that answers questions about pictures. B batch, T tokens, P regions, M memory slots, D
// model width, C classes of answers.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/pimpl.h>

#include <vector>

#include "models/fusion/config.h"
#include "models/language/model.h"
#include "models/swin/model.h"
#include "nn/bottleneck.h"
#include "nn/cross_attention.h"
#include "nn/forward_context.h"
#include "nn/init.h"
#include "nn/modality_weight.h"

namespace fathom {

/// A question, and behind it what of the answer is known. Rows are padded at the end.
struct PromptedTokens {
  at::Tensor tokens_BT;          ///< int64
  at::Tensor length_B;           ///< int64: unpadded tokens of each row
  at::Tensor prompt_length_B{};  ///< int64: those of the question; undefined: all of them
};

/// What one modality brings, in the language model's width.
struct ModalityTokens {
  at::Tensor token_BSD;  ///< undefined: there is nothing of it
  at::Tensor mask_BS{};  ///< bool, which of them count; undefined: all
  bool defined() const { return token_BSD.defined(); }
};

/// What is known of a question beside its words.
struct Percept {
  ModalityTokens image;
  ModalityTokens caption{};
};

/// What a pass did inside, for whoever asks for it.
struct FusionTrace {
  bool with_attention = false;  ///< the two below cost some products more
  /// Float32: picture (where there is one), caption (likewise), question. Undefined: the model does not
  /// weigh.
  at::Tensor weight_BN = {};
  /// Attention of the tokens to regions (and, behind them, a caption's tokens), mean over early layers and
  /// heads.
  at::Tensor reading_BTS = {};
  at::Tensor memory_BMS = {};  ///< attention of the memory slots to the same and, behind them, the question
};

/// Learned queries that gather all modalities and the question into memory slots, once. What a modality
/// brings is multiplied with N times its weight, N the modalities that a sample has, so that even weights
/// change nothing.
class MemoryAggregatorImpl : public torch::nn::Module, public HasInitialValues {
 public:
  /// `weight_width`: that of the modality weight's queries and keys; 0: modalities are not weighed.
  MemoryAggregatorImpl(const CrossAttentionOptions& options, int64_t slots, int64_t weight_width);
  /// The question stands last. [B, M, D].
  at::Tensor forward(const std::vector<ModalityTokens>& modalities, const ForwardContext& context = {},
                     FusionTrace* trace = nullptr);
  void initialise(ParameterInit& init) const override;

 private:
  at::Tensor query_MD_;
  RMSNorm query_norm_{nullptr};
  RMSNorm state_norm_{nullptr};
  CrossAttention attention_{nullptr};
  ModalityWeight weight_{nullptr};
};
TORCH_MODULE(MemoryAggregator);

/// Progressive fusion (docs/design.md, section 7) and what it is compared with, over the same encoders.
class FusionImpl : public torch::nn::Module, public HasInitialValues {
 public:
  /// Parameters are uninitialised: call `init_parameters` or load a checkpoint. Errors (kConfig): as
  /// `FusionConfig::validate`, classes without answers.
  explicit FusionImpl(const FusionConfig& config);

  /// The picture's regions (one where they are pooled); nothing for a model that sees nothing. `image_BCHW`
  /// is normalised.
  Percept perceive(const at::Tensor& image_BCHW, const ForwardContext& context = {});
  /// A caption's tokens. REQUIRES `config().captions`.
  ModalityTokens read(const PromptedTokens& caption, const ForwardContext& context = {});
  /// States of the tokens: [B, T, D]. Those of an answer depend on what is perceived, the question and the
  /// answer's tokens up to them, no further. A modality may be missing, also in single samples (by its mask).
  at::Tensor hidden(const Percept& percept, const PromptedTokens& text, const ForwardContext& context = {},
                    FusionTrace* trace = nullptr);
  /// Scores of the answers: [B, C]. REQUIRES AnswerKind::kClasses.
  at::Tensor class_logits(const Percept& percept, const PromptedTokens& text,
                          const ForwardContext& context = {}, FusionTrace* trace = nullptr);

  LanguageModel text() const { return text_; }
  /// Null for a model that sees nothing.
  Swin vision() const { return vision_; }
  const FusionConfig& config() const { return config_; }
  void initialise(ParameterInit& init) const override;

 private:
  struct Pass;
  Conditioning progressive_conditioning(const Pass& pass);

  FusionConfig config_;
  Swin vision_{nullptr};
  LanguageModel text_{nullptr};
  Bottleneck adapter_{nullptr};
  Bottleneck caption_adapter_{nullptr};
  at::Tensor position_PD_;  ///< undefined where regions are pooled
  torch::nn::ModuleList early_;
  torch::nn::ModuleList late_;
  MemoryAggregator aggregator_{nullptr};
  Linear answer_head_{nullptr};
};
TORCH_MODULE(Fusion);

}  // namespace fathom
