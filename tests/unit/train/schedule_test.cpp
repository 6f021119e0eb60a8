#include "train/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

namespace fathom::schedule_test {
namespace {

TEST(Schedule, RisesToTheFullRateThenFollowsTheCosine) {
  const ScheduleConfig config{.warmup_steps = 10, .final_share = 0.1};
  EXPECT_DOUBLE_EQ(learning_rate_scale(config, 0, 110), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate_scale(config, 9, 110), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate_scale(config, 10, 110), 1.0);
  EXPECT_NEAR(learning_rate_scale(config, 60, 110), 0.55, 1e-12);
  EXPECT_NEAR(learning_rate_scale(config, 110, 110), 0.1, 1e-12);
}

TEST(Schedule, LinearAndConstant) {
  const ScheduleConfig linear{.shape = ScheduleShape::kLinear, .warmup_steps = 0};
  EXPECT_DOUBLE_EQ(learning_rate_scale(linear, 25, 100), 0.75);
  const ScheduleConfig constant{.shape = ScheduleShape::kConstant, .warmup_steps = 4};
  EXPECT_DOUBLE_EQ(learning_rate_scale(constant, 1, 100), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate_scale(constant, 99, 100), 1.0);
}

TEST(Schedule, StaysStableUntilTheLastShare) {
  const ScheduleConfig config{
      .shape = ScheduleShape::kWarmupStableDecay, .warmup_steps = 5, .decay_share = 0.2};
  EXPECT_DOUBLE_EQ(learning_rate_scale(config, 79, 100), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate_scale(config, 90, 100), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate_scale(config, 100, 100), 0.0);
}

TEST(Schedule, ChoosesAWarmupByTheLengthOfTheRun) {
  EXPECT_EQ(warmup_length({}, 200), 20);
  EXPECT_EQ(warmup_length({}, 1'000'000), 1000);
  EXPECT_EQ(warmup_length({.warmup_steps = 0}, 200), 0);
}

}  // namespace
}  // namespace fathom::schedule_test
