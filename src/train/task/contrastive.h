// Alignment of pictures, texts and sounds: InfoNCE or the pairwise sigmoid loss over the global batch.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "evaluate/modality_centres.h"
#include "models/dual_tower/model.h"
#include "train/task.h"
#include "train/task/contrastive_config.h"
#include "train/task/contrastive_objective.h"
#include "train/task/distillation.h"
#include "train/task/hard_negatives.h"
#include "train/task/location_head.h"
#include "train/task/modality_discriminator.h"
#include "train/task/picture_mixing.h"
#include "train/task/view_head.h"
#include "train/task/word_targets.h"

namespace fathom {

/// Trains a dual tower by `ContrastiveObjective`. With several micro-batches a step embeds twice: first
/// without gradients, to get the whole batch's loss and its gradient by every embedding; then with them, one
/// micro-batch at a time (Gao et al., "Scaling deep contrastive learning batch size under memory limited
/// setup", RepL4NLP 2021). So accumulation equals the large batch, at the price of a second forward pass.
///
/// Batches have `index_B` (equal indices: the same sample), V ≥ 1 views of a picture (`image_BCHW` has V·B
/// rows, those of picture b at V·b … V·b + V − 1), K ≥ 1 captions of it (`tokens_BT`, likewise) and, where
/// the model hears, a sound. Every view is a positive of every caption of its picture. With `missing`, a
/// sample may lack modalities, and a batch may have none of one; encoders see the rows that are there. With
/// `view_weight`, views of one picture are also contrasted with those of others (Chen et al., "A simple
/// framework for contrastive learning of visual representations", ICML 2020); with `caption_weight`, the
/// embeddings of a picture's captions with those of other pictures, as of sentences that mean the same (Gao
/// et al., "SimCSE", EMNLP 2021). With `word_weight`, a linear
/// head that is thrown away after training names the words of a picture's captions from its pooled features
/// (word_targets.h); with `localization`, another tells from pairs of regions where they lie
/// (location_head.h).
///
/// With `mixup`, in training each picture is mixed with another of its micro-batch (picture_mixing.h). Its
/// pairs with texts and the words that it is to name then are those of both, in their shares; its views are
/// views of one mixture, and its regions lie where they did. REQUIRES that no sample lacks a modality.
///
/// With teachers, a part of every target is what they find similar, and embeddings learn to foretell theirs
/// through heads that are thrown away after training (distillation.h). REQUIRES two towers and the same.
class ContrastiveTask : public Task {
 public:
  struct Setup {
    DualTower model{nullptr};
    ContrastiveConfig config;
    int64_t num_tokens = 0;  ///< of a caption, for figures
    int64_t num_frames = 0;  ///< of a sound, for figures
    int64_t captions_per_image = 1;
    int64_t views_per_image = 1;
    bool missing = false;                  ///< samples may lack a modality
    int64_t seed = 0;                      ///< of the initial weights of what is no part of the model
    std::vector<int64_t> text_marks = {};  ///< ids that are no words: padding, begin, end, mask
    std::string tokenizer_json;
    std::string adapter_base = {};  ///< keep adapters alone, of this model; empty: whole models
    std::shared_ptr<HardNegatives> hard_negatives;  ///< may be null; also the hook of the loader's order
    std::vector<DualTower> teachers = {};           ///< those of `config.distillation`, on the model's device
    std::function<Metrics(DualTower)> evaluate;     ///< may be empty
    /// Centres for the model as it is (evaluate/modality_centres.h), with which it is evaluated and saved
    /// where its modalities are centred; empty: those of the origin, as in training.
    std::function<std::vector<at::Tensor>(DualTower)> measure_centres = {};
  };
  explicit ContrastiveTask(Setup setup);

  NamedParameters parameters() const override;
  std::vector<NamedGate> gates() const override { return gates_of(*setup_.model); }
  at::Tensor loss(const MicroBatch& micro_batch, const StepContext& step) override;
  at::Tensor forward_backward(std::span<const MicroBatch> micro_batches, const StepContext& step) override;
  Metrics evaluate() override;
  void after_step(const StepContext& step) override;
  TensorMap state() const override;
  void load_state(const TensorMap& state) override;
  std::string default_metric() const override { return "mean_recall"; }
  /// What is missing changes from step to step.
  bool launches_alike() const override { return !setup_.missing; }
  void save_model(const std::string& folder, const Json& record) override;
  PixelStatistics pixels() const override;
  double flops_per_sample() const override;

 private:
  struct Rows;  ///< of one modality of a micro-batch

  /// The model with the centres that it is used with. Measured once for the weights of a step.
  CentresInUse centred();

  /// `taught`: what teachers have made of the micro-batch before; null: they are asked.
  ContrastiveRows embed(const MicroBatch& micro_batch, const std::vector<TaughtRows>* taught = nullptr);
  Rows rows_of(const MicroBatch& micro_batch, Modality modality) const;
  ModalityRows encode(const Rows& rows, Modality modality, at::Tensor* region_NPD);
  /// What training alone asks of pictures, by their regions.
  void apply_heads(const at::Tensor& region_NPD, const Rows& rows, const Batch& batch,
                   ContrastiveRows& local);

  Setup setup_;
  ViewHead view_head_{nullptr};
  Linear word_head_{nullptr};
  std::unique_ptr<WordTargets> word_targets_;  ///< with `word_head_`
  LocationHead location_head_{nullptr};
  std::unique_ptr<PictureMixing> mixing_;  ///< with mixup
  ModalityDiscriminator discriminator_{nullptr};
  std::shared_ptr<Teachers> teachers_;  ///< null: none
  TeacherHeads teacher_heads_{nullptr};
  std::vector<at::Tensor> measured_centres_;  ///< empty: not since the last step
  std::unique_ptr<ContrastiveObjective> objective_;
};

}  // namespace fathom
