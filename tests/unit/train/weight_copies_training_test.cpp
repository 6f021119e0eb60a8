// Training with copies of weights in 16 bits, which is training without them: the same numbers to the last
// bit, whatever changes the weights between steps.
#include "kernels/weight_copies.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "language_run.h"
#include "tensor/device.h"

namespace fathom::weight_copies_training_test {
namespace {

using namespace testing;
using ::testing::SizeIs;

void take_bfloat16(TrainerConfig& config) {
  config.precision = Precision::kBf16;
  config.optimizer.learning_rate = 0.02;
  config.schedule.warmup_steps = 2;
}

void take_half_products(TrainerConfig& config) {
  take_bfloat16(config);
  config.precision = Precision::kFp16Bf16;
  config.loss_scale.initial = 1024;
}

/// Averaged weights are swapped in and out, gradients accumulated, blocks computed again.
void change_weights(TrainerConfig& config) {
  config.training.micro_batch_size = 3;
  config.training.average_decay = 0.9;
  config.training.checkpoint_blocks = true;
  config.evaluation = {.every = 3, .at_end = true};
  config.checkpoint = {.every = 7, .model_every = 4};
}

void do_all(TrainerConfig& config) {
  take_bfloat16(config);
  change_weights(config);
}

void do_all_in_half(TrainerConfig& config) {
  take_half_products(config);
  change_weights(config);
}

void expect_same(const LanguageOutcome& with, const LanguageOutcome& without) {
  ASSERT_THAT(with.losses, SizeIs(20));
  EXPECT_EQ(with.losses, without.losses);
  EXPECT_TRUE(at::equal(with.weights, without.weights));
  EXPECT_LT(with.losses.back(), with.losses.front());
}

LanguageOutcome train_with(bool copies, void (*change)(TrainerConfig&), at::Device device = at::kCPU) {
  return train_language({.config =
                             [&](TrainerConfig& config) {
                               change(config);
                               config.training.weight_copies = copies;
                             },
                         .device = device});
}

TEST(WeightCopiesInTraining, ChangeNoBit) {
  expect_same(train_with(true, take_bfloat16), train_with(false, take_bfloat16));
}

TEST(WeightCopiesInTraining, ChangeNoBitWhenWeightsChangeBetweenSteps) {
  expect_same(train_with(true, do_all), train_with(false, do_all));
}

TEST(WeightCopiesInTraining, ChangeNoBitUnderProductsInFp16) {
  expect_same(train_with(true, take_half_products), train_with(false, take_half_products));
  expect_same(train_with(true, do_all_in_half), train_with(false, do_all_in_half));
}

TEST(WeightCopiesInTraining, AreHandedToTheModelWhereItMultipliesIn16Bits) {
  const auto copies_of = [](Precision precision, bool copies) {
    const TemporaryFolder folder;
    TrainerConfig config = small_config(folder.path());
    config.precision = precision;
    config.training.weight_copies = copies;
    config.training.max_steps = 1;
    SmallRun run(config);
    run.trainer.run();
    return run.task.last_forward.copies != nullptr;
  };
  EXPECT_TRUE(copies_of(Precision::kBf16, true));
  EXPECT_FALSE(copies_of(Precision::kBf16, false));
  EXPECT_FALSE(copies_of(Precision::kFp32, true));
  EXPECT_TRUE(copies_of(Precision::kFp16Bf16, true));
}

/// A language model and its trainer, which may go on from what another left in the folder.
struct LanguageRun {
  explicit LanguageRun(const TrainerConfig& config)
      : task({.model = model, .num_tokens = 3}),
        loader(LoaderSetup{.source = std::make_shared<SentenceSource>(),
                           .sampler = {.batch_size = config.training.batch_size, .seed = config.seed},
                           .loader = {.workers = 0}}),
        trainer(with_recipe(config), {task, loader, *collective, *runtime}) {}

  static LanguageModel made() {
    LanguageModel model(
        LanguageModelConfig{.vocab_size = 16, .dim = 32, .layers = 2, .heads = 2, .max_positions = 8});
    init_parameters(*model, 5);
    return model;
  }

  LanguageModel model = made();
  LanguageTask task;
  Loader loader;
  std::unique_ptr<Collective> collective = make_solo_collective();
  std::unique_ptr<DeviceRuntime> runtime = make_device_runtime(at::kCPU);
  Trainer trainer;
};

std::vector<double> losses_in_two_parts(bool copies, void (*change)(TrainerConfig&)) {
  const TemporaryFolder folder;
  TrainerConfig config = small_config(folder.path());
  change(config);
  config.training.weight_copies = copies;
  config.training.max_steps = 9;
  LanguageRun(config).trainer.run();
  config.training.max_steps = 20;
  LanguageRun second(config);
  EXPECT_TRUE(second.trainer.resume());
  second.trainer.run();
  return logged(folder.path(), "loss");
}

TEST(WeightCopiesInTraining, ChangeNoBitOfARunThatIsResumed) {
  for (const auto change : {take_bfloat16, take_half_products}) {
    const std::vector<double> losses = losses_in_two_parts(true, change);
    ASSERT_THAT(losses, SizeIs(20));
    EXPECT_EQ(losses, losses_in_two_parts(false, change));
  }
}

class CudaWeightCopiesInTraining : public ::testing::Test {
 protected:
  void SetUp() override {
    const CudaAvailability cuda = cuda_availability();
    if (cuda.num_devices == 0) GTEST_SKIP() << cuda.reason;
    device_ = select_device("cuda:0");
  }
  at::Device device_ = at::kCPU;
};

template <void (*kChange)(TrainerConfig&), bool kRecords>
void without_checkpoints(TrainerConfig& config) {
  kChange(config);
  config.training.checkpoint_blocks = false;
  config.training.record_step = kRecords;
}

/// Replays raise no version, and evaluations between them swap weights.
template <void (*kChange)(TrainerConfig&)>
void expect_kept_up_to_date(at::Device device) {
  const LanguageOutcome recorded = train_with(true, without_checkpoints<kChange, true>, device),
                        without = train_with(false, without_checkpoints<kChange, true>, device),
                        launched = train_with(true, without_checkpoints<kChange, false>, device);
  ASSERT_THAT(recorded.losses, SizeIs(20));
  for (size_t i = 0; i < 20; ++i) {
    EXPECT_NEAR(recorded.losses[i], without.losses[i], 0.01 * without.losses[i]) << i;
    EXPECT_NEAR(recorded.losses[i], launched.losses[i], 0.01 * launched.losses[i]) << i;
  }
}

TEST_F(CudaWeightCopiesInTraining, ARecordedStepKeepsThemUpToDate) {
  expect_kept_up_to_date<do_all>(device_);
}

TEST_F(CudaWeightCopiesInTraining, ARecordedStepKeepsThoseInFp16UpToDate) {
  expect_kept_up_to_date<do_all_in_half>(device_);
}

}  // namespace
}  // namespace fathom::weight_copies_training_test
