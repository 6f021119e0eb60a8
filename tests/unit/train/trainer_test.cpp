#include "train/trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>

#include "base/error.h"
#include "temporary_folder.h"
#include "trainer_fixture.h"

namespace fathom::trainer_test {
namespace {

using namespace testing;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

std::vector<double> losses(const std::string& folder) {
  return logged(folder, "loss");
}

TEST(Trainer, LossFallsAndEveryStepIsLogged) {
  const TemporaryFolder folder;
  TrainerConfig config = small_config(folder.path());
  config.training.max_steps = 60;
  SmallRun run(config);
  const TrainingSummary summary = run.trainer.run();
  const std::vector<double> values = losses(folder.path());
  ASSERT_EQ(values.size(), 60u);
  EXPECT_LT(values.back(), 0.3 * values.front());
  EXPECT_EQ(summary.steps, 60);
  EXPECT_EQ(summary.reason, StopReason::kFinished);
  const Json last = log_lines(folder.path()).back();
  for (const char* key : {"step", "loss", "learning_rate", "gradient_norm", "samples_per_second",
                          "data_wait_share", "memory_mb", "mfu", "seconds"})
    EXPECT_NE(last.find(key), nullptr) << key;
  EXPECT_TRUE(fs::exists(folder / "model/record.json"));
}

TEST(Trainer, LogLinesGiveMeansOverTheirSteps) {
  const TemporaryFolder single, grouped;
  TrainerConfig config = small_config(single.path());
  SmallRun(config).trainer.run();
  config.run_folder = grouped.path();
  config.training.log_every = 5;
  SmallRun(config).trainer.run();
  const std::vector<double> each = losses(single.path()), means = losses(grouped.path());
  ASSERT_EQ(means.size(), 4u);
  EXPECT_NEAR(means[1], (each[5] + each[6] + each[7] + each[8] + each[9]) / 5, 1e-9);
}

TEST(Trainer, EpochsEndTheRun) {
  const TemporaryFolder folder;
  TrainerConfig config = small_config(folder.path());
  config.training.max_steps = 0;
  config.training.epochs = 2;
  EXPECT_EQ(SmallRun(config).trainer.run().steps, 6);  // 24 samples in batches of 8
}

TEST(Trainer, KeepsWhatWasLearnedWhereAnEvaluationFails) {
  const TemporaryFolder folder;
  TrainerConfig config = small_config(folder.path());
  config.evaluation.at_end = true;
  {
    SmallRun run(config);
    run.task.next_figure = []() -> double { fail(ErrorKind::kData, "a broken sample"); };
    EXPECT_THROW(run.trainer.run(), Error);
  }
  SmallRun again(config);
  ASSERT_TRUE(again.trainer.resume());
  EXPECT_EQ(again.trainer.step(), again.trainer.total_steps());
  const TrainingSummary summary = again.trainer.run();
  EXPECT_EQ(summary.evaluated_step, again.trainer.total_steps());
  EXPECT_TRUE(fs::exists(folder / "model/record.json"));
}

TEST(Trainer, TellsEachStepHowFarTheRunIs) {
  const TemporaryFolder folder;
  TrainerConfig config = small_config(folder.path());
  config.training.max_steps = 4;
  SmallRun run(config);
  run.trainer.run();
  EXPECT_THAT(run.task.progress, ElementsAre(0, 0.25, 0.5, 0.75));
}

TEST(Trainer, AccumulationEqualsTheWholeBatch) {
  const TemporaryFolder one, two;
  TrainerConfig config = small_config(one.path());
  SmallRun whole(config);
  whole.trainer.run();
  config.run_folder = two.path();
  config.training.micro_batch_size = 3;
  SmallRun parts(config);
  parts.trainer.run();
  EXPECT_TRUE(at::allclose(whole.task.weight(), parts.task.weight(), 1e-5, 1e-6));
}

/// With all that a state keeps, saved in the middle of a line of the log.
TrainerConfig resumable_config(const std::string& folder) {
  TrainerConfig config = small_config(folder);
  config.training.average_decay = 0.9;
  config.training.log_every = 3;
  config.checkpoint.every = 4;
  return config;
}

/// Goes on with `broken`, which must have kept the state of step `kept`, and expects what a run has come to
/// that nothing stopped, bit for bit.
void expect_to_end_as_an_unbroken_run(const TrainerConfig& broken, int64_t kept) {
  const TemporaryFolder straight;
  SmallRun whole(resumable_config(straight.path()));
  whole.trainer.run();
  SmallRun rest(broken);
  ASSERT_TRUE(rest.trainer.resume());
  EXPECT_EQ(rest.trainer.step(), kept);
  rest.trainer.run();
  EXPECT_TRUE(at::equal(whole.task.weight(), rest.task.weight()));
  EXPECT_EQ(losses(straight.path()), losses(broken.run_folder));
  const TrainingState a = *load_latest_checkpoint(straight / "checkpoints");
  const TrainingState b = *load_latest_checkpoint(broken.run_folder + "/checkpoints");
  for (const char* group : {"model", "optimizer", "average"})
    for (const auto& [name, tensor] : a.tensors.at(group))
      EXPECT_TRUE(at::equal(tensor, b.tensors.at(group).at(name))) << group << " " << name;
  EXPECT_EQ(a.values.at("data"), b.values.at("data"));
}

TEST(Trainer, ResumesBitForBit) {
  const TemporaryFolder folder;
  const TrainerConfig config = resumable_config(folder.path());
  {
    SmallRun first(config);
    first.task.nan_step = 10;  // stands for a crash after the state of step 8
    EXPECT_THROW(first.trainer.run(), Error);
  }
  expect_to_end_as_an_unbroken_run(config, 8);
}

/// Has a sample that cannot be read, in a later epoch.
class BrokenSource : public SentenceSource {
 public:
  Sample load(int64_t index, int64_t epoch) const override {
    if (epoch == 3 && index == 5) fail(ErrorKind::kData, "5.png: broken");
    return SentenceSource::load(index, epoch);
  }
};

TEST(Trainer, ABrokenSampleLosesNoStep) {
  const TemporaryFolder folder;
  const TrainerConfig config = resumable_config(folder.path());
  int64_t stopped_at = 0;
  {
    SmallRun first(config, std::make_shared<BrokenSource>());
    try {
      first.trainer.run();
      FAIL() << "went on";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kData);
      EXPECT_THAT(error.what(), HasSubstr("5.png: broken"));
    }
    stopped_at = first.trainer.step();
  }
  ASSERT_GT(stopped_at, 8) << "an epoch has three steps";
  EXPECT_EQ(checkpoint_steps(folder / "checkpoints").back(), stopped_at);
  expect_to_end_as_an_unbroken_run(config, stopped_at);  // the file has been repaired
}

TEST(Trainer, ResumingANewRunStartsAtTheBeginning) {
  const TemporaryFolder folder;
  SmallRun run(small_config(folder.path()));
  EXPECT_FALSE(run.trainer.resume());
  EXPECT_EQ(run.trainer.run().steps, 20);
}

TEST(Trainer, ALossThatIsNoNumberNamesItsStepAndKeepsTheState) {
  const TemporaryFolder folder;
  TrainerConfig config = small_config(folder.path());
  config.checkpoint.every = 5;
  SmallRun run(config);
  run.task.nan_step = 12;
  try {
    run.trainer.run();
    FAIL() << "went on";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kConfig);
    EXPECT_THAT(error.what(), HasSubstr("step 13: the loss is nan"));
  }
  EXPECT_THAT(checkpoint_steps(folder / "checkpoints"), ElementsAre(5, 10));
  EXPECT_TRUE(run.task.weight().isfinite().all().item<bool>());
}

TEST(Trainer, KeepsTheLastStatesAndModels) {
  const TemporaryFolder folder;
  TrainerConfig config = small_config(folder.path());
  config.checkpoint = {.every = 3, .keep = 2, .model_every = 5, .keep_models = 2};
  SmallRun(config).trainer.run();
  EXPECT_THAT(checkpoint_steps(folder / "checkpoints"), ElementsAre(18, 20));
  EXPECT_THAT(checkpoint_steps(folder / "models"), ElementsAre(15, 20));
}

TEST(Trainer, KeepsTheBestModelAndStopsEarly) {
  const TemporaryFolder folder;
  TrainerConfig config = small_config(folder.path());
  config.evaluation = {.every = 2, .patience = 3};
  SmallRun run(config);
  double figure = 5;
  run.task.next_figure = [&] { return run.task.weights_evaluated.size() <= 2 ? --figure : ++figure; };
  const TrainingSummary summary = run.trainer.run();
  EXPECT_EQ(summary.reason, StopReason::kEarlyStopping);
  EXPECT_EQ(summary.steps, 10);
  EXPECT_EQ(summary.best.at("step").as_int(), 4);
  EXPECT_EQ(read_json_file(folder / "model/record.json").at("step").as_int(), 4);
}

TEST(Trainer, EvaluatesAveragedWeightsAndTrainsOnWithItsOwn) {
  const TemporaryFolder folder, plain_folder;
  TrainerConfig config = small_config(plain_folder.path());
  SmallRun plain(config);
  plain.trainer.run();
  config.run_folder = folder.path();
  config.training.average_decay = 0.95;
  config.evaluation.every = 10;
  SmallRun run(config);
  run.trainer.run();
  EXPECT_TRUE(at::equal(run.task.weight(), plain.task.weight()));
  EXPECT_FALSE(at::equal(run.task.weights_evaluated.back(), run.task.weight()));
}

TEST(Trainer, FrozenWeightsStay) {
  const TemporaryFolder folder;
  TrainerConfig config = small_config(folder.path());
  config.optimizer.freeze = {"weight"};
  SmallRun run(config);
  const at::Tensor before = run.task.weight().detach().clone();
  run.trainer.run();
  EXPECT_TRUE(at::equal(run.task.weight(), before));
}

TEST(Trainer, ASignalFinishesTheStepAndSaves) {
  const TemporaryFolder folder;
  TrainerConfig config = small_config(folder.path());
  config.training.max_steps = 100'000;
  config.evaluation = {.every = 7, .at_end = true};
  SmallRun run(config);
  run.task.next_figure = [] { return std::raise(SIGTERM), 1.0; };
  const TrainingSummary summary = run.trainer.run();
  EXPECT_EQ(summary.reason, StopReason::kRequested);
  EXPECT_LT(summary.steps, 12);
  EXPECT_EQ(run.task.weights_evaluated.size(), 1u) << "who sends a signal waits for no evaluation";
  EXPECT_THAT(checkpoint_steps(folder / "checkpoints"), ElementsAre(summary.steps));
}

TEST(Trainer, AStateOfAnotherModelIsRefused) {
  const TemporaryFolder folder;
  SmallRun(small_config(folder.path())).trainer.run();
  TrainingState state = *load_latest_checkpoint(folder / "checkpoints");
  state.step = 21;
  state.tensors["model"]["weight"] = torch::zeros({3, 3});
  save_checkpoint(folder / "checkpoints", state);
  SmallRun run(small_config(folder.path()));
  const auto message = [&] {
    try {
      run.trainer.resume();
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kCheckpoint);
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_THAT(message(), HasSubstr("the training state is of another model: weight is of another shape"));
  state.tensors["model"].erase("weight");
  save_checkpoint(folder / "checkpoints", state);
  EXPECT_THAT(message(), HasSubstr("weight is absent"));
  state.tensors["model"]["weight"] = torch::zeros({10, 2});
  state.tensors["model"]["extra"] = torch::zeros({1});
  save_checkpoint(folder / "checkpoints", state);
  EXPECT_THAT(message(), HasSubstr("it has 3 tensors, expected 2"));
  state.tensors["model"].erase("extra");
  state.tensors["optimizer"].erase("second.bias");
  save_checkpoint(folder / "checkpoints", state);
  EXPECT_THAT(message(), HasSubstr("the optimizer's state for second.bias is absent or of another shape"));
}

}  // namespace
}  // namespace fathom::trainer_test
