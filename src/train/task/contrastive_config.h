// What a recipe may say of a contrastive objective.
#pragma once

#include "base/config.h"
#include "train/task/distillation.h"
#include "train/task/hard_negatives.h"

namespace fathom {

enum class ContrastiveLoss { kInfoNce, kSigmoid };

/// How much each kind of pairs counts where the model has a third tower.
struct PairWeights {
  double image_text = 1.0;
  double image_sound = 1.0;
  double text_sound = 1.0;

  void fields(Fields& f);
  void validate() const;
  bool operator==(const PairWeights&) const = default;
};

struct ContrastiveConfig {
  ContrastiveLoss loss = ContrastiveLoss::kInfoNce;
  double label_smoothing = 0.0;
  bool match_equal_captions = true;
  double mixup = 0.0;
  double cutmix_share = 0.0;
  double mix_share = 1.0;
  double soft_targets = 0.0;
  double soft_temperature = 0.1;
  PairWeights pairs;
  double view_weight = 0.0;
  double caption_weight = 0.0;
  double self_temperature = 0.1;
  double word_weight = 0.0;
  double localization = 0.0;
  int64_t localization_pairs = 64;
  double region_weight = 1.0;
  double reversal = 0.0;
  double consistency = 0.0;
  HardNegativeConfig hard_negatives;
  DistillationConfig distillation;

  void fields(Fields& f);
};

}  // namespace fathom
