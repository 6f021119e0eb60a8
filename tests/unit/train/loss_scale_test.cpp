// Loss scaling: what it does to steps that overflow, and that it does nothing to others.
#include "train/loss_scale.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "contrastive_fixture.h"
#include "temporary_folder.h"
#include "trainer_fixture.h"

namespace fathom::loss_scale_test {
namespace {

using namespace testing;
using ::testing::Each;
using ::testing::HasSubstr;

TEST(LossScale, DoublesAfterCleanStepsAndHalvesOnOverflow) {
  LossScale scale({.initial = 8, .growth_interval = 3}, at::kCPU);
  std::vector<double> scales, skipped;
  for (const double overflow : {0, 0, 0, 0, 1, 1, 0, 0, 1, 0, 0, 0, 0}) {
    const at::Tensor figures = scale.update(at::full({}, overflow, at::kFloat));
    scales.push_back(figures[0].item<double>());
    skipped.push_back(figures[1].item<double>());
  }
  EXPECT_EQ(scales, (std::vector<double>{8, 8, 8, 16, 16, 8, 4, 4, 4, 2, 2, 2, 4}));
  EXPECT_EQ(skipped, (std::vector<double>{0, 0, 0, 0, 1, 2, 2, 2, 3, 3, 3, 3, 3}));
}

TEST(LossScale, StaysAtLeastOneAndInOnePlace) {
  LossScale scale({.initial = 2}, at::kCPU);
  const void* place = scale.scale().const_data_ptr();
  for (int i = 0; i < 4; ++i) scale.update(at::ones({}));
  EXPECT_EQ(scale.scale().item<float>(), 1);
  EXPECT_EQ(scale.scale().const_data_ptr(), place) << "recorded steps read it there";
}

TEST(LossScale, AStateGoesOnAsItWas) {
  LossScale one({.initial = 8, .growth_interval = 3}, at::kCPU),
      other({.initial = 32, .growth_interval = 3}, at::kCPU);
  for (const double overflow : {1, 0, 0}) one.update(at::full({}, overflow, at::kFloat));
  other.load_state(one.state());
  for (LossScale* scale : {&one, &other}) {
    const at::Tensor figures = scale->update(at::zeros({}));
    EXPECT_TRUE(at::equal(figures, at::tensor({4.0f, 1.0f})));
    EXPECT_EQ(scale->scale().item<float>(), 8);
  }
  LossScale sooner({.initial = 32, .growth_interval = 1}, at::kCPU);
  sooner.load_state(TensorMap{{"scale", at::full({}, 4.0)},
                              {"clean_steps", at::full({}, 2, at::kInt)},
                              {"skipped_steps", at::zeros({})}});
  sooner.update(at::zeros({}));
  EXPECT_EQ(sooner.scale().item<float>(), 8);
  TensorMap torn = one.state();
  torn.erase("clean_steps");
  EXPECT_THROW(other.load_state(torn), Error);
}

TEST(LossScale, ReachesTheGradientsOfBatchesInParts) {
  ContrastiveTask task({.model = make_model({}), .config = {}});
  for (const int64_t size : {int64_t{12}, int64_t{5}}) {
    std::vector<MicroBatch> parts = split(make_batch(), size);
    const StepResult plain = run_step(task, parts);
    for (MicroBatch& part : parts) part.forward.loss_scale = at::full({}, 4096.0, at::kDouble);
    StepResult scaled = run_step(task, parts);
    for (auto& [name, gradient] : scaled.gradients) gradient = gradient / 4096;
    expect_equal(scaled, plain, 1e-12);
  }
}

TrainerConfig scaled_config(const std::string& folder) {
  TrainerConfig config = small_config(folder);
  config.precision = Precision::kFp16Bf16;
  return config;
}

/// The fixture's task computes in float32, whatever it is told.
TEST(LossScale, AStepThatDoesNotOverflowIsTheUnscaledOneBitForBit) {
  const TemporaryFolder plain_folder, scaled_folder;
  SmallRun plain(small_config(plain_folder.path())), scaled(scaled_config(scaled_folder.path()));
  plain.trainer.run();
  scaled.trainer.run();
  EXPECT_TRUE(at::equal(plain.task.flat_weights(), scaled.task.flat_weights()));
  for (const char* key : {"loss", "gradient_norm"})
    EXPECT_EQ(logged(plain_folder.path(), key), logged(scaled_folder.path(), key)) << key;
  EXPECT_THAT(logged(scaled_folder.path(), "loss_scale"), Each(65536));
  EXPECT_EQ(log_lines(plain_folder.path()).front().find("loss_scale"), nullptr);
}

TEST(LossScale, APlantedInfinitySkipsItsStepAlone) {
  const TemporaryFolder folder;
  SmallRun run(scaled_config(folder.path()));
  run.task.overflow_steps = {7};
  EXPECT_EQ(run.trainer.run().steps, 20);
  const std::vector<at::Tensor>& weights = run.task.weights_by_step;
  for (size_t step = 0; step + 1 < weights.size(); ++step)
    EXPECT_EQ(at::equal(weights[step], weights[step + 1]), step == 7) << step;
  const std::vector<double> scale = logged(folder.path(), "loss_scale"),
                            skipped = logged(folder.path(), "skipped_steps");
  for (size_t step = 0; step < 20; ++step) {
    EXPECT_EQ(scale[step], step <= 7 ? 65536 : 32768) << step;
    EXPECT_EQ(skipped[step], step < 7 ? 0 : 1) << step;
  }
  EXPECT_TRUE(log_lines(folder.path())[7].at("gradient_norm").is_null());
}

TEST(LossScale, GrowsInTheTrainer) {
  const TemporaryFolder folder;
  TrainerConfig config = scaled_config(folder.path());
  config.loss_scale = {.initial = 16, .growth_interval = 6};
  config.training.max_steps = 14;
  SmallRun(config).trainer.run();
  EXPECT_EQ(logged(folder.path(), "loss_scale"),
            (std::vector<double>{16, 16, 16, 16, 16, 16, 32, 32, 32, 32, 32, 32, 64, 64}));
}

TEST(LossScale, GradientsThatOverflowAtOneEndTheRun) {
  const TemporaryFolder folder;
  TrainerConfig config = scaled_config(folder.path());
  config.loss_scale.initial = 4;
  SmallRun run(config);
  run.task.overflow_steps = {3, 4, 5};
  try {
    run.trainer.run();
    FAIL() << "went on";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kConfig);
    EXPECT_THAT(error.what(), HasSubstr("step 6: the norm of the gradient is"));
    EXPECT_THAT(error.what(), HasSubstr("at a loss scale of 1, below which it does not fall"));
  }
}

TEST(LossScale, ALossThatIsNoNumberStillEndsTheRun) {
  const TemporaryFolder folder;
  SmallRun run(scaled_config(folder.path()));
  run.task.nan_step = 2;
  try {
    run.trainer.run();
    FAIL() << "went on";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("step 3: the loss is nan"));
  }
}

TEST(LossScale, ResumesBitForBit) {
  const auto config_in = [](const std::string& folder) {
    TrainerConfig config = scaled_config(folder);
    config.loss_scale.growth_interval = 3;
    config.training.log_every = 3;
    config.checkpoint.every = 8;
    return config;
  };
  const TemporaryFolder straight, broken;
  const std::set<int64_t> overflows = {6, 10};
  SmallRun whole(config_in(straight.path()));
  whole.task.overflow_steps = overflows;
  whole.trainer.run();
  {
    SmallRun first(config_in(broken.path()));
    first.task.overflow_steps = overflows;
    first.task.nan_step = 9;
    EXPECT_THROW(first.trainer.run(), Error);
  }
  SmallRun rest(config_in(broken.path()));
  rest.task.overflow_steps = overflows;
  ASSERT_TRUE(rest.trainer.resume());
  EXPECT_EQ(rest.trainer.step(), 8);
  rest.trainer.run();
  EXPECT_TRUE(at::equal(whole.task.flat_weights(), rest.task.flat_weights()));
  for (const char* key : {"loss", "gradient_norm", "loss_scale", "skipped_steps"})
    EXPECT_EQ(logged(straight.path(), key), logged(broken.path(), key)) << key;
  const TrainingState a = *load_latest_checkpoint(straight / "checkpoints");
  const TrainingState b = *load_latest_checkpoint(broken / "checkpoints");
  for (const char* name : {"scale", "clean_steps", "skipped_steps"})
    EXPECT_TRUE(at::equal(a.tensors.at("loss_scale").at(name), b.tensors.at("loss_scale").at(name))) << name;
}

TEST(LossScale, ARunThatHadNoneBeginsOne) {
  const TemporaryFolder folder;
  TrainerConfig config = small_config(folder.path());
  config.training.max_steps = 5;
  SmallRun(config).trainer.run();
  config.precision = Precision::kFp16Bf16;
  config.training.max_steps = 10;
  SmallRun rest(config);
  ASSERT_TRUE(rest.trainer.resume());
  rest.trainer.run();
  EXPECT_EQ(log_lines(folder.path()).back().at("loss_scale").as_double(), 65536);
}

}  // namespace
}  // namespace fathom::loss_scale_test
