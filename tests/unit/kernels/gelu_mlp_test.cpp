// A feed-forward layer with GELU as one function: the numbers and gradients of its two halves.
#include "kernels/gelu_mlp.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/error.h"
#include "cuda_fixture.h"
#include "gradcheck.h"
#include "kernels/linear_gelu.h"

namespace fathom::gelu_mlp_test {
namespace {

using kernels::gelu_mlp;
using kernels::GeluMlpWeights;
using testing::relative_error;

/// x, the weights in their order, and the slope of what is learned from. Values of `type`.
struct Operands {
  std::vector<at::Tensor> in;
  at::Tensor slope;

  Operands(int64_t rows, int64_t dim, int64_t inner, at::ScalarType type)
      : in{at::randn({rows, dim}), at::randn({inner, dim}).div(std::sqrt(dim)), at::randn({inner}),
           at::randn({dim, inner}).div(std::sqrt(inner)), at::randn({dim})},
        slope(at::randn({rows, dim}).to(type)) {
    for (at::Tensor& t : in) t = t.to(type);
  }
};

/// y and the gradients of x and the weights.
std::vector<at::Tensor> learned(const Operands& from, const at::TensorOptions& states,
                                at::ScalarType parameters, bool fused) {
  std::vector<at::Tensor> leaves;
  for (size_t i = 0; i < from.in.size(); ++i)
    leaves.push_back(from.in[i].to(i == 0 ? states : states.dtype(parameters)).clone().requires_grad_());
  const GeluMlpWeights weights = {leaves[1], leaves[2], leaves[3], leaves[4]};
  const at::Tensor y = fused ? gelu_mlp(leaves[0], weights)
                             : kernels::linear(kernels::linear_gelu(leaves[0], weights.up, weights.up_bias),
                                               weights.down, weights.down_bias);
  y.backward(from.slope.to(states));
  std::vector<at::Tensor> made = {y.detach()};
  for (const at::Tensor& leaf : leaves) made.push_back(leaf.grad());
  return made;
}

TEST(GeluMlp, IsItsTwoHalvesWithAndWithoutGradients) {
  at::manual_seed(61);
  for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16}) {
    const Operands operands(13, 24, 40, type);
    const auto parameters = type == at::kBFloat16 ? at::kFloat : type;
    const auto got = learned(operands, at::TensorOptions(type), parameters, true),
               expected = learned(operands, at::TensorOptions(type), parameters, false);
    const double tolerance = type == at::kBFloat16 ? 1e-2 : type == at::kFloat ? 1e-5 : 1e-12;
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_LT(relative_error(got[i], expected[i]), tolerance) << c10::toString(type) << ", part " << i;
      EXPECT_EQ(got[i].scalar_type(), expected[i].scalar_type());
    }
    const at::NoGradGuard no_grad;
    const auto& in = operands.in;
    EXPECT_LT(relative_error(gelu_mlp(in[0], {in[1].to(parameters), in[2].to(parameters),
                                              in[3].to(parameters), in[4].to(parameters)}),
                             expected[0]),
              tolerance);
  }
  const GeluMlpWeights weights = {at::ones({5, 4}), at::ones({5}), at::ones({6, 5}), at::ones({6})};
  EXPECT_EQ(gelu_mlp(at::ones({2, 3, 4}), weights).sizes().vec(), (std::vector<int64_t>{2, 3, 6}));
  EXPECT_THROW(gelu_mlp(at::ones({2, 5}), weights), Error);
  EXPECT_THROW(gelu_mlp(at::ones({2, 4}), {weights.up, weights.up_bias, weights.down, weights.up_bias}),
               Error);
  EXPECT_THROW(kernels::gelu_product_grad(at::ones({2, 4}), at::ones({4, 5}), at::ones({3, 5})), Error);
}

TEST(GeluMlp, GradientsByFiniteDifferences) {
  at::manual_seed(62);
  testing::expect_gradients(
      [](const auto& in) {
        return gelu_mlp(in[0], {in[1], in[2], in[3], in[4]});
      },
      {at::randn({2, 3, 4}, at::kDouble), at::randn({5, 4}, at::kDouble), at::randn({5}, at::kDouble),
       at::randn({3, 5}, at::kDouble), at::randn({3}, at::kDouble)});
}

/// Each of the inputs alone learns what it learns beside the others, and nothing else does.
TEST(GeluMlp, LearnsNoMoreThanIsAsked) {
  at::manual_seed(63);
  const Operands operands(7, 8, 16, at::kFloat);
  const auto all = learned(operands, at::TensorOptions(at::kFloat), at::kFloat, true);
  for (size_t one = 0; one < operands.in.size(); ++one) {
    std::vector<at::Tensor> in;
    for (const at::Tensor& t : operands.in) in.push_back(t.clone());
    in[one].requires_grad_();
    gelu_mlp(in[0], {in[1], in[2], in[3], in[4]}).backward(operands.slope);
    for (size_t i = 0; i < in.size(); ++i) EXPECT_EQ(in[i].grad().defined(), i == one);
    EXPECT_TRUE(at::equal(in[one].grad(), all[1 + one])) << one;
  }
  const auto& in = operands.in;
  EXPECT_FALSE(gelu_mlp(in[0], {in[1], in[2], in[3], in[4]}).requires_grad());
}

class CudaGeluMlp : public cuda_test::CudaKernels {};

/// Rows and columns that tiles do not divide, both sizes of tiles, blocks of several turns, and widths that
/// no kernel takes.
TEST_F(CudaGeluMlp, IsThatOfTheReference) {
  at::manual_seed(64);
  struct Sizes {
    int64_t rows, dim, inner;
  };
  for (const auto type : {at::kBFloat16, at::kHalf, at::kFloat})
    for (const Sizes& sizes : {Sizes{1, 8, 8},
                               {49, 768, 3072},
                               {3136, 96, 384},
                               {50001, 96, 384},
                               {300, 40, 136},
                               {2500, 200, 1000},
                               {8000, 40, 256},
                               {5, 7, 9}}) {
      const Operands operands(sizes.rows, sizes.dim, sizes.inner, type);
      const auto expected = learned(operands, at::TensorOptions(at::kFloat), at::kFloat, false);
      const double tolerance = type == at::kBFloat16 ? 2e-2 : type == at::kHalf ? 4e-3 : 1e-4;
      const auto states = at::TensorOptions(device_).dtype(type);
      const auto got = learned(operands, states, at::kFloat, true),
                 again = learned(operands, states, at::kFloat, true);
      for (size_t i = 0; i < got.size(); ++i) {
        EXPECT_LT(relative_error(got[i].cpu(), expected[i]), tolerance)
            << c10::toString(type) << sizes.rows << ", " << sizes.inner << ", part " << i;
        EXPECT_TRUE(at::equal(got[i], again[i])) << c10::toString(type) << sizes.rows << ", part " << i;
      }
    }
}

/// A gradient that is no number, or infinite, goes on as such.
TEST_F(CudaGeluMlp, HidesNoOverflow) {
  const auto options = at::TensorOptions(device_).dtype(at::kHalf);
  const at::Tensor weight = at::eye(8, options), inner = at::ones({2, 8}, options);
  for (const double bad : {HUGE_VAL, std::nan("")}) {
    at::Tensor grad = at::ones({2, 8}, options);
    grad[1][3] = bad;
    const auto [made, sum] = kernels::gelu_product_grad(grad, weight, inner);
    EXPECT_FALSE(made.isfinite()[1].all().item<bool>());
    EXPECT_FALSE(sum.isfinite().all().item<bool>());
    EXPECT_TRUE(made.isfinite()[0].all().item<bool>());
  }
}

}  // namespace
}  // namespace fathom::gelu_mlp_test
