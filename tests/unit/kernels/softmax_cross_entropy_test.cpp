// Cross-entropy of rows and its gradient: against LibTorch's loss, and a GPU against the reference.
#include "kernels/softmax_cross_entropy.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <string>
#include <utility>

#include "base/error.h"
#include "cuda_fixture.h"
#include "gradcheck.h"

namespace fathom::softmax_cross_entropy_test {
namespace {

using kernels::softmax_cross_entropy;
using testing::relative_error;

struct RowLosses {
  at::Tensor loss_N, gradient_NV;
};

/// By autograd, in float64.
RowLosses exact(const at::Tensor& logits_NV, const at::Tensor& target_N) {
  const at::Tensor x = logits_NV.to(at::kDouble).detach().clone().requires_grad_();
  const at::Tensor loss_N = at::cross_entropy_loss(x, target_N, {}, at::Reduction::None, -1);
  return {loss_N.detach(), torch::autograd::grad({loss_N.sum()}, {x})[0]};
}

/// Some of them left out.
at::Tensor targets(int64_t rows, int64_t vocabulary) {
  at::Tensor target_N = at::randint(0, vocabulary, {rows}, at::kLong);
  target_N[0] = vocabulary - 1;
  target_N[rows / 2] = -1;
  return target_N;
}

double cross_entropy_tolerance(at::ScalarType type) {
  return type == at::kDouble ? 1e-12 : type == at::kFloat ? 1e-5 : type == at::kHalf ? 1e-3 : 8e-3;
}

void expect_exact(const at::Tensor& logits_NV, const at::Tensor& target_N, at::Device device,
                  const std::string& where) {
  const RowLosses expected = exact(logits_NV, target_N);
  const double tolerance = cross_entropy_tolerance(logits_NV.scalar_type());
  const at::Tensor logits = logits_NV.to(device), target = target_N.to(device);
  const at::Tensor alone_N = softmax_cross_entropy(logits, target);
  EXPECT_EQ(alone_N.scalar_type(), logits_NV.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  EXPECT_LT(relative_error(alone_N, expected.loss_N), 1e-5) << where;
  EXPECT_TRUE(at::equal(logits.cpu(), logits_NV)) << "only read, " << where;
  const at::Tensor apart = at::full_like(logits, 7);
  EXPECT_TRUE(at::equal(softmax_cross_entropy(logits, target, apart), alone_N)) << where;
  EXPECT_LT(relative_error(apart, expected.gradient_NV), tolerance) << where;
  EXPECT_EQ(apart[target_N.size(0) / 2].abs().max().item<double>(), 0) << "left out, " << where;
  const at::Tensor within = logits.clone();
  EXPECT_TRUE(at::equal(softmax_cross_entropy(within, target, within), alone_N)) << where;
  EXPECT_TRUE(at::equal(within, apart)) << "in place, " << where;
}

void expect_all_shapes(at::Device device) {
  at::manual_seed(3);
  for (const auto type : {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16})
    for (const auto& [rows, vocabulary] :
         {std::pair<int64_t, int64_t>{3, 1}, {5, 8}, {7, 33}, {40, 1024}, {9, 4099}, {6, 32000}, {3, 100352}})
      expect_exact((at::randn({rows, vocabulary}) * 4).to(type), targets(rows, vocabulary), device,
                   c10::toString(type) + std::string(" of ") + std::to_string(vocabulary));
}

TEST(SoftmaxCrossEntropy, EqualsLibTorchsLoss) {
  expect_all_shapes(at::kCPU);
}

TEST(SoftmaxCrossEntropy, ItsGradientIsThatOfItsLoss) {
  const at::Tensor target_N = at::tensor({2, 0, 3}, at::kLong);
  at::Tensor logits_NV = at::randn({3, 5}, at::kDouble), gradient_NV = at::empty_like(logits_NV);
  softmax_cross_entropy(logits_NV, target_N, gradient_NV);
  constexpr double kStep = 1e-5;
  for (int64_t row = 0; row < 3; ++row)
    for (int64_t column = 0; column < 5; ++column) {
      const at::Tensor above = logits_NV.clone(), below = logits_NV.clone();
      above[row][column] += kStep;
      below[row][column] -= kStep;
      const double slope =
          (softmax_cross_entropy(above, target_N).sum() - softmax_cross_entropy(below, target_N).sum())
              .item<double>() /
          (2 * kStep);
      EXPECT_NEAR(gradient_NV[row][column].item<double>(), slope, 1e-9);
    }
}

/// The small probabilities of a large vocabulary, which FP16 alone would lose.
void expect_scaled_half(at::Device device) {
  const at::Tensor logits_NV = at::randn({4, 4096}), target_N = targets(4, 4096);
  const at::Tensor half = at::empty({4, 4096}, at::TensorOptions(device).dtype(at::kHalf));
  softmax_cross_entropy(logits_NV.to(device), target_N.to(device), half, 32768);
  const at::Tensor found = half.cpu().to(at::kDouble) / 32768,
                   expected = exact(logits_NV, target_N).gradient_NV;
  EXPECT_LT(relative_error(found, expected), 1e-3);
  const at::Tensor small = expected.abs().lt(1e-4) & expected.ne(0);
  EXPECT_GT(small.sum().item<int64_t>(), 100);
  EXPECT_LT(relative_error(found.masked_select(small), expected.masked_select(small)), 1e-3);
}

TEST(SoftmaxCrossEntropy, WritesScaledGradientsInFp16) {
  expect_scaled_half(at::kCPU);
}

void expect_divided(at::Device device) {
  for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16}) {
    const at::Tensor logits_NV = at::randn({5, 320}).to(device, type), target_N = targets(5, 320).to(device);
    const at::Tensor gradient = at::empty_like(logits_NV), divided = at::empty_like(logits_NV);
    const at::Tensor loss_N = softmax_cross_entropy(logits_NV, target_N, gradient, 2);
    const at::Tensor divisor = at::full({}, 3000, loss_N.options());
    EXPECT_TRUE(at::equal(softmax_cross_entropy(logits_NV, target_N, divided, 2, divisor), loss_N));
    EXPECT_LT(relative_error(divided.to(at::kDouble) * 3000, gradient), cross_entropy_tolerance(type));
  }
}

TEST(SoftmaxCrossEntropy, DividesItsGradient) {
  expect_divided(at::kCPU);
  EXPECT_THROW(softmax_cross_entropy(at::randn({2, 8}), at::zeros({2}, at::kLong), {}, 1, at::ones({2})),
               Error);
}

TEST(SoftmaxCrossEntropy, LargeLogitsDoNotOverflow) {
  const at::Tensor logits_NV = at::tensor({1000.0, -1000.0, 999.0, 0.0}).view({1, 4});
  EXPECT_NEAR(softmax_cross_entropy(logits_NV, at::zeros({1}, at::kLong)).item<double>(), 0.3132617, 1e-5);
  EXPECT_NEAR(softmax_cross_entropy(logits_NV, at::ones({1}, at::kLong)).item<double>(), 2000.3132617, 1e-3);
}

TEST(SoftmaxCrossEntropy, RefusesRoomThatDoesNotFit) {
  const at::Tensor logits_NV = at::randn({2, 8}), target_N = at::zeros({2}, at::kLong);
  EXPECT_THROW(softmax_cross_entropy(logits_NV, target_N, at::empty({2, 7})), Error);
  EXPECT_THROW(softmax_cross_entropy(logits_NV, target_N, at::empty({2, 8}, at::kBFloat16)), Error);
  EXPECT_THROW(softmax_cross_entropy(logits_NV, target_N, at::empty({8, 2}).t()), Error);
  EXPECT_THROW(softmax_cross_entropy(logits_NV, at::zeros({3}, at::kLong)), Error);
}

class CudaCrossEntropy : public cuda_test::CudaKernels {};

TEST_F(CudaCrossEntropy, EqualsLibTorchsLoss) {
  expect_all_shapes(device_);
}

TEST_F(CudaCrossEntropy, WritesScaledGradientsInFp16) {
  expect_scaled_half(device_);
}

TEST_F(CudaCrossEntropy, DividesItsGradient) {
  expect_divided(device_);
}

TEST_F(CudaCrossEntropy, TakesRowsThatBeginAnywhere) {
  const at::Tensor flat = at::randn({5 * 64 + 1}).to(at::kBFloat16), target_N = targets(5, 64);
  const at::Tensor there = flat.to(device_).narrow(0, 1, 5 * 64).view({5, 64}), gradient = there.clone();
  const at::Tensor loss_N = softmax_cross_entropy(there, target_N.to(device_), gradient);
  const RowLosses expected = exact(flat.narrow(0, 1, 5 * 64).view({5, 64}), target_N);
  EXPECT_LT(relative_error(loss_N, expected.loss_N), 1e-5);
  EXPECT_LT(relative_error(gradient, expected.gradient_NV), cross_entropy_tolerance(at::kBFloat16));
}

TEST_F(CudaCrossEntropy, ATargetBeyondTheVocabularyIsNoNumber) {
  const at::Tensor logits = at::randn({2, 8}, at::TensorOptions(device_)), gradient = at::empty_like(logits);
  const at::Tensor loss_N =
      softmax_cross_entropy(logits, at::tensor({3, 8}, at::kLong).to(device_), gradient).cpu();
  EXPECT_TRUE(std::isfinite(loss_N[0].item<float>()));
  EXPECT_TRUE(std::isnan(loss_N[1].item<float>()));
  EXPECT_TRUE(gradient[1].isnan().all().item<bool>());
  EXPECT_TRUE(gradient[0].isfinite().all().item<bool>());
}

}  // namespace
}  // namespace fathom::softmax_cross_entropy_test
