#include "kernels/local_mixing.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <vector>

#include "base/error.h"
#include "cuda_fixture.h"
#include "gradcheck.h"

namespace fathom::local_mixing_test {
namespace {

using kernels::local_mixing;
using testing::relative_error;

/// A map, a weight and a bias.
std::vector<at::Tensor> operands(at::IntArrayRef map, int64_t side) {
  const int64_t channels = map.back();
  return {at::randn(map, at::kDouble), at::randn({channels, 1, side, side}, at::kDouble) / side,
          at::randn({channels}, at::kDouble)};
}

/// The result, and the gradients of all operands for the same gradient of it.
std::vector<at::Tensor> learned(const std::vector<at::Tensor>& of, const at::Tensor& grad,
                                at::TensorOptions map, at::ScalarType parameters) {
  std::vector<at::Tensor> inputs;
  for (size_t i = 0; i < of.size(); ++i)
    inputs.push_back(of[i].to(i == 0 ? map : map.dtype(parameters)).detach().requires_grad_(true));
  const auto y = local_mixing(inputs[0], inputs[1], inputs[2]);
  y.backward(grad.to(map));
  return {y.detach(), inputs[0].grad(), inputs[1].grad(), inputs[2].grad()};
}

TEST(LocalMixingKernel, HasTheGradientsOfDifferences) {
  at::manual_seed(3);
  for (const int64_t side : {1, 3, 5})
    testing::expect_gradients([](const auto& in) { return local_mixing(in[0], in[1], in[2]); },
                              operands({2, 3, 4, 2}, side));
}

TEST(LocalMixingKernel, GradientsHaveTheTypesOfWhatTheyAreOf) {
  at::manual_seed(5);
  const auto of = operands({2, 4, 3, 8}, 3);
  const auto grad = at::randn({2, 4, 3, 8}, at::kDouble);
  const auto expected = learned(of, grad, at::kDouble, at::kDouble),
             got = learned(of, grad, at::kBFloat16, at::kFloat);
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].scalar_type(), i < 2 ? at::kBFloat16 : at::kFloat);
    EXPECT_LT(relative_error(got[i], expected[i]), 2e-2) << "part " << i;
  }
}

TEST(LocalMixingKernel, RefusesWhatDoesNotFit) {
  const auto x = at::ones({1, 2, 2, 3}), bias = at::ones({3});
  EXPECT_THROW(local_mixing(x, at::ones({3, 1, 2, 2}), bias), Error);
  EXPECT_THROW(local_mixing(x, at::ones({4, 1, 3, 3}), bias), Error);
  EXPECT_THROW(local_mixing(x, at::ones({3, 1, 3, 3}), at::ones({4})), Error);
  EXPECT_THROW(local_mixing(x[0], at::ones({3, 1, 3, 3}), bias), Error);
}

class CudaLocalMixing : public cuda_test::CudaKernels {};

/// Sides that strips and pairs of columns do not divide, a single place, channels that fill no group of
/// lanes, more strips than the blocks take at once, and what goes to LibTorch.
TEST_F(CudaLocalMixing, EqualsConvolutionsInFloat64) {
  at::manual_seed(7);
  for (const std::vector<int64_t>& map : std::vector<std::vector<int64_t>>{{1, 1, 1, 4},
                                                                           {2, 5, 5, 96},
                                                                           {3, 10, 7, 36},
                                                                           {2, 11, 2, 12},
                                                                           {5, 23, 40, 32},
                                                                           {300, 21, 20, 8},
                                                                           {2, 3, 3, 7}})
    for (const int64_t side : {3, 5}) {
      const auto of = operands(map, side);
      const auto grad = at::randn(map, at::kDouble);
      for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf}) {
        // The same numbers for both.
        std::vector<at::Tensor> rounded = {of[0].to(type).to(at::kDouble),
                                           of[1].to(at::kFloat).to(at::kDouble),
                                           of[2].to(at::kFloat).to(at::kDouble)};
        const bool own = side == 3 && map.back() % 4 == 0;
        if (!own)
          for (auto& x : rounded) x = x.to(type).to(at::kDouble);
        const auto exact = learned(rounded, grad.to(type).to(at::kDouble), at::kDouble, at::kDouble),
                   got = learned(rounded, grad.to(type), at::TensorOptions(device_).dtype(type), at::kFloat);
        const double tolerance = type == at::kFloat ? (own ? 1e-5 : 2e-3) : type == at::kHalf ? 4e-3 : 2e-2;
        for (size_t i = 0; i < got.size(); ++i)
          EXPECT_LT(relative_error(got[i], exact[i]), tolerance)
              << c10::toString(type) << at::IntArrayRef(map) << ", side " << side << ", part " << i;
      }
    }
}

TEST_F(CudaLocalMixing, IsTheSameInEveryRun) {
  const auto of = operands({64, 20, 20, 96}, 3);
  const auto grad = at::randn({64, 20, 20, 96}, at::kDouble);
  const auto options = at::TensorOptions(device_).dtype(at::kBFloat16);
  const auto first = learned(of, grad, options, at::kFloat), second = learned(of, grad, options, at::kFloat);
  for (size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(at::equal(first[i], second[i])) << "part " << i;
}

}  // namespace
}  // namespace fathom::local_mixing_test
