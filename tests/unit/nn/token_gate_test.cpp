// Gates and gated blocks: what is computed, and what is left.
#include "nn/token_gate.h"

#include <torch/torch.h>

#include "base/error.h"
#include "gated_block_fixture.h"
#include "gradcheck.h"
#include "nn/token_scorer.h"

namespace fathom::token_gate_test {
namespace {

using namespace testing;

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

}  // namespace
}  // namespace fathom::token_gate_test
