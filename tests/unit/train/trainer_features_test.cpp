// Every setting of the trainer does what it says: each of these fails when the setting is read and forgotten.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "language_run.h"

namespace fathom::trainer_features_test {
namespace {

using namespace testing;
using ::testing::ElementsAre;

/// An update that is the learning rate times the gradient: AdamW without memory under a huge epsilon.
OptimizerConfig plain_descent() {
  return {.learning_rate = 1e4, .beta1 = 0, .beta2 = 0, .epsilon = 1e6, .weight_decay = 0, .clip_norm = 0};
}

/// An update that is the learning rate times the gradient's sign.
OptimizerConfig sign_descent() {
  return {.learning_rate = 0.05, .beta1 = 0, .beta2 = 0, .epsilon = 1e-12, .weight_decay = 0, .clip_norm = 0};
}

/// The weights before each step and after the last one.
std::vector<at::Tensor> weights_of(const TrainerConfig& config) {
  SmallRun run(config);
  run.trainer.run();
  std::vector<at::Tensor> weights = run.task.weights_by_step;
  weights.push_back(run.task.flat_weights());
  return weights;
}

class Schedules : public ::testing::TestWithParam<ScheduleShape> {};
INSTANTIATE_TEST_SUITE_P(All, Schedules,
                         ::testing::Values(ScheduleShape::kCosine, ScheduleShape::kLinear,
                                           ScheduleShape::kConstant, ScheduleShape::kWarmupStableDecay));

TEST_P(Schedules, SetTheLengthOfEveryStep) {
  const TemporaryFolder folder;
  TrainerConfig config = small_config(folder.path());
  config.optimizer = sign_descent();
  config.schedule = {.shape = GetParam(), .warmup_steps = 4, .decay_share = 0.5, .final_share = 0.1};
  const std::vector<at::Tensor> weights = weights_of(config);
  const std::vector<double> rates = logged(folder.path(), "learning_rate");
  ASSERT_EQ(rates.size(), 20u);
  for (int64_t step = 0; step < 20; ++step) {
    const double expected = 0.05 * learning_rate_scale(config.schedule, step, 20);
    const auto at = static_cast<size_t>(step);
    EXPECT_NEAR((weights[at + 1] - weights[at]).abs().max().item<double>(), expected, 1e-6) << step;
    EXPECT_NEAR(rates[at], expected, 1e-12) << step;
  }
}

TEST(Features, ClippingShortensStepsToItsLimitAndLogsTheWholeNorm) {
  const TemporaryFolder free_folder, clipped_folder;
  TrainerConfig config = small_config(free_folder.path());
  config.optimizer = plain_descent();
  config.schedule = {.shape = ScheduleShape::kConstant, .warmup_steps = 0};
  config.training.max_steps = 3;
  const double length_of_gradient = 1e6 / 1e4;
  const auto lengths = [&] {
    const std::vector<at::Tensor> weights = weights_of(config);
    std::vector<double> result;
    for (size_t i = 0; i + 1 < weights.size(); ++i)
      result.push_back((weights[i + 1] - weights[i]).norm().item<double>() * length_of_gradient);
    return result;
  };
  const std::vector<double> free = lengths();
  const std::vector<double> norms = logged(free_folder.path(), "gradient_norm");
  for (size_t i = 0; i < 3; ++i) EXPECT_NEAR(free[i], norms[i], 1e-3 * norms[i]);
  config.run_folder = clipped_folder.path();
  config.optimizer.clip_norm = 0.5;
  for (const double length : lengths()) EXPECT_NEAR(length, 0.5, 1e-3);
  EXPECT_GT(norms[0], 1);
  EXPECT_DOUBLE_EQ(logged(clipped_folder.path(), "gradient_norm")[0], norms[0]);
}

TEST(Features, MicroBatchesAreAsLargeAsAskedFor) {
  const TemporaryFolder folder, whole_folder;
  TrainerConfig config = small_config(folder.path());
  config.training.max_steps = 2;
  config.training.micro_batch_size = 3;
  SmallRun run(config);
  run.trainer.run();
  EXPECT_THAT(run.task.micro_batch_sizes, ElementsAre(3, 3, 2, 3, 3, 2));
  config.run_folder = whole_folder.path();
  config.training.micro_batch_size = 0;
  SmallRun whole(config);
  whole.trainer.run();
  EXPECT_THAT(whole.task.micro_batch_sizes, ElementsAre(8, 8));
}

TEST(Features, FreezingLeavesTheOthersInTraining) {
  const TemporaryFolder folder;
  TrainerConfig config = small_config(folder.path());
  config.optimizer.freeze = {"weight"};
  SmallRun run(config);
  const at::Tensor weight = run.task.weight().detach().clone();
  run.trainer.run();
  EXPECT_TRUE(at::equal(run.task.weight(), weight));
  EXPECT_GT(run.task.bias().abs().min().item<double>(), 0.01);
}

TEST(Features, RulesScaleTheStepsOfWhatTheyName) {
  const TemporaryFolder folder;
  TrainerConfig config = small_config(folder.path());
  config.optimizer = sign_descent();
  config.optimizer.rules = {{.pattern = "bias", .learning_rate_scale = 0.1}};
  config.schedule = {.shape = ScheduleShape::kConstant, .warmup_steps = 0};
  config.training.max_steps = 1;
  const std::vector<at::Tensor> weights = weights_of(config);
  const at::Tensor moved = (weights[1] - weights[0]).abs();
  EXPECT_NEAR(moved.narrow(0, 0, 20).max().item<double>(), 0.05, 1e-6);
  EXPECT_NEAR(moved.narrow(0, 20, 2).max().item<double>(), 0.005, 1e-6);
}

TEST(Features, DecayShrinksMatricesByItsShareAndLeavesBiases) {
  const TemporaryFolder plain_folder, decayed_folder;
  TrainerConfig config = small_config(plain_folder.path());
  config.optimizer = sign_descent();
  config.schedule = {.shape = ScheduleShape::kConstant, .warmup_steps = 0};
  config.training.max_steps = 1;
  const std::vector<at::Tensor> plain = weights_of(config);
  config.run_folder = decayed_folder.path();
  config.optimizer.weight_decay = 0.4;
  const std::vector<at::Tensor> decayed = weights_of(config);
  const at::Tensor shrunk = plain[1] - decayed[1];
  EXPECT_TRUE(at::allclose(shrunk.narrow(0, 0, 20), plain[0].narrow(0, 0, 20) * (0.05 * 0.4), 1e-4, 1e-6));
  EXPECT_TRUE(at::equal(plain[1].narrow(0, 20, 2), decayed[1].narrow(0, 20, 2)));
}

TEST(Features, PrecisionAndCheckpointingReachTheModel) {
  const TemporaryFolder folder;
  TrainerConfig config = small_config(folder.path());
  config.training.max_steps = 1;
  const auto forward_of = [&](Precision precision, bool checkpoint_blocks) {
    const TemporaryFolder own;
    config.run_folder = own.path();
    config.precision = precision;
    config.training.checkpoint_blocks = checkpoint_blocks;
    SmallRun run(config);
    run.trainer.run();
    return run.task.last_forward;
  };
  const ForwardContext low = forward_of(Precision::kBf16, true), plain = forward_of(Precision::kFp32, false);
  EXPECT_EQ(low.compute_dtype, at::kBFloat16);
  EXPECT_TRUE(low.checkpoint_blocks);
  EXPECT_EQ(plain.compute_dtype, std::nullopt);
  EXPECT_FALSE(plain.checkpoint_blocks);
  for (const ForwardContext& forward : {low, plain}) EXPECT_TRUE(forward.drops());
}

TEST(Features, StepsAreDeterministicWhereAskedFor) {
  for (const bool deterministic : {true, false}) {
    const TemporaryFolder folder;
    TrainerConfig config = small_config(folder.path());
    config.training.max_steps = 1;
    config.training.deterministic = deterministic;
    SmallRun run(config);
    run.trainer.run();
    EXPECT_EQ(run.task.was_deterministic, deterministic);
  }
  EXPECT_FALSE(at::globalContext().deterministicAlgorithms()) << "the next run decides anew";
}

TEST(Features, CheckpointedBlocksTrainToTheSameWeightsBitForBit) {
  const LanguageOutcome plain = train_language([](TrainerConfig&) {});
  const LanguageOutcome recomputed =
      train_language([](TrainerConfig& config) { config.training.checkpoint_blocks = true; });
  EXPECT_EQ(plain.losses, recomputed.losses);
  EXPECT_TRUE(at::equal(plain.weights, recomputed.weights));
}

TEST(Features, Bf16TrainsNearlyAsFp32ButNotAlike) {
  const LanguageOutcome exact = train_language([](TrainerConfig&) {});
  const LanguageOutcome rounded =
      train_language([](TrainerConfig& config) { config.precision = Precision::kBf16; });
  ASSERT_EQ(rounded.losses.size(), 20u);
  EXPECT_EQ(rounded.weights.scalar_type(), at::kFloat);
  EXPECT_NE(exact.losses[0], rounded.losses[0]);
  for (size_t i = 0; i < 20; ++i)
    EXPECT_NEAR(rounded.losses[i], exact.losses[i], 0.05 * exact.losses[i]) << i;
}

TEST(Features, TheSeedDecidesOrderAndNoise) {
  const auto losses_of = [](int64_t seed) {
    const TemporaryFolder folder;
    TrainerConfig config = small_config(folder.path());
    config.seed = seed;
    SmallRun(config).trainer.run();
    return logged(folder.path(), "loss");
  };
  EXPECT_EQ(losses_of(5), losses_of(5));
  EXPECT_NE(losses_of(5), losses_of(6));
}

TEST(Features, AveragedWeightsAreThoseOfTheFormulaAfterEveryStep) {
  const TemporaryFolder folder;
  TrainerConfig config = small_config(folder.path());
  config.training.average_decay = 0.5;
  config.evaluation = {.every = 20};
  SmallRun run(config);
  run.trainer.run();
  std::vector<at::Tensor> weights = run.task.weights_by_step;
  weights.push_back(run.task.flat_weights());
  at::Tensor average = weights[0];
  for (int64_t t = 0; t < 20; ++t) {
    const double decay = std::min(0.5, (1.0 + static_cast<double>(t)) / (10.0 + static_cast<double>(t)));
    average = decay * average + (1 - decay) * weights[static_cast<size_t>(t) + 1];
  }
  const at::Tensor evaluated = run.task.weights_evaluated.back().flatten();
  EXPECT_TRUE(at::allclose(evaluated, average.narrow(0, 0, 20), 1e-5, 1e-6));
  EXPECT_FALSE(at::allclose(evaluated, weights.back().narrow(0, 0, 20), 1e-3, 1e-3));
}

TEST(Features, EvaluatesAtTheEndUnlessToldNot) {
  const auto evaluations = [](bool at_end) {
    const TemporaryFolder folder;
    TrainerConfig config = small_config(folder.path());
    config.evaluation = {.every = 8, .at_end = at_end};
    SmallRun run(config);
    run.trainer.run();
    return run.task.weights_evaluated.size();
  };
  EXPECT_EQ(evaluations(false), 2u);
  EXPECT_EQ(evaluations(true), 3u);
}

TEST(Features, TheMetricOfTheRecipeDecidesWhichModelIsBest) {
  const TemporaryFolder folder;
  TrainerConfig config = small_config(folder.path());
  config.evaluation = {.every = 5, .metric = "share"};
  SmallRun run(config);
  int64_t judged = 0;
  run.task.next_figure = [&] { return static_cast<double>(++judged); };  // "error" rises: step 5 is best
  run.task.share_evaluated = {0.1, 0.2, 0.9, 0.3};                       // "share": step 15 is
  const TrainingSummary summary = run.trainer.run();
  EXPECT_EQ(summary.best.at("metric").as_string(), "share");
  EXPECT_EQ(summary.best.at("step").as_int(), 15);
  EXPECT_EQ(summary.best.at("value").as_double(), 0.9);
  EXPECT_EQ(read_json_file(folder / "model/record.json").at("step").as_int(), 15);
}

TEST(Features, AFigureThatIsNoNumberIsNeverBestAndCanBeResumed) {
  const TemporaryFolder folder;
  TrainerConfig config = small_config(folder.path());
  config.evaluation = {.every = 5};
  config.training.max_steps = 10;
  SmallRun run(config);
  run.task.next_figure = [] { return std::nan(""); };
  const TrainingSummary summary = run.trainer.run();
  EXPECT_EQ(summary.best.size(), 0u);
  EXPECT_EQ(read_json_file(folder / "model/record.json").at("step").as_int(), 10);  // the last one
  config.training.max_steps = 20;
  SmallRun more(config);
  more.task.next_figure = [] { return 2.0; };
  ASSERT_TRUE(more.trainer.resume());
  EXPECT_EQ(more.trainer.run().best.at("step").as_int(), 15);
}

TEST(Features, LowerLayersStayAndTheOthersLearn) {
  LanguageModel trained{nullptr};
  std::map<std::string, at::Tensor> before;
  train_language(LanguageChange{.config = [](TrainerConfig& config) { config.optimizer.freeze_layers = 1; },
                                .model =
                                    [&](LanguageModel& model) {
                                      trained = model;
                                      for (const auto& item : model->named_parameters())
                                        before[item.key()] = item.value().detach().clone();
                                    }});
  for (const auto& item : trained->named_parameters()) {
    const bool stays = item.key().starts_with("embedding") || item.key().starts_with("blocks.0.");
    EXPECT_EQ(at::equal(item.value(), before.at(item.key())), stays) << item.key();
  }
}

TEST(Features, WhatGatesLearnFromReachesTheModel) {
  const TemporaryFolder folder;
  TrainerConfig config = small_config(folder.path());
  config.training.max_steps = 1;
  config.gating = {.explore = 0.3, .score_values = true};
  SmallRun run(config);
  run.trainer.run();
  EXPECT_EQ(run.task.last_forward.explore, 0.3);
  EXPECT_TRUE(run.task.last_forward.score_values);
}

}  // namespace
}  // namespace fathom::trainer_features_test
