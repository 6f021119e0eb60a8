// Layers of a Swin one by one: windows, patches, what stands beside them, and its block.
#include "base/error.h"
#include "gradcheck.h"
#include "kernels/shifted_window_attention.h"
#include "kernels/weight_copies.h"
#include "kernels/window_attention.h"
#include "kernels/window_seam.h"
#include "layer_fixture.h"
#include "nn/init.h"
#include "nn/local_mixing.h"
#include "nn/patch.h"
#include "nn/residual.h"
#include "nn/swin_block.h"
#include "nn/window_plan.h"

namespace fathom::swin_layers_test {
namespace {

using testing::relative_error;
using testing::training;

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
  EXPECT_TRUE(kernels::has_shifted_window_attention(at::ones({1, 4, 4, 32}), {4, 4, 2, 1}, 32));  // a CPU
  EXPECT_FALSE(kernels::has_shifted_window_attention(at::ones({1, 5, 4, 32}), {5, 4, 2, 1}, 32));
  EXPECT_FALSE(kernels::has_shifted_window_attention(at::ones({1, 17, 17, 32}), {17, 17, 17, 0}, 32));
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
    EXPECT_EQ(copies.size(), 2 + 4 * 2) << "patches, four products; mixing reads weights as they are";
  }
}

}  // namespace
}  // namespace fathom::swin_layers_test
