// Layers one by one: against plain formulas, and the properties that a model relies on.
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include "base/error.h"
#include "gradcheck.h"
#include "kernels/shifted_window_attention.h"
#include "kernels/weight_copies.h"
#include "kernels/window_attention.h"
#include "kernels/window_seam.h"
#include "nn/attention.h"
#include "nn/block.h"
#include "nn/checkpointing.h"
#include "nn/init.h"
#include "nn/local_mixing.h"
#include "nn/patch.h"
#include "nn/residual.h"
#include "nn/swin_block.h"
#include "nn/window_plan.h"

namespace fathom::layers_test {
namespace {

using testing::relative_error;

at::Tensor keys(int64_t count) {
  return at::arange(count, at::kLong).mul(0x9e3779b97f4a7c1);
}

ForwardContext training(int64_t samples) {
  return {.training = true, .key_B = keys(samples)};
}

BlockOptions small_block(double dropout, double drop_path) {
  return {.attention = {.dim = 12, .heads = 3, .kv_heads = 1, .head_dim = 4},
          .mlp = {.dim = 12, .inner = 20},
          .dropout = dropout,
          .drop_path = drop_path,
          .layer = 2};
}

TEST(Init, IsAFunctionOfSeedAndName) {
  Block one(small_block(0, 0)), two(small_block(0, 0));
  init_parameters(*one, 1);
  init_parameters(*two, 1);
  for (const auto& item : one->named_parameters())
    EXPECT_TRUE(at::equal(item.value(), two->named_parameters()[item.key()])) << item.key();
  init_parameters(*two, 2);
  EXPECT_FALSE(
      at::equal(one->named_parameters()["mlp.down.weight"], two->named_parameters()["mlp.down.weight"]));
  EXPECT_FALSE(at::equal(one->named_parameters()["attention.output.weight"],
                         one->named_parameters()["attention.qkv.weight"].narrow(0, 0, 12)));
}

TEST(Init, HasTheAskedDeviationInAnyType) {
  Linear layer(LinearOptions{.in = 200, .out = 300, .init_deviation = 0.05});
  init_parameters(*layer, 3);
  EXPECT_NEAR(layer->weight().std().item<double>(), 0.05, 1e-3);
  EXPECT_EQ(layer->bias().abs().max().item<float>(), 0);
  Linear wide(layer->options());
  wide->to(at::kDouble);
  init_parameters(*wide, 3);
  EXPECT_EQ(relative_error(wide->weight(), layer->weight()), 0);
}

TEST(Residual, DropPathLeavesOutWholeSamplesAndKeepsTheMean) {
  const auto x = at::zeros({4000, 3}), branch = at::ones({4000, 3});
  const auto y = add_branch(x, branch, {.drop_path = 0.25, .stream = 7}, training(4000));
  EXPECT_TRUE(at::equal(y.select(1, 0), y.select(1, 2)));
  EXPECT_NEAR(y.eq(0).to(at::kFloat).mean().item<float>(), 0.25, 0.03);
  EXPECT_NEAR(y.mean().item<float>(), 1.0, 0.04);
  EXPECT_TRUE(at::equal(add_branch(x, branch, {.drop_path = 0.25, .stream = 7}, {}), branch));
}

TEST(Residual, DropPathIsTheSameOnAnySplitOfTheBatch) {
  const auto x = at::randn({9, 4}), branch = at::randn({9, 4});
  const BranchDrop drop = {.dropout = 0.3, .drop_path = 0.4, .stream = 5};
  const auto whole = add_branch(x, branch, drop, training(9));
  ForwardContext tail = training(9);
  tail.key_B = tail.key_B.narrow(0, 5, 4);
  EXPECT_TRUE(
      at::equal(whole.narrow(0, 5, 4), add_branch(x.narrow(0, 5, 4), branch.narrow(0, 5, 4), drop, tail)));
  EXPECT_FALSE(at::equal(whole, x + branch));
}

TEST(Rope, HasThePublishedFrequenciesAndRefusesFarPositions) {
  Rope rope(16, 8, 10000.0);
  const auto angles = rope.angles(3, 2, at::kCPU);
  EXPECT_NEAR(angles.cos_TF[0][0].item<double>(), std::cos(3.0), 1e-6);
  EXPECT_NEAR(angles.sin_TF[1][1].item<double>(), std::sin(4.0 / 10.0), 1e-6);
  EXPECT_NEAR(angles.sin_TF[1][3].item<double>(), std::sin(4.0 / 1000.0), 1e-6);
  EXPECT_THROW(rope.angles(10, 7, at::kCPU), Error);
}

TEST(Attention, EqualsPlainFormulaWithGroupedHeadsAndPadding) {
  at::manual_seed(1);
  Attention attention(
      AttentionOptions{.dim = 12, .heads = 4, .kv_heads = 2, .head_dim = 6, .qkv_bias = true});
  attention->to(at::kDouble);
  init_parameters(*attention, 4);
  Rope rope(32, 6, 100.0);
  const auto x = at::randn({2, 5, 12}, at::kDouble);
  const auto tokens = at::zeros({2, 5}, at::kLong), length = at::tensor({5, 3}, at::kLong);
  const auto y = attention(x, make_attention_view(tokens, length, false, rope), 0);

  const auto parameters = attention->named_parameters();
  const auto heads =
      at::linear(x, parameters["qkv.weight"], parameters["qkv.bias"]).view({2, 5, 8, 6}).transpose(1, 2);
  const auto angles = rope.angles(0, 5, at::kCPU);
  const auto turn = [&](const at::Tensor& part) {
    const auto halves = part.chunk(2, -1);
    return at::cat({halves[0] * angles.cos_TF - halves[1] * angles.sin_TF,
                    halves[1] * angles.cos_TF + halves[0] * angles.sin_TF},
                   -1);
  };
  const auto q = turn(heads.narrow(1, 0, 4)), k = turn(heads.narrow(1, 4, 2)).repeat_interleave(2, 1);
  auto scores = at::matmul(q, k.transpose(2, 3)) / std::sqrt(6.0);
  scores[1].narrow(2, 3, 2).fill_(-INFINITY);
  const auto mixed = at::matmul(at::softmax(scores, -1), heads.narrow(1, 6, 2).repeat_interleave(2, 1));
  const auto expected = at::linear(mixed.transpose(1, 2).reshape({2, 5, 24}), parameters["output.weight"]);
  EXPECT_LT(relative_error(y, expected), 1e-12);
}

TEST(Block, GradientsByFiniteDifferencesInItsInput) {
  at::manual_seed(2);
  Block block(small_block(0.2, 0.2));
  block->to(at::kDouble);
  init_parameters(*block, 5);
  Rope rope(8, 4, 100.0);
  const auto view = make_attention_view(at::zeros({2, 3}, at::kLong), {}, true, rope);
  testing::expect_gradients([&](const auto& in) { return block(in[0], view, training(2)); },
                            {at::randn({2, 3, 12}, at::kDouble)});
}

TEST(Block, LeavesItsLastSumToTheNextOneAndChangesNothing) {
  at::manual_seed(31);
  for (const double drop : {0.0, 0.3}) {
    Block first(small_block(drop, drop)), second(small_block(0, drop));
    init_parameters(*first, 7);
    init_parameters(*second, 8);
    RMSNorm norm(12, 1e-5);
    init_parameters(*norm, 9);
    Rope rope(8, 4, 100.0);
    const auto view = make_attention_view(at::zeros({4, 5}, at::kLong), {}, true, rope);
    const auto input = at::randn({4, 5, 12});
    const auto run = [&](bool as_stream) {
      const auto x = input.clone().requires_grad_(true);
      std::vector<at::Tensor> wanted = first->parameters();
      for (const auto& parameter : second->parameters()) wanted.push_back(parameter);
      wanted.push_back(x);
      at::Tensor y;
      if (as_stream) {
        auto stream = first->forward_stream({x}, view, training(4));
        EXPECT_TRUE(stream.branch.defined());
        EXPECT_EQ(stream.scale_B.defined(), drop > 0);
        stream = through_block(*second, stream, view, training(4));
        y = normed_sum(stream, norm).y;
      } else {
        y = norm(second(first(x, view, training(4)), view, training(4)));
      }
      auto result = torch::autograd::grad({y.sin().sum()}, wanted);
      result.push_back(y);
      return result;
    };
    const auto apart = run(false), together = run(true);
    for (size_t i = 0; i < apart.size(); ++i) EXPECT_TRUE(at::equal(apart[i], together[i])) << drop << i;
    EXPECT_GT(apart[0].abs().max().item<float>(), 0);
  }
}

TEST(SwinBlock, LeavesItsLastSumToTheNextOneAndChangesNothing) {
  at::manual_seed(32);
  for (const double drop : {0.0, 0.3}) {
    const auto options = [&](bool shifted, double dropped) {
      return SwinBlockOptions{.dim = 8,
                              .heads = 2,
                              .window = 2,
                              .shifted = shifted,
                              .local_mixing = shifted ? 0 : 3,
                              .dropout = dropped,
                              .drop_path = drop,
                              .layer = shifted};
    };
    SwinBlock first(options(false, drop)), second(options(true, 0));
    init_parameters(*first, 7);
    init_parameters(*second, 8);
    LayerNorm norm(8, 1e-5);
    init_parameters(*norm, 9);
    const auto input = at::randn({4, 4, 4, 8});
    const auto run = [&](bool as_stream) {
      const auto x = input.clone().requires_grad_(true);
      std::vector<at::Tensor> wanted = first->parameters();
      for (const auto& parameter : second->parameters()) wanted.push_back(parameter);
      wanted.push_back(x);
      at::Tensor y;
      if (as_stream) {
        auto stream = first->forward_stream({x}, training(4));
        EXPECT_TRUE(stream.branch.defined());
        EXPECT_EQ(stream.scale_B.defined(), drop > 0);
        stream = second->forward_stream(stream, training(4));
        y = normed_sum(stream, norm).y;
      } else {
        y = norm(second(first(x, training(4)), training(4)));
      }
      auto result = torch::autograd::grad({y.sin().sum()}, wanted);
      result.push_back(y);
      return result;
    };
    const auto apart = run(false), together = run(true);
    for (size_t i = 0; i < apart.size(); ++i) EXPECT_TRUE(at::equal(apart[i], together[i])) << drop << i;
    EXPECT_GT(apart[0].abs().max().item<float>(), 0);
  }
}

TEST(Checkpointing, RunsTheInsideAgainAndGivesTheSameGradientsBitForBit) {
  at::manual_seed(3);
  Block block(small_block(0.3, 0.3));
  init_parameters(*block, 6);
  Rope rope(8, 4, 100.0);
  const auto view = make_attention_view(at::zeros({4, 5}, at::kLong), {}, true, rope);
  const auto input = at::randn({4, 5, 12});
  int runs = 0;
  const auto forward = [&](const at::Tensor& x) {
    ++runs;
    return block(x, view, training(4));
  };
  const auto gradients = [&](bool checkpointed) {
    const auto x = input.clone().requires_grad_(true);
    std::vector<at::Tensor> wanted = block->parameters();
    wanted.push_back(x);
    const auto y = checkpointed ? checkpoint(*block, forward, x) : forward(x);
    return torch::autograd::grad({y.square().sum()}, wanted);
  };
  const auto plain = gradients(false);
  EXPECT_EQ(runs, 1);
  const auto recomputed = gradients(true);
  EXPECT_EQ(runs, 3);
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_TRUE(at::equal(plain[i], recomputed[i])) << i;
}

struct CountAccumulations : torch::autograd::PostAccumulateGradHook {
  explicit CountAccumulations(int* calls) : calls_(calls) {}
  void operator()(const torch::autograd::Variable&) override { ++*calls_; }
  int* calls_;
};

TEST(Checkpointing, AccumulatesOnceAndLeavesFrozenParametersAlone) {
  Linear layer(LinearOptions{.in = 3, .out = 2});
  init_parameters(*layer, 7);
  at::Tensor bias = layer->bias();
  bias.set_requires_grad(false);
  int calls = 0;
  torch::autograd::impl::set_post_acc_grad_hooks(layer->weight(),
                                                 std::make_unique<CountAccumulations>(&calls));
  checkpoint(
      *layer, [&](const at::Tensor& x) { return layer(x); }, at::ones({2, 3}))
      .sum()
      .backward();
  EXPECT_EQ(calls, 1);
  EXPECT_TRUE(layer->weight().grad().defined());
  EXPECT_FALSE(layer->bias().grad().defined());
}

TEST(WindowPlan, IndexesOffsetsAlsoInALargerTable) {
  const auto index = relative_position_index(2, 3);  // places 0 1 / 2 3, table of 5 × 5 around (2, 2)
  EXPECT_EQ(index[0][0].item<int64_t>(), 12);
  EXPECT_EQ(index[0][1].item<int64_t>(), 11);
  EXPECT_EQ(index[0][3].item<int64_t>(), 6);
  EXPECT_EQ(index[2][0].item<int64_t>(), 17);
}

TEST(WindowPlan, ShrinksAndStopsShiftingOnSmallMaps) {
  EXPECT_EQ(fit_windows(8, 9, 4, true).shift, 2);
  EXPECT_EQ(fit_windows(8, 9, 4, false).shift, 0);
  EXPECT_EQ(fit_windows(4, 9, 4, true).shift, 0);
  EXPECT_EQ(fit_windows(3, 9, 4, true).side, 3);
}

TEST(WindowPlan, MaskSeparatesWhatTheShiftJoined) {
  const kernels::WindowShape shape = {6, 6, 3, 1};
  const auto mask = shift_mask(shape);
  // Independent way: number the regions of the unshifted map, then partition like features.
  auto region = at::zeros({6, 6});
  for (int64_t y = 0; y < 6; ++y)
    for (int64_t x = 0; x < 6; ++x) {
      const auto part = [](int64_t p) { return p < 1 ? 2 : p < 4 ? 0 : 1; };  // wrapped, first, rest
      region[y][x] = part(y) * 3 + part(x);
    }
  const auto windows = kernels::window_partition(region.view({1, 6, 6, 1}), shape).view({4, 9});
  const auto apart = windows.unsqueeze(1).ne(windows.unsqueeze(2));
  EXPECT_TRUE(at::equal(mask, at::where(apart, kernels::kSeamScore, 0.0F)));
  EXPECT_FALSE(apart[0].any().item<bool>());
  EXPECT_TRUE(apart[3].any().item<bool>());
}

TEST(ShiftedWindowAttention, EqualsItsThreePartsWithGradients) {
  at::manual_seed(5);
  for (const auto& shape : {kernels::WindowShape{4, 6, 2, 1}, kernels::WindowShape{3, 3, 3, 0},
                            kernels::WindowShape{6, 9, 3, 1}}) {
    const int64_t places = shape.side * shape.side, heads = 2, size = 3;
    const auto mask = shape.shift > 0 ? shift_mask(shape).to(at::kDouble) : at::Tensor();
    const auto parts = [&](const auto& in) {
      const auto windows = kernels::window_partition(in[0], shape);
      return kernels::window_merge(kernels::window_attention(windows, in[1], mask), shape);
    };
    const auto whole = [&](const auto& in) { return kernels::shifted_window_attention(in[0], in[1], shape); };
    const std::vector<at::Tensor> inputs = {
        at::randn({2, shape.height, shape.width, 3 * heads * size}, at::kDouble),
        at::randn({heads, places, places}, at::kDouble)};
    EXPECT_LT(relative_error(whole(inputs), parts(inputs)), 1e-12);
    if (shape.height == 4) testing::expect_gradients(whole, inputs);
  }
  EXPECT_FALSE(kernels::has_shifted_window_attention(at::ones({1, 4, 4, 32}), {4, 4, 2, 1}, 32));  // a CPU
  EXPECT_THROW(kernels::shifted_window_attention(at::ones({1, 5, 4, 6}), at::ones({2, 4, 4}), {5, 4, 2, 0}),
               Error);
}

TEST(Patches, EmbedIsAConvolution) {
  at::manual_seed(4);
  PatchEmbed embed(PatchEmbedOptions{.patch = 2, .dim = 5});
  init_parameters(*embed, 8);
  const auto image = at::randn({2, 3, 6, 4});
  const auto parameters = embed->named_parameters();
  const auto map = at::conv2d(image, parameters["weight"], parameters["bias"], 2).permute({0, 2, 3, 1});
  EXPECT_LT(relative_error(embed(image), at::layer_norm(map, {5}, {}, {}, 1e-5)), 1e-5);
  EXPECT_THROW(embed(at::randn({2, 3, 5, 4})), Error);
}

TEST(Patches, MergingTakesNeighboursByColumnThenRow) {
  PatchMerging merging(1, 1e-5);
  init_parameters(*merging, 9);
  const auto x = at::arange(6, at::kFloat).view({1, 2, 3, 1});  // 0 1 2 / 3 4 5, padded to four columns
  const auto first = at::layer_norm(at::tensor({0.F, 3.F, 1.F, 4.F}), {4}, {}, {}, 1e-5);
  const auto second = at::layer_norm(at::tensor({2.F, 5.F, 0.F, 0.F}), {4}, {}, {}, 1e-5);
  const auto weight = merging->named_parameters()["reduction.weight"];
  EXPECT_LT(relative_error(merging(x)[0][0], at::linear(at::stack({first, second}), weight)), 1e-5);
}

TEST(SwinBlock, ShiftLetsNeighbouringWindowsSeeEachOther) {
  SwinBlockOptions options = {.dim = 4, .heads = 2, .window = 2};
  const auto reaches = [&](bool shifted) {
    options.shifted = shifted;
    SwinBlock block(options);
    init_parameters(*block, 10);
    const auto x = at::randn({1, 4, 4, 4}).requires_grad_(true);
    block(x, ForwardContext{}).select(1, 1).select(1, 1).sum().backward();  // place (1, 1)
    return x.grad()[0][2][2].abs().sum().item<float>() > 0;                 // place (2, 2), another window
  };
  EXPECT_FALSE(reaches(false));
  EXPECT_TRUE(reaches(true));
}

/// Nothing that a settled pass keeps outlives the parameters that it was made of, and none of it is learned
/// with.
TEST(SwinBlock, KeepsWhatItMakesOfParametersAsLongAsTheyStay) {
  at::manual_seed(41);
  SwinBlock block(SwinBlockOptions{.dim = 4, .heads = 2, .window = 2, .shifted = true, .local_mixing = 3});
  init_parameters(*block, 11);
  const ForwardContext settled{.settled = true};
  at::Tensor table = block->named_parameters()["attention.position_bias"];
  const auto x = at::randn({1, 4, 4, 4}), larger = at::randn({1, 6, 8, 4});
  const auto expect_same = [&](const at::Tensor& input) {
    const at::NoGradGuard no_grad;
    const auto expected = block(input, ForwardContext{});
    for (int pass = 0; pass < 2; ++pass) EXPECT_TRUE(at::equal(block(input, settled), expected));
  };
  expect_same(x);
  {
    const at::NoGradGuard no_grad;
    table.normal_();
  }
  expect_same(x);
  expect_same(larger);
  {
    const at::NoGradGuard no_grad;
    const auto kept = block(x, settled);
    {
      const at::AutoDispatchBelowADInplaceOrView unseen;  // as a recorded step writes
      table.mul_(3);
    }
    EXPECT_TRUE(at::equal(block(x, settled), kept)) << "gathered once";
    EXPECT_FALSE(at::equal(block(x, ForwardContext{}), kept)) << "the table counts";
  }
  block(x, settled).sum().backward();
  EXPECT_GT(table.grad().abs().max().item<float>(), 0) << "learns where gradients are asked for";
}

/// What is computed with copies is what casts give, in every layer that has parameters.
TEST(Context, CopiesOfWeightsChangeNoNumber) {
  at::manual_seed(42);
  SwinBlock block(SwinBlockOptions{.dim = 8, .heads = 2, .window = 2, .local_mixing = 3});
  PatchEmbed embed(PatchEmbedOptions{.patch = 2, .dim = 8});
  init_parameters(*block, 12);
  init_parameters(*embed, 13);
  std::vector<at::Tensor> weights = block->parameters();
  for (const auto& parameter : embed->parameters()) weights.push_back(parameter);
  kernels::WeightCopies copies(weights, at::kBFloat16);
  const auto image = at::randn({2, 3, 8, 8}).to(at::kBFloat16);
  const at::NoGradGuard no_grad;
  const auto run = [&](const ForwardContext& context) { return block(embed(image, context), context); };
  const auto expected = run({.compute_dtype = at::kBFloat16});
  EXPECT_TRUE(at::equal(run({.compute_dtype = at::kBFloat16, .copies = &copies, .settled = true}), expected));
  if (kernels::product_type(image) == at::kBFloat16) {
    EXPECT_EQ(copies.size(), 2 + 2 + 4 * 2) << "patches, mixing, four products";
  }
}

TEST(KeyValueCacheTest, AppendsAndRefusesOverflow) {
  KeyValueCache cache({.layers = 1, .batch = 1, .kv_heads = 1, .capacity = 3, .head_dim = 2}, at::kFloat);
  const auto first = at::randn({1, 1, 2, 2});
  cache.append(0, first, first);
  cache.advance(2);
  const auto [key, value] = cache.append(0, at::ones({1, 1, 1, 2}), at::zeros({1, 1, 1, 2}));
  EXPECT_TRUE(at::equal(key.narrow(2, 0, 2), first));
  EXPECT_EQ(key.size(2), 3);
  cache.advance(1);
  EXPECT_THROW(cache.append(0, at::ones({1, 1, 1, 2}), at::ones({1, 1, 1, 2})), Error);
  cache.reset();
  EXPECT_EQ(cache.append(0, first, first).first.size(2), 2);
}

TEST(KeyValueCacheTest, SequencesOfALayerThatSkipsTokensHoldWhatTheyWereGiven) {
  KeyValueCache cache({.layers = 2, .batch = 2, .kv_heads = 1, .capacity = 3, .head_dim = 2}, at::kFloat);
  const auto one = at::randn({1, 1, 1, 2}), two = at::randn({1, 1, 2, 2});
  cache.append(1, 0, one, -one);
  const auto [key, value] = cache.append(1, 0, two, -two);
  EXPECT_TRUE(at::equal(key, at::cat({one, two}, 2)));
  EXPECT_TRUE(at::equal(value, -key));
  EXPECT_TRUE(at::equal(cache.append(1, 1, two, two).first, two));
  EXPECT_EQ(cache.num_keys(1, 0), 3);
  EXPECT_EQ(cache.num_keys(1, 1), 2);
  EXPECT_EQ(cache.num_keys(0, 0), 0);
  EXPECT_THROW(cache.append(1, 0, one, one), Error);
  cache.reset();
  EXPECT_EQ(cache.num_keys(1, 0), 0);
}

TEST(LocalMixing, AddsEachChannelsNeighboursByWeight) {
  LocalMixing mixing(3, 3);
  mixing->to(at::kDouble);
  init_parameters(*mixing, 4);
  at::Tensor weight = mixing->named_parameters()["weight"].detach(),
             bias = mixing->named_parameters()["bias"].detach();
  bias.copy_(at::arange(3));
  const auto x = at::randn({2, 4, 5, 3}, at::kDouble);
  const auto padded = at::constant_pad_nd(x, {0, 0, 1, 1, 1, 1});
  auto expected = x + bias;
  for (int64_t row = 0; row < 3; ++row)
    for (int64_t column = 0; column < 3; ++column)
      expected = expected + padded.narrow(1, row, 4).narrow(2, column, 5) *
                                weight.select(3, column).select(2, row).flatten();
  EXPECT_LT(relative_error(mixing->forward(x), expected), 1e-12);
}

TEST(ConvolutionStem, OverlapsWherePatchesDoNot) {
  for (const bool convolutions : {false, true}) {
    PatchEmbed embed(PatchEmbedOptions{.patch = 4, .dim = 8, .convolutions = convolutions});
    init_parameters(*embed, 5);
    auto image = at::randn({1, 3, 16, 12});
    const auto before = embed->forward(image);
    EXPECT_EQ(before.sizes().vec(), (std::vector<int64_t>{1, 4, 3, 8}));
    image.select(2, 3).add_(1);  // the last row of the first patches
    EXPECT_EQ(at::equal(before.select(1, 1), embed->forward(image).select(1, 1)), !convolutions);
  }
}

TEST(LocalMixing, ReachesABlocksOutputBeyondItsWindows) {
  SwinBlockOptions options = {.dim = 8, .heads = 2, .window = 2};
  for (const auto& [before_block, in_mlp] : {std::pair(0, 0), {3, 0}, {0, 3}}) {
    options.local_mixing = before_block;
    options.mlp_mixing = in_mlp;
    const int64_t side = before_block + in_mlp;
    SwinBlock block(options);
    init_parameters(*block, 5);
    auto x = at::randn({1, 4, 4, 8});
    const auto before = block->forward(x, {});
    x.select(1, 2).select(1, 1).add_(at::randn({8}));  // the window below
    EXPECT_EQ(at::equal(before.narrow(1, 0, 2), block->forward(x, {}).narrow(1, 0, 2)), side == 0);
  }
}

}  // namespace
}  // namespace fathom::layers_test
