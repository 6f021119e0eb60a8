#include "evaluate/classification.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"
#include "evaluate/flat_index.h"

namespace fathom::classification_test {
namespace {

using ::testing::ElementsAre;

LabelledFeatures clusters(int64_t count, double distance, int64_t seed) {
  at::manual_seed(seed);
  const auto label = at::arange(count, at::kLong).remainder(3);
  const auto centre = at::tensor({1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0}).reshape({3, 3});
  const auto feature = centre.index_select(0, label) * distance + at::randn({count, 3}, at::kDouble);
  // Features of very different sizes: standardising must make up for it.
  return {feature * at::tensor({1000.0, 1.0, 0.001}), label};
}

TEST(LinearProbe, SeparatesWhatIsSeparable) {
  const auto report = linear_probe(clusters(300, 40, 1), clusters(150, 40, 2), 3);
  EXPECT_EQ(report.accuracy, 100);
  EXPECT_EQ(report.count, 150);
  EXPECT_NEAR(report.chance, 100.0 / 3, 1e-9);
}

TEST(LinearProbe, ReachesChanceOnNoise) {
  const auto report = linear_probe(clusters(600, 0, 3), clusters(600, 0, 4), 3);
  EXPECT_NEAR(report.accuracy, 100.0 / 3, 7);
}

TEST(LinearProbe, LiesBetweenOnOverlap) {
  // Two unit Gaussians 2 apart in one dimension: the best classifier is right in Φ(1) = 84.1 %.
  at::manual_seed(5);
  const auto draw = [](int64_t count) {
    const auto label = at::arange(count, at::kLong).remainder(2);
    return LabelledFeatures{(label.to(at::kDouble) * 2 + at::randn({count}, at::kDouble)).unsqueeze(1),
                            label};
  };
  EXPECT_NEAR(linear_probe(draw(4000), draw(8000), 2).accuracy, 84.1, 1.2);
}

TEST(LinearProbe, RefusesTooLittle) {
  EXPECT_THROW(linear_probe(clusters(5, 1, 1), clusters(5, 1, 1), 3), Error);
  EXPECT_THROW(linear_probe(clusters(50, 1, 1), clusters(5, 1, 1), 1), Error);
}

TEST(Classes, TiesAndNanCountAgainstUs) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto score = at::tensor({2.0f, 1.0f, 1.0f, 1.0f, nan, nan, 0.0f, nan}).reshape({4, 2});
  const auto report = score_classes(score, at::tensor({0, 0, 0, 0}, at::kLong));
  EXPECT_EQ(report.accuracy, 25);
  EXPECT_EQ(report.chance, 100);
}

TEST(Classes, PromptsAreMeanUnitVectors) {
  EXPECT_THAT(fill_templates({"red_cube", "ball"}, {"{}", "a {}"}),
              ElementsAre("red cube", "a red cube", "ball", "a ball"));
  const auto prompt = at::tensor({1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0}).reshape({4, 2});
  const auto expected = at::tensor({0.70710678, 0.70710678, 0.0, 1.0}).reshape({2, 2}).to(at::kFloat);
  EXPECT_TRUE(at::allclose(class_embeddings(prompt, 2), expected));
}

TEST(FlatIndex, FindsWhatSortingFindsForAnyBlock) {
  at::manual_seed(6);
  const auto candidate = at::randn({57, 8}), query = at::randn({5, 8});
  const auto order = at::matmul(query, candidate.t()).argsort(1, /*descending=*/true);
  for (const int64_t block : {1, 7, 57, 1000}) {
    const auto hits = FlatIndex(candidate).search(query, 10, block);
    ASSERT_EQ(hits.size(), 5u);
    for (int64_t q = 0; q < 5; ++q)
      for (int64_t k = 0; k < 10; ++k) EXPECT_EQ(hits[q][k].index, order[q][k].item<int64_t>());
  }
  EXPECT_EQ(FlatIndex(candidate).search(query, 100).front().size(), 57u);
}

TEST(FlatIndex, WhatIsNoNumberComesLast) {
  auto candidate = at::randn({64, 4});
  for (int64_t i = 0; i < 64; i += 2) candidate[i][0] = std::numeric_limits<float>::quiet_NaN();
  for (const int64_t block : {7, 64}) {
    const auto hits = FlatIndex(candidate).search(at::randn({1, 4}), 64, block).front();
    ASSERT_EQ(hits.size(), 64u);
    for (size_t k = 0; k < 32; ++k) EXPECT_EQ(hits[k].index % 2, 1) << k;
    for (size_t k = 32; k < 64; ++k) EXPECT_EQ(hits[k].index, static_cast<int64_t>(2 * (k - 32)));
    EXPECT_EQ(FlatIndex(candidate).search(at::randn({1, 4}), 5, block).front()[0].index % 2, 1);
  }
}

}  // namespace
}  // namespace fathom::classification_test
