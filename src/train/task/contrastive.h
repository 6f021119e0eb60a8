// Image–text alignment: InfoNCE or the pairwise sigmoid loss over the global batch.
#pragma once

#include <torch/nn/module.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/config.h"
#include "models/dual_tower/model.h"
#include "nn/linear.h"
#include "train/losses/contrastive_losses.h"
#include "train/task.h"
#include "train/task/hard_negatives.h"
#include "train/task/modality_discriminator.h"

namespace fathom {

enum class ContrastiveLoss { kInfoNce, kSigmoid };

struct ContrastiveConfig {
  ContrastiveLoss loss = ContrastiveLoss::kInfoNce;
  double label_smoothing = 0.0;
  bool match_equal_captions = true;
  double self_weight = 0.0;
  double self_temperature = 0.1;
  double region_weight = 1.0;
  double reversal = 0.0;
  double consistency = 0.0;
  HardNegativeConfig hard_negatives;

  void fields(Fields& f);
};

/// What the self-contrast of views compares: a two-layer perceptron on the image tower's pooled features,
/// thrown away after training. Source: Mu et al., "SLIP: self-supervision meets language-image pre-training",
/// ECCV 2022.
class ViewHeadImpl : public torch::nn::Module {
 public:
  explicit ViewHeadImpl(int64_t in);
  /// Pooled features [B, D] → unit vectors, [B, 128], float32 or wider.
  at::Tensor forward(const at::Tensor& pooled_BD);

 private:
  Linear hidden_{nullptr};
  Linear out_{nullptr};
};
TORCH_MODULE(ViewHead);

/// Trains a dual tower. Every rank compares its own images and texts with those of all ranks; gradients of
/// gathered embeddings go back to their owners. With several micro-batches a step embeds twice: first without
/// gradients, to get the whole batch's loss and its gradient by every embedding; then with them, one
/// micro-batch at a time (Gao et al., "Scaling deep contrastive learning batch size under memory limited
/// setup", RepL4NLP 2021). So accumulation equals the large batch, at the price of a second forward pass.
///
/// Batches have `index_B` (equal indices: the same picture), V ≥ 1 views of a picture (`image_BCHW` has V·B
/// rows, those of picture b at V·b … V·b + V − 1) and K ≥ 1 captions of it (`tokens_BT`, likewise). Every
/// view is a positive of every caption of its picture. With `self_weight`, views of one picture are also
/// contrasted with those of others (Chen et al., "A simple framework for contrastive learning of visual
/// representations", ICML 2020).
///
/// Where the model has region scores, the same loss over them is added with `region_weight`. Each rank scores
/// its own texts with all pictures; scores, not tokens, then go to the other ranks. `reversal` adds what a
/// modality discriminator sees in the embeddings, with reversed gradients; `consistency` the divergence
/// between which pictures and which texts of the batch a sample's picture and its text resemble.
class ContrastiveTask : public Task {
 public:
  struct Setup {
    DualTower model{nullptr};
    ContrastiveConfig config;
    int64_t num_tokens = 0;  ///< of a caption, for figures
    int64_t captions_per_image = 1;
    int64_t views_per_image = 1;
    int64_t seed = 0;  ///< of the view head's initial weights
    std::string tokenizer_json;
    std::string adapter_base = {};  ///< keep adapters alone, of this model; empty: whole models
    std::shared_ptr<HardNegatives> hard_negatives;  ///< may be null; also the hook of the loader's order
    std::function<Metrics(DualTower)> evaluate;     ///< may be empty
  };
  explicit ContrastiveTask(Setup setup);

  NamedParameters parameters() const override;
  at::Tensor loss(const MicroBatch& micro_batch, const StepContext& step) override;
  at::Tensor forward_backward(std::span<const MicroBatch> micro_batches, const StepContext& step) override;
  Metrics evaluate() override { return setup_.evaluate ? setup_.evaluate(setup_.model) : Metrics{}; }
  void after_step(const StepContext& step) override;
  TensorMap state() const override;
  void load_state(const TensorMap& state) override;
  std::string default_metric() const override { return "mean_recall"; }
  /// The strength of reversal changes from step to step.
  bool launches_alike() const override { return setup_.config.reversal == 0; }
  void save_model(const std::string& folder, const Json& record) override;
  PixelStatistics pixels() const override;
  double flops_per_sample() const override;

 private:
  /// This rank's embeddings, and what identifies them.
  struct Embeddings {
    PairSide image, text;  ///< V·B views, M = K·B texts
    at::Tensor view_VD;    ///< for the contrast among views; undefined without it
    at::Tensor owner_B, caption_M;
    /// Those through which gradients go back to the towers; some may be undefined.
    std::vector<at::Tensor*> learned();
  };
  struct Labels {
    PairLabels image_to_text_VL, text_to_image_MN;
  };
  /// This rank's rows of the similarities of all pictures with all texts.
  struct Similarities {
    at::Tensor image_to_text_VL, text_to_image_MN;
  };
  struct Calibration {
    at::Tensor scale, bias;
  };
  struct Gathered;  ///< what every rank has of all ranks' embeddings

  Embeddings embed(const MicroBatch& micro_batch);
  static Embeddings join(const std::vector<Embeddings>& parts);
  at::Tensor loss_of(const Embeddings& local, const StepContext& step);
  Labels label(const Embeddings& local, const Gathered& all) const;
  at::Tensor pair_loss(const Similarities& similarities, const Labels& labels,
                       const Calibration& calibration) const;
  static Similarities region_similarities(const Embeddings& local, const Gathered& all,
                                          Collective& collective);
  at::Tensor view_loss(const Embeddings& local, Collective& collective) const;
  at::Tensor consistency_loss(const Embeddings& local, const Gathered& all, Collective& collective) const;

  Setup setup_;
  ViewHead view_head_{nullptr};
  ModalityDiscriminator discriminator_{nullptr};
};

}  // namespace fathom
