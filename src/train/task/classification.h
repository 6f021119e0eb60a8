// Which class a sample belongs to.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "base/config.h"
#include "models/classifier/model.h"
#include "train/task.h"
#include "train/task/sample_mixing.h"

namespace fathom {

struct ClassificationConfig {
  double label_smoothing = 0.0;
  double mixup = 0.0;

  void fields(Fields& f);
};

/// Trains a classifier by cross-entropy. With `mixup` = α > 0 each spectrogram or image becomes
/// λ·itself + (1 − λ)·its neighbour in the micro-batch, and its loss the same mixture, with λ drawn by the
/// sample's key from 65,536 draws of Beta(α, α), mirrored to at least ½ (Zhang et al., "mixup: beyond
/// empirical risk minimization", ICLR 2018). Texts are not mixed.
class ClassificationTask : public Task {
 public:
  struct Setup {
    Classifier model{nullptr};
    ClassificationConfig config;
    int64_t length = 0;  ///< tokens or frames of a sample, for figures
    std::string tokenizer_json;
    std::function<Metrics(Classifier)> evaluate;  ///< may be empty
  };
  explicit ClassificationTask(Setup setup);

  NamedParameters parameters() const override;
  std::vector<NamedGate> gates() const override { return gates_of(*setup_.model); }
  at::Tensor loss(const MicroBatch& micro_batch, const StepContext& step) override;
  bool launches_alike() const override { return true; }
  Metrics evaluate() override { return setup_.evaluate ? setup_.evaluate(setup_.model) : Metrics{}; }
  std::string default_metric() const override { return "accuracy"; }
  void save_model(const std::string& folder, const Json& record) override;
  PixelStatistics pixels() const override;
  double flops_per_sample() const override;

 private:
  Setup setup_;
  std::optional<MixShares> shares_;  ///< with mixup
};

}  // namespace fathom
