// Training with products in FP16: near float32, on a CPU by the reference and on a GPU, where there is one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "language_run.h"
#include "tensor/device.h"

namespace fathom::half_training_test {
namespace {

using namespace testing;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::SizeIs;

/// Twenty losses, each within 5 % of that in float32: states are BF16, of eight bits.
void expect_near_float32(const LanguageOutcome& found, const LanguageOutcome& exact) {
  ASSERT_THAT(found.losses, SizeIs(20));
  for (size_t i = 0; i < 20; ++i) EXPECT_NEAR(found.losses[i], exact.losses[i], 0.05 * exact.losses[i]) << i;
}

void take_half_products(TrainerConfig& config) {
  config.precision = Precision::kFp16Bf16;
  config.loss_scale.initial = 1024;  // far from any overflow of a model that has not begun
}

TEST(HalfTraining, OnACpuFollowsFloat32) {
  const LanguageOutcome exact = train_language([](TrainerConfig&) {});
  const LanguageOutcome half = train_language(take_half_products);
  const LanguageOutcome bfloat =
      train_language([](TrainerConfig& config) { config.precision = Precision::kBf16; });
  expect_near_float32(half, exact);
  EXPECT_NE(half.losses, bfloat.losses);
  EXPECT_EQ(half.weights.scalar_type(), at::kFloat);
  EXPECT_THAT(half.loss_scale, Each(1024)) << "nothing overflows";
  EXPECT_THAT(half.saturated_casts, Each(0));
  EXPECT_TRUE(bfloat.saturated_casts.empty());
}

TEST(HalfTraining, CountsCastsThatSaturate) {
  const LanguageOutcome found = train_language({.config =
                                                    [](TrainerConfig& config) {
                                                      take_half_products(config);
                                                      config.training.max_steps = 3;
                                                    },
                                                .model =
                                                    [](LanguageModel& model) {
                                                      const torch::NoGradGuard no_grad;
                                                      auto weights = model->named_parameters();
                                                      weights["blocks.1.mlp.down.weight"][0][0] = 1e6;
                                                    }});
  EXPECT_THAT(found.saturated_casts, ElementsAre(2, 1, 1))
      << "where the weight's copy is made, and where an update writes it: anew each step";
}

TEST(HalfTraining, LargeGradientsLowerTheScale) {
  const LanguageOutcome found = train_language([](TrainerConfig& config) {
    take_half_products(config);
    config.loss_scale.initial = 0x1p36;
  });
  ASSERT_THAT(found.loss_scale, SizeIs(20));
  EXPECT_LT(found.loss_scale.back(), found.loss_scale.front()) << "a gradient beyond FP16 is an overflow";
}

class CudaHalfTraining : public ::testing::Test {
 protected:
  void SetUp() override {
    const CudaAvailability cuda = cuda_availability();
    if (cuda.num_devices == 0) GTEST_SKIP() << cuda.reason;
    device_ = select_device("cuda:0");
  }
  LanguageOutcome train(Precision precision, bool record_step) const {
    return train_language({.config =
                               [&](TrainerConfig& config) {
                                 config.precision = precision;
                                 config.training.record_step = record_step;
                                 config.loss_scale = {.initial = 1024, .growth_interval = 5};
                               },
                           .device = device_});
  }
  at::Device device_ = at::kCPU;
};

TEST_F(CudaHalfTraining, FollowsFloat32) {
  const LanguageOutcome exact = train(Precision::kFp32, false), half = train(Precision::kFp16Bf16, false);
  expect_near_float32(half, exact);
  EXPECT_NE(half.losses, train(Precision::kBf16, false).losses);
  EXPECT_THAT(half.saturated_casts, Each(0));
}

/// The scale grows inside the recording, and what is logged is each step's own.
TEST_F(CudaHalfTraining, ARecordedStepMovesTheScaleAsALaunchedOneDoes) {
  const LanguageOutcome launched = train(Precision::kFp16Bf16, false),
                        recorded = train(Precision::kFp16Bf16, true);
  EXPECT_EQ(launched.loss_scale, recorded.loss_scale);
  EXPECT_EQ(recorded.loss_scale.front(), 1024);
  EXPECT_EQ(recorded.loss_scale[19], 1024 * 8);
  for (size_t i = 0; i < 20; ++i)
    EXPECT_NEAR(recorded.losses[i], launched.losses[i], 0.01 * launched.losses[i]) << i;
}

}  // namespace
}  // namespace fathom::half_training_test
