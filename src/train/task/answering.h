// Answers to questions about pictures, and captions.
#pragma once

#include <functional>
#include <string>

#include "base/config.h"
#include "evaluate/answering.h"
#include "models/fusion/model.h"
#include "train/task.h"
#include "train/task/modality_discriminator.h"

namespace fathom {

struct AnsweringConfig {
  double label_smoothing = 0.0;
  double modality_dropout = 0.0;
  double consistency = 0.0;
  double reversal = 0.0;
  void fields(Fields& f);
};

/// Trains a fusion model. As classes: cross-entropy of the answer's class, averaged over the questions of the
/// step that have one. Generated: mean negative log probability (nats) of the answers' tokens, end marks
/// included; the question's are not learned. With K questions a sample its picture is encoded once, and each
/// question has a key of its own; rows that ask nothing count nowhere.
///
/// Where the model reads captions (docs/design.md, section 7, modal consistency and gradient reversal): the
/// symmetric divergence between the answers from the picture alone and those from the caption alone is added
/// by its weight, and the loss of a discriminator that tells a sample's mean picture token from its mean
/// caption token, whose gradient reaches the model reversed.
class AnsweringTask : public Task {
 public:
  struct Setup {
    Fusion model{nullptr};
    AnsweringConfig config;
    int64_t num_tokens = 0;  ///< of question and answer, for figures
    int64_t questions_per_image = 1;
    double mean_questions = 1;  ///< of a sample, for figures
    int64_t seed = 0;           ///< of the discriminator's first weights
    std::string tokenizer_json;
    std::string adapter_base = {};            ///< keep adapters alone, of this model; empty: whole models
    std::function<Metrics(Fusion)> evaluate;  ///< may be empty
    std::string default_metric = "accuracy";  ///< of those that `evaluate` gives, the one that decides
  };
  explicit AnsweringTask(Setup setup);

  NamedParameters parameters() const override;
  std::vector<NamedGate> gates() const override { return gates_of(*setup_.model); }
  void before_step(std::span<const MicroBatch> micro_batches, const StepContext& step) override;
  at::Tensor loss(const MicroBatch& micro_batch, const StepContext& step) override;
  bool launches_alike() const override;
  Metrics evaluate() override { return setup_.evaluate ? setup_.evaluate(setup_.model) : Metrics{}; }
  std::string default_metric() const override { return setup_.default_metric; }
  void save_model(const std::string& folder, const Json& record) override;
  PixelStatistics pixels() const override;
  double flops_per_sample() const override;
  double questions_per_sample() const override { return setup_.mean_questions; }

 private:
  /// The questions of a micro-batch, with what their targets are.
  struct Asked {
    PromptedTokens text;
    ForwardContext context;
    at::Tensor target;
    at::Tensor asks_B;  ///< bool; undefined: every row does
  };
  Asked asked_in(const MicroBatch& micro_batch) const;
  at::Tensor targets(const Batch& batch) const;
  at::Tensor answer_loss(const Percept& percept, const Asked& asked);
  at::Tensor answer_logits(const Percept& percept, const Asked& asked);
  at::Tensor consistency_loss(const Percept& percept, Asked asked, int64_t samples);
  void leave_out(Percept& percept, const ForwardContext& context) const;

  Setup setup_;
  ModalityDiscriminator discriminator_{nullptr};
  at::Tensor num_targets_;    ///< float scalar: targets of this step over all ranks
  at::Tensor num_questions_;  ///< the same of rows that ask, where not all do
};

}  // namespace fathom
