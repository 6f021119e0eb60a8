// GELU behind a linear layer: the two operations in one, with and without gradients, on a CPU and a GPU.
#include "kernels/linear_gelu.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <utility>
#include <vector>

#include "base/error.h"
#include "cuda_fixture.h"
#include "gradcheck.h"

namespace fathom::linear_gelu_test {
namespace {

using kernels::linear_gelu;
using testing::relative_error;

struct Operands {
  at::Tensor x, weight, bias, slope;

  /// Values of `type`, so that roundings are those of the operation alone.
  Operands(int64_t rows, int64_t in, int64_t out, at::ScalarType type)
      : x(at::randn({rows, in}).to(type)),
        weight(at::randn({out, in}).div(std::sqrt(in)).to(type)),
        bias(at::randn({out}).to(type)),
        slope(at::randn({rows, out}).to(type)) {}
};

/// y and the gradients of x, weight and bias.
std::vector<at::Tensor> learned(const Operands& from, at::Device device, at::ScalarType states,
                                at::ScalarType parameters, bool fused) {
  const auto leaf = [&](const at::Tensor& t, at::ScalarType type) {
    return t.to(at::TensorOptions(device).dtype(type)).clone().requires_grad_();
  };
  const at::Tensor x = leaf(from.x, states), w = leaf(from.weight, parameters),
                   b = leaf(from.bias, parameters);
  const at::Tensor y = fused ? linear_gelu(x, w, b) : at::gelu(kernels::linear(x, w, b));
  y.backward(from.slope.to(at::TensorOptions(device).dtype(states)));
  return {y.detach(), x.grad(), w.grad(), b.grad()};
}

TEST(LinearGelu, IsTheTwoOperationsWithAndWithoutGradients) {
  at::manual_seed(51);
  for (const auto& [rows, dim] : {std::pair<int64_t, int64_t>{1, 8}, {13, 40}, {7, 33}})
    for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16}) {
      const Operands operands(rows, 24, dim, type);
      const auto parameters = type == at::kBFloat16 ? at::kFloat : type;
      const auto got = learned(operands, at::kCPU, type, parameters, true),
                 expected = learned(operands, at::kCPU, type, parameters, false);
      const double tolerance = type == at::kBFloat16 ? 2e-2 : type == at::kFloat ? 1e-5 : 1e-12;
      for (size_t i = 0; i < got.size(); ++i) {
        EXPECT_LT(relative_error(got[i], expected[i]), tolerance) << c10::toString(type) << ", part " << i;
        EXPECT_EQ(got[i].scalar_type(), expected[i].scalar_type());
      }
      const at::NoGradGuard no_grad;
      EXPECT_LT(
          relative_error(linear_gelu(operands.x, operands.weight.to(parameters), operands.bias), got[0]),
          tolerance);
    }
  EXPECT_EQ(linear_gelu(at::ones({2, 3, 4}), at::ones({5, 4}), at::ones({5})).sizes().vec(),
            (std::vector<int64_t>{2, 3, 5}));
  EXPECT_THROW(linear_gelu(at::ones({2, 3}), at::ones({5, 4}), at::ones({5})), Error);
  EXPECT_THROW(linear_gelu(at::ones({2, 4}), at::ones({5, 4}), at::ones({4})), Error);
}

TEST(LinearGelu, GradientsByFiniteDifferences) {
  at::manual_seed(52);
  testing::expect_gradients(
      [](const auto& in) { return linear_gelu(in[0], in[1], in[2]); },
      {at::randn({2, 3, 4}, at::kDouble), at::randn({5, 4}, at::kDouble), at::randn({5}, at::kDouble)});
}

TEST(LinearGelu, LearnsNoMoreThanIsAsked) {
  const at::Tensor x = at::randn({3, 4}), weight = at::randn({5, 4}).requires_grad_(), bias = at::randn({5});
  linear_gelu(x, weight, bias).sum().backward();
  EXPECT_TRUE(weight.grad().defined());
  EXPECT_FALSE(bias.grad().defined());
  EXPECT_FALSE(linear_gelu(x, weight.detach(), bias).requires_grad());
}

TEST(LinearGelu, TakesCopiesOfWeightAndBias) {
  const at::Tensor weight = at::randn({16, 8}), bias = at::randn({16}),
                   x = at::randn({3, 8}).to(at::kBFloat16);
  if (kernels::product_type(x) != at::kBFloat16) GTEST_SKIP() << "no BF16 products here";
  kernels::WeightCopies copies({weight, bias}, at::kBFloat16);
  const at::NoGradGuard no_grad;
  EXPECT_TRUE(at::equal(linear_gelu(x, weight, bias, {.copies = &copies}), linear_gelu(x, weight, bias)));
  EXPECT_EQ(copies.size(), 2);
}

class CudaLinearGelu : public cuda_test::CudaKernels {};

/// Rows and columns that tiles do not divide, both sizes of tiles, blocks of several turns, and widths that
/// no kernel takes.
TEST_F(CudaLinearGelu, IsTheTwoOperationsWithAndWithoutGradients) {
  at::manual_seed(53);
  struct Sizes {
    int64_t rows, in, out;
  };
  for (const auto type : {at::kBFloat16, at::kHalf, at::kFloat})
    for (const Sizes& sizes : {Sizes{1, 8, 8},
                               {49, 768, 3072},
                               {3136, 96, 384},
                               {70001, 96, 384},
                               {300, 40, 136},
                               {129, 200, 1000},
                               {8000, 40, 256},
                               {5, 7, 9}}) {
      const Operands operands(sizes.rows, sizes.in, sizes.out, type);
      const auto expected = learned(operands, at::kCPU, at::kFloat, at::kFloat, false);
      const double tolerance = type == at::kBFloat16 ? 2e-2 : type == at::kHalf ? 4e-3 : 1e-4;
      for (const auto parameters : {type, at::kFloat}) {
        const auto got = learned(operands, device_, type, parameters, true);
        for (size_t i = 0; i < got.size(); ++i)
          EXPECT_LT(relative_error(got[i].cpu(), expected[i]), tolerance)
              << c10::toString(type) << sizes.rows << ", " << sizes.out << ", part " << i;
      }
      const at::NoGradGuard no_grad;
      const auto on = [&](const at::Tensor& x) { return x.to(device_); };
      const auto y = linear_gelu(on(operands.x), on(operands.weight), on(operands.bias));
      EXPECT_LT(relative_error(y.cpu(), expected[0]), tolerance) << c10::toString(type) << sizes.rows;
      EXPECT_TRUE(at::equal(y, linear_gelu(on(operands.x), on(operands.weight), on(operands.bias))));
    }
}

/// What is left of numbers below zero has as many digits as any other.
TEST_F(CudaLinearGelu, HasTheDigitsOfItsTypeBelowZero) {
  for (const auto type : {at::kBFloat16, at::kHalf}) {
    const auto options = at::TensorOptions(device_).dtype(type);
    const double least = type == at::kHalf ? -3.5 : -6.5;  // FP16 has all of its digits so far
    const at::Tensor x = at::linspace(least, 4, 8192, at::TensorOptions(device_)).to(type).view({-1, 1}) *
                         at::ones({1, 8}, options);
    const at::NoGradGuard no_grad;
    const at::Tensor y = linear_gelu(x, at::eye(8, options), at::zeros({8}, options)).to(at::kDouble),
                     wide = x.to(at::kDouble), exact = wide * 0.5 * at::erfc(wide * -M_SQRT1_2);
    const double digits = type == at::kHalf ? 0x1p-11 : 0x1p-8;
    EXPECT_LT(((y - exact).abs() / exact.abs().clamp_min(1e-30)).max().item<double>(), 1.1 * digits);
  }
}

/// Far from zero GELU is 0 or x itself, and its slope 0 or 1.
TEST_F(CudaLinearGelu, HoldsAtTheEnds) {
  const auto options = at::TensorOptions(device_).dtype(at::kBFloat16);
  const at::Tensor x = at::tensor({-1e4, -12.0, 0.0, 12.0, 1e4, 0.0, 0.0, 0.0}).to(options).view({8, 1}) *
                       at::ones({1, 8}, options),
                   weight = at::eye(8, options), bias = at::zeros({8}, options);
  const at::Tensor expected = x.clamp_min(0);
  {
    const at::NoGradGuard no_grad;
    const at::Tensor y = linear_gelu(x, weight, bias);
    EXPECT_TRUE(at::equal(y.clamp_min(0), expected));
    EXPECT_LT((y - expected).abs().max().item<double>(), 1e-30);  // GELU(-12) is some -2e-32
  }
  const at::Tensor leaf = x.clone().requires_grad_();
  linear_gelu(leaf, weight, bias).sum().backward();
  EXPECT_TRUE(at::allclose(leaf.grad().select(1, 0).cpu().to(at::kFloat),
                           at::tensor({0.0F, 0.0F, 0.5F, 1.0F, 1.0F, 0.5F, 0.5F, 0.5F}), 0, 1e-6));
}

}  // namespace
}  // namespace fathom::linear_gelu_test
