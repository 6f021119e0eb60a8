// A tiny dual tower and a batch for it, which the tests of contrastive training share.
#pragma once

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <map>
#include <string>
#include <vector>

#include "nn/init.h"
#include "step_fixture.h"
#include "tiny_encoders.h"
#include "train/task/contrastive.h"

namespace fathom::testing {

inline DualTowerConfig tiny(bool logit_bias) {
  DualTowerConfig config;
  config.vision = tiny_vision();
  config.text = tiny_text();
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

inline std::map<std::string, at::Tensor> named(const ContrastiveTask& task) {
  std::map<std::string, at::Tensor> parameters;
  for (const auto& [name, parameter] : task.parameters()) parameters[name] = parameter;
  return parameters;
}

/// One step, which may take its batch in parts: the loss; gradients are in the parameters.
inline double step(ContrastiveTask& task, const std::vector<MicroBatch>& parts) {
  const auto collective = make_solo_collective();
  return task.forward_backward(parts, {.collective = *collective, .expect_last_backward = [] {}})
      .item<double>();
}

/// After a step of both on equal data: what `with` has beside the contrast, its head's name beginning with
/// `head`, has changed the gradient of all of the vision tower and of nothing else.
inline void expect_vision_alone_is_taught(const ContrastiveTask& with, const ContrastiveTask& without,
                                          const std::string& head) {
  const auto taught = named(with);
  for (const auto& [name, parameter] : named(without)) {
    EXPECT_FALSE(name.starts_with(head)) << name;
    if (!parameter.grad().defined()) continue;
    const double difference = (taught.at(name).grad() - parameter.grad()).abs().max().item<double>();
    if (name.starts_with("vision."))
      EXPECT_GT(difference, 1e-9) << name;
    else
      EXPECT_LT(difference, 1e-12) << name;
  }
}

}  // namespace fathom::testing
