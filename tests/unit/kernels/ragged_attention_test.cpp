// Attention of counted rows on Hopper, by our kernels and by cuDNN's.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <limits>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "cuda_fixture.h"
#include "deterministic_algorithms.h"
#include "gradcheck.h"
#include "kernels/counted_gradients.h"
#include "kernels/counted_rows.h"

namespace fathom::ragged_attention_test {
namespace {

using kernels::CountedRows;
using testing::relative_error;

/// What attention and its backward pass made of rows in use.
std::vector<at::Tensor> attended(const at::Tensor& qkv, const at::Tensor& grad, const at::Tensor& active,
                                 kernels::HeadLayout layout, bool causal) {
  auto counts = at::zeros({3}, qkv.options().dtype(at::kDouble));
  const CountedRows rows = kernels::chosen_rows({.active_BT = active.to(qkv.device())}, &counts).first;
  const kernels::CountedAttention attention = kernels::counted_attention(qkv, layout, causal, rows);
  const auto grads = kernels::counted_attention_backward(grad, qkv, attention, layout, causal, rows);
  const int64_t used = rows.start_S1[-1].item<int64_t>();
  std::vector<at::Tensor> made;
  for (const at::Tensor& x : {attention.y, grads.q, grads.k, grads.v})
    made.push_back(x.narrow(0, 0, used).flatten(1).cpu());
  return made;
}

class CudaRaggedAttention : public cuda_test::CudaKernels {};

/// Sequences without a row, with one, and around tiles; memory behind the rows in use holds no numbers.
TEST_F(CudaRaggedAttention, IsThatOfEachSequence) {
  at::manual_seed(61);
  constexpr int64_t kTokens = 300;
  for (const std::vector<int64_t>& lengths :
       std::vector<std::vector<int64_t>>{{0, 1, 127, 300}, {128, 129, 0, 64}, {300}, {17, 0, 0}, {0, 0}})
    for (const auto& [size, kv_heads, causal] :
         std::vector<std::tuple<int64_t, int64_t, bool>>{{64, 4, true},
                                                         {128, 4, true},
                                                         {32, 4, true},
                                                         {64, 4, false},
                                                         {16, 4, false},
                                                         {64, 2, true},
                                                         {128, 2, true}})
      for (const auto type : {at::kBFloat16, at::kHalf}) {
        const int64_t heads = 4, sequences = static_cast<int64_t>(lengths.size());
        const kernels::HeadLayout layout = {heads, kv_heads};
        auto active = at::zeros({sequences, kTokens}, at::kBool);
        int64_t used = 0;
        for (int64_t s = 0; s < sequences; used += lengths[static_cast<size_t>(s)], ++s)
          active[s].narrow(0, 0, lengths[static_cast<size_t>(s)]).fill_(true);
        auto qkv = at::randn({sequences * kTokens, (heads + 2 * kv_heads) * size}).to(type),
             grad = at::randn({sequences * kTokens, heads * size}).to(type);
        const auto expected = attended(qkv.to(at::kDouble), grad.to(at::kDouble), active, layout, causal);
        for (at::Tensor x : {qkv, grad})
          x.narrow(0, used, x.size(0) - used).fill_(std::numeric_limits<double>::quiet_NaN());
        const auto got = attended(qkv.to(device_), grad.to(device_), active, layout, causal);
        for (size_t i = 0; i < got.size(); ++i)
          EXPECT_LT(relative_error(got[i], expected[i]), type == at::kHalf ? 5e-3 : 3e-2)
              << c10::toString(type) << ", " << kv_heads << " heads of keys of " << size
              << (causal ? "" : ", in no order") << ", lengths " << at::IntArrayRef(lengths) << ", part "
              << i;
      }
}

/// Sequences with a share of their tokens each, on a device.
struct Case {
  int64_t heads = 8;
  at::Tensor qkv, grad, active;

  static Case on(at::Device device, int64_t size) {
    const int64_t sequences = 4, tokens = 1024;
    const auto options = at::TensorOptions(device).dtype(at::kBFloat16);
    Case made{.active = at::rand({sequences, tokens}) < 0.4};
    made.qkv = at::randn({sequences * tokens, 3 * made.heads * size}, options);
    made.grad = at::randn({sequences * tokens, made.heads * size}, options);
    return made;
  }
  std::vector<at::Tensor> run() const { return attended(qkv, grad, active, {heads, heads}, /*causal=*/true); }
};

TEST_F(CudaRaggedAttention, IsTheSameInEveryRunWhereItMustBe) {
  at::manual_seed(62);
  for (const int64_t size : {64, 128}) {
    const Case of = Case::on(device_, size);
    const auto any = of.run();
    const testing::DeterministicAlgorithms deterministic;
    const auto first = of.run();
    for (size_t i = 0; i < any.size(); ++i)
      EXPECT_LT(relative_error(first[i], any[i]), 3e-2) << "heads of " << size << ", part " << i;
    for (int again = 0; again < 5; ++again) {
      const auto next = of.run();
      for (size_t i = 0; i < first.size(); ++i)
        EXPECT_TRUE(at::equal(next[i], first[i])) << "heads of " << size << ", part " << i;
    }
  }
}

/// Which takes the backward pass where there is a forward pass alone.
TEST_F(CudaRaggedAttention, SumsAreThoseOfLibTorchsFlashAttention) {
  at::manual_seed(64);
  const Case of = Case::on(device_, 64);
  auto counts = at::zeros({3}, of.qkv.options().dtype(at::kDouble));
  const CountedRows rows = kernels::chosen_rows({.active_BT = of.active.to(device_)}, &counts).first;
  const kernels::HeadLayout layout = {of.heads, of.heads};
  const kernels::CountedAttention made = kernels::counted_attention(of.qkv, layout, /*causal=*/true, rows);
  if (made.sums.dim() != 3) GTEST_SKIP() << "by LibTorch itself here";
  kernels::CountedAttention flash = made;
  flash.sums = made.sums.squeeze(2).t().contiguous();
  const auto expected = kernels::counted_attention_backward(of.grad, of.qkv, made, layout, true, rows),
             got = kernels::counted_attention_backward(of.grad, of.qkv, flash, layout, true, rows);
  const int64_t used = rows.start_S1[-1].item<int64_t>();
  const auto error = [&](const at::Tensor& a, const at::Tensor& b) {
    return relative_error(a.narrow(0, 0, used), b.narrow(0, 0, used));
  };
  EXPECT_LT(error(got.q, expected.q), 2e-2);
  EXPECT_LT(error(got.k, expected.k), 2e-2);
  EXPECT_LT(error(got.v, expected.v), 2e-2);
}

/// All of them with the same plans, in both passes: no kernel of ours takes heads of 32.
TEST_F(CudaRaggedAttention, RunsInSeveralThreads) {
  at::manual_seed(63);
  const Case of = Case::on(device_, 32);
  const auto expected = of.run();
  std::vector<std::vector<at::Tensor>> made(4);
  std::vector<std::thread> threads;
  for (auto& results : made)
    threads.emplace_back([&of, &results] {
      for (int again = 0; again < 20; ++again) results = of.run();
    });
  for (std::thread& thread : threads) thread.join();
  for (const auto& results : made)
    for (size_t i = 0; i < expected.size(); ++i)
      EXPECT_LT(relative_error(results[i], expected[i]), 2e-2) << "part " << i;
}

}  // namespace
}  // namespace fathom::ragged_attention_test
