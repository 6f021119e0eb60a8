// The contrastive objective as a whole: accumulation, and who is whose positive.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "contrastive_fixture.h"

namespace fathom::testing {
namespace {

ContrastiveTask make_task(const ContrastiveConfig& config) {
  return ContrastiveTask({.model = make_model(config), .config = config, .num_tokens = 10});
}

StepResult run_step(const ContrastiveConfig& config, int64_t micro_batch_size,
                    const std::vector<std::string>& freeze = {}) {
  ContrastiveTask task = make_task(config);
  freeze_parameters(task.parameters(), freeze);
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

TEST_P(Accumulation, EqualsTheWholeBatchWithFrozenTowers) {
  const ContrastiveConfig config{.loss = GetParam()};
  const std::vector<std::string> vision = {"vision.*", "image_projection.*"},
                                 text = {"text.*", "text_projection.*"};
  std::vector<std::string> both = vision;
  both.insert(both.end(), text.begin(), text.end());
  for (const std::vector<std::string>& freeze : {vision, text, both}) {
    const StepResult whole = run_step(config, 12, freeze), parts = run_step(config, 5, freeze);
    EXPECT_NEAR(parts.loss, whole.loss, 1e-10);
    EXPECT_EQ(parts.last_backward_calls, 1);
    ASSERT_EQ(parts.gradients.size(), whole.gradients.size());
    for (const auto& [name, gradient] : whole.gradients)
      EXPECT_TRUE(at::allclose(gradient, parts.gradients.at(name), 1e-6, 1e-9)) << name;
    EXPECT_EQ(whole.gradients.contains("text_projection.weight"), freeze == vision);
    EXPECT_EQ(whole.gradients.contains("image_projection.weight"), freeze == text);
    EXPECT_TRUE(whole.gradients.contains("log_scale"));
  }
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
}  // namespace fathom::testing
