// Layers one by one: against plain formulas, and the properties that a model relies on. Those of a Swin stand
// in swin_layers_test.cpp.
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include "base/error.h"
#include "gradcheck.h"
#include "kernels/pass_learns.h"
#include "layer_fixture.h"
#include "nn/attention.h"
#include "nn/block.h"
#include "nn/checkpointing.h"
#include "nn/init.h"
#include "nn/residual.h"

namespace fathom::layers_test {
namespace {

using testing::relative_error;
using testing::small_block;
using testing::training;

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

TEST(Checkpointing, TellsKernelsThatAPassIsTakenAgain) {
  Linear layer(LinearOptions{.in = 3, .out = 2});
  init_parameters(*layer, 7);
  std::vector<bool> learns;
  const auto forward = [&](const at::Tensor& x) {
    learns.push_back(kernels::pass_learns());
    return layer(x);
  };
  checkpoint(*layer, forward, at::ones({2, 3})).sum().backward();
  EXPECT_EQ(learns, std::vector({true, true})) << "first without gradients, then with them";
  const at::NoGradGuard no_grad;
  checkpoint(*layer, forward, at::ones({2, 3}));
  EXPECT_FALSE(learns.back()) << "a pass that nothing follows";
}

TEST(KeyValueCacheTest, HasPlacesForWhatComesNextAndRefusesOverflow) {
  KeyValueCache cache({.layers = 1, .batch = 1, .kv_heads = 1, .capacity = 3, .head_dim = 2}, at::kFloat);
  const auto first = at::randn({1, 1, 2, 2}), second = at::ones({1, 1, 1, 2});
  cache.next(0, 2).first.copy_(first);
  cache.next(0, 2).second.copy_(-first);
  cache.advance(2);
  cache.next(0, 1).first.copy_(second);
  cache.next(0, 1).second.copy_(-second);
  const auto [key, value] = cache.with_next(0, 1);
  EXPECT_TRUE(at::equal(key, at::cat({first, second}, 2)));
  EXPECT_TRUE(at::equal(value, -key));
  cache.advance(1);
  EXPECT_THROW(cache.next(0, 1), Error);
  cache.reset();
  EXPECT_TRUE(at::equal(cache.next(0, 2).first, first));
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

}  // namespace
}  // namespace fathom::layers_test
