// Attention of whole sequences on a Hopper GPU by our kernel, its reference, and when it is taken.
#include "kernels/flash_attention.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <tuple>
#include <utility>
#include <vector>

#include "cuda_fixture.h"
#include "deterministic_algorithms.h"
#include "gradcheck.h"
#include "kernels/attention.h"

namespace fathom::flash_attention_test {
namespace {

using testing::relative_error;

/// Queries, keys and values, [B, heads, T, E], each token's heads side by side.
struct Operands {
  at::Tensor q, k, v;

  static Operands make(int64_t batch, int64_t heads, int64_t kv_heads, int64_t tokens, int64_t size) {
    const auto random = [&](int64_t count) {
      return at::randn({batch, tokens, count, size}).transpose(1, 2);
    };
    return {random(heads), random(kv_heads), random(kv_heads)};
  }
  /// Copies that remember where heads lie.
  Operands to(at::Device device, at::ScalarType type, bool learn) const {
    const auto copy = [&](const at::Tensor& x) {
      return x.to(type).to(device, type, /*non_blocking=*/false, /*copy=*/true).requires_grad_(learn);
    };
    return {copy(q), copy(k), copy(v)};
  }
  bool fit() const { return kernels::has_flash_attention(q, k, v, {}); }
};

TEST(FlashAttention, ReferenceIsLibTorchs) {
  at::manual_seed(71);
  for (const bool causal : {true, false}) {
    const Operands x = Operands::make(2, 4, 2, 9, 16).to(at::kCPU, at::kDouble, false);
    const auto [y, sums] = kernels::flash_attention_ref::forward(x.q, x.k, x.v, causal);
    const auto expected =
        at::scaled_dot_product_attention(x.q, x.k, x.v, {}, 0.0, causal, {}, /*enable_gqa=*/true);
    EXPECT_LT(relative_error(y, expected), 1e-12);
    auto score = at::matmul(x.q, x.k.repeat_interleave(2, 1).transpose(2, 3)) / 4;
    if (causal) score = score + at::full({9, 9}, -1e30, score.options()).triu(1);
    EXPECT_LT(relative_error(sums, score.exp().sum(-1).log()), 1e-6);
  }
}

TEST(FlashAttention, GradientsByFiniteDifferences) {
  at::manual_seed(74);
  for (const bool causal : {true, false}) {
    const auto heads = [](int64_t count) { return at::randn({1, count, 5, 4}, at::kDouble); };
    testing::expect_gradients(
        [&](const std::vector<at::Tensor>& in) {
          return kernels::flash_attention(in[0], in[1], in[2], causal);
        },
        {heads(4), heads(2), heads(2)});
  }
}

TEST(FlashAttention, NoCpuTakesIt) {
  EXPECT_FALSE(Operands::make(1, 2, 2, 8, 64).to(at::kCPU, at::kBFloat16, false).fit());
}

class CudaFlashAttention : public cuda_test::CudaKernels {};

/// One token, around tiles of 64 and 128, heads that share keys, and both backward passes.
TEST_F(CudaFlashAttention, IsThatOfTheReferenceForwardAndBackward) {
  at::manual_seed(72);
  if (!Operands::make(1, 2, 2, 8, 64).to(device_, at::kBFloat16, false).fit())
    GTEST_SKIP() << "not on this card";
  for (const auto& [size, kv_heads, repeatable] : std::vector<std::tuple<int64_t, int64_t, bool>>{
           {64, 4, false}, {64, 4, true}, {64, 2, false}, {64, 2, true}, {128, 4, false}}) {
    const testing::DeterministicAlgorithms deterministic(repeatable);
    for (const auto& [tokens, batch] : std::vector<std::pair<int64_t, int64_t>>{
             {1, 3}, {63, 2}, {64, 1}, {65, 2}, {128, 2}, {129, 1}, {300, 2}, {700, 1}})
      for (const bool causal : {true, false})
        for (const auto type : {at::kBFloat16, at::kHalf}) {
          const double most = type == at::kHalf ? 5e-3 : 3e-2;
          const Operands x = Operands::make(batch, 4, kv_heads, tokens, size);
          const Operands ours = x.to(device_, type, true),
                         exact = x.to(at::kCPU, type, false).to(at::kCPU, at::kDouble, true);
          ASSERT_EQ(ours.fit(), size == 64 || tokens > 1);
          if (!ours.fit()) continue;
          const auto y = kernels::attention(ours.q, ours.k, ours.v, {}, causal),
                     expected = kernels::flash_attention(exact.q, exact.k, exact.v, causal);
          EXPECT_TRUE(y.transpose(1, 2).is_contiguous());
          EXPECT_LT(relative_error(y.cpu(), expected), most) << size << ", " << tokens << " tokens";
          const auto grad = at::randn({batch, tokens, 4, size}).transpose(1, 2).to(type);
          y.backward(grad.to(device_));
          expected.backward(grad.to(at::kDouble));
          EXPECT_LT(relative_error(ours.v.grad().cpu(), exact.v.grad()), most) << tokens << " tokens";
          for (const auto& [got, of] : {std::pair(ours.q, exact.q), {ours.k, exact.k}})  // zeros of one token
            EXPECT_LT((got.grad().cpu() - of.grad()).norm().item<double>(),
                      most * std::max(1.0, of.grad().norm().item<double>()))
                << "heads of " << size << ", " << tokens << " tokens" << (causal ? "" : ", in no order");
        }
  }
}

/// More keys than the second cache holds: blocks come in groups of heads, of which the last is smaller.
TEST_F(CudaFlashAttention, ManyHeadsAreAsOneTextAtATime) {
  at::manual_seed(77);
  const testing::DeterministicAlgorithms deterministic;
  const Operands x = Operands::make(3, 28, 28, 2048, 64).to(device_, at::kBFloat16, true);
  if (!x.fit()) GTEST_SKIP() << "not on this card";
  const auto y = kernels::flash_attention(x.q, x.k, x.v, true), grad = at::randn_like(y);
  y.backward(grad);
  for (int64_t text = 0; text < 3; ++text) {
    const auto own = [&](const at::Tensor& all) { return all.detach().narrow(0, text, 1); };
    const Operands alone = {own(x.q).requires_grad_(), own(x.k).requires_grad_(), own(x.v).requires_grad_()};
    const auto of_one = kernels::flash_attention(alone.q, alone.k, alone.v, true);
    of_one.backward(own(grad));
    EXPECT_TRUE(at::equal(of_one, own(y))) << "text " << text;
    EXPECT_TRUE(at::equal(alone.q.grad(), own(x.q.grad()))) << "text " << text;
    EXPECT_TRUE(at::equal(alone.k.grad(), own(x.k.grad()))) << "text " << text;
    EXPECT_TRUE(at::equal(alone.v.grad(), own(x.v.grad()))) << "text " << text;
  }
}

/// Gradients come as whatever follows lays them; the same shapes in turn, since LibTorch keeps cuDNN's
/// graphs.
TEST_F(CudaFlashAttention, GradientsMayLieInAnyOrder) {
  at::manual_seed(76);
  const Operands x = Operands::make(2, 4, 4, 100, 64);
  if (!x.to(device_, at::kBFloat16, true).fit()) GTEST_SKIP() << "not on this card";
  const auto by_tokens = at::randn({2, 100, 4, 64}).to(device_, at::kBFloat16).transpose(1, 2),
             by_head = by_tokens.contiguous(), wide = at::cat({by_head, by_head}, 3).narrow(3, 0, 64);
  const auto of = [&](const at::Tensor& grad) {
    const Operands ours = x.to(device_, at::kBFloat16, true);
    kernels::flash_attention(ours.q, ours.k, ours.v, true).backward(grad);
    return ours.q.grad();
  };
  for (const bool repeatable : {false, true}) {
    const testing::DeterministicAlgorithms deterministic(repeatable);
    const auto expected = of(by_tokens);
    for (const at::Tensor& grad : {by_head, wide, by_tokens})
      EXPECT_LT(relative_error(of(grad), expected), 1e-2) << (repeatable ? "ours" : "cuDNN's");
    const auto ones = at::ones({}, by_head.options()).expand(by_head.sizes());
    EXPECT_LT(relative_error(of(ones), of(ones.contiguous())), 1e-2) << (repeatable ? "ours" : "cuDNN's");
  }
}

/// Large scores, far from what their sums were made of.
TEST_F(CudaFlashAttention, GradientsAreTheSameInEveryRunAndOfSharpScores) {
  at::manual_seed(75);
  Operands x = Operands::make(2, 4, 4, 500, 64);
  x.q = x.q * 8;
  const auto grad = at::randn({2, 500, 4, 64}).transpose(1, 2).to(at::kBFloat16);
  const auto run = [&] {
    const Operands ours = x.to(device_, at::kBFloat16, true);
    kernels::flash_attention(ours.q, ours.k, ours.v, true).backward(grad.to(device_));
    return std::vector{ours.q.grad().cpu(), ours.k.grad().cpu(), ours.v.grad().cpu()};
  };
  if (!x.to(device_, at::kBFloat16, true).fit()) GTEST_SKIP() << "not on this card";
  const testing::DeterministicAlgorithms deterministic;
  const auto first = run();
  for (int again = 0; again < 5; ++again) {
    const auto next = run();
    for (size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(at::equal(next[i], first[i])) << "part " << i;
  }
  const Operands exact = x.to(at::kCPU, at::kBFloat16, false).to(at::kCPU, at::kDouble, true);
  kernels::flash_attention(exact.q, exact.k, exact.v, true).backward(grad.to(at::kDouble));
  EXPECT_LT(relative_error(first[0], exact.q.grad()), 3e-2);
  EXPECT_LT(relative_error(first[1], exact.k.grad()), 3e-2);
  EXPECT_LT(relative_error(first[2], exact.v.grad()), 3e-2);
}

TEST_F(CudaFlashAttention, HeadsShareKeysAndRowsMayLieApart) {
  at::manual_seed(73);
  const at::NoGradGuard none;
  const Operands x = Operands::make(2, 6, 2, 200, 64);
  Operands ours = x.to(device_, at::kBFloat16, false);
  if (!ours.fit()) GTEST_SKIP() << "not on this card";
  const Operands exact = x.to(at::kCPU, at::kBFloat16, false).to(at::kCPU, at::kDouble, false);
  const auto expected = std::get<0>(kernels::flash_attention_ref::forward(exact.q, exact.k, exact.v, true));
  EXPECT_LT(relative_error(kernels::flash_attention(ours.q, ours.k, ours.v, true).cpu(), expected), 3e-2);
  // As one product writes them: rows of all ten heads.
  const auto packed = at::cat({ours.q, ours.k, ours.v}, 1).transpose(1, 2).contiguous().transpose(1, 2);
  const Operands apart = {packed.narrow(1, 0, 6), packed.narrow(1, 6, 2), packed.narrow(1, 8, 2)};
  ASSERT_TRUE(apart.fit());
  EXPECT_TRUE(at::equal(kernels::flash_attention(apart.q, apart.k, apart.v, true),
                        kernels::flash_attention(ours.q, ours.k, ours.v, true)));
}

TEST_F(CudaFlashAttention, LeavesOtherOperandsAlone) {
  const auto fit = [&](int64_t heads, int64_t kv_heads, int64_t size, at::ScalarType type,
                       bool learn = false) {
    const at::AutoGradMode mode(learn);
    return Operands::make(1, heads, kv_heads, 16, size).to(device_, type, learn).fit();
  };
  if (!fit(2, 2, 64, at::kBFloat16)) GTEST_SKIP() << "not on this card";
  EXPECT_FALSE(fit(2, 2, 32, at::kBFloat16));
  EXPECT_FALSE(fit(2, 2, 64, at::kFloat));
  EXPECT_TRUE(fit(4, 2, 128, at::kHalf));
  EXPECT_TRUE(fit(4, 2, 64, at::kHalf, true));
  EXPECT_TRUE(fit(4, 4, 128, at::kHalf, true));
  EXPECT_FALSE(fit(4, 2, 128, at::kHalf, true));  // cuDNN's backward pass takes as many heads of keys
  const Operands x = Operands::make(2, 2, 2, 16, 64).to(device_, at::kHalf, false);
  EXPECT_FALSE(
      kernels::has_flash_attention(x.q, x.k, x.v, at::ones({16, 16}, x.q.options().dtype(at::kBool))));
  EXPECT_FALSE(kernels::has_flash_attention(x.q.narrow(2, 0, 8), x.k, x.v, {}));
  EXPECT_FALSE(kernels::has_flash_attention(x.q.contiguous(), x.k, x.v, {}));  // heads apart
  const testing::DeterministicAlgorithms deterministic;
  EXPECT_FALSE(fit(4, 4, 128, at::kHalf, true));
  EXPECT_TRUE(fit(4, 4, 128, at::kHalf));
  EXPECT_TRUE(fit(4, 4, 64, at::kHalf, true));
}

}  // namespace
}  // namespace fathom::flash_attention_test
