// The same bodies over NCCL, one GPU a rank. Skipped where there are fewer than two.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "dist/bodies.h"
#include "dist/ranks.h"
#include "tensor/device.h"

namespace fathom::test {
namespace {

class Nccl : public testing::Test {
 protected:
  void SetUp() override {
    const CudaAvailability cuda = cuda_availability();
    if (cuda.num_devices < 2)
      GTEST_SKIP() << "needs two GPUs: " << cuda.num_devices << " here. " << cuda.reason;
  }

  static std::vector<RankOutcome> run(const std::string& body) {
    return run_ranks(2, body, {.device = "cuda", .limit_seconds = 120});
  }
};

TEST_F(Nccl, Operations) {
  expect_success(run("check_operations"));
}
TEST_F(Nccl, GatherSumsGradientsAtTheirOwner) {
  expect_success(run("check_gather_gradient"));
}
TEST_F(Nccl, GlobalContrastiveLossEqualsOneProcess) {
  expect_success(run("check_contrastive_gradient"));
}
TEST_F(Nccl, ReducedGradientsEqualOneProcess) {
  expect_success(run("check_reduced_gradients"));
}
TEST_F(Nccl, ReductionRepeatsItself) {
  expect_success(run("check_repeatability"));
}
TEST_F(Nccl, OverlapsBackward) {
  expect_success(run("check_overlap"));
}

TEST_F(Nccl, NamesARankThatIsKilled) {
  const auto outcomes = run("kill_last_rank");
  EXPECT_EQ(outcomes[0].status, 3);
  EXPECT_THAT(outcomes[0].errors, testing::HasSubstr("rank 1 was lost"));
  EXPECT_LT(outcomes[0].seconds - outcomes[1].first_word_seconds, 10);
}

TEST_F(Nccl, NamesARankThatThrows) {
  const auto outcomes = run("throw_on_last_rank");
  EXPECT_EQ(outcomes[0].status, 3);
  EXPECT_THAT(outcomes[0].errors, testing::HasSubstr("rank 1 failed: picture 17 is broken"));
  EXPECT_EQ(outcomes[1].status, 1);
}

}  // namespace
}  // namespace fathom::test
