#include "train/task/contrastive.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "nn/init.h"
#include "tensor/random_keys.h"

namespace fathom {
namespace {

DualTowerConfig tiny(bool logit_bias) {
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

ContrastiveTask make_task(const ContrastiveConfig& config) {
  DualTower model(tiny(config.loss == ContrastiveLoss::kSigmoid));
  init_parameters(*model, 1);
  model->to(at::kDouble);
  return ContrastiveTask({.model = model, .config = config, .num_tokens = 10});
}

/// Twelve pairs; the last two share a picture, two others a caption.
Batch make_batch() {
  torch::manual_seed(4);
  Batch batch;
  batch.index_B = torch::arange(12);
  batch.index_B[11] = 10;
  batch.image_BCHW = torch::randn({12, 3, 16, 16}, at::kDouble);
  batch.tokens_BT = torch::randint(0, 50, {12, 10}, at::kLong);
  batch.tokens_BT[3].copy_(batch.tokens_BT[7]);
  batch.length_B = torch::full({12}, 10, at::kLong);
  batch.records.resize(12);
  return batch;
}

std::vector<MicroBatch> split(const Batch& batch, int64_t size) {
  std::vector<MicroBatch> parts;
  for (int64_t start = 0; start < batch.size(); start += size) {
    Batch part = slice_batch(batch, start, std::min(size, batch.size() - start));
    const at::Tensor key_B = make_sample_keys(part.index_B, 5, 6);
    parts.push_back({std::move(part), {.training = true, .key_B = key_B}});
  }
  return parts;
}

struct StepResult {
  double loss = 0;
  int last_backward_calls = 0;
  std::map<std::string, at::Tensor> gradients;
};

StepResult run_step(const ContrastiveConfig& config, int64_t micro_batch_size) {
  ContrastiveTask task = make_task(config);
  const auto collective = make_solo_collective();
  StepResult result;
  const StepContext step{.global_samples = 12, .collective = *collective, .expect_last_backward = [&] {
                           ++result.last_backward_calls;
                         }};
  const std::vector<MicroBatch> parts = split(make_batch(), micro_batch_size);
  result.loss = task.forward_backward(parts, step).item<double>();
  for (const auto& [name, parameter] : task.parameters())
    if (parameter.grad().defined()) result.gradients[name] = parameter.grad();
  return result;
}

class Accumulation : public ::testing::TestWithParam<ContrastiveLoss> {};

TEST_P(Accumulation, EqualsTheWholeBatchWithDropoutOn) {
  const ContrastiveConfig config{.loss = GetParam(), .label_smoothing = 0.05};
  const StepResult whole = run_step(config, 12);
  for (const int64_t size : {3, 5}) {
    const StepResult parts = run_step(config, size);
    EXPECT_NEAR(parts.loss, whole.loss, 1e-10);
    EXPECT_EQ(parts.last_backward_calls, 1);
    ASSERT_EQ(parts.gradients.size(), whole.gradients.size());
    for (const auto& [name, gradient] : whole.gradients)
      EXPECT_TRUE(at::allclose(gradient, parts.gradients.at(name), 1e-6, 1e-9)) << name;
  }
  EXPECT_TRUE(whole.gradients.contains("log_scale"));
}

INSTANTIATE_TEST_SUITE_P(Losses, Accumulation,
                         ::testing::Values(ContrastiveLoss::kInfoNce, ContrastiveLoss::kSigmoid));

TEST(ContrastiveTask, EqualCaptionsAreNoNegativesWhenAskedFor) {
  const double matched = run_step({.match_equal_captions = true}, 12).loss;
  const double unmatched = run_step({.match_equal_captions = false}, 12).loss;
  EXPECT_GT(std::abs(matched - unmatched), 1e-4);
}

TEST(ContrastiveTask, SeveralCaptionsAnImageAreAllPositives) {
  ContrastiveTask task = make_task({});
  const auto collective = make_solo_collective();
  const StepContext step{.collective = *collective, .expect_last_backward = [] {}};
  Batch batch = make_batch();
  const double one = task.loss({batch, {}}, step).item<double>();
  batch.tokens_BT = batch.tokens_BT.repeat_interleave(2, 0);
  batch.length_B = batch.length_B.repeat_interleave(2, 0);
  const double twice = task.loss({batch, {}}, step).item<double>();
  // The same caption twice: as many negatives again for each image, nothing new for each text.
  EXPECT_GT(twice, one);
  EXPECT_LT(twice, one + 0.5 * std::log(2.0) + 1e-9);
}

}  // namespace
}  // namespace fathom
