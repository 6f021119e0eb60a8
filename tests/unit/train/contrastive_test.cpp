// The contrastive objective as a whole: accumulation, and who is whose positive.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "contrastive_fixture.h"

namespace fathom::testing::contrastive_test {
namespace {

ContrastiveTask make_task(const ContrastiveConfig& config) {
  return ContrastiveTask({.model = make_model(config), .config = config, .num_tokens = 10});
}

StepResult accumulated(const ContrastiveConfig& config, int64_t micro_batch_size,
                       const std::vector<std::string>& freeze = {}) {
  ContrastiveTask task = make_task(config);
  freeze_parameters(task.parameters(), freeze);
  return run_step(task, split(make_batch(), micro_batch_size));
}

class Accumulation : public ::testing::TestWithParam<ContrastiveLoss> {};

TEST_P(Accumulation, EqualsTheWholeBatchWithDropoutOn) {
  const ContrastiveConfig config{.loss = GetParam(), .label_smoothing = 0.05};
  const StepResult whole = accumulated(config, 12);
  for (const int64_t size : {3, 5}) {
    const StepResult parts = accumulated(config, size);
    expect_equal(parts, whole, 1e-9);
    EXPECT_EQ(parts.last_backward_calls, 1);
  }
  EXPECT_NE(whole.gradients.at("log_scale").item<double>(), 0);
}

TEST_P(Accumulation, EqualsTheWholeBatchWithFrozenTowers) {
  const ContrastiveConfig config{.loss = GetParam()};
  const std::vector<std::string> vision = {"vision.*", "image_projection.*"},
                                 text = {"text.*", "text_projection.*"};
  std::vector<std::string> both = vision;
  both.insert(both.end(), text.begin(), text.end());
  for (const std::vector<std::string>& freeze : {vision, text, both}) {
    const StepResult whole = accumulated(config, 12, freeze), parts = accumulated(config, 5, freeze);
    expect_equal(parts, whole, 1e-9);
    EXPECT_EQ(parts.last_backward_calls, 1);
    EXPECT_EQ(whole.gradients.contains("text_projection.weight"), freeze == vision);
    EXPECT_EQ(whole.gradients.contains("image_projection.weight"), freeze == text);
    EXPECT_NE(whole.gradients.at("log_scale").item<double>(), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Losses, Accumulation,
                         ::testing::Values(ContrastiveLoss::kInfoNce, ContrastiveLoss::kSigmoid));

TEST(ContrastiveTask, EqualCaptionsAreNoNegativesWhenAskedFor) {
  const double matched = accumulated({.match_equal_captions = true}, 12).loss;
  const double unmatched = accumulated({.match_equal_captions = false}, 12).loss;
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
}  // namespace fathom::testing::contrastive_test
