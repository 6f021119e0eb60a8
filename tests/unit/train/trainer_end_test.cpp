// How a run ends, and that resuming an ended one changes nothing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "temporary_folder.h"
#include "trainer_fixture.h"

namespace fathom::trainer_end_test {
namespace {

using namespace testing;

std::string log_of(const TemporaryFolder& folder) {
  return read_file(folder / "log.jsonl");
}

int64_t num_evaluations(const TemporaryFolder& folder) {
  const std::string log = log_of(folder);
  int64_t count = 0;
  for (size_t at = log.find("\"evaluation\""); at != std::string::npos;
       at = log.find("\"evaluation\"", at + 1))
    ++count;
  return count;
}

/// Resumes the run and lets it do what is left.
TrainingSummary resume(const TrainerConfig& config) {
  SmallRun run(config);
  EXPECT_TRUE(run.trainer.resume());
  return run.trainer.run();
}

TEST(End, AFinishedRunResumedLogsNothingTwiceAndStillKnowsItsFigures) {
  const TemporaryFolder folder;
  TrainerConfig config = small_config(folder.path());
  config.checkpoint.every = 5;
  config.evaluation = {.every = 8, .at_end = true};
  const TrainingSummary first = SmallRun(config).trainer.run();
  EXPECT_EQ(num_evaluations(folder), 3);
  const std::string log = log_of(folder);
  for (int i = 0; i < 2; ++i) {
    const TrainingSummary again = resume(config);
    EXPECT_EQ(log_of(folder), log);
    EXPECT_EQ(again.steps, 20);
    EXPECT_EQ(again.evaluated_step, 20);
    EXPECT_EQ(again.to_json().at("evaluation"), first.to_json().at("evaluation"));
    EXPECT_EQ(again.to_json().at("best"), first.to_json().at("best"));
  }
  EXPECT_GT(first.metrics.at("error").value, 0);
}

TEST(End, AnEvaluationThatFollowsASavedStateIsSavedWithIt) {
  const TemporaryFolder folder;
  TrainerConfig config = small_config(folder.path());
  config.training.max_steps = 6;
  SmallRun(config).trainer.run();  // not evaluated
  config.evaluation.at_end = true;
  resume(config);
  EXPECT_EQ(num_evaluations(folder), 1);
  resume(config);
  EXPECT_EQ(num_evaluations(folder), 1);
}

TEST(End, EarlyStoppingAtAStepThatIsSavedIsResumedAsItEnded) {
  const TemporaryFolder folder;
  TrainerConfig config = small_config(folder.path());
  config.checkpoint.every = 4;
  config.evaluation = {.every = 4, .at_end = true, .patience = 1};
  SmallRun run(config);
  run.task.next_figure = [] { return 1.0; };
  EXPECT_EQ(run.trainer.run().reason, StopReason::kEarlyStopping);
  const std::string log = log_of(folder);
  const TrainingSummary again = resume(config);
  EXPECT_EQ(again.reason, StopReason::kEarlyStopping);
  EXPECT_EQ(again.steps, 8);
  EXPECT_EQ(log_of(folder), log);
}

TEST(End, TimeThatIsUpEndsTheRunAsItsLastStepWould) {
  const TemporaryFolder folder;
  TrainerConfig config = small_config(folder.path());
  config.training.max_steps = 10'000'000;
  config.training.max_seconds = 0.2;
  config.checkpoint.every = 0;
  config.evaluation.at_end = true;
  SmallRun run(config);
  const TrainingSummary summary = run.trainer.run();
  EXPECT_EQ(summary.reason, StopReason::kTimeUp);
  EXPECT_EQ(summary.to_json().at("reason").as_string(), "max_seconds");
  EXPECT_EQ(run.task.weights_evaluated.size(), 1u);
  EXPECT_EQ(summary.best.at("step").as_int(), summary.steps);
  EXPECT_EQ(checkpoint_steps(folder / "checkpoints"), std::vector<int64_t>{summary.steps});
  EXPECT_EQ(read_json_file(folder / "model/record.json").at("step").as_int(), summary.steps);

  const std::string log = log_of(folder);
  const TrainingSummary again = resume(config);
  EXPECT_EQ(again.reason, StopReason::kTimeUp);
  EXPECT_EQ(again.steps, summary.steps) << "its time was up before";
  EXPECT_EQ(log_of(folder), log);
}

TEST(End, ModelsCarryTheFiguresOfTheirOwnStepOnly) {
  const TemporaryFolder folder;
  TrainerConfig config = small_config(folder.path());
  config.checkpoint = {.every = 5, .model_every = 5, .keep_models = 0};
  config.evaluation.every = 10;
  const auto figures_at = [&](int64_t step) {
    return read_json_file(checkpoint_path(folder / "models", step) + "/record.json").at("evaluation");
  };
  SmallRun(config).trainer.run();
  EXPECT_EQ(figures_at(5).size(), 0u);
  EXPECT_GT(figures_at(10).at("error").as_double(), 0);
  EXPECT_EQ(figures_at(15).size(), 0u);
  EXPECT_NE(figures_at(20), figures_at(10));
}

TEST(End, ARunGoesOnWithItsOwnSeedAndBatchesOnly) {
  const TemporaryFolder folder;
  const TrainerConfig config = small_config(folder.path());
  SmallRun(config).trainer.run();
  const auto refusal = [](const TrainerConfig& other) {
    SmallRun run(other);
    try {
      run.trainer.resume();
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kConfig);
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  TrainerConfig other = config;
  other.seed = 7;
  EXPECT_THAT(refusal(other), ::testing::HasSubstr("step-00000020: seed: the run began with 0, got 7"));
  other = config;
  other.training.batch_size = 4;
  EXPECT_THAT(refusal(other), ::testing::HasSubstr("training.batch_size: the run began with 8, got 4"));
}

TEST(End, FiguresThatAreNoNumbersComeBack) {
  const Metrics metrics = {{"a", {1.5, false}}, {"b", {std::nan(""), true}}};
  const Metrics back = metrics_from_json(parse_json(metrics_to_json(metrics).dump(), "test"));
  ASSERT_EQ(back.size(), 2u);
  EXPECT_EQ(back.at("a").value, 1.5);
  EXPECT_FALSE(back.at("a").higher_is_better);
  EXPECT_TRUE(std::isnan(back.at("b").value));
  EXPECT_TRUE(back.at("b").higher_is_better);
}

}  // namespace
}  // namespace fathom::trainer_end_test
