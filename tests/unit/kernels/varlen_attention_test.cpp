// Attention over packed sequences: against one masked product, per type and odd layout; gradients.
#include "kernels/varlen_attention.h"

#include "base/error.h"
#include "gradcheck.h"
#include "tensor/device.h"

namespace fathom::varlen_attention_test {
namespace {

using kernels::VarlenLayout;
using testing::expect_gradients;
using testing::relative_error;
using testing::tolerance_of;

VarlenLayout layout_of(const std::vector<int64_t>& starts, bool causal, bool some_keys) {
  VarlenLayout layout{.start_S1 = at::tensor(starts, at::kLong), .causal = causal};
  if (some_keys) layout.key_N = at::arange(starts.back()).remainder(3).ne(1);
  return layout;
}

TEST(VarlenAttention, EqualsOneMaskedProduct) {
  for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16})
    for (const std::vector<int64_t>& starts : {std::vector<int64_t>{0, 7}, {0, 3, 3, 8}, {0, 0, 1, 2, 9, 9}})
      for (const bool causal : {false, true})
        for (const bool some_keys : {false, true}) {
          at::manual_seed(3);
          const int64_t rows = starts.back();
          const auto layout = layout_of(starts, causal, some_keys);
          const auto q = at::randn({4, rows, 6}, at::kDouble).to(type);
          const auto k = at::randn({2, rows, 6}, at::kDouble).to(type);
          const auto v = at::randn({2, rows, 6}, at::kDouble).to(type);
          const auto y = kernels::varlen_attention(q, k, v, layout);
          EXPECT_EQ(y.sizes(), q.sizes());
          EXPECT_LT(relative_error(y, kernels::varlen_attention_ref::apply(q, k, v, layout)),
                    tolerance_of(type))
              << causal << some_keys << at::toString(type);
        }
}

TEST(VarlenAttention, ARowThatIsNoKeyIsSeenByItselfAlone) {
  at::manual_seed(4);
  const auto q = at::randn({1, 5, 4}, at::kDouble), k = at::randn({1, 5, 4}, at::kDouble);
  const auto v = at::randn({1, 5, 4}, at::kDouble);
  VarlenLayout layout = layout_of({0, 5}, true, false);
  layout.key_N = at::tensor({1, 0, 1, 1, 0}).to(at::kBool);
  const auto y = kernels::varlen_attention(q, k, v, layout);
  auto other = v.clone();
  other.select(1, 1).add_(1);
  const auto changed = (kernels::varlen_attention(q, k, other, layout) - y).abs().amax({0, 2});
  EXPECT_GT(changed[1].item<double>(), 0.01);
  for (const int64_t row : {0, 2, 3, 4}) EXPECT_EQ(changed[row].item<double>(), 0) << row;
}

TEST(VarlenAttention, NoRowsAtAll) {
  for (const std::vector<int64_t>& starts : {std::vector<int64_t>{0}, {0, 0, 0}}) {
    const auto none = at::empty({2, 0, 4}).requires_grad_(true);
    const auto y = kernels::varlen_attention(none, none, none, layout_of(starts, true, false));
    EXPECT_EQ(y.sizes(), none.sizes());
    EXPECT_TRUE(y.requires_grad());
  }
}

TEST(VarlenAttention, GradientsByFiniteDifferences) {
  for (const bool some_keys : {false, true}) {
    at::manual_seed(5);
    const auto layout = layout_of({0, 2, 2, 6}, true, some_keys);
    expect_gradients([&](const auto& in) { return kernels::varlen_attention(in[0], in[1], in[2], layout); },
                     {at::randn({2, 6, 3}, at::kDouble), at::randn({1, 6, 3}, at::kDouble),
                      at::randn({1, 6, 3}, at::kDouble)});
  }
}

/// The other way through: few operations for all sequences.
TEST(CudaVarlenAttention, OutputAndGradientsEqualOneMaskedProduct) {
  const CudaAvailability cuda = cuda_availability();
  if (cuda.num_devices == 0) GTEST_SKIP() << cuda.reason;
  const at::Device device = select_device("cuda:0");
  for (const auto type : {at::kBFloat16, at::kHalf, at::kFloat})
    for (const std::vector<int64_t>& starts : {std::vector<int64_t>{0, 7}, {0, 0, 100, 101, 300, 300}})
      for (const bool causal : {false, true})
        for (const bool some_keys : {false, true}) {
          at::manual_seed(3);
          const int64_t rows = starts.back();
          const auto layout = layout_of(starts, causal, some_keys);
          VarlenLayout moved = layout;
          if (some_keys) moved.key_N = layout.key_N.to(device);
          std::vector<at::Tensor> ours, theirs;
          for (const int64_t heads : {4, 2, 2}) {
            ours.push_back(
                at::randn({heads, rows, 16}, at::kDouble).to(type).to(device).requires_grad_(true));
            theirs.push_back(ours.back().detach().cpu().to(at::kDouble).requires_grad_(true));
          }
          const auto y = kernels::varlen_attention(ours[0], ours[1], ours[2], moved);
          const auto expected = kernels::varlen_attention_ref::apply(theirs[0], theirs[1], theirs[2], layout);
          y.to(at::kFloat).sin().sum().backward();
          expected.sin().sum().backward();
          const double bound = type == at::kFloat ? 1e-4 : 2e-2;
          EXPECT_LT(relative_error(y.cpu(), expected), bound) << causal << some_keys << at::toString(type);
          for (size_t i = 0; i < 3; ++i)
            EXPECT_LT(relative_error(ours[i].grad().cpu(), theirs[i].grad()), 2 * bound)
                << i << causal << some_keys << at::toString(type);
        }
}

TEST(VarlenAttention, RefusesOffsetsThatDoNotFit) {
  const auto x = at::zeros({1, 4, 2});
  for (const std::vector<int64_t>& starts : {std::vector<int64_t>{0, 3}, {1, 4}, {0, 3, 2, 4}, {0, 5}})
    EXPECT_THROW(kernels::varlen_attention(x, x, x, layout_of(starts, true, false)), Error);
  VarlenLayout layout = layout_of({0, 4}, true, false);
  layout.key_N = at::ones({3}, at::kBool);
  EXPECT_THROW(kernels::varlen_attention(x, x, x, layout), Error);
  EXPECT_THROW(kernels::varlen_attention(x, at::zeros({1, 3, 2}), x, layout_of({0, 4}, true, false)), Error);
}

}  // namespace
}  // namespace fathom::varlen_attention_test
