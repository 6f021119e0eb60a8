// Swin blocks whose windows and tokens pass gates.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "formula_weights.h"
#include "gradcheck.h"
#include "nn/swin_block.h"
#include "nn/window_plan.h"

namespace fathom::gated_swin_block_test {
namespace {

using testing::formula_uniform;
using testing::formula_weight;
using testing::relative_error;

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

}  // namespace
}  // namespace fathom::gated_swin_block_test
