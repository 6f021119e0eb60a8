// What gates learn from: the output that depends on them, what exploring finds, and their density.
#include <torch/torch.h>

#include <algorithm>

#include "gated_block_fixture.h"
#include "gradcheck.h"
#include "nn/side_gradient.h"

namespace fathom::gate_gradients_test {
namespace {

using namespace testing;

class GateGradients : public LearnedGate {};
INSTANTIATE_TEST_SUITE_P(Kinds, GateGradients,
                         ::testing::Values(GateKind::kCausal, GateKind::kToken, GateKind::kPooled),
                         [](const auto& info) { return gate_kind_name(info.param); });

TEST_P(GateGradients, ExploringChangesNoOutputAndTeachesSkippedTokens) {
  Block block = block_of({.kind = GetParam()});
  const auto x = states().requires_grad_(true);
  const auto view = view_of(x, causal());
  const auto key_B = at::arange(kBatch);
  const auto grad_of = [&](double explore, at::Tensor& y, at::Tensor& active_BT) {
    const Outcome outcome = run(block, x, view, {.training = true, .key_B = key_B, .explore = explore});
    y = outcome.y_BTD;
    active_BT = outcome.active_BT;
    return torch::autograd::grad({y.sin().sum()}, block->parameters(), {}, {}, false, true);
  };
  at::Tensor plain, explored, active_BT;
  const auto without = grad_of(0, plain, active_BT), with = grad_of(1, explored, active_BT);
  EXPECT_LT(relative_error(explored, plain), 1e-12);
  double scorer = 0;
  size_t i = 0;
  for (const auto& item : block->named_parameters()) {
    const double change = (with[i] - without[i]).abs().max().item<double>();
    if (item.key().starts_with("gate."))
      scorer = std::max(scorer, change);
    else  // an output of value 0 teaches the layer nothing
      EXPECT_LT(change, 1e-12) << item.key();
    ++i;
  }
  EXPECT_GT(scorer, 1e-4);
}

TEST(CausalGate, ScoresLearnFromWhatValuesBringToOthers) {
  Block block = block_of({.kind = GateKind::kCausal});
  const auto x = states();
  const auto view = view_of(x, /*causal=*/true);
  const auto grad_of = [&](bool score_values, at::Tensor& y) {
    y = run(block, x, view, {.training = true, .score_values = score_values}).y_BTD;
    return torch::autograd::grad({y.sin().sum()}, block->parameters(), {}, {}, false, true);
  };
  at::Tensor plain, scored;
  const auto without = grad_of(false, plain), with = grad_of(true, scored);
  EXPECT_LT(relative_error(scored, plain), 1e-12);
  double scorer = 0;
  size_t i = 0;
  for (const auto& item : block->named_parameters()) {
    const double error = relative_error(with[i], without[i]);
    if (item.key().starts_with("gate."))
      scorer = std::max(scorer, error);
    else
      EXPECT_LT(error, 1e-9) << item.key();
    ++i;
  }
  EXPECT_GT(scorer, 0.01);
}

TEST(Attention, WeightsOfValuesHaveTheirDerivative) {
  Attention attention(AttentionOptions{.dim = kDim, .heads = kHeads, .kv_heads = 2, .head_dim = 6});
  const at::NoGradGuard no_grad;
  for (auto& item : attention->named_parameters())
    item.value().copy_(formula_weight(item.key(), item.value().sizes()));
  attention->to(at::kDouble);
  const auto x = states();
  const auto view = view_of(x, /*causal=*/true);
  const auto active_BT = formula_uniform("active", kBatch * kTokens).view({kBatch, kTokens}).gt(0);
  GateDecision decision{.active_BT = active_BT, .computed_BT = active_BT};
  ComputedTokens tokens = computed_tokens(decision, view);
  const auto rows = x.flatten(0, 1).index_select(0, tokens.place_N);
  const at::AutoGradMode with_grad(true);
  testing::expect_gradients(
      [&](const std::vector<at::Tensor>& inputs) {
        tokens.value_weight_N = inputs[0];
        return attention->forward_tokens(rows, tokens, view, 1);
      },
      {at::ones({rows.size(0)}, at::kDouble)});
}

TEST_P(GateGradients, ScoresGetTheGradientOfTheLayersOutput) {
  // d/ds of x + m f with the straight-through estimator is ⟨grad, f⟩; here grad is 1.
  Block block = block_of({.kind = GetParam()});
  const GateTrace all = {{{1, at::ones({kBatch, kTokens}, at::kBool)}}};
  const ForwardContext context = {.training = true, .forced_gates = &all};
  const auto x = states();
  const auto view = view_of(x, causal());
  const auto decision = block->gate()->forward(x, view, context);
  const auto slope_BT = torch::autograd::grad({decision.weight_BT.sum()}, {decision.weight_BT})[0];
  EXPECT_TRUE(at::equal(decision.weight_BT, at::ones_like(slope_BT)));
  const auto y = block->forward(x, view, context);
  const auto f_BT = (y - x).detach().sum(2);
  std::vector<at::Tensor> parameters = block->gate()->parameters();
  const auto found = torch::autograd::grad({y.sum()}, parameters, {}, {}, false, true);
  const auto again = block->gate()->forward(x, view, context);
  const auto expected =
      torch::autograd::grad({(again.weight_BT * f_BT).sum()}, parameters, {}, {}, false, true);
  double largest = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_LT(relative_error(found[i], expected[i]), 1e-10);
    if (expected[i].defined()) largest = std::max(largest, expected[i].abs().max().item<double>());
  }
  EXPECT_GT(largest, 1e-6);
}

TEST_P(GateGradients, NothingOfAScoreReachesTheLayersBelow) {
  Block block = block_of({.kind = GetParam()});
  const auto x = states().requires_grad_(true);
  const auto decision = block->gate()->forward(x, view_of(x, causal()), {.training = true});
  ASSERT_TRUE(decision.weight_BT.requires_grad());
  EXPECT_FALSE(torch::autograd::grad({decision.weight_BT.sum()}, {x}, {}, true, false, true)[0].defined());
}

TEST_P(GateGradients, ScoresRestInTheDenseWarmUp) {
  Block block = block_of({.kind = GetParam()});
  block->gate()->set_dense(true);
  block->gate()->set_multiplier(at::ones({}, at::kDouble));
  const auto x = states();
  const auto y = block->forward(x, view_of(x, causal()), {.training = true, .explore = 0.5});
  for (const auto& item : block->named_parameters()) {
    const auto grad = torch::autograd::grad({y.sin().sum()}, {item.value()}, {}, true, false, true)[0];
    EXPECT_EQ(grad.defined(), !item.key().starts_with("gate.")) << item.key();
  }
}

TEST_P(GateGradients, TheMultiplierWeighsTheMeanScore) {
  Block block = block_of({.kind = GetParam()});
  const auto x = states();
  const auto length_B = at::tensor({kTokens, int64_t{6}, int64_t{1}});
  const auto view = view_of(x, causal(), length_B);
  const ForwardContext context = {.training = true, .sample_share = 0.25};
  const auto parameters = block->gate()->parameters();
  const auto gradient = [&] {
    return torch::autograd::grad({block->forward(x, view, context).sum()}, parameters);
  };
  const auto without = gradient();
  block->gate()->set_multiplier(at::full({}, 3.0, at::kDouble));
  const auto with = gradient();
  const auto decision = block->gate()->forward(x, view, context);
  const auto present_BT = present_tokens(x, view);
  const auto mean_score =
      (decision.side_BT * present_BT / length_B.unsqueeze(1)).sum() * (3.0 * context.sample_share);
  const auto expected = torch::autograd::grad({mean_score}, parameters);
  for (size_t i = 0; i < with.size(); ++i)
    EXPECT_LT(relative_error(with[i] - without[i], expected[i]), 1e-9) << i;
}

/// Under a loss scale, what is not the objective's has to grow with it.
TEST_P(GateGradients, TheMultipliersGradientIsScaledAsTheLossIs) {
  Block block = block_of({.kind = GetParam()});
  block->gate()->set_multiplier(at::full({}, 3.0, at::kDouble));
  const auto x = states();
  const auto view = view_of(x, causal());
  const auto gradient = [&](const ForwardContext& context) {
    return torch::autograd::grad({context.scaled(block->forward(x, view, context).sin().sum())},
                                 block->parameters(), {}, {}, false, true);
  };
  ForwardContext context = {.training = true, .sample_share = 0.25};
  const auto plain = gradient(context);
  context.loss_scale = at::full({}, 1024.0, at::kDouble);
  const auto scaled = gradient(context);
  for (size_t i = 0; i < plain.size(); ++i)
    EXPECT_TRUE(!plain[i].defined() || relative_error(scaled[i], plain[i] * 1024) < 1e-12) << i;
}

TEST(SideGradient, IsAddedToTheObjectives) {
  const auto x = at::randn({3}, at::kDouble).requires_grad_(true), side = at::randn({2}).requires_grad_(true);
  const auto y = attach_gradient(x, side * 2, at::tensor({0.5, -1.0}, at::kFloat));
  EXPECT_TRUE(at::equal(y, x));
  const auto grads = torch::autograd::grad({(3 * y).sum()}, {x, side});
  EXPECT_TRUE(at::equal(grads[0], at::full({3}, 3.0, at::kDouble)));
  EXPECT_TRUE(at::equal(grads[1], at::tensor({1.0, -2.0}, at::kFloat)));
}

}  // namespace
}  // namespace fathom::gate_gradients_test
