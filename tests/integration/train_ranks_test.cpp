// The same recipe on two processes and on one.
#include <gtest/gtest.h>

#include <cmath>

#include "cli_program.h"
#include "training_run.h"

namespace fathom::train_ranks_test {
namespace {

/// Largest difference of the losses of 50 steps, relative where asked for.
double difference(const std::vector<double>& a, const std::vector<double>& b, bool relative) {
  EXPECT_EQ(a.size(), 50u);
  EXPECT_EQ(b.size(), 50u);
  double largest = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    largest = std::max(largest, std::abs(a[i] - b[i]) / (relative ? std::abs(a[i]) : 1));
  return largest;
}

void train(const std::vector<std::string>& arguments) {
  const ProgramResult result = run_program(arguments);
  ASSERT_EQ(result.status, 0) << result.error;
}

double two_against_one(const std::string& precision, const std::vector<std::string>& more) {
  const TrainingWorld world;
  std::vector<std::string> settings = {"training.max_steps=50", "training.log_every=1",
                                       "precision=" + precision};
  settings.insert(settings.end(), more.begin(), more.end());
  train(world.arguments(world / "one", settings));
  train(on_two_ranks(world.arguments(world / "two", settings)));
  const std::vector<double> one = logged_losses(world / "one");
  EXPECT_GT(std::abs(one.front() - one.back()), 1e-3);
  return difference(one, logged_losses(world / "two"), precision == "fp32");
}

TEST(Ranks, TwoEqualOneInDouble) {
  EXPECT_LT(two_against_one("fp64", {}), 1e-5);
}

TEST(Ranks, TwoEqualOneInFloat) {
  EXPECT_LT(two_against_one("fp32", {}), 1e-4);
}

/// States in BF16: sums over ranks differ in the last of their eight bits.
TEST(Ranks, TwoAreNearOneWithProductsInFp16) {
  EXPECT_LT(two_against_one("fp16_bf16", {}), 0.1);
}

TEST(Ranks, TwoEqualOneWithSigmoidAndAccumulation) {
  EXPECT_LT(two_against_one(
                "fp64", {"contrastive.loss=sigmoid", "model.logit_bias=true", "training.micro_batch_size=3"}),
            1e-5);
}

TEST(Ranks, TwoEqualOneWithRegionScoresAndHardNegatives) {
  for (const char* region : {"attention", "late"})
    EXPECT_LT(
        two_against_one("fp64", {std::string("model.region=") + region, "training.micro_batch_size=3",
                                 "contrastive.hard_negatives.refresh=3", "contrastive.hard_negatives.group=4",
                                 "contrastive.hard_negatives.max_similarity=0.8",
                                 "contrastive.hard_negatives.sharpness=2"}),
        1e-5);
}

TEST(Ranks, TwoEqualOneWithAdaptersReversalAndConsistency) {
  EXPECT_LT(two_against_one("fp64", {"model.adapters=8", "model.centred=true", "contrastive.reversal=0.5",
                                     "contrastive.consistency=0.5", "data.pairing.views_per_image=2"}),
            1e-5);
}

TEST(Ranks, TwoEqualOneWithWordsToNameAndLocalization) {
  EXPECT_LT(two_against_one("fp64", {"contrastive.word_weight=0.5", "contrastive.localization=0.5",
                                     "training.micro_batch_size=3", "data.pairing.views_per_image=2"}),
            1e-5);
}

TEST(Ranks, TwoEqualOneWithMixedPicturesAndSoftTargets) {
  EXPECT_LT(two_against_one("fp64", {"contrastive.mixup=1", "contrastive.cutmix_share=0.5",
                                     "contrastive.mix_share=0.8", "contrastive.soft_targets=0.3",
                                     "contrastive.view_weight=0.2", "contrastive.word_weight=0.5",
                                     "training.micro_batch_size=2", "data.pairing.views_per_image=2"}),
            1e-5);
}

/// Rank 0 alone writes whole models; both must hear after the same step that the run is to end.
TEST(Ranks, StopAfterTheSameStepWhileModelsAreWritten) {
  const TrainingWorld world;
  const std::vector<std::string> settings = {"training.max_steps=1000000", "training.max_seconds=2",
                                             "checkpoint.model_every=1",   "checkpoint.every=0",
                                             "evaluation.every=0",         "collective.timeout_seconds=20"};
  std::vector<std::string> words = on_two_ranks(world.arguments(world / "run", settings));
  words.emplace_back("--json");
  const ProgramResult result = run_program(words);
  ASSERT_EQ(result.status, 0) << result.error;
  const Json summary = parse_json(result.out, "standard output");
  EXPECT_EQ(summary.at("reason").as_string(), "max_seconds");
  EXPECT_EQ(summary.at("evaluated_step"), summary.at("steps"));
  EXPECT_GT(summary.at("evaluation").at("mean_recall").as_double(), 0);
}

}  // namespace
}  // namespace fathom::train_ranks_test
