#include "train/flop_counter.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "cuda_fixture.h"
#include "kernels/counted_layers.h"
#include "kernels/counted_rows.h"
#include "kernels/gelu_mlp.h"
#include "kernels/linear_swiglu.h"

namespace fathom::flop_counter_test {
namespace {

TEST(FlopCounter, CountsProductsAndAttention) {
  const auto a = at::randn({6, 5}), b = at::randn({5, 4}), heads = at::randn({2, 3, 8, 16});
  const FlopCounter counter;
  at::mm(a, b);
  EXPECT_EQ(counter.flops(), 2 * 6 * 5 * 4);
  at::scaled_dot_product_attention(heads, heads, heads, {}, 0.0, /*is_causal=*/true);
  EXPECT_EQ(counter.flops(), 2 * 6 * 5 * 4 + 4 * 2 * 3 * 8 * 8 * 16 / 2);
}

class CudaFlopCounter : public cuda_test::CudaKernels {};

/// Of the rows that the device counts, not of those that there is room for.
TEST_F(CudaFlopCounter, CountsTheRowsInUse) {
  constexpr int64_t kTokens = 40, kHeads = 2, kSize = 64, kDim = kHeads * kSize;
  auto active = at::zeros({2, kTokens}, at::kBool);
  active[0].narrow(0, 0, 10).fill_(true);
  active[1].narrow(0, 5, 30).fill_(true);
  const kernels::CountedRows rows = kernels::chosen_rows({.active_BT = active.to(device_)}).first;
  const auto options = at::TensorOptions(device_).dtype(at::kBFloat16);
  const auto x = at::randn({2 * kTokens, kDim}, options), weight = at::randn({3 * kDim, kDim}, options),
             bias = at::randn({3 * kDim}, options);
  const double product = 2.0 * 40 * 3 * kDim * kDim, attention = 4.0 * (10 * 10 + 30 * 30) * kDim;
  const auto flops = [](const auto& work) {
    const FlopCounter counter;
    work();
    return counter.flops();
  };
  at::Tensor qkv;
  EXPECT_EQ(flops([&] { qkv = kernels::counted_linear(x, weight, rows); }), product);
  EXPECT_EQ(flops([&] { kernels::counted_linear(x, weight, bias, rows); }), product);
  EXPECT_EQ(flops([&] { kernels::counted_linear_gelu(x, weight, bias, rows, true); }), product);
  const auto gates = at::randn({2 * kDim, kDim}, options);
  for (const bool keep : {false, true})
    EXPECT_EQ(flops([&] { kernels::counted_linear_swiglu(x, gates, rows, keep); }), product / 3 * 2) << keep;
  for (const int64_t count : {4, 80}) {  // by a product and a pass, or more by one product
    const at::NoGradGuard no_grad;
    const auto some = x.repeat({50, 1}).narrow(0, 0, count * 50);
    const double all = 2.0 * 50 * static_cast<double>(count) * kDim;
    EXPECT_EQ(flops([&] { kernels::linear_swiglu(some, gates); }), all * 2 * kDim) << count;
    EXPECT_EQ(flops([&] {
                kernels::gelu_product_grad(some, weight.t().contiguous(),
                                           at::zeros({some.size(0), 3 * kDim}, options));
              }),
              all * 3 * kDim)
        << count;
  }
  EXPECT_EQ(flops([&] { kernels::counted_attention(qkv, {kHeads, kHeads}, false, rows); }), attention);
  EXPECT_EQ(flops([&] { kernels::counted_attention(qkv, {kHeads, kHeads}, true, rows); }), attention / 2);
}

}  // namespace
}  // namespace fathom::flop_counter_test
