// Training with products in FP8: near float32, on a CPU by the reference and on a GPU, where there is one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <utility>

#include "base/error.h"
#include "cuda_fp8_fixture.h"
#include "language_run.h"

namespace fathom::fp8_training_test {
namespace {

using namespace testing;
using ::testing::Each;
using ::testing::SizeIs;

/// Three tokens each of 16 samples: 48 rows, which fit, as all widths do. Eight are left of an epoch, whose
/// products stay in BF16.
void take_fp8(TrainerConfig& config) {
  config.precision = Precision::kFp8;
  config.fp8.least_intensity = 0;
  config.training.batch_size = 16;
  config.optimizer.learning_rate = 0.01;  // larger steps spread what rounding began
}

LanguageOutcome train_as(Precision precision) {
  return train_language([&](TrainerConfig& config) {
    take_fp8(config);
    config.precision = precision;
  });
}

void expect_near_float32(const LanguageOutcome& found, const LanguageOutcome& exact) {
  ASSERT_THAT(found.losses, SizeIs(20));
  for (size_t i = 0; i < 20; ++i) EXPECT_NEAR(found.losses[i], exact.losses[i], 0.05 * exact.losses[i]) << i;
}

TEST(Fp8Training, OnACpuFollowsFloat32) {
  const LanguageOutcome exact = train_as(Precision::kFp32), bfloat = train_as(Precision::kBf16),
                        found = train_as(Precision::kFp8);
  expect_near_float32(found, exact);
  EXPECT_NE(found.losses, bfloat.losses);
  EXPECT_EQ(found.weights.scalar_type(), at::kFloat);
  EXPECT_THAT(found.saturated_casts, SizeIs(20));
  EXPECT_THAT(found.saturated_casts, Each(0));
  EXPECT_THAT(found.loss_scale, Each(65536)) << "no step was skipped";
}

TEST(Fp8Training, ProductsThatDoNotPayStayInBf16) {
  const LanguageOutcome found = train_language([](TrainerConfig& config) {
    take_fp8(config);
    config.fp8.least_intensity = 1e6;
  });
  const LanguageOutcome bfloat = train_as(Precision::kBf16);
  ASSERT_THAT(found.losses, SizeIs(20));
  // But for the loss scale, a power of two.
  for (size_t i = 0; i < 20; ++i)
    EXPECT_NEAR(found.losses[i], bfloat.losses[i], 1e-3 * bfloat.losses[i]) << i;
}

TEST(Fp8Training, GradientsMayBeE5M2) {
  const LanguageOutcome found = train_language([](TrainerConfig& config) {
    take_fp8(config);
    config.fp8.gradients = Fp8Gradients::kE5M2;
  });
  expect_near_float32(found, train_as(Precision::kFp32));
  EXPECT_NE(found.losses, train_as(Precision::kFp8).losses);
}

TEST(Fp8Training, BlocksThatAreComputedAgainChangeNoBit) {
  const LanguageOutcome again = train_language([](TrainerConfig& config) {
    take_fp8(config);
    config.training.checkpoint_blocks = true;
  });
  EXPECT_EQ(again.losses, train_as(Precision::kFp8).losses);
}

/// Turns weights into FP8 in every pass, as if the trainer kept none.
class ForgetfulTask : public LanguageTask {
 public:
  using LanguageTask::LanguageTask;
  at::Tensor loss(const MicroBatch& given, const StepContext& step) override {
    MicroBatch micro_batch = given;
    products_ = *given.forward.fp8;
    products_.weights = nullptr;
    micro_batch.forward.fp8 = &products_;
    return LanguageTask::loss(micro_batch, step);
  }

 private:
  kernels::Fp8Products products_;  // outlives the backward pass, which computes blocks again
};

/// Those that are kept for a step in FP8, which micro-batches take in turns and blocks that are computed
/// again, are those that every pass would make itself, to the last bit; though steps change them, and
/// averages are swapped in and out between.
TEST(Fp8Training, WeightsAreThoseOfTheirStep) {
  LanguageChange change = {.config = [](TrainerConfig& config) {
    take_fp8(config);
    config.training.batch_size = 24;  // the whole of an epoch
    config.training.micro_batch_size = 16;
    config.training.checkpoint_blocks = true;
    config.training.average_decay = 0.9;
    config.evaluation = {.every = 3};
  }};
  const LanguageOutcome kept = train_language(change);
  change.task = [](LanguageTask::Setup setup) { return std::make_unique<ForgetfulTask>(std::move(setup)); };
  const LanguageOutcome made_anew = train_language(change);
  ASSERT_THAT(kept.losses, SizeIs(20));
  EXPECT_EQ(kept.losses, made_anew.losses);
  EXPECT_TRUE(at::equal(kept.weights, made_anew.weights));
  EXPECT_LT(kept.losses.back(), kept.losses.front());
}

TEST(Fp8Training, APlantedInfinitySkipsItsStepAlone) {
  const TemporaryFolder folder;
  TrainerConfig config = small_config(folder.path());
  config.precision = Precision::kFp8;
  SmallRun run(config);
  run.task.overflow_steps = {7};
  EXPECT_EQ(run.trainer.run().steps, 20);
  EXPECT_NE(run.task.last_forward.fp8, nullptr);
  const std::vector<at::Tensor>& weights = run.task.weights_by_step;
  for (size_t step = 0; step + 1 < weights.size(); ++step)
    EXPECT_EQ(at::equal(weights[step], weights[step + 1]), step == 7) << step;
  EXPECT_EQ(logged(folder.path(), "skipped_steps").back(), 1);
}

TEST(Fp8Training, AnInfiniteWeightIsNotHidden) {
  EXPECT_THROW(train_language({.config =
                                   [](TrainerConfig& config) {
                                     take_fp8(config);
                                     config.training.max_steps = 3;
                                   },
                               .model =
                                   [](LanguageModel& model) {
                                     const torch::NoGradGuard no_grad;
                                     auto weights = model->named_parameters();
                                     weights["blocks.1.mlp.down.weight"][0][0] = INFINITY;
                                   }}),
               Error);
}

std::vector<double> losses_in_parts(int64_t first_steps) {
  const TemporaryFolder folder;
  const auto run_to = [&](int64_t steps, bool resumes) {
    TrainerConfig config = small_config(folder.path());
    take_fp8(config);
    config.training.max_steps = steps;
    config.schedule = {.warmup_steps = 0, .final_share = 1};  // wherever the run is to end
    LanguageModel model(
        LanguageModelConfig{.vocab_size = 16, .dim = 32, .layers = 2, .heads = 2, .max_positions = 8});
    init_parameters(*model, 5);
    LanguageTask task({.model = model, .num_tokens = 3});
    Loader loader(LoaderSetup{.source = std::make_shared<SentenceSource>(),
                              .sampler = {.batch_size = config.training.batch_size, .seed = config.seed},
                              .loader = {.workers = 0}});
    const auto collective = make_solo_collective();
    const auto runtime = make_device_runtime(at::kCPU);
    Trainer trainer(with_recipe(config), {task, loader, *collective, *runtime});
    EXPECT_EQ(trainer.resume(), resumes);
    trainer.run();
  };
  if (first_steps > 0) run_to(first_steps, false);
  run_to(20, first_steps > 0);
  return logged(folder.path(), "loss");
}

TEST(Fp8Training, ResumesBitForBit) {
  const std::vector<double> losses = losses_in_parts(9);
  ASSERT_THAT(losses, SizeIs(20));
  EXPECT_EQ(losses, losses_in_parts(0));
}

class CudaFp8Training : public cuda_test::CudaFp8 {
 protected:
  LanguageOutcome train(Precision precision, bool record_step) const {
    return train_language({.config =
                               [&](TrainerConfig& config) {
                                 take_fp8(config);
                                 config.precision = precision;
                                 config.training.record_step = record_step;
                               },
                           .device = device_});
  }
};

TEST_F(CudaFp8Training, FollowsFloat32) {
  const LanguageOutcome found = train(Precision::kFp8, false);
  expect_near_float32(found, train(Precision::kFp32, false));
  EXPECT_NE(found.losses, train(Precision::kBf16, false).losses);
  EXPECT_THAT(found.saturated_casts, Each(0));
}

/// Replays make weights in FP8 anew.
TEST_F(CudaFp8Training, ARecordedStepIsALaunchedOne) {
  const LanguageOutcome launched = train(Precision::kFp8, false), recorded = train(Precision::kFp8, true);
  ASSERT_THAT(recorded.losses, SizeIs(20));
  for (size_t i = 0; i < 20; ++i)
    EXPECT_NEAR(recorded.losses[i], launched.losses[i], 0.01 * launched.losses[i]) << i;
  EXPECT_LT(recorded.losses.back(), recorded.losses.front());
}

}  // namespace
}  // namespace fathom::fp8_training_test
