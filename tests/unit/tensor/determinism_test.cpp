#include "tensor/determinism.h"

#include <ATen/Context.h>
#include <gtest/gtest.h>

namespace fathom::determinism_test {
namespace {

TEST(Determinism, LastsAsLongAsItsObject) {
  at::Context& context = at::globalContext();
  const bool before = context.deterministicAlgorithms(), cudnn_before = context.deterministicCuDNN();
  {
    const Determinism off(false);
    EXPECT_EQ(context.deterministicAlgorithms(), before);
  }
  {
    const Determinism on(true);
    EXPECT_TRUE(context.deterministicAlgorithms());
    EXPECT_FALSE(context.deterministicAlgorithmsWarnOnly()) << "else attention stays as it is";
    EXPECT_TRUE(context.deterministicCuDNN());
    EXPECT_FALSE(context.deterministicFillUninitializedMemory());
  }
  EXPECT_EQ(context.deterministicAlgorithms(), before);
  EXPECT_EQ(context.deterministicCuDNN(), cudnn_before);
  EXPECT_TRUE(context.deterministicFillUninitializedMemory());
}

}  // namespace
}  // namespace fathom::determinism_test
