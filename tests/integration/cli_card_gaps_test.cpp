// What `doctor` says of GPUs, which may be other ones than this machine's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/card_gaps.h"

namespace fathom::cli_card_gaps_test {
namespace {

using cli::Card;
using cli::fp8_gap;
using cli::missing_on;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(CardGaps, ACardThatRunsAllLacksNothing) {
  EXPECT_THAT(missing_on({.name = "cuda:0"}), ElementsAre());
  EXPECT_EQ(fp8_gap({.name = "cuda:0"}), "");
}

TEST(CardGaps, WindowsThatFitButInTrainingAreToldFromThoseThatDoNotFit) {
  EXPECT_THAT(
      missing_on({.name = "cuda:1", .learning_windows = false}),
      ElementsAre(AllOf(HasSubstr("cuda:1"), HasSubstr("the kernel's backward pass; training a Swin"))));
  EXPECT_THAT(missing_on({.name = "cuda:1", .windows = false, .learning_windows = false}),
              ElementsAre(AllOf(HasSubstr("cuda:1"), HasSubstr("the kernel; training and using a Swin"),
                                Not(HasSubstr("backward")))));
}

TEST(CardGaps, WithoutKernelsThereIsNeitherFp8NorAWordOfWindows) {
  const Card card = {.name = "cuda:0", .missing_kernels = "built for 90a", .windows = false};
  EXPECT_THAT(missing_on(card), ElementsAre(HasSubstr("built for 90a; LibTorch's run"),
                                            AllOf(HasSubstr("FP8 on cuda:0"), HasSubstr("BF16"))));
  EXPECT_THAT(fp8_gap(card), HasSubstr("do not run there"));
  EXPECT_THAT(fp8_gap({.name = "cuda:0", .fp8_products = false}), HasSubstr("Hopper"));
}

}  // namespace
}  // namespace fathom::cli_card_gaps_test
