// SwiGLU behind a product, of all rows and of those that the device counts.
#include "kernels/linear_swiglu.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "cuda_fixture.h"
#include "gradcheck.h"
#include "kernels/counted_rows.h"
#include "kernels/pass_learns.h"
#include "kernels/swiglu.h"

namespace fathom::linear_swiglu_test {
namespace {

using kernels::linear_swiglu;
using testing::relative_error;

TEST(LinearSwiglu, IsTheTwoOperationsWithAndWithoutGradients) {
  at::manual_seed(71);
  for (const auto type : {at::kFloat, at::kDouble}) {
    const at::Tensor x = at::randn({2, 3, 8}, type).requires_grad_(),
                     weight = at::randn({12, 8}, type).requires_grad_();
    const at::Tensor y = linear_swiglu(x, weight), expected = kernels::swiglu(kernels::linear(x, weight));
    EXPECT_TRUE(at::equal(y, expected));
    EXPECT_EQ(y.sizes().vec(), (std::vector<int64_t>{2, 3, 6}));
    const auto grads = torch::autograd::grad({y.sum()}, {x, weight}),
               same = torch::autograd::grad({expected.sum()}, {x, weight});
    EXPECT_TRUE(at::equal(grads[0], same[0]) && at::equal(grads[1], same[1]));
    const at::NoGradGuard no_grad;
    EXPECT_TRUE(at::equal(linear_swiglu(x, weight), expected));
  }
  EXPECT_THROW(linear_swiglu(at::ones({2, 7}), at::ones({12, 8})), Error);
  EXPECT_THROW(linear_swiglu(at::ones({2, 8}), at::ones({11, 8})), Error);
}

class CudaLinearSwiglu : public cuda_test::CudaKernels {};

struct Sizes {
  int64_t rows, dim, inner;
};

/// Rows and columns that tiles do not divide, tiles of each width, a few rows, and widths that no kernel
/// takes.
constexpr Sizes kSizes[] = {{1, 64, 32},       {300, 72, 136},    {3277, 256, 1024}, {3277, 1024, 2816},
                            {3523, 200, 1000}, {5000, 128, 2048}, {9000, 96, 1408},  {40, 7, 9}};

TEST_F(CudaLinearSwiglu, IsTheTwoOperations) {
  at::manual_seed(72);
  const at::NoGradGuard no_grad;
  for (const auto type : {at::kBFloat16, at::kHalf, at::kFloat})
    for (const Sizes& sizes : kSizes) {
      const at::Tensor x = at::randn({sizes.rows, sizes.dim}).to(type),
                       weight = at::randn({2 * sizes.inner, sizes.dim}).div(std::sqrt(sizes.dim)).to(type);
      const at::Tensor expected = kernels::swiglu(at::linear(x.to(at::kFloat), weight.to(at::kFloat)));
      const at::Tensor y = linear_swiglu(x.to(device_), weight.to(device_));
      const double tolerance = type == at::kBFloat16 ? 1e-2 : type == at::kHalf ? 1e-3 : 1e-4;
      EXPECT_LT(relative_error(y.cpu(), expected), tolerance) << c10::toString(type) << sizes.rows;
      EXPECT_EQ(y.scalar_type(), type);
    }
}

/// A pass that is taken again for its gradients has the numbers that it will have then.
TEST_F(CudaLinearSwiglu, IsTheSameWhereItIsTakenAgain) {
  const auto options = at::TensorOptions(device_).dtype(at::kBFloat16);
  const at::Tensor x = at::randn({3277, 256}, options),
                   weight = at::randn({2048, 256}, options).requires_grad_();
  const at::Tensor learned = linear_swiglu(x, weight);
  const at::NoGradGuard no_grad;
  const kernels::TakenAgain again;
  EXPECT_TRUE(at::equal(linear_swiglu(x, weight), learned));
}

TEST_F(CudaLinearSwiglu, OfNoRowsIsNothing) {
  const auto options = at::TensorOptions(device_).dtype(at::kBFloat16);
  const at::NoGradGuard no_grad;
  EXPECT_EQ(linear_swiglu(at::ones({0, 64}, options), at::ones({32, 64}, options)).sizes().vec(),
            (std::vector<int64_t>{0, 16}));
}

TEST_F(CudaLinearSwiglu, LearnsAsTheTwoOperations) {
  at::manual_seed(74);
  for (const auto type : {at::kBFloat16, at::kHalf, at::kFloat})
    for (const Sizes& sizes : kSizes) {
      const at::Tensor x = at::randn({sizes.rows, sizes.dim}).to(type),
                       weight = at::randn({2 * sizes.inner, sizes.dim}).div(std::sqrt(sizes.dim)).to(type),
                       slope = at::randn({sizes.rows, sizes.inner}).to(type);
      const auto learned = [&](const at::TensorOptions& options, bool fused) {
        const at::Tensor leaf = x.to(options).requires_grad_(), w = weight.to(options).requires_grad_();
        const at::Tensor y = fused ? linear_swiglu(leaf, w) : kernels::swiglu(at::linear(leaf, w));
        y.backward(slope.to(options));
        return std::vector{y.detach().cpu(), leaf.grad().cpu(), w.grad().cpu()};
      };
      const auto got = learned(at::TensorOptions(device_).dtype(type), true),
                 expected = learned(at::TensorOptions(at::kFloat), false);
      const double tolerance = type == at::kBFloat16 ? 2e-2 : type == at::kHalf ? 3e-3 : 1e-4;
      for (size_t i = 0; i < got.size(); ++i)
        EXPECT_LT(relative_error(got[i], expected[i]), tolerance)
            << c10::toString(type) << sizes.rows << ", " << sizes.inner << ", part " << i;
    }
}

/// Rows that are not counted may hold anything.
TEST_F(CudaLinearSwiglu, OfCountedRowsIsThatOfTheReference) {
  at::manual_seed(73);
  const at::NoGradGuard no_grad;
  for (const int64_t used : {0, 1, 700, 3277, 4096})
    for (const Sizes& sizes : {Sizes{4096, 1024, 2816}, Sizes{4096, 128, 136}}) {
      at::Tensor active = at::zeros({2, sizes.rows / 2}, at::kBool);
      active.view({-1}).narrow(0, 0, used).fill_(true);
      const kernels::CountedRows rows = kernels::chosen_rows({.active_BT = active.to(device_)}).first;
      const auto options = at::TensorOptions(device_).dtype(at::kBFloat16);
      at::Tensor x = at::randn({sizes.rows, sizes.dim}, options);
      x.narrow(0, used, sizes.rows - used).fill_(NAN);
      const at::Tensor weight = at::randn({2 * sizes.inner, sizes.dim}, options).div(std::sqrt(sizes.dim));
      const auto [made, kept] = kernels::counted_linear_swiglu(x, weight, rows, /*keep=*/true);
      const at::Tensor y = kernels::counted_linear_swiglu(x, weight, rows, false).first.narrow(0, 0, used),
                       gate_up = at::linear(x.narrow(0, 0, used).to(at::kFloat), weight.to(at::kFloat)),
                       expected = kernels::swiglu(
                           at::linear(x.narrow(0, 0, used).to(at::kFloat), weight.to(at::kFloat)));
      EXPECT_EQ(y.size(1), sizes.inner);
      if (used == 0) continue;
      EXPECT_LT(relative_error(y, expected), 1e-2) << used;
      EXPECT_LT(relative_error(made.narrow(0, 0, used), expected), 1e-2) << used;
      EXPECT_LT(relative_error(kept.narrow(0, 0, used), gate_up), 1e-2) << used;
    }
}

}  // namespace
}  // namespace fathom::linear_swiglu_test
