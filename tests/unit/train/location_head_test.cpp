// Regions that tell where they lie to each other, against the definition.
#include "train/task/location_head.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>

#include "base/error.h"
#include "contrastive_fixture.h"

namespace fathom::testing::location_head_test {
namespace {

constexpr int64_t kSide = 4, kRegions = kSide * kSide, kPairs = 5;

ContrastiveTask make_task(double weight) {
  const ContrastiveConfig config{.localization = weight, .localization_pairs = kPairs};
  return ContrastiveTask({.model = make_model(config), .config = config, .views_per_image = 2, .seed = 6});
}

Batch two_views() {
  Batch batch = make_batch();
  torch::manual_seed(6);
  batch.image_BCHW = torch::randn({24, 3, 16, 16}, at::kDouble);
  return batch;
}

/// With keys, but without dropout.
MicroBatch whole_batch() {
  const Batch batch = two_views();
  return {batch, {.key_B = make_sample_keys(batch.index_B, 5, 6)}};
}

/// One pair after another, with a gradient for what has one.
at::Tensor loss_by_hand(const at::Tensor& region_VPD, const at::Tensor& place_VK2,
                        const std::map<std::string, at::Tensor>& weights) {
  const auto layer = [&](const char* name, const at::Tensor& x) {
    const std::string prefix = std::string("location_head.") + name;
    return at::mv(weights.at(prefix + ".weight"), x) + weights.at(prefix + ".bias");
  };
  at::Tensor sum = at::zeros({}, at::kDouble);
  for (int64_t v = 0; v < place_VK2.size(0); ++v)
    for (int64_t k = 0; k < place_VK2.size(1); ++k) {
      const auto a = place_VK2[v][k][0].item<int64_t>(), b = place_VK2[v][k][1].item<int64_t>();
      const at::Tensor both = at::cat({region_VPD[v][a], region_VPD[v][b]});
      const at::Tensor told = layer("out", layer("second", layer("first", both).clamp_min(0)).clamp_min(0));
      const double rows = static_cast<double>(b / kSide - a / kSide) / kSide,
                   columns = static_cast<double>(b % kSide - a % kSide) / kSide;
      sum = sum + (told[0] - rows).abs() + (told[1] - columns).abs();
    }
  return sum / static_cast<double>(2 * place_VK2.size(0) * place_VK2.size(1));
}

TEST(RegionPairs, AreDrawnByKeyEvenlyAndAnewEachStep) {
  const at::Tensor index = at::arange(400);
  const at::Tensor place_NK2 = draw_region_pairs(make_sample_keys(index, 5, 6), kPairs, kRegions);
  ASSERT_EQ(place_NK2.sizes(), at::IntArrayRef({400, kPairs, 2}));
  const at::Tensor often_P = place_NK2.flatten().bincount({}, kRegions);
  EXPECT_EQ(often_P.size(0), kRegions);
  EXPECT_GT(often_P.min().item<int64_t>(), 180);  // 250 on average
  EXPECT_LT(often_P.max().item<int64_t>(), 320);
  EXPECT_TRUE(at::equal(draw_region_pairs(make_sample_keys(index.slice(0, 100, 120), 5, 6), kPairs, kRegions),
                        place_NK2.slice(0, 100, 120)))
      << "whatever the split";
  EXPECT_FALSE(at::equal(draw_region_pairs(make_sample_keys(index, 5, 7), kPairs, kRegions), place_NK2));
}

TEST(Localization, AddsItsWeightTimesTheDefinition) {
  ContrastiveTask with = make_task(0.6), without = make_task(0);
  const double added = step(with, {whole_batch()}) - step(without, {whole_batch()});
  const auto parameters = named(with);
  std::map<std::string, at::Tensor> weights;
  for (const auto& [name, parameter] : parameters)
    weights[name] = parameter.detach().clone().requires_grad_();
  const at::Tensor region_VPD =
      make_model({})->vision()->features(whole_batch().batch.image_BCHW, {}).detach();
  const at::Tensor place_VK2 =
      draw_region_pairs(keys_of_rows(whole_batch().forward.key_B, 2), kPairs, kRegions);
  const at::Tensor expected = loss_by_hand(region_VPD, place_VK2, weights);
  EXPECT_GT(expected.item<double>(), 0.1);
  EXPECT_NEAR(added, 0.6 * expected.item<double>(), 1e-9);
  (0.6 * expected).backward();
  for (const char* layer : {"first", "second", "out"})
    for (const char* part : {".weight", ".bias"}) {
      const std::string name = std::string("location_head.") + layer + part;
      EXPECT_TRUE(at::allclose(parameters.at(name).grad(), weights.at(name).grad(), 1e-9, 1e-12)) << name;
    }
}

TEST(Localization, ReachesEveryRegionThatWasDrawn) {
  LocationHead head(6);
  init_parameters(*head, 1);
  head->to(at::kDouble);
  torch::manual_seed(2);
  const at::Tensor region_NPD = torch::randn({3, kRegions, 6}, at::kDouble).requires_grad_();
  const at::Tensor key_N = make_sample_keys(at::arange(3), 5, 6);
  head->loss(region_NPD, key_N, kPairs).sum().backward();
  const at::Tensor place_NK2 = draw_region_pairs(key_N, kPairs, kRegions);
  const at::Tensor drawn_NP = at::zeros({3, kRegions}, at::kBool).scatter(1, place_NK2.flatten(1), true);
  EXPECT_TRUE(at::equal(region_NPD.grad().abs().sum(2).gt(0), drawn_NP));
}

TEST(Localization, TeachesTheVisionTowerAndNotTheText) {
  ContrastiveTask with = make_task(0.6), without = make_task(0);
  step(with, {whole_batch()});
  step(without, {whole_batch()});
  expect_vision_alone_is_taught(with, without, "location_head.");
}

TEST(Localization, AccumulationEqualsTheWholeBatch) {
  const auto run = [](int64_t size) {
    ContrastiveTask task = make_task(0.6);
    StepResult result{.loss = step(task, split(two_views(), size))};
    for (const auto& [name, parameter] : task.parameters())
      if (parameter.grad().defined()) result.gradients[name] = parameter.grad();
    return result;
  };
  const StepResult whole = run(12);
  for (const int64_t size : {3, 5}) {
    const StepResult parts = run(size);
    EXPECT_NEAR(parts.loss, whole.loss, 1e-10);
    ASSERT_EQ(parts.gradients.size(), whole.gradients.size());
    for (const auto& [name, gradient] : whole.gradients)
      EXPECT_TRUE(at::allclose(gradient, parts.gradients.at(name), 1e-6, 1e-9)) << name;
  }
}

TEST(Localization, NeedsASquareMapAndKeys) {
  LocationHead head(6);
  init_parameters(*head, 1);
  const at::Tensor key_N = at::arange(2);
  EXPECT_THROW(head->loss(torch::randn({2, 6, 6}), key_N, kPairs), Error);
  EXPECT_THROW(head->loss(torch::randn({2, 4, 6}), {}, kPairs), Error);
}

/// Regions that hold their row and column among noise.
TEST(Localization, TheHeadLearnsWhereRegionsLie) {
  LocationHead head(6);
  init_parameters(*head, 1);
  torch::manual_seed(2);
  at::Tensor region_NPD = torch::randn({16, kRegions, 6});
  const at::Tensor place_P = at::arange(kRegions);
  region_NPD.select(2, 0).copy_(place_P.div(kSide, "floor").sub(1.5));
  region_NPD.select(2, 1).copy_(place_P.remainder(kSide).sub(1.5));
  torch::optim::Adam optimizer(head->parameters(), torch::optim::AdamOptions(1e-3));
  double first = 0, last = 0;
  for (int64_t i = 0; i < 200; ++i) {
    optimizer.zero_grad();
    const at::Tensor loss = head->loss(region_NPD, make_sample_keys(at::arange(16), 5, i), 16).mean();
    loss.backward();
    optimizer.step();
    last = loss.item<double>();
    if (i == 0) first = last;
  }
  EXPECT_GT(first, 0.2);
  EXPECT_LT(last, 0.12);
}

}  // namespace
}  // namespace fathom::testing::location_head_test
