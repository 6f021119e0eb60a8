// Next-token prediction.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "models/language/model.h"
#include "train/gate_agreement.h"
#include "train/task.h"

namespace fathom {

/// Trains a language model on rows of T + 1 tokens: token t + 1 is the target of token t, unless the batch
/// brings targets of its own (the answers of conversations) and segments (several of them in a row). The
/// objective is the mean negative log probability (nats) over all targets of the step, padding left out.
class LanguageTask : public Task {
 public:
  struct Setup {
    LanguageModel model{nullptr};
    int64_t num_tokens = 0;  ///< targets of a sample, for figures
    std::string tokenizer_json;
    std::string adapter_base = {};  ///< keep adapters alone, of this model; empty: whole models
    std::function<Metrics(LanguageModel)> evaluate;  ///< may be empty
    std::shared_ptr<GateAgreement> agreement;        ///< what `evaluate` remembers; may be null
    std::string default_metric = "bits_per_byte";
  };
  explicit LanguageTask(Setup setup) : setup_(std::move(setup)) {}

  NamedParameters parameters() const override;
  std::vector<NamedGate> gates() const override { return gates_of(*setup_.model); }
  void before_step(std::span<const MicroBatch> micro_batches, const StepContext& step) override;
  at::Tensor loss(const MicroBatch& micro_batch, const StepContext& step) override;
  Metrics evaluate() override { return setup_.evaluate ? setup_.evaluate(setup_.model) : Metrics{}; }
  std::string default_metric() const override { return setup_.default_metric; }
  TensorMap state() const override { return setup_.agreement ? setup_.agreement->state() : TensorMap{}; }
  void load_state(const TensorMap& state) override {
    if (setup_.agreement) setup_.agreement->load_state(state);
  }
  bool launches_alike() const override { return true; }
  void save_model(const std::string& folder, const Json& record) override;
  double flops_per_sample() const override;
  int64_t tokens_per_sample() const override { return setup_.num_tokens; }

 private:
  Setup setup_;
  at::Tensor num_targets_;  ///< float scalar: targets of this step over all ranks
};

}  // namespace fathom
