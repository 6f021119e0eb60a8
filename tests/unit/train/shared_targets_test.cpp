// Targets in shares: of mixed pictures, and by how alike texts are.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "gradcheck.h"
#include "pair_rows.h"

namespace fathom::testing::shared_targets_test {
namespace {

using SharedTargets = PairRows;

/// Both leaves' gradients of `got` are those of `expected`.
void expect_same_gradients(const at::Tensor& got, const at::Tensor& expected,
                           const std::vector<at::Tensor>& leaves) {
  EXPECT_NEAR(got.item<double>(), expected.item<double>(), 1e-9);
  const auto found = torch::autograd::grad({got}, leaves), right = torch::autograd::grad({expected}, leaves);
  for (size_t i = 0; i < leaves.size(); ++i) EXPECT_TRUE(at::allclose(found[i], right[i], 1e-7, 1e-9)) << i;
}

TEST_F(SharedTargets, WithoutSharesAreInfoNce) {
  expect_same_gradients(loss(), by_hand(), {image_, text_});
}

TEST_F(SharedTargets, OfMixedPicturesFallOnBothSamples) {
  const double plain = loss().item<double>();
  share_ = {0.7, 0.55, 1, 0.9, 1};
  expect_same_gradients(loss(), by_hand(), {image_, text_});
  EXPECT_GT(std::abs(loss().item<double>() - plain), 0.01);
  expect_leaf_gradients([&] { return loss(); }, {image_, text_});
}

TEST_F(SharedTargets, OfPicturesThatAreMixedWithNothingAreInfoNce) {
  const double plain = loss({.label_smoothing = 0.1}).item<double>();
  share_ = {1, 1, 1, 1, 1};
  EXPECT_NEAR(loss({.label_smoothing = 0.1}).item<double>(), plain, 1e-12);
}

TEST_F(SharedTargets, BySimilarTextsAreADistributionOverAll) {
  const double plain = loss().item<double>();
  const ContrastiveConfig config{.soft_targets = 0.3, .soft_temperature = 0.4};
  expect_same_gradients(loss(config), by_hand(0.3, 0.4), {image_, text_});
  EXPECT_GT(std::abs(loss(config).item<double>() - plain), 0.01);
  expect_leaf_gradients([&] { return loss(config); }, {image_});  // of texts the guide has no gradient
}

TEST_F(SharedTargets, OfMixedPicturesBySimilarTexts) {
  share_ = {0.7, 0.55, 1, 0.9, 1};
  const ContrastiveConfig config{.soft_targets = 0.3, .soft_temperature = 0.4};
  expect_same_gradients(loss(config), by_hand(0.3, 0.4), {image_, text_});
}

/// Texts that are all alike foretell nothing: targets are then spread evenly.
TEST_F(SharedTargets, BySimilarTextsFollowTheTemperature) {
  const auto guide = [&](double temperature) {
    const at::Tensor owner_S = at::tensor(owner_, at::kLong);
    return similar_texts(text_, owner_S, {}, temperature).picture_SS;
  };
  EXPECT_TRUE(at::allclose(guide(1e-3), at::eye(kSamples, at::kDouble)));
  EXPECT_TRUE(at::allclose(guide(1e6), at::full({kSamples, kSamples}, 1.0 / kSamples, at::kDouble), 1e-4));
  EXPECT_FALSE(guide(1).requires_grad());
}

TEST_F(SharedTargets, AreThoseOfTheWholeBatchWhenPartsAreJoined) {
  share_ = {0.7, 0.55, 1, 0.9, 1};
  const ContrastiveConfig config{.soft_targets = 0.3};
  EXPECT_NEAR(loss(config, ContrastiveRows::join({rows(0, 2), rows(2, 3)})).item<double>(),
              loss(config).item<double>(), 1e-12);
}

TEST_F(SharedTargets, HoldNoViewsOfPicturesAgainstEachOtherThatAreMixedWithEachOther) {
  share_ = {0.7, 0.55, 1, 0.9, 1};
  ContrastiveRows rows = this->rows();
  const double without = loss({}, rows).item<double>();
  const at::Tensor view_VD = unit_length(torch::randn({2 * kSamples, 6}, at::kDouble));
  rows.view_VD = view_VD;
  const double with = loss({.view_weight = 0.5, .self_temperature = 0.4}, rows).item<double>();
  double expected = 0;
  for (int64_t i = 0; i < 2 * kSamples; ++i) {
    const auto likeness = [&](int64_t j) {
      return std::exp(view_VD[i].dot(view_VD[j]).item<double>() / 0.4);
    };
    double negatives = 0;
    for (int64_t j = 0; j < 2 * kSamples; ++j)
      if (j / 2 != i / 2 && other(j / 2) != i / 2 && other(i / 2) != j / 2) negatives += likeness(j);
    expected -= std::log(likeness(i ^ 1) / (likeness(i ^ 1) + negatives));
  }
  EXPECT_NEAR(with - without, 0.5 * expected / (2 * kSamples), 1e-9);
}

}  // namespace
}  // namespace fathom::testing::shared_targets_test
