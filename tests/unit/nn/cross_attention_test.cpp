// Attention to other sequences, what weighs modalities, bottlenecks: against plain formulas, and their
// derivatives against finite differences.
#include "nn/cross_attention.h"

#include <torch/torch.h>

#include <cmath>

#include "gradcheck.h"
#include "nn/adapter.h"
#include "nn/bottleneck.h"
#include "nn/modality_weight.h"

namespace fathom::cross_attention_test {
namespace {

using testing::expect_leaf_gradients;
using testing::relative_error;
using testing::with_parameters;

constexpr int64_t kBatch = 3, kTokens = 4, kStates = 6, kDim = 10, kHeads = 2, kHeadDim = 3;

at::Tensor numbers(at::IntArrayRef shape, double offset) {
  return at::arange(c10::multiply_integers(shape), at::kDouble).mul(0.61).add(offset).sin().view(shape);
}

/// Every parameter another wave.
template <typename Module>
void fill(Module& module) {
  const at::NoGradGuard no_grad;
  double offset = 0.3;
  module->to(at::kDouble);
  for (auto& item : module->named_parameters()) item.value().copy_(numbers(item.value().sizes(), offset++));
}

template <typename Module>
at::Tensor parameter(const Module& module, const std::string& name) {
  return module->named_parameters()[name].detach();
}

at::Tensor rms_normed(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return x * (x.square().mean(-1, true) + eps).rsqrt() * weight;
}

/// Some states of each row may not be looked at.
at::Tensor state_mask() {
  at::Tensor mask_BS = at::ones({kBatch, kStates}, at::kBool);
  mask_BS[0].slice(0, 4).fill_(false);
  mask_BS[2][1].fill_(false);
  return mask_BS;
}

struct Reference {
  at::Tensor shares_BHTS, output_BTD;
};

template <typename Module>
Reference attend(const Module& module, const std::string& prefix, const at::Tensor& x_BTD,
                 const at::Tensor& state_BSD, const at::Tensor& mask_BS, const at::Tensor& weight_BS) {
  const auto weight = [&](const char* name) { return parameter(module, prefix + name + ".weight"); };
  const auto heads = [](const at::Tensor& y) { return y.unflatten(2, {kHeads, kHeadDim}).transpose(1, 2); };
  const auto key_value = at::matmul(state_BSD, weight("key_value").t()).chunk(2, 2);
  const auto score =
      at::matmul(heads(at::matmul(x_BTD, weight("query").t())), heads(key_value[0]).transpose(2, 3)) /
      std::sqrt(double{kHeadDim});
  const auto shares =
      score.masked_fill(mask_BS.logical_not().unsqueeze(1).unsqueeze(1), -INFINITY).softmax(3);
  const auto y = at::matmul(shares, heads(key_value[1] * weight_BS.unsqueeze(2)));
  return {shares, at::matmul(y.transpose(1, 2).flatten(2), weight("output").t())};
}

TEST(CrossAttention, IsThePlainFormula) {
  const at::NoGradGuard no_grad;
  CrossAttention layer(CrossAttentionOptions{.dim = kDim, .heads = kHeads, .head_dim = kHeadDim});
  fill(layer);
  const auto x = numbers({kBatch, kTokens, kDim}, 1), states = numbers({kBatch, kStates, kDim}, 2);
  const auto mask_BS = state_mask(), weight_BS = numbers({kBatch, kStates}, 3).abs();
  at::Tensor attention_BTS;
  const auto y = layer->forward(
      x, {.state_BSD = states, .mask = mask_BS.unsqueeze(1).unsqueeze(1), .weight_BS = weight_BS}, {},
      &attention_BTS);
  const Reference expected = attend(layer, "", x, states, mask_BS, weight_BS);
  EXPECT_LT(relative_error(y, expected.output_BTD), 1e-12);
  EXPECT_LT(relative_error(attention_BTS, expected.shares_BHTS.mean(1)), 1e-12);
  EXPECT_EQ(attention_BTS[0].slice(1, 4).abs().max().item<double>(), 0);
}

TEST(CrossAttention, AGateLetsInAsMuchAsItSays) {
  const at::NoGradGuard no_grad;
  GatedCrossAttention layer(CrossAttentionOptions{.dim = kDim, .heads = kHeads, .head_dim = kHeadDim});
  fill(layer);
  const auto x = numbers({kBatch, kTokens, kDim}, 1), states = numbers({kBatch, kStates, kDim}, 2);
  const auto mask_BS = state_mask();
  const Reference inner = attend(layer, "attention.", rms_normed(x, parameter(layer, "norm.weight"), 1e-5),
                                 rms_normed(states, parameter(layer, "state_norm.weight"), 1e-5), mask_BS,
                                 at::ones({kBatch, kStates}));
  at::Tensor gate = parameter(layer, "gate");
  for (const double value : {0.0, 0.7, -0.2}) {
    gate.fill_(value);
    const auto y = layer->forward(x, {.state_BSD = states, .mask = mask_BS.unsqueeze(1).unsqueeze(1)});
    EXPECT_LT(relative_error(y, x + std::tanh(value) * inner.output_BTD), 1e-12) << value;
  }
}

/// A picture of 2, a caption of 1, a question of 3.
const std::vector<int64_t> kSizes = {2, 1, 3};

TEST(ModalityWeight, IsTheMassThatTheQuestionPutsOnEach) {
  const at::NoGradGuard no_grad;
  ModalityWeight layer(kDim, 5);
  fill(layer);
  const auto states = numbers({kBatch, kStates, kDim}, 2);
  const auto mask_BS = state_mask();  // row 0 asks with one token, row 2 lacks half its picture
  const auto weight_BN = layer->forward(states, mask_BS, kSizes);
  for (int64_t b = 0; b < kBatch; ++b) {
    at::Tensor expected_N = at::zeros({3}, at::kDouble);
    int64_t asking = 0;
    for (int64_t t = 3; t < kStates; ++t) {
      if (!mask_BS[b][t].item<bool>()) continue;
      ++asking;
      const auto q_E = at::mv(parameter(layer, "query.weight"), states[b][t]);
      const auto score_S =
          at::mv(at::matmul(states[b], parameter(layer, "key.weight").t()), q_E) / std::sqrt(5);
      const auto share_S = score_S.masked_fill(mask_BS[b].logical_not(), -INFINITY).softmax(0);
      expected_N += at::stack({share_S.slice(0, 0, 2).sum(), share_S[2], share_S.slice(0, 3).sum()});
    }
    EXPECT_LT(relative_error(weight_BN[b], expected_N / asking), 1e-12) << b;
  }
  EXPECT_LT(relative_error(weight_BN.sum(1), at::ones({kBatch}, at::kDouble)), 1e-12);
}

TEST(ModalityWeight, WhatIsNotThereWeighsNothing) {
  const at::NoGradGuard no_grad;
  ModalityWeight layer(kDim, 5);
  fill(layer);
  at::Tensor mask_BS = at::ones({kBatch, kStates}, at::kBool);
  mask_BS.slice(1, 0, 2).fill_(false);
  const auto weight_BN = layer->forward(numbers({kBatch, kStates, kDim}, 2), mask_BS, kSizes);
  EXPECT_EQ(weight_BN.select(1, 0).abs().max().item<double>(), 0);
  EXPECT_GT(weight_BN.select(1, 1).min().item<double>(), 0);
}

TEST(Bottleneck, IsThePlainFormula) {
  const at::NoGradGuard no_grad;
  Bottleneck layer(BottleneckOptions{.in = kDim, .inner = 4, .out = 7});
  fill(layer);
  const auto x = numbers({kBatch, kTokens, kDim}, 1);
  const auto normed =
      at::layer_norm(x, {kDim}, parameter(layer, "norm.weight"), parameter(layer, "norm.bias"), 1e-5);
  const auto inner =
      at::gelu(at::linear(normed, parameter(layer, "down.weight"), parameter(layer, "down.bias")));
  EXPECT_LT(
      relative_error(layer(x), at::linear(inner, parameter(layer, "up.weight"), parameter(layer, "up.bias"))),
      1e-12);
}

TEST(Adapter, IsThePlainFormula) {
  const at::NoGradGuard no_grad;
  Adapter layer(AdapterOptions{.dim = kDim, .bottleneck = 4});
  fill(layer);
  const auto x = numbers({kBatch, kTokens, kDim}, 1);
  const auto inner = at::gelu(at::linear(x, parameter(layer, "down.weight"), parameter(layer, "down.bias")));
  EXPECT_LT(relative_error(layer(x),
                           x + at::linear(inner, parameter(layer, "up.weight"), parameter(layer, "up.bias"))),
            1e-12);
}

TEST(CrossAttention, HasTheRightDerivatives) {
  torch::manual_seed(1);
  CrossAttention layer(CrossAttentionOptions{.dim = kDim, .heads = kHeads, .head_dim = kHeadDim});
  fill(layer);
  const auto x = numbers({kBatch, kTokens, kDim}, 1), states = numbers({kBatch, kStates, kDim}, 2);
  const auto mask = state_mask().unsqueeze(1).unsqueeze(1), weight_BS = numbers({kBatch, kStates}, 3).abs();
  expect_leaf_gradients(
      [&] { return layer->forward(x, {.state_BSD = states, .mask = mask, .weight_BS = weight_BS}); },
      with_parameters({x, states, weight_BS}, layer));
}

TEST(CrossAttention, WithAnOpenGateHasTheRightDerivatives) {
  torch::manual_seed(2);
  GatedCrossAttention layer(CrossAttentionOptions{.dim = kDim, .heads = kHeads, .head_dim = kHeadDim});
  fill(layer);
  {
    const at::NoGradGuard no_grad;
    layer->named_parameters()["gate"].fill_(0.7);
  }
  const auto x = numbers({kBatch, kTokens, kDim}, 1), states = numbers({kBatch, kStates, kDim}, 2);
  const auto mask = state_mask().unsqueeze(1).unsqueeze(1);
  expect_leaf_gradients([&] { return layer->forward(x, {.state_BSD = states, .mask = mask}); },
                        with_parameters({x, states}, layer));
}

TEST(CrossAttention, BehindAClosedGateOnlyTheGateLearns) {
  GatedCrossAttention layer(CrossAttentionOptions{.dim = kDim, .heads = kHeads, .head_dim = kHeadDim});
  fill(layer);
  {
    const at::NoGradGuard no_grad;
    layer->named_parameters()["gate"].zero_();
  }
  const auto x = numbers({kBatch, kTokens, kDim}, 1), states = numbers({kBatch, kStates, kDim}, 2);
  (layer->forward(x, {.state_BSD = states}) * numbers(x.sizes(), 4)).sum().backward();
  for (const auto& item : layer->named_parameters())
    EXPECT_EQ(item.value().grad().abs().max().item<double>() > 0, item.key() == "gate") << item.key();
}

TEST(ModalityWeight, HasTheRightDerivatives) {
  torch::manual_seed(3);
  ModalityWeight layer(kDim, 5);
  fill(layer);
  const auto states = numbers({kBatch, kStates, kDim}, 2), mask_BS = state_mask();
  expect_leaf_gradients([&] { return layer->forward(states, mask_BS, kSizes); },
                        with_parameters({states}, layer));
}

TEST(Bottleneck, HasTheRightDerivatives) {
  torch::manual_seed(4);
  Bottleneck layer(BottleneckOptions{.in = kDim, .inner = 4, .out = 7});
  fill(layer);
  const auto x = numbers({kBatch, kTokens, kDim}, 1);
  expect_leaf_gradients([&] { return layer->forward(x); }, with_parameters({x}, layer));
}

}  // namespace
}  // namespace fathom::cross_attention_test
