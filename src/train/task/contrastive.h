// Image–text alignment: InfoNCE or the pairwise sigmoid loss over the global batch.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/config.h"
#include "models/dual_tower/model.h"
#include "train/losses/contrastive_losses.h"
#include "train/task.h"

namespace fathom {

enum class ContrastiveLoss { kInfoNce, kSigmoid };

struct ContrastiveConfig {
  ContrastiveLoss loss = ContrastiveLoss::kInfoNce;
  double label_smoothing = 0.0;
  bool match_equal_captions = true;

  void fields(Fields& f);
};

/// Trains a dual tower. Every rank compares its own images and texts with those of all ranks; gradients of
/// gathered embeddings go back to their owners. With several micro-batches a step embeds twice: first without
/// gradients, to get the whole batch's loss and its gradient by every embedding; then with them, one
/// micro-batch at a time (Gao et al., "Scaling deep contrastive learning batch size under memory limited
/// setup", RepL4NLP 2021). So accumulation equals the large batch, at the price of a second forward pass.
///
/// Batches have `index_B` (equal indices: the same picture) and K ≥ 1 captions an image: `tokens_BT` has K·B
/// rows, those of image b at K·b … K·b + K − 1.
class ContrastiveTask : public Task {
 public:
  struct Setup {
    DualTower model{nullptr};
    ContrastiveConfig config;
    int64_t num_tokens = 0;  ///< of a caption, for figures
    int64_t captions_per_image = 1;
    std::string tokenizer_json;
    std::function<Metrics(DualTower)> evaluate;  ///< may be empty
  };
  explicit ContrastiveTask(Setup setup) : setup_(std::move(setup)) {}

  NamedParameters parameters() const override;
  at::Tensor loss(const MicroBatch& micro_batch, const StepContext& step) override;
  at::Tensor forward_backward(std::span<const MicroBatch> micro_batches, const StepContext& step) override;
  Metrics evaluate() override { return setup_.evaluate ? setup_.evaluate(setup_.model) : Metrics{}; }
  std::string default_metric() const override { return "mean_recall"; }
  void save_model(const std::string& folder, const Json& record) override;
  PixelStatistics pixels() const override;
  double flops_per_sample() const override;

 private:
  /// This rank's embeddings, and what identifies them.
  struct Embeddings {
    at::Tensor image_BD, text_MD;  ///< M = K·B texts
    at::Tensor owner_B, caption_M;
  };
  Embeddings embed(const MicroBatch& micro_batch);
  at::Tensor loss_of(const Embeddings& local, Collective& collective) const;
  at::Tensor score(const at::Tensor& logits_RC, const PairLabels& labels) const;

  Setup setup_;
};

}  // namespace fathom
