// Gates and gated blocks: what is computed, what is left, and which gradients come of it.
#include "nn/token_gate.h"

#include <torch/torch.h>

#include "base/error.h"
#include "formula_weights.h"
#include "gradcheck.h"
#include "nn/block.h"
#include "nn/side_gradient.h"
#include "nn/swin_block.h"
#include "nn/token_scorer.h"
#include "nn/window_plan.h"

namespace fathom {
namespace {

using testing::formula_uniform;
using testing::formula_weight;
using testing::relative_error;

constexpr int64_t kBatch = 3, kTokens = 11, kDim = 24, kHeads = 4;

BlockOptions options(const GateConfig& gate, double drop = 0) {
  return {.attention = {.dim = kDim, .heads = kHeads, .kv_heads = 2, .head_dim = 6},
          .mlp = {.dim = kDim, .inner = 40},
          .gate = {.config = gate, .dim = kDim, .layer = 1, .index = 1, .places = 16},
          .dropout = drop,
          .drop_path = drop,
          .layer = 1};
}

Block block_of(const GateConfig& gate, double drop = 0) {
  Block block(options(gate, drop));
  const at::NoGradGuard no_grad;
  for (auto& item : block->named_parameters()) {
    item.value().copy_(formula_weight(item.key(), item.value().sizes()));
    if (item.key().ends_with("scorer.out")) item.value().mul_(20);
    if (item.key().ends_with("pooled.up.weight")) item.value().mul_(20);
    if (item.key().ends_with("pooled.up.bias")) item.value().sub_(2);
  }
  block->to(at::kDouble);
  return block;
}

at::Tensor states(int64_t batch = kBatch) {
  return formula_uniform("states", batch * kTokens * kDim).view({batch, kTokens, kDim}).mul(3);
}

Rope rope() {
  return {128, 6, 10000.0};
}

AttentionView view_of(const at::Tensor& x_BTD, bool causal, const at::Tensor& length_B = {}) {
  Rope table = rope();
  return make_attention_view(x_BTD, length_B, causal, table);
}

struct Outcome {
  at::Tensor y_BTD, active_BT;
};
Outcome run(Block block, const at::Tensor& x_BTD, const AttentionView& view, ForwardContext context = {}) {
  GateTrace trace;
  context.gate_trace = &trace;
  const auto y_BTD = block->forward(x_BTD, view, context);
  return {y_BTD, trace.active_BT.at(1)};
}

/// The block without its gate, in which tokens see the active ones alone.
at::Tensor dense_over(const Block& gated, const at::Tensor& x_BTD, AttentionView view,
                      const at::Tensor& active_BT) {
  Block dense(options({}));
  dense->to(at::kDouble);
  const at::NoGradGuard no_grad;
  const auto parameters = gated->named_parameters();
  for (auto& item : dense->named_parameters()) item.value().copy_(parameters[item.key()]);
  auto sees = active_BT.unsqueeze(1) | at::eye(kTokens, at::kBool);
  if (view.ordered) sees = sees.tril();
  view.mask = sees.unsqueeze(1);
  view.causal = false;
  return dense->forward(x_BTD, view, {});
}

class LearnedGate : public ::testing::TestWithParam<GateKind> {
 protected:
  bool causal() const { return GetParam() == GateKind::kCausal; }
};
INSTANTIATE_TEST_SUITE_P(Kinds, LearnedGate,
                         ::testing::Values(GateKind::kCausal, GateKind::kToken, GateKind::kPooled),
                         [](const auto& info) { return gate_kind_name(info.param); });

TEST_P(LearnedGate, ComputesActiveTokensAmongThemselvesAndLeavesTheOthers) {
  const torch::NoGradGuard no_grad;
  for (const GatedPart part : {GatedPart::kBlock, GatedPart::kMlp, GatedPart::kAttention}) {
    Block block = block_of({.kind = GetParam(), .part = part});
    const auto x = states();
    const auto view = view_of(x, causal());
    const auto [y, active_BT] = run(block, x, view);
    const int64_t count = active_BT.sum().item<int64_t>();
    ASSERT_GT(count, 3);
    ASSERT_LT(count, kBatch * kTokens - 3);
    if (part != GatedPart::kBlock) continue;
    const auto expected = at::where(active_BT.unsqueeze(2), dense_over(block, x, view, active_BT), x);
    EXPECT_LT(relative_error(y, expected), 1e-12);
    EXPECT_TRUE(
        at::equal(y.masked_select(~active_BT.unsqueeze(2)), x.masked_select(~active_BT.unsqueeze(2))));
  }
}

TEST_P(LearnedGate, PaddingIsNeverActiveAndChangesNothing) {
  const torch::NoGradGuard no_grad;
  Block block = block_of({.kind = GetParam()});
  const auto x = states();
  const auto length_B = at::tensor({kTokens, int64_t{6}, int64_t{1}});
  const auto [y, active_BT] = run(block, x, view_of(x, causal(), length_B));
  EXPECT_FALSE(active_BT[1].slice(0, 6).any().item<bool>());
  auto other = x.clone();
  other[1].slice(0, 6).fill_(7);
  const auto [y_other, active_other] = run(block, other, view_of(other, causal(), length_B));
  EXPECT_TRUE(at::equal(active_BT, active_other));
  EXPECT_TRUE(at::equal(y[1].slice(0, 0, 6), y_other[1].slice(0, 0, 6)));
}

TEST_P(LearnedGate, ExploringChangesNoOutputAndTeachesSkippedTokens) {
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

/// The operations of a GPU's layers, by their references.
TEST(CausalGate, RowsThatTheDeviceCountsAreThoseThatTheHostCounts) {
  const torch::NoGradGuard no_grad;
  Block block = block_of({.kind = GateKind::kCausal});
  block->to(at::kFloat);
  const auto x = states().to(at::kFloat);
  const auto next = formula_uniform("next", kBatch * kDim).view({kBatch, 1, kDim}).to(at::kFloat);
  const auto make_cache = [] {
    return KeyValueCache({.layers = 2, .batch = kBatch, .kv_heads = 2, .capacity = 20, .head_dim = 6},
                         at::kFloat);
  };
  const auto follow = [&](KeyValueCache& cache) {
    cache.advance(kTokens);
    Rope table = rope();
    return block->forward(next, make_attention_view(next, {}, true, table, &cache), {});
  };
  KeyValueCache by_host = make_cache(), by_device = make_cache();
  const auto with_cache = [&](KeyValueCache& cache) {
    Rope table = rope();
    return make_attention_view(x, {}, true, table, &cache);
  };
  GateTrace host, device;
  block->gate()->reset_counts();
  const auto expected = block->forward(x, with_cache(by_host), {.gate_trace = &host});
  const auto counts = block->gate()->counts().clone();
  block->gate()->reset_counts();
  const auto got = block->counted(x, with_cache(by_device), {.gate_trace = &device});
  EXPECT_GT(counts[GateCounts::kActive].item<double>(), 3);
  EXPECT_TRUE(at::allclose(block->gate()->counts(), counts, 1e-5));
  EXPECT_TRUE(at::equal(device.active_BT.at(1), host.active_BT.at(1)));
  EXPECT_LT(relative_error(got, expected), 1e-5);
  EXPECT_LT(relative_error(follow(by_device), follow(by_host)), 1e-5);
  for (int64_t row = 0; row < kBatch; ++row) EXPECT_EQ(by_device.num_keys(1, row), by_host.num_keys(1, row));
}

/// What a training step makes of a block: output, gradients of input and parameters, decisions, counts.
struct Learned {
  at::Tensor y_BTD, active_BT, counts;
  std::vector<at::Tensor> grads;
};
Learned learned(Block block, at::Tensor x_BTD, const AttentionView& view, ForwardContext context,
                bool counted) {
  GateTrace trace;
  context.gate_trace = &trace;
  if (block->gate()->counts().defined()) block->gate()->reset_counts();
  x_BTD = x_BTD.detach().requires_grad_(true);
  std::vector<at::Tensor> leaves = block->parameters();
  leaves.push_back(x_BTD);
  const auto y_BTD = counted ? block->counted(x_BTD, view, context) : block->forward(x_BTD, view, context);
  const auto slope_BTD = formula_uniform("slope", y_BTD.numel()).view(y_BTD.sizes()).to(y_BTD.options());
  auto grads = torch::autograd::grad({(y_BTD * slope_BTD).sum()}, leaves, {}, {}, false, true);
  for (size_t i = 0; i < grads.size(); ++i)
    if (!grads[i].defined()) grads[i] = at::zeros_like(leaves[i]);
  return {y_BTD.detach(), trace.active_BT.at(1), block->gate()->counts().clone(), std::move(grads)};
}

/// Decisions of all sorts: about half of the tokens, the same without a sequence, no token, every token.
std::vector<at::Tensor> decisions_of_all_sorts(int64_t tokens) {
  const auto some = formula_uniform("some", kBatch * tokens).view({kBatch, tokens}).gt(0);
  auto uneven = some.clone();
  uneven[1].fill_(false);
  return {some, uneven, at::zeros_like(some), at::ones_like(some)};
}

TEST(CausalGate, LearnsOnRowsThatTheDeviceCountsAsOnThoseThatTheHostCounts) {
  const auto x = states();
  const auto view = view_of(x, /*causal=*/true);
  std::vector<at::Tensor> forced = decisions_of_all_sorts(kTokens);
  forced.emplace_back();  // the gate's own
  for (const at::Tensor& active_BT : forced)
    for (const double explore : {0.0, 0.4})
      for (const double drop : {0.0, 0.3})
        for (const bool dense : {false, true}) {
          Block block = block_of({.kind = GateKind::kCausal}, drop);
          block->gate()->set_dense(dense);
          block->gate()->set_multiplier(at::full({}, 3.0, at::kDouble));
          const GateTrace trace = {{{1, active_BT}}};
          const ForwardContext context = {.training = true,
                                          .key_B = at::arange(kBatch) * 71,
                                          .explore = explore,
                                          .sample_share = 0.25,
                                          .forced_gates = active_BT.defined() ? &trace : nullptr};
          const Learned host = learned(block, x, view, context, /*counted=*/false),
                        device = learned(block, x, view, context, /*counted=*/true);
          EXPECT_TRUE(at::equal(device.active_BT, host.active_BT));
          EXPECT_LT(relative_error(device.counts, host.counts), 1e-12);
          EXPECT_LT(relative_error(device.y_BTD, host.y_BTD), 1e-12);
          const auto names = block->named_parameters().keys();
          for (size_t i = 0; i < host.grads.size(); ++i)
            EXPECT_LT(relative_error(device.grads[i], host.grads[i]), 1e-12)
                << (i < names.size() ? names[i] : "x") << ", explored " << explore << ", dropped " << drop;
        }
}

TEST(RandomGate, LearnsOnRowsThatTheDeviceCounts) {
  const auto x = states();
  const auto view = view_of(x, /*causal=*/true);
  Block block = block_of({.kind = GateKind::kRandom, .density = 0.4}, 0.2);
  const ForwardContext context = {
      .training = true, .key_B = at::arange(kBatch), .explore = 0.4, .sample_share = 0.25};
  const Learned host = learned(block, x, view, context, /*counted=*/false),
                device = learned(block, x, view, context, /*counted=*/true);
  EXPECT_LT(relative_error(device.y_BTD, host.y_BTD), 1e-12);
  for (size_t i = 0; i < host.grads.size(); ++i)
    EXPECT_LT(relative_error(device.grads[i], host.grads[i]), 1e-12) << i;
}

TEST_P(LearnedGate, ScoresGetTheGradientOfTheLayersOutput) {
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
  for (size_t i = 0; i < found.size(); ++i) EXPECT_LT(relative_error(found[i], expected[i]), 1e-10);
}

TEST_P(LearnedGate, NothingOfAScoreReachesTheLayersBelow) {
  Block block = block_of({.kind = GetParam()});
  const auto x = states().requires_grad_(true);
  const auto decision = block->gate()->forward(x, view_of(x, causal()), {.training = true});
  ASSERT_TRUE(decision.weight_BT.requires_grad());
  EXPECT_FALSE(torch::autograd::grad({decision.weight_BT.sum()}, {x}, {}, true, false, true)[0].defined());
}

TEST_P(LearnedGate, ScoresRestInTheDenseWarmUp) {
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

TEST_P(LearnedGate, TheMultiplierWeighsTheMeanScore) {
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

TEST_P(LearnedGate, NoTokenAndEveryToken) {
  for (const double bias : {-50.0, 50.0}) {
    Block block = block_of({.kind = GetParam()});
    {
      const torch::NoGradGuard no_grad;
      for (auto& item : block->gate()->named_parameters()) {
        if (item.key() == "scorer.bias") item.value().fill_(bias);
        if (item.key() == "pooled.up.bias") item.value().fill_(bias);
        if (item.key() == "scorer.out" || item.key() == "pooled.up.weight") item.value().zero_();
      }
    }
    const auto x = states();
    const auto view = view_of(x, causal());
    const auto [y, active_BT] = run(block, x, view, {.training = true, .key_B = at::arange(kBatch)});
    EXPECT_EQ(active_BT.sum().item<int64_t>(), bias > 0 ? kBatch * kTokens : 0);
    if (bias > 0)
      EXPECT_LT(relative_error(y, dense_over(block, x, view, active_BT)), 1e-12);
    else
      EXPECT_TRUE(at::equal(y, x));
  }
}

TEST(CausalGate, ALaterTokenChangesNoDecision) {
  const torch::NoGradGuard no_grad;
  Block block = block_of({.kind = GateKind::kCausal});
  const auto x = states();
  const auto [y, active_BT] = run(block, x, view_of(x, true));
  auto other = x.clone();
  other.slice(1, 7).neg_();
  const auto [y_other, active_other] = run(block, other, view_of(other, true));
  EXPECT_TRUE(at::equal(active_BT.slice(1, 0, 7), active_other.slice(1, 0, 7)));
  EXPECT_LT(relative_error(y.slice(1, 0, 7), y_other.slice(1, 0, 7)), 1e-12);
  EXPECT_FALSE(at::equal(active_BT, active_other));
}

TEST(CausalGate, EachTextOfARowStartsAnew) {
  const torch::NoGradGuard no_grad;
  Block block = block_of({.kind = GateKind::kCausal});
  const auto x = states(1);
  auto view = view_of(x, true);
  const auto segment_BT = at::cat({at::zeros({1, 4}, at::kLong), at::ones({1, 7}, at::kLong)}, 1);
  separate_segments(view, segment_BT);
  const auto [y, active_BT] = run(block, x, view);
  const auto first = x.slice(1, 0, 4), second = x.slice(1, 4);
  const auto one = run(block, first, view_of(first, true)), two = run(block, second, view_of(second, true));
  EXPECT_TRUE(at::equal(active_BT, at::cat({one.active_BT, two.active_BT}, 1)));
  // Rotary positions of the second text differ by a shift, which attention does not see.
  EXPECT_LT(relative_error(y, at::cat({one.y_BTD, two.y_BTD}, 1)), 1e-7);
}

TEST(TopKGate, TakesTheHighestOfEachRowInTrainingAndForetellsThemLater) {
  Block block = block_of({.kind = GateKind::kTopK, .density = 0.4});
  const auto x = states();
  const auto length_B = at::tensor({kTokens, int64_t{6}, int64_t{1}});
  const auto view = view_of(x, true, length_B);
  const auto decision = block->gate()->forward(x, view, {.training = true, .sample_share = 0.25});
  const auto count_B = decision.active_BT.sum(1);
  for (int64_t b = 0; b < kBatch; ++b)
    EXPECT_EQ(count_B[b].item<int64_t>(), (std::array<int64_t, 3>{5, 3, 1}[static_cast<size_t>(b)]));
  const auto weight = decision.weight_BT[0];
  EXPECT_GT(weight.masked_select(decision.active_BT[0]).min().item<double>(),
            weight.masked_select(~decision.active_BT[0]).max().item<double>());
  // Binary cross-entropy of the foretelling scores.
  const auto score = decision.side_BT.detach().requires_grad_(true);
  const auto share_BT = present_tokens(x, view) / length_B.unsqueeze(1) * 0.25;
  const auto loss =
      (torch::nn::functional::binary_cross_entropy_with_logits(
           score, decision.active_BT.to(at::kDouble),
           torch::nn::functional::BinaryCrossEntropyWithLogitsFuncOptions().reduction(torch::kNone)) *
       share_BT)
          .sum();
  EXPECT_LT(relative_error(decision.side_gradient_BT, torch::autograd::grad({loss}, {score})[0]), 1e-6);
  const auto later = block->gate()->forward(x, view, {});
  auto other = x.clone();
  other.slice(1, 5).neg_();
  const auto changed = block->gate()->forward(other, view_of(other, true, length_B), {});
  EXPECT_TRUE(at::equal(later.active_BT.slice(1, 0, 5), changed.active_BT.slice(1, 0, 5)));
}

/// Neither takes a token off the other, however high their scores.
TEST(TopKGate, EachTextOfARowHasItsOwnBudget) {
  Block block = block_of({.kind = GateKind::kTopK, .density = 0.4});
  const auto x = states(2);
  auto view = view_of(x, true, at::tensor({kTokens, int64_t{9}}));
  const auto second_1T = at::arange(kTokens).ge(4).to(at::kLong).unsqueeze(0);
  separate_segments(view, at::cat({second_1T + 3, second_1T * 2}));
  const auto active_BT = block->gate()->forward(x, view, {.training = true}).active_BT;
  const auto expect_alone = [&](int64_t row, int64_t begin, int64_t end, int64_t count) {
    const auto text = x.slice(0, row, row + 1).slice(1, begin, end);
    const auto alone = block->gate()->forward(text, view_of(text, true), {.training = true}).active_BT[0];
    EXPECT_TRUE(at::equal(active_BT[row].slice(0, begin, end), alone)) << row << " " << begin;
    EXPECT_EQ(alone.sum().item<int64_t>(), count);
  };
  expect_alone(0, 0, 4, 2);
  expect_alone(0, 4, kTokens, 3);
  expect_alone(1, 0, 4, 2);
  expect_alone(1, 4, 9, 2);
  EXPECT_FALSE(active_BT[1].slice(0, 9).any().item<bool>());
}

TEST(BaselineGates, RandomTokensAndWholeLayers) {
  const auto x = at::zeros({40, 100, kDim}, at::kDouble);
  TokenGate random(TokenGateOptions{.config = {.kind = GateKind::kRandom, .density = 0.3}, .dim = kDim});
  const ForwardContext training = {.training = true, .key_B = at::arange(40)};
  const auto first = random->forward(x, view_of(x, true), training);
  EXPECT_NEAR(first.active_BT.to(at::kDouble).mean().item<double>(), 0.3, 0.03);
  EXPECT_TRUE(at::equal(first.active_BT, random->forward(x, view_of(x, true), training).active_BT));
  EXPECT_FALSE(at::equal(first.active_BT[0], first.active_BT[1]));
  EXPECT_NEAR(random->forward(x, view_of(x, true), {}).active_BT.to(at::kDouble).mean().item<double>(), 0.3,
              0.12);
  int64_t layers = 0;
  for (int64_t layer = 0; layer < 10; ++layer) {
    TokenGate alternate(TokenGateOptions{.config = {.kind = GateKind::kAlternate, .density = 0.4},
                                         .dim = kDim,
                                         .layer = layer,
                                         .index = layer});
    const auto active = alternate->forward(x, view_of(x, true), {}).active_BT;
    EXPECT_TRUE(active.all().item<bool>() || !active.any().item<bool>());
    layers += active[0][0].item<bool>();
  }
  EXPECT_EQ(layers, 4);
}

TEST(TokenGate, CountsDecisionsOverUnpaddedTokens) {
  Block block = block_of({.kind = GateKind::kCausal});
  const auto x = states();
  const auto view = view_of(x, true, at::tensor({kTokens, int64_t{6}, int64_t{1}}));
  const auto active = run(block, x, view).active_BT.sum().item<double>();
  run(block, x, view);
  const auto counts = block->gate()->counts();
  EXPECT_EQ(counts[GateCounts::kActive].item<double>(), 2 * active);
  EXPECT_EQ(counts[GateCounts::kTokens].item<double>(), 2 * (kTokens + 6 + 1));
  EXPECT_GT(counts[GateCounts::kEntropy].item<double>(), 0);
  block->gate()->reset_counts();
  EXPECT_EQ(block->gate()->counts().sum().item<double>(), 0);
}

/// In training too, and whatever the other layers' densities.
TEST(TokenGate, ALayerThatComputesEverythingIsTheDenseOne) {
  BlockOptions with = options({.kind = GateKind::kCausal, .layer_density = {0.2, 1}}), without = options({});
  with.dropout = with.drop_path = without.dropout = without.drop_path = 0.3;
  Block block(with), dense(without);
  EXPECT_TRUE(block->gate().is_empty());
  ASSERT_EQ(block->named_parameters().keys(), dense->named_parameters().keys());
  const torch::NoGradGuard no_grad;
  for (auto* each : {&block, &dense}) {
    for (auto& item : (*each)->named_parameters())
      item.value().copy_(formula_weight(item.key(), item.value().sizes()));
    (*each)->to(at::kDouble);
  }
  const auto x = states();
  const auto view = view_of(x, true, at::tensor({kTokens, int64_t{6}, int64_t{1}}));
  const ForwardContext context = {.training = true, .key_B = at::arange(kBatch), .explore = 0.5};
  EXPECT_TRUE(at::equal(block->forward(x, view, context), dense->forward(x, view, context)));
}

/// A scorer of four rows of five places whose scores are `score_S`, whatever it sees.
PooledScorer constant_scorer(const at::Tensor& score_S, bool is_picture) {
  PooledScorer scorer(
      PooledScorerOptions{.dim = kDim, .places = score_S.numel(), .map_rows = 4, .is_picture = is_picture});
  const torch::NoGradGuard no_grad;
  for (auto& item : scorer->named_parameters()) item.value().zero_();
  scorer->named_parameters()["up.bias"].copy_(score_S - 2);
  return scorer;
}

at::Tensor scores_of(PooledScorer scorer, int64_t rows, int64_t columns) {
  return scorer->forward(at::ones({1, rows * columns, kDim}), {.map_rows = rows}, {}).view({rows, columns});
}

TEST(PooledScorer, APictureOfAnotherSizeIsScoredAlongBothSides) {
  const torch::NoGradGuard no_grad;
  const auto column_5 = at::arange(5, at::kFloat), row_4 = 10 * at::arange(4, at::kFloat);
  PooledScorer scorer = constant_scorer((row_4.unsqueeze(1) + column_5).flatten(), /*is_picture=*/true);
  EXPECT_TRUE(at::allclose(scores_of(scorer, 4, 5), row_4.unsqueeze(1) + column_5));
  const auto scaled = [](const at::Tensor& line, int64_t size) {
    return at::upsample_linear1d(line.view({1, 1, -1}), {size}, /*align_corners=*/false).flatten();
  };
  for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{7, 9}, {2, 3}, {4, 3}})
    EXPECT_TRUE(at::allclose(scores_of(scorer, rows, columns),
                             scaled(row_4, rows).unsqueeze(1) + scaled(column_5, columns)))
        << rows << " × " << columns;
}

TEST(PooledScorer, AShorterSoundHasTheFirstPlacesOfEachSubBand) {
  const torch::NoGradGuard no_grad;
  const auto score_S = at::arange(20, at::kFloat);
  PooledScorer scorer = constant_scorer(score_S, /*is_picture=*/false);
  EXPECT_TRUE(at::allclose(scores_of(scorer, 4, 3), score_S.view({4, 5}).slice(1, 0, 3)));
  EXPECT_THROW(scores_of(scorer, 4, 6), Error);
}

TEST(WindowMean, LeavesPaddingOut) {
  for (const int64_t shift : {0, 1}) {
    const kernels::WindowShape shape = {7, 5, 3, shift};
    const auto mean = window_mean(kernels::window_partition(at::ones({2, 7, 5, 4}), shape), shape);
    EXPECT_TRUE(at::equal(mean, at::ones({2, 6, 4}))) << shift;
  }
}

/// A window costs as much as the places in it.
TEST(GatedSwinBlock, DecisionsCountForTheProductsTheyStandFor) {
  for (const int64_t places : {36, 4}) {  // the second map has one window of 2 × 2
    SwinBlock block(SwinBlockOptions{
        .dim = 8, .heads = 2, .window = 3, .gate = {.kind = GateKind::kToken}, .map_places = places});
    std::map<std::string, int64_t> weights;
    for (const auto& item : block->named_parameters())
      weights[item.key().substr(0, item.key().find('.'))] += item.value().numel();
    const std::vector<NamedGate> gates = gates_of(*block);
    EXPECT_EQ(gates[0].gate->options().gated_weights, weights.at("attention") * std::min<int64_t>(9, places));
    EXPECT_EQ(gates[1].gate->options().gated_weights, weights.at("mlp"));
  }
}

TEST(GatedSwinBlock, OneThatComputesEverythingHasNoGates) {
  SwinBlockOptions options = {.dim = 8, .heads = 2, .window = 3, .layer = 5};
  SwinBlock dense(options);
  options.gate = {.kind = GateKind::kToken, .layer_density = {0.5, 1}};
  options.map_places = 36;
  options.index = 0;
  EXPECT_EQ(gates_of(*SwinBlock(options)).size(), 2u);
  options.index = 1;
  EXPECT_EQ(SwinBlock(options)->named_parameters().keys(), dense->named_parameters().keys());
}

/// The gates of a Swin block that is layer 5: of its windows, of its feed-forward layer's tokens.
constexpr int64_t kWindows = 5, kPlaces = (1 << 24) + 5;

/// Every second window of a shifted map attends, every third token passes the feed-forward layer.
TEST(GatedSwinBlock, ComputesChosenWindowsAndTokensAsWithoutGates) {
  const torch::NoGradGuard no_grad;
  for (const int64_t side : {6, 7}) {  // 7: windows of 3 with padding
    SwinBlockOptions options = {.dim = 8, .heads = 2, .window = 3, .shifted = true, .layer = 5};
    SwinBlock dense(options);
    options.gate = {.kind = GateKind::kToken};
    options.map_places = side * side;
    SwinBlock gated(options);
    for (auto* block : {&dense, &gated})
      for (auto& item : (*block)->named_parameters())
        item.value().copy_(formula_weight(item.key(), item.value().sizes()));
    dense->to(at::kDouble);
    gated->to(at::kDouble);
    const int64_t windows = (side + 2) / 3 * ((side + 2) / 3), places = side * side;
    const auto x = formula_uniform("map", 2 * places * 8).view({2, side, side, 8});
    GateTrace all, forced;
    all.active_BT[kWindows] = at::ones({2, windows}, at::kBool);
    all.active_BT[kPlaces] = at::ones({2, places}, at::kBool);
    EXPECT_LT(relative_error(gated->forward(x, {.forced_gates = &all}), dense->forward(x, {})), 1e-12);

    forced.active_BT[kWindows] = at::arange(2 * windows).remainder(2).eq(0).view({2, windows});
    forced.active_BT[kPlaces] = at::arange(2 * places).remainder(3).eq(0).view({2, places});
    const auto y = gated->forward(x, {.forced_gates = &forced});
    // The two parts apart, from blocks that compute one of them for everybody and nothing of the other.
    GateTrace attention = all, none = all;
    attention.active_BT[kPlaces] = at::zeros({2, places}, at::kBool);
    none.active_BT[kWindows] = at::zeros({2, windows}, at::kBool);
    const kernels::WindowShape shape = fit_windows(side, side, 3, true);
    const auto attends = kernels::window_merge(forced.active_BT[kWindows]
                                                   .to(at::kDouble)
                                                   .view({2, windows, 1, 1})
                                                   .expand({2, windows, 9, 1})
                                                   .contiguous(),
                                               shape)
                             .gt(0.5);
    const auto h = at::where(attends, gated->forward(x, {.forced_gates = &attention}), x);
    const auto passes = forced.active_BT[kPlaces].view({2, side, side, 1});
    EXPECT_LT(relative_error(y, at::where(passes, gated->forward(h, {.forced_gates = &none}), h)), 1e-12);
  }
}

TEST(GatedSwinBlock, DecidesByItselfAndLearnsIt) {
  SwinBlock block(SwinBlockOptions{.dim = 8,
                                   .heads = 2,
                                   .window = 3,
                                   .dropout = 0.2,
                                   .layer = 5,
                                   .gate = {.kind = GateKind::kToken},
                                   .map_places = 36});
  {
    const torch::NoGradGuard no_grad;
    for (auto& item : block->named_parameters()) {
      item.value().copy_(formula_weight(item.key(), item.value().sizes()));
      if (item.key().ends_with("scorer.out")) item.value().mul_(30);
    }
  }
  const auto x = formula_uniform("map", 4 * 36 * 8).to(at::kFloat).view({4, 6, 6, 8}).mul(3);
  GateTrace trace;
  const ForwardContext context = {
      .training = true, .key_B = at::arange(4), .explore = 0.5, .gate_trace = &trace};
  block->forward(x, context).square().sum().backward();
  for (const int64_t layer : {kWindows, kPlaces}) {
    const auto share = trace.active_BT.at(layer).to(at::kFloat).mean().item<double>();
    EXPECT_GT(share, 0.02) << layer;
    EXPECT_LT(share, 0.98) << layer;
  }
  for (const auto& item : block->named_parameters())
    EXPECT_GT(item.value().grad().abs().max().item<double>(), 0) << item.key();
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
}  // namespace fathom
