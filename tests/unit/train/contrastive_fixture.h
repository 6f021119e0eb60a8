// A tiny dual tower and a batch for it, which the tests of contrastive training share.
#pragma once

#include <torch/torch.h>

#include <string>

#include "nn/init.h"
#include "step_fixture.h"
#include "train/task/contrastive.h"

namespace fathom::testing {

inline DualTowerConfig tiny(bool logit_bias) {
  DualTowerConfig config;
  config.vision = {.image_size = 16,
                   .patch_size = 2,
                   .dim = 8,
                   .depths = {1, 1},
                   .heads = {2, 2},
                   .window = 4,
                   .drop_path = 0.2};
  config.text = {.vocab_size = 50, .dim = 16, .layers = 2, .heads = 2, .max_positions = 12, .dropout = 0.1};
  config.embed_dim = 12;
  config.logit_bias = logit_bias;
  return config;
}

struct ModelParts {
  RegionScore region = RegionScore::kNone;
  int64_t adapters = 0;
  bool centred = false;
};

inline DualTower make_model(const ContrastiveConfig& config, const ModelParts& parts = {}) {
  DualTowerConfig shape = tiny(config.loss == ContrastiveLoss::kSigmoid);
  shape.region = parts.region;
  shape.adapters = parts.adapters;
  shape.centred = parts.centred;
  DualTower model(shape);
  init_parameters(*model, 1);
  model->to(at::kDouble);
  if (parts.centred) {  // which begin at the origin
    const torch::NoGradGuard no_grad;
    torch::manual_seed(3);
    for (at::Tensor& centre_D : model->centres()) centre_D.normal_(0, 0.1);
  }
  if (parts.adapters > 0) {  // which begin as the identity
    const torch::NoGradGuard no_grad;
    torch::manual_seed(2);
    for (auto& entry : model->named_parameters())
      if (entry.key().find("adapter.up.weight") != std::string::npos) entry.value().normal_();
  }
  return model;
}

/// Twelve pairs; the last two share a picture, two others a caption.
inline Batch make_batch() {
  torch::manual_seed(4);
  Batch batch;
  batch.index_B = torch::arange(12);
  batch.index_B[11] = 10;
  batch.image_BCHW = torch::randn({12, 3, 16, 16}, at::kDouble);
  batch.tokens_BT = torch::randint(0, 50, {12, 10}, at::kLong);
  batch.tokens_BT[3].copy_(batch.tokens_BT[7]);
  batch.length_B = torch::full({12}, 10, at::kLong);
  return batch;
}

}  // namespace fathom::testing
