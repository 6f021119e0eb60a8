// A Llama-compatible transformer: language model (causal, with a head) and text encoder (either kind of
// attention, pooled). Source: Touvron et al., "LLaMA: open and efficient foundation language models", 2023.
// B batch, T tokens, D model width, V vocabulary.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/pimpl.h>

#include <functional>
#include <vector>

#include "models/language/config.h"
#include "nn/block.h"
#include "nn/forward_context.h"
#include "nn/init.h"
#include "nn/kv_cache.h"
#include "nn/norm.h"
#include "nn/rope.h"

namespace fathom {

/// What a model that is built around this one adds to its pass (models/fusion).
struct Conditioning {
  at::Tensor prefix_BPD = {};  ///< states that stand before the tokens; undefined: none
  /// Called before each block: the states [B, P + T, D] to go on with.
  std::function<at::Tensor(int64_t layer, const at::Tensor& x_BTD)> before_block = {};
};

class LanguageModelImpl : public torch::nn::Module, public HasInitialValues {
 public:
  /// Parameters are uninitialised: call `init_parameters` or load a checkpoint.
  /// Errors (kConfig): what `LanguageModelConfig::validate` says, or vocab_size 0.
  explicit LanguageModelImpl(const LanguageModelConfig& config);

  /// Hidden states after the last norm, of the tokens alone: [B, T, D]. `tokens_BT` int64; `length_B` (int64,
  /// may be undefined: all full) is the number of unpadded tokens of each row, padding behind. States at
  /// padded places mean nothing. With a cache, `tokens_BT` continue what it holds, and it is advanced. A
  /// prefix takes the first positions.
  at::Tensor hidden(const at::Tensor& tokens_BT, const at::Tensor& length_B = {},
                    const ForwardContext& context = {}, KeyValueCache* cache = nullptr,
                    const Conditioning& conditioning = {});
  /// [..., D] → [..., V], in the type of the states: a loss widens them to float32 itself.
  at::Tensor logits(const at::Tensor& hidden_BTD, const ForwardContext& context = {}) const;
  /// Hidden states, then logits: [B, T, V].
  at::Tensor forward(const at::Tensor& tokens_BT, const at::Tensor& length_B = {},
                     const ForwardContext& context = {}, KeyValueCache* cache = nullptr);
  /// One state a row, by `config().pool`: [B, T, D] → [B, D].
  at::Tensor pool(const at::Tensor& hidden_BTD, const at::Tensor& length_B) const;
  /// Hidden states, then one of each row: [B, D].
  at::Tensor pooled(const at::Tensor& tokens_BT, const at::Tensor& length_B,
                    const ForwardContext& context = {});

  /// The head's weight [V, D] (the embedding when tied), for losses that never keep all logits.
  const at::Tensor& head_weight() const;
  const LanguageModelConfig& config() const { return config_; }
  /// A cache on this model's device, of the type that it computes in: `context`'s, or its own.
  KeyValueCache make_cache(int64_t batch, int64_t capacity, const ForwardContext& context = {}) const;
  void initialise(ParameterInit& init) const override;

 private:
  at::Tensor embed(const at::Tensor& tokens_BT, const ForwardContext& context) const;
  std::vector<Block> all_blocks() const;

  LanguageModelConfig config_;
  at::Tensor embedding_VD_;
  at::Tensor head_VD_;  ///< undefined when tied
  torch::nn::ModuleList blocks_;
  RMSNorm norm_{nullptr};
  Rope rope_;
};
TORCH_MODULE(LanguageModel);

}  // namespace fathom
