// Swin blocks whose windows and tokens the device counts, by the references of their operations.
#include <fmt/format.h>

#include "counted_swin_fixture.h"

namespace fathom::counted_swin_test {
namespace {

using namespace counted_swin_fixture;

void expect_alike(const Learned& got, const Learned& expected, double tolerance, const std::string& what) {
  EXPECT_LT(relative_error(got.y, expected.y), tolerance) << what;
  for (const auto& [name, gradient] : expected.gradients)
    EXPECT_LT(relative_error(got.gradients.at(name), gradient), tolerance) << name << ", " << what;
  for (const auto& [name, counts] : expected.counts)
    EXPECT_TRUE(at::allclose(got.counts.at(name), counts, 1e-9)) << name << ", " << what;
  for (const auto& [layer, active] : expected.trace.active_BT)
    EXPECT_TRUE(at::equal(got.trace.active_BT.at(layer), active)) << layer << ", " << what;
}

TEST(CountedSwinBlock, LearnsAsOneWhoseRowsTheHostCounts) {
  for (const Shape& shape : {Shape{6, 3, 8, 2}, Shape{3, 3, 8, 2}}) {
    const auto x = map_of(shape), slope = slope_of(x);
    const std::vector<GateTrace> sorts = decisions_of_all_sorts(shape);
    for (const GateKind kind : {GateKind::kToken, GateKind::kPooled, GateKind::kRandom})
      for (const double explore : {0.0, 0.4})
        for (const double drop : {0.0, 0.3})
          for (size_t sort = 0; sort <= sorts.size(); ++sort) {
            SwinBlock block = block_of(shape, kind, drop, /*qkv_bias=*/sort != 1);
            block->to(at::kDouble);
            const ForwardContext context = training(explore, sort < sorts.size() ? &sorts[sort] : nullptr);
            expect_alike(learned(block, x, slope, context, /*counted=*/true),
                         learned(block, x, slope, context, /*counted=*/false), 1e-12,
                         fmt::format("{}, explored {}, dropped {}, sort {}", gate_kind_name(kind), explore,
                                     drop, sort));
          }
  }
}

TEST(CountedSwinBlock, FollowsTheDenseWarmUpAndTheLossScale) {
  const Shape shape = {6, 3, 8, 2};
  const auto x = map_of(shape), slope = slope_of(x);
  for (const bool dense : {false, true}) {
    SwinBlock block = block_of(shape, GateKind::kToken);
    block->to(at::kDouble);
    for (NamedGate each : gates_of(*block)) each.gate->set_dense(dense);
    ForwardContext context = training(0.4, nullptr);
    context.loss_scale = at::full({}, 8.0);
    const Learned got = learned(block, x, slope, context, /*counted=*/true);
    expect_alike(got, learned(block, x, slope, context, /*counted=*/false), 1e-12,
                 dense ? "dense" : "not dense");
    if (!dense) continue;
    for (const auto& [name, gradient] : got.gradients) {
      if (name.find("_gate.") != std::string::npos) {
        EXPECT_EQ(gradient.abs().max().item<double>(), 0) << name;
      }
    }
    for (const auto& [layer, active] : got.trace.active_BT) EXPECT_TRUE(active.all().item<bool>()) << layer;
  }
}

TEST(CountedSwinBlock, WritesGradientsOfWeightsWhereTheyAreToLie) {
  const Shape shape = {6, 3, 8, 2};
  const auto x = map_of(shape).to(at::kFloat);
  expect_rooms(block_of(shape, GateKind::kToken), x, slope_of(x), training(0.4, nullptr), nullptr, 0,
               /*counted=*/true);
}

/// What others hold of the gradient that came stays as it is.
TEST(CountedSwinBlock, LeavesAGradientThatOthersHold) {
  const Shape shape = {6, 3, 8, 2};
  SwinBlock block = block_of(shape, GateKind::kToken);
  block->to(at::kDouble);
  const auto x = map_of(shape).requires_grad_(true);
  const auto y = block->counted(x, training(0, nullptr));
  const auto above = slope_of(y), before = above.clone();
  const auto first = torch::autograd::grad({y}, {x}, {above}, /*retain_graph=*/true)[0];
  EXPECT_TRUE(at::equal(above, before));
  EXPECT_TRUE(at::equal(torch::autograd::grad({y}, {x}, {above})[0], first));
}

/// What is frozen has no gradient, and changes nothing for the rest.
TEST(CountedSwinBlock, LearnsBesideFrozenParameters) {
  const Shape shape = {6, 3, 8, 2};
  SwinBlock block = block_of(shape, GateKind::kToken);
  block->to(at::kDouble);
  const auto x = map_of(shape), slope = slope_of(x);
  const ForwardContext context = training(0.4, nullptr);
  const Learned all = learned(block, x, slope, context, /*counted=*/true);
  for (const char* name :
       {"attention.qkv.weight", "mlp.down.bias", "mlp_norm.weight", "attention.position_bias"})
    block->named_parameters()[name].requires_grad_(false);
  const auto leaf = x.clone().requires_grad_(true);
  std::vector<at::Tensor> leaves = {leaf};
  std::vector<std::string> names = {"x"};
  for (const auto& item : block->named_parameters())
    if (item.value().requires_grad()) {
      leaves.push_back(item.value());
      names.push_back(item.key());
    }
  const auto grads = torch::autograd::grad({(block->counted(leaf, context) * slope).sum()}, leaves);
  for (size_t i = 0; i < names.size(); ++i)
    EXPECT_LT(relative_error(grads[i], all.gradients.at(names[i])), 1e-12) << names[i];
}

TEST(CountedSwinBlock, ComputesAsWithGradientsAndWaitsForNothing) {
  const Shape shape = {6, 3, 8, 2};
  const auto x = map_of(shape);
  SwinBlock block = block_of(shape, GateKind::kToken);
  block->to(at::kDouble);
  bool waited = false;
  const ForwardContext context{.waited = &waited};
  const auto expected = block->counted(x, context).detach();
  const torch::NoGradGuard no_grad;
  EXPECT_TRUE(at::equal(block->counted(x, context), expected));
  EXPECT_FALSE(waited);
  block->forward(x, context);
  EXPECT_TRUE(waited);
}

}  // namespace
}  // namespace fathom::counted_swin_test
