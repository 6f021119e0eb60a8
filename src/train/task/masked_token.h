// Masked-token prediction: a text encoder learns to foretell what is hidden of a text from both sides.
#pragma once

#include <functional>
#include <string>

#include "batch/token_mask.h"
#include "models/language/model.h"
#include "train/task.h"

namespace fathom {

/// Floating-point operations of a training step over one row of `tokens`: the head sees the chosen places
/// alone.
double masked_token_flops(const LanguageModelConfig& model, const TokenMaskConfig& config, int64_t tokens);

/// Trains a bidirectional language model on rows of tokens of which some are hidden (batch/token_mask.h). The
/// objective is the mean negative log probability (nats) over all chosen tokens of the step. What is saved is
/// a language model folder, which other recipes begin with (`[[init]]`).
class MaskedTokenTask : public Task {
 public:
  struct Setup {
    LanguageModel model{nullptr};
    TokenMaskConfig config;
    MaskVocabulary vocabulary;
    int64_t num_tokens = 0;  ///< of the longest row, for figures
    bool padded = true;      ///< rows differ in length
    std::string tokenizer_json;
    std::string adapter_base = {};  ///< keep adapters alone, of this model; empty: whole models
    std::function<Metrics(LanguageModel)> evaluate;  ///< may be empty
  };
  explicit MaskedTokenTask(Setup setup) : setup_(std::move(setup)) {}

  NamedParameters parameters() const override;
  std::vector<NamedGate> gates() const override { return gates_of(*setup_.model); }
  void before_step(std::span<const MicroBatch> micro_batches, const StepContext& step) override;
  at::Tensor loss(const MicroBatch& micro_batch, const StepContext& step) override;
  Metrics evaluate() override { return setup_.evaluate ? setup_.evaluate(setup_.model) : Metrics{}; }
  std::string default_metric() const override { return "masked_nats"; }
  bool launches_alike() const override { return true; }
  void save_model(const std::string& folder, const Json& record) override;
  double flops_per_sample() const override;
  int64_t tokens_per_sample() const override { return setup_.num_tokens; }

 private:
  Setup setup_;
  at::Tensor num_chosen_;  ///< float scalar: chosen tokens of this step over all ranks
};

}  // namespace fathom
