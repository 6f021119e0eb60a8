#include "train/optimizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "base/error.h"
#include "models/dual_tower/model.h"
#include "train/parameter_depth.h"
#include "train/task/module_parameters.h"
#include "train/weight_average.h"

namespace fathom::optimizer_test {
namespace {

using ::testing::HasSubstr;

at::Tensor parameter(at::IntArrayRef shape, at::ScalarType type = at::kDouble) {
  return torch::randn(shape, type).requires_grad_();
}

NamedParameters model_parameters() {
  return {{"vision.block.weight", parameter({3, 4})},
          {"vision.block.bias", parameter({3})},
          {"vision.norm.weight", parameter({4})},
          {"vision.relative_position_bias", parameter({9, 2})},
          {"text.head.weight", parameter({5, 4})}};
}

/// Five steps on one matrix, by the formula of the paper.
TEST(AdamW, FollowsItsFormula) {
  const OptimizerConfig config{.learning_rate = 0.01, .beta1 = 0.8, .beta2 = 0.9, .weight_decay = 0.3};
  const at::Tensor weight = parameter({4, 3});
  at::Tensor expected = weight.detach().clone();
  at::Tensor first = at::zeros_like(expected), second = at::zeros_like(expected);
  AdamW optimizer(group_parameters({{"weight", weight}}, config), config);
  for (int t = 1; t <= 5; ++t) {
    const at::Tensor gradient = torch::randn({4, 3}, at::kDouble);
    weight.mutable_grad() = gradient.clone();
    optimizer.step();
    first = 0.8 * first + 0.2 * gradient;
    second = 0.9 * second + 0.1 * gradient * gradient;
    const at::Tensor update =
        first / (1 - std::pow(0.8, t)) / ((second / (1 - std::pow(0.9, t))).sqrt() + config.epsilon);
    expected = expected - 0.01 * 0.3 * expected - 0.01 * update;
    EXPECT_TRUE(at::allclose(weight, expected, 1e-9, 1e-12)) << "step " << t;
  }
}

TEST(AdamW, SkipsAStepWithoutATrace) {
  const OptimizerConfig config;
  const at::Tensor weight = parameter({4, 3}, at::kFloat);
  const at::Tensor before = weight.detach().clone();
  AdamW optimizer(group_parameters({{"weight", weight}}, config), config);
  weight.mutable_grad() = at::full_like(weight, std::nan(""));
  optimizer.step({.skip = at::ones({})});
  EXPECT_TRUE(at::equal(weight, before));
  EXPECT_EQ(optimizer.state().at("step").item<float>(), 0);
  EXPECT_EQ(optimizer.state().at("first.weight").abs().max().item<float>(), 0);
  weight.mutable_grad() = at::ones_like(weight);
  optimizer.step({.skip = at::zeros({})});
  EXPECT_FALSE(at::equal(weight, before));
}

TEST(AdamW, LeavesEverythingWhereTheNormIsNotFinite) {
  const OptimizerConfig config;
  const at::Tensor one = parameter({4, 3}, at::kFloat), two = parameter({5}, at::kFloat);
  const at::Tensor before = two.detach().clone();
  AdamW optimizer(group_parameters({{"one", one}, {"two", two}}, config), config);
  one.mutable_grad() = at::full_like(one, std::numeric_limits<float>::infinity());
  two.mutable_grad() = at::ones_like(two);
  optimizer.step({.norm = optimizer.gradient_norm()});
  EXPECT_TRUE(at::equal(two, before));
  EXPECT_EQ(optimizer.state().at("step").item<float>(), 0);
  one.mutable_grad() = at::ones_like(one);
  optimizer.step({.norm = optimizer.gradient_norm()});
  EXPECT_FALSE(at::equal(two, before));
}

TEST(AdamW, ScaledGradientsAreDividedBeforeTheyAreClipped) {
  const OptimizerConfig config{.clip_norm = 0.5};
  const at::Tensor plain = parameter({4, 3}, at::kFloat), scaled = plain.detach().clone().requires_grad_();
  AdamW first(group_parameters({{"w", plain}}, config), config),
      second(group_parameters({{"w", scaled}}, config), config);
  const at::Tensor scale = at::full({}, 1024.0f);
  plain.mutable_grad() = torch::randn({4, 3});
  scaled.mutable_grad() = plain.grad() * scale;
  const at::Tensor norm = first.gradient_norm();
  EXPECT_TRUE(at::equal(norm, second.gradient_norm(scale)));
  first.step({.norm = norm});
  second.step({.norm = norm, .divisor = scale});
  EXPECT_TRUE(at::equal(plain, scaled));
}

TEST(AdamW, StateMovesToAnotherOptimizer) {
  const OptimizerConfig config;
  at::Tensor one = parameter({2, 2}), two = one.detach().clone().requires_grad_();
  AdamW first(group_parameters({{"w", one}}, config), config),
      second(group_parameters({{"w", two}}, config), config);
  one.mutable_grad() = at::ones_like(one);
  first.step();
  at::Tensor(two.detach()).copy_(one);
  second.load_state(first.state());
  two.mutable_grad() = one.mutable_grad() = at::full_like(one, -0.5);
  first.step();
  second.step();
  EXPECT_TRUE(at::equal(one, two));
  EXPECT_THROW(second.load_state({}), Error);
}

TEST(ParameterGroups, NormsAndBiasesAreNotDecayed) {
  const std::vector<ParameterGroup> groups = group_parameters(model_parameters(), {.weight_decay = 0.2});
  ASSERT_EQ(groups.size(), 2u);
  EXPECT_EQ(groups[0].weight_decay, 0);
  EXPECT_EQ(groups[0].parameters.size(), 3u);
  EXPECT_EQ(groups[1].weight_decay, 0.2);
  EXPECT_EQ(groups[1].parameters.size(), 2u);
}

TEST(ParameterGroups, RulesChangeRateAndDecay) {
  OptimizerConfig config;
  config.rules = {{.pattern = "vision.*", .learning_rate_scale = 0.1},
                  {.pattern = "*.head.weight", .weight_decay = 0.5}};
  bool found = false;
  for (const ParameterGroup& group : group_parameters(model_parameters(), config)) {
    const std::string& name = group.parameters.front().first;
    EXPECT_EQ(group.learning_rate_scale, name.starts_with("vision") ? 0.1 : 1.0);
    found = found || (name == "text.head.weight" && group.weight_decay == 0.5);
  }
  EXPECT_TRUE(found);
}

TEST(ParameterGroups, FrozenParametersAreLeftOut) {
  const NamedParameters parameters = model_parameters();
  freeze_parameters(parameters, {"vision.*"});
  const std::vector<ParameterGroup> groups = group_parameters(parameters, {});
  ASSERT_EQ(groups.size(), 1u);
  EXPECT_EQ(groups[0].parameters[0].first, "text.head.weight");
  EXPECT_THROW(freeze_parameters(parameters, {"*"}), Error);
}

TEST(ParameterGroups, APatternThatFitsNothingNamesTheNearest) {
  try {
    freeze_parameters(model_parameters(), {"vision.blok.weight"});
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("optimizer.freeze: no parameter fits \"vision.blok.weight\""));
    EXPECT_THAT(error.what(), HasSubstr("did you mean \"vision.block.weight\"?"));
  }
}

/// A dual tower with 2 + 2 vision blocks and 3 text blocks.
DualTower small_tower() {
  DualTowerConfig config;
  config.vision = {.image_size = 32, .dim = 8, .depths = {2, 2}, .heads = {2, 4}, .window = 3};
  config.text = {
      .vocab_size = 31, .dim = 16, .layers = 3, .heads = 2, .max_positions = 8, .tied_head = false};
  config.embed_dim = 8;
  return DualTower(config);
}

TEST(ParameterDepth, CountsLayersOfEachTower) {
  const DualTower model = small_tower();
  const NamedParameters parameters = module_parameters(*model);
  const std::vector<ParameterDepth> depths = parameter_depths(parameters);
  std::map<std::string, std::pair<int64_t, int64_t>> found;
  for (size_t i = 0; i < parameters.size(); ++i)
    found[parameters[i].first] = {depths[i].depth, depths[i].layers};
  using Place = std::pair<int64_t, int64_t>;
  EXPECT_EQ(found.at("text.embedding"), Place(0, 3));
  EXPECT_EQ(found.at("text.blocks.0.mlp.down.weight"), Place(1, 3));
  EXPECT_EQ(found.at("text.blocks.2.mlp.down.weight"), Place(3, 3));
  EXPECT_EQ(found.at("text.norm.weight"), Place(4, 3));
  EXPECT_EQ(found.at("text.head"), Place(4, 3));
  EXPECT_EQ(found.at("vision.patch_embed.norm.weight"), Place(0, 4));
  EXPECT_EQ(found.at("vision.stages.0.blocks.1.attention.qkv.weight"), Place(2, 4));
  EXPECT_EQ(found.at("vision.stages.0.merge.reduction.weight"), Place(2, 4));
  EXPECT_EQ(found.at("vision.stages.1.blocks.0.attention.qkv.weight"), Place(3, 4));
  EXPECT_EQ(found.at("vision.norm.bias"), Place(5, 4));
  EXPECT_EQ(found.at("image_projection.weight"), Place(1, 0));
  EXPECT_EQ(found.at("log_scale"), Place(1, 0));
}

TEST(ParameterDepth, WhatTellsSubBandsApartIsAnInput) {
  const at::Tensor some = at::zeros({1});
  const auto depths = parameter_depths({{"audio.sub_band", some}, {"audio.blocks.0.mlp.down.weight", some}});
  EXPECT_EQ(depths[0].depth, 0);
  EXPECT_EQ(depths[1].depth, 1);
}

TEST(ParameterGroups, LowerLayersLearnMoreSlowly) {
  OptimizerConfig config;
  config.layer_decay = 0.5;
  config.rules = {{.pattern = "text.norm.weight", .learning_rate_scale = 0.1}};
  const DualTower model = small_tower();
  std::map<std::string, double> scale;
  for (const ParameterGroup& group : group_parameters(module_parameters(*model), config))
    for (const auto& [name, parameter] : group.parameters) scale[name] = group.learning_rate_scale;
  EXPECT_DOUBLE_EQ(scale.at("log_scale"), 1);
  EXPECT_DOUBLE_EQ(scale.at("text.head"), 1);
  EXPECT_DOUBLE_EQ(scale.at("text.norm.weight"), 0.1);
  EXPECT_DOUBLE_EQ(scale.at("text.blocks.2.mlp.down.weight"), 0.5);
  EXPECT_DOUBLE_EQ(scale.at("text.embedding"), 0.0625);
  EXPECT_DOUBLE_EQ(scale.at("vision.stages.1.blocks.1.mlp.up.bias"), 0.5);
  EXPECT_DOUBLE_EQ(scale.at("vision.patch_embed.weight"), 0.03125);
}

TEST(ParameterGroups, LowerLayersStayFrozen) {
  const DualTower model = small_tower();
  const NamedParameters parameters = module_parameters(*model);
  freeze_lower_layers(parameters, 2);
  const auto named = model->named_parameters();
  for (const char* frozen : {"text.embedding", "text.blocks.1.mlp.down.weight", "vision.patch_embed.weight",
                             "vision.stages.0.blocks.1.mlp.up.weight", "vision.stages.0.merge.norm.weight"})
    EXPECT_FALSE(named[frozen].requires_grad()) << frozen;
  for (const char* free :
       {"text.blocks.2.mlp.down.weight", "text.head", "vision.stages.1.blocks.0.mlp.up.weight",
        "vision.norm.weight", "image_projection.weight", "log_scale"})
    EXPECT_TRUE(named[free].requires_grad()) << free;
  freeze_lower_layers(parameters, 4);
  EXPECT_FALSE(named["vision.stages.1.blocks.1.mlp.up.weight"].requires_grad());
  EXPECT_TRUE(named["text.norm.weight"].requires_grad()) << "what stands above a shallower tower is free";
  EXPECT_THROW(freeze_lower_layers(parameters, 5), Error);
}

/// The length of what AdamW without memory under a huge epsilon, which goes down the gradient, goes.
double step_length(double clip_norm) {
  const OptimizerConfig config{.learning_rate = 1e6,
                               .beta1 = 0,
                               .beta2 = 0,
                               .epsilon = 1e6,
                               .weight_decay = 0,
                               .clip_norm = clip_norm};
  const at::Tensor threes = parameter({4}), fours = parameter({9});
  const at::Tensor before = at::cat({threes.detach(), fours.detach()});
  AdamW optimizer(group_parameters({{"threes", threes}, {"fours", fours}}, config), config);
  threes.mutable_grad() = at::full_like(threes, 3.0);
  fours.mutable_grad() = at::full_like(fours, 4.0);
  const at::Tensor norm = optimizer.gradient_norm();
  EXPECT_NEAR(norm.item<double>(), std::sqrt(4 * 9 + 9 * 16.0), 1e-9);
  optimizer.step({.norm = norm});
  EXPECT_EQ(threes.grad()[0].item<double>(), 3.0) << "gradients are only read";
  return (at::cat({threes.detach(), fours.detach()}) - before).norm().item<double>();
}

TEST(Clipping, BringsTheGlobalNormDownToItsLimit) {
  const double whole = std::sqrt(4 * 9 + 9 * 16.0);
  EXPECT_NEAR(step_length(1.0), 1.0, 1e-4);
  EXPECT_NEAR(step_length(50.0), whole, 1e-3);
  EXPECT_NEAR(step_length(0.0), whole, 1e-3);
}

TEST(WeightAverage, FollowsTheWeightsAndSwaps) {
  const torch::NoGradGuard no_grad;
  const at::Tensor weight = torch::zeros({2});
  WeightAverage average({{"w", weight}}, 0.99);
  weight.fill_(1.0);
  average.update();  // decay 1/10
  weight.fill_(3.0);
  average.update();  // decay 2/11
  const double expected = 2.0 / 11 * 0.9 + 9.0 / 11 * 3.0;
  {
    const AveragedWeights averaged(average);
    EXPECT_NEAR(weight[0].item<double>(), expected, 1e-6);
  }
  EXPECT_EQ(weight[0].item<double>(), 3.0);
  WeightAverage other({{"w", weight}}, 0.99);
  other.load_state(average.state());
  EXPECT_TRUE(at::equal(other.state().at("w"), average.state().at("w")));
  EXPECT_EQ(other.state().at("updates").item<int64_t>(), 2);
}

TEST(WeightAverage, AnOptimizerThatItJoinsMovesWhatItTrains) {
  const OptimizerConfig config;
  const at::Tensor trained = parameter({3}), frozen = parameter({2}).requires_grad_(false);
  const NamedParameters parameters = {{"trained", trained}, {"frozen", frozen}};
  AdamW optimizer(group_parameters(parameters, config), config);
  WeightAverage average(parameters, 0.99);
  average.join(optimizer);
  const at::Tensor before = trained.detach().clone(), frozen_before = frozen.clone();
  frozen.fill_(5.0);  // as where a resumed run freezes what it has trained
  trained.mutable_grad() = at::ones_like(trained);
  average.update();  // decay 1/10
  EXPECT_TRUE(at::equal(average.state().at("trained"), before));
  optimizer.step();
  EXPECT_TRUE(
      at::allclose(average.state().at("trained"), before / 10 + 0.9 * trained.detach(), 1e-12, 1e-12));
  EXPECT_TRUE(at::allclose(average.state().at("frozen"), frozen_before / 10 + 0.9 * 5.0, 1e-12, 1e-12));
  EXPECT_FALSE(at::equal(before, trained));
}

TEST(WeightAverage, WithoutDecayThereIsNone) {
  WeightAverage average({{"w", torch::zeros({2})}}, 0);
  EXPECT_FALSE(average.active());
  EXPECT_TRUE(average.state().empty());
}

}  // namespace
}  // namespace fathom::optimizer_test
