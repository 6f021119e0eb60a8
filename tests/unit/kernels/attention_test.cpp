// rope_heads, windows and window attention: CPU against reference, per type and odd shape; gradients.
#include <ATen/Parallel.h>

#include "base/error.h"
#include "gradcheck.h"
#include "kernels/attention.h"
#include "kernels/pass_learns.h"
#include "kernels/product_type.h"
#include "kernels/rope_heads.h"
#include "kernels/shifted_window_attention.h"
#include "kernels/short_attention.h"
#include "kernels/window.h"
#include "kernels/window_attention.h"
#include "kernels/window_softmax.h"

namespace fathom::attention_test {
namespace {

using testing::expect_gradients;
using testing::relative_error;
using testing::tolerance_of;

const at::ScalarType kTypes[] = {at::kFloat, at::kDouble, at::kBFloat16};

struct Angles {
  at::Tensor cos, sin;
};
Angles random_angles(int64_t tokens, int64_t half) {
  const auto angle = at::rand({tokens, half}).mul(6.28);
  return {angle.cos(), angle.sin()};
}

TEST(RopeHeads, EqualsReferenceForwardAndBackward) {
  for (const auto type : kTypes)
    for (const auto [heads, kv_heads, size] :
         {std::array{4, 2, 6}, std::array{1, 1, 2}, std::array{3, 3, 64}}) {
      at::manual_seed(1);
      const auto angles = random_angles(5, size / 2);
      const auto qkv =
          at::randn({2, 5, (heads + 2 * kv_heads) * size}, at::kDouble).to(type).requires_grad_(true);
      const auto [q, k, v] = kernels::rope_heads(qkv, angles.cos, angles.sin, {heads, kv_heads});
      const auto [ref_q, ref_k, ref_v] =
          kernels::rope_heads_ref::forward(qkv.detach(), angles.cos, angles.sin, heads, kv_heads);
      EXPECT_LT(relative_error(q, ref_q), tolerance_of(type));
      EXPECT_LT(relative_error(k, ref_k), tolerance_of(type));
      EXPECT_TRUE(at::equal(v.detach(), ref_v));
      // A gradient with the strides that attention gives it.
      const auto grad_q = at::randn({2, 5, heads, size}).to(type).transpose(1, 2);
      const auto grad_k = at::randn_like(k), grad_v = at::randn_like(v);
      const auto grad = torch::autograd::grad({q, k, v}, {qkv}, {grad_q, grad_k, grad_v})[0];
      const auto reference =
          kernels::rope_heads_ref::backward(grad_q, grad_k, grad_v, angles.cos, angles.sin);
      EXPECT_LT(relative_error(grad, reference), tolerance_of(type));
    }
}

/// Keys and values stand in the cache as they are handed out, whatever its type and layout.
TEST(RopeHeads, AreKeptWhereACacheWantsThem) {
  const auto angles = random_angles(5, 3);
  const auto qkv = at::randn({2, 5, 4 * 6});
  const auto expected = kernels::rope_heads(qkv, angles.cos, angles.sin, {2, 1});
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const auto room = at::zeros({2, 2, 1, 9, 6}, type);
    const auto keys = room[0].narrow(2, 3, 5), values = room[1].narrow(2, 3, 5);
    for (const bool learns : {false, true}) {
      room.zero_();
      const auto leaf = qkv.clone().requires_grad_(learns);
      const auto [q, k, v] = kernels::rope_heads_kept(leaf, angles.cos, angles.sin, {2, 1}, keys, values);
      EXPECT_EQ(q.requires_grad(), learns);
      EXPECT_TRUE(at::equal(q, std::get<0>(expected)) && at::equal(k, std::get<1>(expected)) &&
                  at::equal(v, std::get<2>(expected)));
      EXPECT_TRUE(at::equal(keys, k.detach().to(type)) && at::equal(values, v.detach().to(type)));
      EXPECT_EQ(
          room.narrow(3, 0, 3).abs().sum().item<float>() + room.narrow(3, 8, 1).abs().sum().item<float>(), 0);
    }
  }
  const auto small = at::zeros({2, 1, 4, 6});
  EXPECT_THROW(kernels::rope_heads_kept(qkv, angles.cos, angles.sin, {2, 1}, small, small), Error);
}

TEST(RopeHeads, GradientsByFiniteDifferences) {
  at::manual_seed(2);
  const auto angles = random_angles(3, 2);
  expect_gradients(
      [&](const auto& in) {
        const auto [q, k, v] = kernels::rope_heads(in[0], angles.cos, angles.sin, {2, 1});
        return at::cat({q, 2 * k, 3 * v}, 1);
      },
      {at::randn({2, 3, 16}, at::kDouble)});
}

TEST(RopeHeads, ScoresDependOnDistanceOnly) {
  // The same vector at every position: q_t · k_s must be a function of t − s.
  const auto frequency = at::pow(10000.0, -at::arange(4, at::kFloat) / 4);
  const auto angle = at::outer(at::arange(9, at::kFloat), frequency);
  const auto row = at::randn({1, 1, 24}).expand({1, 9, 24}).contiguous();
  const auto [q, k, v] = kernels::rope_heads(row, angle.cos(), angle.sin(), {1, 1});
  const auto scores = at::matmul(q, k.transpose(2, 3))[0][0];
  EXPECT_NEAR(scores[2][0].item<float>(), scores[8][6].item<float>(), 1e-4);
  EXPECT_GT((scores[2][0] - scores[8][0]).abs().item<float>(), 1e-3);
  EXPECT_THROW(kernels::rope_heads(row, angle.cos(), angle.sin(), {3, 1}), Error);
}

TEST(Windows, EqualReferenceAndReturn) {
  for (const auto type : kTypes)
    for (const auto& shape : {kernels::WindowShape{8, 8, 4, 0}, kernels::WindowShape{8, 12, 4, 2},
                              kernels::WindowShape{7, 9, 3, 1}, kernels::WindowShape{10, 11, 7, 3}}) {
      const auto x = at::randn({2, shape.height, shape.width, 5}).to(type);
      const auto windows = kernels::window_partition(x, shape);
      EXPECT_TRUE(at::equal(
          windows, kernels::window_ref::partition(x, shape.height, shape.width, shape.side, shape.shift)));
      EXPECT_TRUE(at::equal(kernels::window_merge(windows, shape), x));
      const auto other = at::randn_like(windows);
      EXPECT_TRUE(
          at::equal(kernels::window_merge(other, shape),
                    kernels::window_ref::merge(other, shape.height, shape.width, shape.side, shape.shift)));
    }
}

TEST(Windows, GradientsByFiniteDifferences) {
  const kernels::WindowShape shape = {3, 4, 2, 1};
  expect_gradients([&](const auto& in) { return kernels::window_partition(in[0], shape); },
                   {at::randn({1, 3, 4, 2}, at::kDouble)});
  const auto keep = at::ones({1, 4, 4, 2}, at::kDouble);
  const kernels::WindowShape whole = {4, 4, 2, 1};
  expect_gradients([&](const auto& in) { return kernels::window_merge(in[0], whole); }, {keep});
}

TEST(WindowSoftmax, EqualsReferenceForwardAndBackward) {
  for (const auto type : kTypes)
    for (const int64_t places : {1, 4, 25, 49}) {
      at::manual_seed(3);
      const auto scores = at::randn({6, 3, places, places}, at::kDouble).mul(4).to(type).requires_grad_(true);
      const auto bias = at::randn({3, places, places}, at::kDouble).to(type).requires_grad_(true);
      const auto mask = at::randn({2, places, places}).lt(0).to(type).mul(-100.0);
      const auto reference_type = type == at::kBFloat16 ? at::kFloat : type;
      const auto p = kernels::window_softmax(scores, bias, mask, 0.3);
      const auto expected = kernels::window_softmax_ref::forward(
          scores.detach().to(reference_type), bias.detach().to(reference_type), mask.to(reference_type), 0.3);
      EXPECT_LT(relative_error(p, expected), 2 * tolerance_of(type));
      const auto grad = at::randn_like(p);
      const auto grads = torch::autograd::grad({p}, {scores, bias}, {grad});
      const auto [ref_scores, ref_bias] =
          kernels::window_softmax_ref::backward(grad.to(reference_type), p.detach().to(reference_type), 0.3);
      const double tolerance = places == 1 ? 1.0 : 8 * tolerance_of(type);
      if (places > 1) {
        EXPECT_LT(relative_error(grads[0], ref_scores), tolerance);
        EXPECT_LT(relative_error(grads[1], ref_bias), tolerance);
      }
    }
}

TEST(WindowAttention, EqualsPlainFormulaWithMaskAndGradients) {
  at::manual_seed(4);
  const int64_t heads = 2, places = 4, size = 3;
  const auto mask = at::zeros({3, places, places}, at::kDouble);
  mask[1][0][2] = -100.0;
  const auto plain = [&](const auto& in) {
    const auto parts = in[0].view({2, 3, places, 3, heads, size}).permute({3, 0, 1, 4, 2, 5}).unbind(0);
    const auto logits =
        at::matmul(parts[0], parts[1].transpose(-1, -2)) / std::sqrt(3.0) + in[1] + mask.unsqueeze(1);
    return at::matmul(at::softmax(logits, -1), parts[2]).transpose(2, 3).reshape({2, 3, places, 6});
  };
  const auto ours = [&](const auto& in) { return kernels::window_attention(in[0], in[1], mask); };
  const std::vector<at::Tensor> inputs = {at::randn({2, 3, places, 18}, at::kDouble),
                                          at::randn({heads, places, places}, at::kDouble)};
  EXPECT_LT(relative_error(ours(inputs), plain(inputs)), 1e-12);
  expect_gradients(ours, inputs);
}

struct ShortCase {
  int64_t heads, kv_heads, queries, keys, size;
};

/// Heads of their own and shared ones, sizes that no vector divides, one key, more keys than queries.
const ShortCase kShortCases[] = {{2, 2, 8, 8, 16}, {4, 2, 13, 13, 5},   {3, 1, 7, 33, 64}, {2, 2, 49, 17, 32},
                                 {1, 1, 4, 1, 3},  {6, 2, 20, 40, 128}, {1, 1, 96, 96, 8}};

enum class Sees { kAll, kBefore, kUnpadded, kOwnRow, kOwnHead };

at::Tensor mask_of(Sees sees, const ShortCase& of) {
  if (sees == Sees::kAll || sees == Sees::kBefore) return {};
  auto mask = at::rand({2, sees == Sees::kOwnHead ? of.heads : 1, sees == Sees::kUnpadded ? 1 : of.queries,
                        of.keys}) > 0.3;
  if (sees != Sees::kUnpadded) mask.select(2, 1).fill_(false);  // a query that sees nothing
  return mask;
}

TEST(ShortAttention, EqualsReferenceForwardAndBackward) {
  for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf})
    for (const auto& of : kShortCases)
      for (const auto sees : {Sees::kAll, Sees::kBefore, Sees::kUnpadded, Sees::kOwnRow, Sees::kOwnHead}) {
        at::manual_seed(9);
        // Heads of a token together, as products leave them.
        const auto heads = [&](int64_t count, int64_t rows) {
          return at::randn({2, rows, count, of.size}, at::kDouble).to(type).transpose(1, 2).requires_grad_();
        };
        const auto q = heads(of.heads, of.queries), k = heads(of.kv_heads, of.keys),
                   v = heads(of.kv_heads, of.keys), grad = heads(of.heads, of.queries).detach();
        const auto mask = mask_of(sees, of);
        const bool causal = sees == Sees::kBefore;
        const auto y = kernels::short_attention(q, k, v, mask, causal);
        const auto grads = torch::autograd::grad({y}, {q, k, v}, {grad});
        const auto wide = [](const at::Tensor& x) { return x.detach().to(at::kDouble); };
        const auto maybe = mask.defined() ? std::make_optional(mask) : std::nullopt;
        const auto expected = kernels::short_attention_ref::forward(wide(q), wide(k), wide(v), maybe, causal);
        const auto [grad_q, grad_k, grad_v] =
            kernels::short_attention_ref::backward(wide(grad), wide(q), wide(k), wide(v), maybe, causal);
        const double tolerance = type == at::kHalf ? 2e-3 : 4 * tolerance_of(type);
        const auto at_case = fmt::format("{} {}x{} of {}, {}", c10::toString(type), of.queries, of.keys,
                                         of.size, static_cast<int>(sees));
        EXPECT_LT(relative_error(y, expected), tolerance) << at_case;
        EXPECT_LT(relative_error(grads[2], grad_v), tolerance) << at_case;
        if (of.keys > 1) {  // of one key the scores have no gradient
          EXPECT_LT(relative_error(grads[0], grad_q), tolerance) << at_case;
          EXPECT_LT(relative_error(grads[1], grad_k), tolerance) << at_case;
        }
        EXPECT_EQ(y.scalar_type(), type);
        EXPECT_TRUE(y.transpose(1, 2).is_contiguous());
      }
}

TEST(ShortAttention, IsLibTorchsAttention) {
  at::manual_seed(10);
  const auto q = at::randn({2, 4, 9, 16}), k = at::randn({2, 2, 11, 16}), v = at::randn({2, 2, 11, 16});
  const auto mask = at::rand({2, 1, 9, 11}) > 0.5;
  mask.select(2, 3).fill_(false);
  ASSERT_TRUE(kernels::has_short_attention(q, k));
  const auto expected = at::scaled_dot_product_attention(q, k, v, mask, 0.0, false, std::nullopt, true);
  EXPECT_LT(relative_error(kernels::attention(q, k, v, mask, false), expected), 1e-5);
}

TEST(ShortAttention, GradientsByFiniteDifferences) {
  at::manual_seed(11);
  const auto mask = at::ones({1, 1, 3, 4}, at::kBool);
  mask[0][0][1][2] = false;
  expect_gradients([&](const auto& in) { return kernels::short_attention(in[0], in[1], in[2], mask, false); },
                   {at::randn({1, 4, 3, 5}, at::kDouble), at::randn({1, 2, 4, 5}, at::kDouble),
                    at::randn({1, 2, 4, 5}, at::kDouble)});
}

TEST(ShortAttention, DoesNotDependOnThreads) {
  at::manual_seed(12);
  const auto q = at::randn({64, 4, 24, 32}).requires_grad_(), k = at::randn({64, 2, 24, 32}).requires_grad_(),
             v = at::randn({64, 2, 24, 32}).requires_grad_();
  const auto run = [&] {
    const auto y = kernels::short_attention(q, k, v, {}, true);
    auto parts = torch::autograd::grad({y.square().sum()}, {q, k, v});
    parts.push_back(y.detach());
    return parts;
  };
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const auto one = run();
  at::set_num_threads(std::max(2, threads));
  const auto many = run();
  at::set_num_threads(threads);
  for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(at::equal(one[i], many[i])) << i;
}

TEST(ShortAttention, IsChosenAlikeWhereAPassIsTakenAgain) {
  const auto q = at::ones({1, 1, 64, 64}, at::kBFloat16);
  EXPECT_TRUE(kernels::pass_learns());
  EXPECT_TRUE(kernels::has_short_attention(q, q));
  const at::NoGradGuard no_grad;
  EXPECT_FALSE(kernels::pass_learns());
  if (kernels::product_type(q) == at::kBFloat16) {
    EXPECT_FALSE(kernels::has_short_attention(q, q)) << "LibTorch's way is faster forward alone";
  }
  {
    const kernels::TakenAgain again;
    EXPECT_TRUE(kernels::pass_learns());
    EXPECT_TRUE(kernels::has_short_attention(q, q));
  }
  EXPECT_FALSE(kernels::pass_learns());
}

TEST(ShortAttention, LeavesLongSequencesAndOtherOperandsAlone) {
  const auto heads = [](int64_t rows, int64_t size) { return at::ones({1, 2, rows, size}); };
  EXPECT_TRUE(kernels::has_short_attention(heads(256, 8), heads(256, 8)));
  EXPECT_FALSE(kernels::has_short_attention(heads(257, 8), heads(256, 8)));
  EXPECT_FALSE(kernels::has_short_attention(heads(8, 136), heads(8, 136)));
  EXPECT_FALSE(kernels::has_short_attention(heads(1, 8), heads(100, 8))) << "a token that is decoded";
  EXPECT_FALSE(kernels::has_short_attention(heads(8, 8), heads(0, 8)));
  EXPECT_THROW(kernels::short_attention(heads(8, 8), heads(8, 4), heads(8, 4), {}, false), Error);
  EXPECT_THROW(kernels::short_attention(heads(8, 8), heads(8, 8), heads(8, 8), at::ones({8, 8}), false),
               Error);
}

struct WindowCase {
  kernels::WindowShape shape;
  int64_t heads, size;
};

/// One window and many, with and without a seam, sizes that no vector divides.
const WindowCase kWindowCases[] = {{{7, 7, 7, 0}, 3, 32},   {{14, 21, 7, 3}, 2, 32}, {{8, 8, 4, 2}, 1, 5},
                                   {{3, 6, 3, 1}, 2, 8},    {{16, 16, 16, 0}, 1, 9}, {{2, 4, 1, 0}, 2, 3},
                                   {{12, 12, 12, 5}, 1, 64}};

TEST(ShiftedWindowAttention, EqualsReferenceForwardAndBackward) {
  for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf})
    for (const auto& [shape, heads, size] : kWindowCases)
      for (const auto bias_type : {type, type == at::kDouble ? at::kDouble : at::kFloat}) {
        at::manual_seed(5);
        const int64_t places = shape.side * shape.side;
        const auto map = [&](int64_t width) {
          return at::randn({2, shape.height, shape.width, width}, at::kDouble).to(type);
        };
        const auto qkv = map(3 * heads * size).requires_grad_(), grad = map(heads * size);
        const auto bias = at::randn({heads, places, places}, at::kDouble).to(bias_type).requires_grad_();
        ASSERT_TRUE(kernels::has_shifted_window_attention(qkv, shape, size));
        const auto y = kernels::shifted_window_attention(qkv, bias, shape);
        const auto grads = torch::autograd::grad({y}, {qkv, bias}, {grad});
        const auto wide = [](const at::Tensor& x) { return x.detach().to(at::kDouble); };
        const auto expected =
            kernels::shifted_window_attention_ref::forward(wide(qkv), wide(bias), shape.side, shape.shift);
        const auto [grad_qkv, grad_bias] = kernels::shifted_window_attention_ref::backward(
            wide(grad), wide(qkv), wide(bias), shape.side, shape.shift);
        const double tolerance = type == at::kHalf ? 2e-3 : 4 * tolerance_of(type);
        EXPECT_LT(relative_error(y, expected), tolerance) << c10::toString(type) << places;
        EXPECT_LT(relative_error(grads[0], grad_qkv), tolerance) << c10::toString(type) << places;
        if (places > 1) {
          EXPECT_LT(relative_error(grads[1], grad_bias), tolerance) << c10::toString(type) << places;
        }
        EXPECT_EQ(y.scalar_type(), type);
        EXPECT_EQ(grads[1].scalar_type(), bias_type);
      }
}

TEST(ShiftedWindowAttention, IsWindowsAttentionAndMerging) {
  at::manual_seed(6);
  const kernels::WindowShape shape = {4, 6, 2, 1};
  const auto qkv = at::randn({1, 4, 6, 24}, at::kDouble), bias = at::randn({2, 4, 4}, at::kDouble);
  const auto windows = kernels::window_partition(qkv, shape);
  // Where a window has places on both sides of the seam: the last row and column of windows.
  auto mask = at::zeros({6, 4, 4}, at::kDouble);
  for (const int64_t window : {0, 1, 2, 3, 4, 5})
    for (const int64_t i : {0, 1, 2, 3})
      for (const int64_t j : {0, 1, 2, 3}) {
        const bool rows_apart = window >= 3 && i / 2 != j / 2,
                   columns_apart = window % 3 == 2 && i % 2 != j % 2;
        if (rows_apart || columns_apart) mask[window][i][j] = -100.0;
      }
  const auto expected = kernels::window_merge(kernels::window_attention(windows, bias, mask), shape);
  EXPECT_LT(relative_error(kernels::shifted_window_attention(qkv, bias, shape), expected), 1e-12);
}

TEST(ShiftedWindowAttention, GradientsByFiniteDifferences) {
  at::manual_seed(7);
  const kernels::WindowShape shape = {4, 2, 2, 1};
  expect_gradients([&](const auto& in) { return kernels::shifted_window_attention(in[0], in[1], shape); },
                   {at::randn({1, 4, 2, 18}, at::kDouble), at::randn({2, 4, 4}, at::kDouble)});
}

TEST(ShiftedWindowAttention, DoesNotDependOnThreads) {
  at::manual_seed(8);
  const kernels::WindowShape shape = {14, 14, 7, 3};
  const auto qkv = at::randn({3, 14, 14, 96}).requires_grad_(),
             bias = at::randn({4, 49, 49}).requires_grad_();
  const auto run = [&] {
    const auto y = kernels::shifted_window_attention(qkv, bias, shape);
    auto parts = torch::autograd::grad({y.square().sum()}, {qkv, bias});
    parts.push_back(y.detach());
    return parts;
  };
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const auto one = run();
  at::set_num_threads(threads);
  const auto many = run();
  for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(at::equal(one[i], many[i])) << i;
}

TEST(ShiftedWindowAttention, LeavesOtherMapsToItsParts) {
  const auto x = at::ones({1, 8, 8, 6});
  EXPECT_FALSE(kernels::has_shifted_window_attention(x, {8, 8, 3, 0}, 2)) << "windows that do not divide";
  EXPECT_FALSE(kernels::has_shifted_window_attention(x, {34, 34, 17, 0}, 2)) << "windows that are too large";
}

}  // namespace
}  // namespace fathom::attention_test
