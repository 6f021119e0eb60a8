// SwiGLU and the residual sum's norm where they write operands of products in FP16 themselves, and gradients
// back as operands.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include "cuda_fixture.h"
#include "gradcheck.h"
#include "kernels/call.h"
#include "kernels/gradient_type.h"
#include "kernels/linear.h"
#include "kernels/residual_rms_norm.h"
#include "kernels/rms_norm.h"
#include "kernels/swiglu.h"

namespace fathom::half_producers_test {
namespace {

using testing::relative_error;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
/// FP16 rounds by 5e-4, BF16 by 4e-3.
constexpr double kHalfError = 1e-3, kBfloatError = 1e-2;

kernels::Products half_products(at::Device device) {
  return {.type = at::kHalf, .saturated = at::zeros({}, at::TensorOptions().dtype(at::kLong).device(device))};
}

int64_t saturated(const kernels::Products& products) {
  return products.saturated.item<int64_t>();
}

at::Tensor random_states(at::IntArrayRef shape, at::Device device) {
  return at::randn(shape).to(at::kBFloat16).to(device);
}

at::Tensor wide(const at::Tensor& x) {
  return x.detach().to(at::kDouble);
}

at::Tensor half_swiglu_backward(const at::Tensor& grad, const at::Tensor& gate_up) {
  static const auto op =
      kernels::find_op<at::Tensor(const at::Tensor&, const at::Tensor&)>("fathom::half_swiglu_backward");
  const at::AutoDispatchBelowADInplaceOrView below;
  return op.call(grad, gate_up);
}

/// With vectors of 16 bytes and without.
void expect_half_swiglu(at::Device device) {
  at::manual_seed(41);
  for (const auto& [rows, inner] :
       {std::pair<int64_t, int64_t>{0, 8}, {1, 1}, {3, 5}, {5, 2816}, {1000, 96}, {7, 33}}) {
    const std::string where = std::to_string(rows) + " x " + std::to_string(inner);
    const kernels::Products products = half_products(device);
    const at::Tensor gate_up = (random_states({rows, 2 * inner}, device) * 3).requires_grad_(),
                     grad = random_states({rows, inner}, device);
    const at::Tensor y = kernels::swiglu(gate_up, products);
    EXPECT_EQ(y.scalar_type(), at::kHalf) << where;
    EXPECT_LT(relative_error(y, kernels::swiglu_ref::forward(wide(gate_up))), kHalfError) << where;
    EXPECT_EQ(saturated(products), 0) << where;
    y.backward(grad);
    const at::Tensor expected = kernels::swiglu_ref::backward(wide(grad), wide(gate_up));
    EXPECT_EQ(gate_up.grad().scalar_type(), at::kBFloat16) << where;
    EXPECT_LT(relative_error(gate_up.grad(), expected), kBfloatError) << where;
    const at::Tensor half = half_swiglu_backward(grad, gate_up.detach());
    EXPECT_EQ(half.scalar_type(), at::kHalf) << where;
    EXPECT_LT(relative_error(half, expected), kHalfError) << where;
  }
}

void expect_swiglu_ends(at::Device device, int64_t inner) {
  const kernels::Products products = half_products(device);
  const at::Tensor gate_up = at::ones({4, 2 * inner}, at::TensorOptions(device).dtype(at::kBFloat16)),
                   grad = at::ones({4, inner}, gate_up.options());
  gate_up[0].fill_(300);
  gate_up[1].narrow(0, 0, inner).fill_(300);
  gate_up[1].narrow(0, inner, inner).fill_(-300);
  gate_up[2][0] = std::nan("");
  const at::Tensor y = kernels::swiglu(gate_up, products);
  EXPECT_TRUE(y[0].eq(65504).all().item<bool>());
  EXPECT_TRUE(y[1].eq(-65504).all().item<bool>());
  EXPECT_TRUE(y[2][0].isnan().item<bool>());
  EXPECT_TRUE(y[3].isfinite().all().item<bool>());
  EXPECT_EQ(saturated(products), 2 * inner);
  grad[3][0] = 1e30;
  const at::Tensor half = half_swiglu_backward(grad, gate_up);
  EXPECT_EQ(half[3][0].item<float>(), kInfinity) << "a gradient keeps its infinity";
  EXPECT_EQ(half[3][inner].item<float>(), kInfinity);
  EXPECT_EQ(half.isinf().sum().item<int64_t>(), 2);
}

using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

/// Of a sum, its norm's gradient and what stands beside it.
Three norm_backward(const at::Tensor& grad_sum, const at::Tensor& grad, const at::Tensor& sum,
                    const at::Tensor& weight) {
  static const auto op =
      kernels::find_op<Three(const std::optional<at::Tensor>&, const at::Tensor&, const at::Tensor&,
                             const at::Tensor&, const at::Tensor&, bool)>(
          "fathom::residual_rms_norm_backward");
  const at::AutoDispatchBelowADInplaceOrView below;
  const auto [y, scale] = kernels::rms_norm_ref::forward(sum, weight.to(sum.scalar_type()), 1e-5);
  return op.call(kernels::optional(grad_sum), grad, sum, weight, scale, true);
}

/// Rows that fit registers and rows that do not.
void expect_half_norm(at::Device device) {
  at::manual_seed(42);
  for (const auto& [rows, dim] : {std::pair<int64_t, int64_t>{0, 64},
                                  {1, 8},
                                  {3, 7},
                                  {1000, 96},
                                  {4097, 1024},
                                  {33, 1536},
                                  {6, 4096}}) {
    const std::string where = std::to_string(rows) + " x " + std::to_string(dim);
    const kernels::Products products = half_products(device);
    const at::Tensor x = random_states({rows, dim}, device).requires_grad_(),
                     branch = random_states({rows, dim}, device).requires_grad_(),
                     weight = at::randn({dim}).to(device).requires_grad_(),
                     grad_sum = random_states({rows, dim}, device), grad = random_states({rows, dim}, device);
    const kernels::NormedSum found = kernels::residual_rms_norm(x, branch, weight, 1e-5, products);
    const at::Tensor sum = wide(x + branch), rounded = wide(weight.to(at::kBFloat16));
    const auto [y, scale] = kernels::rms_norm_ref::forward(sum, rounded, 1e-5);
    EXPECT_TRUE(at::equal(wide(found.sum), sum)) << where;
    EXPECT_EQ(found.y.scalar_type(), at::kHalf) << where;
    EXPECT_LT(relative_error(found.y, y), kHalfError) << where;
    EXPECT_EQ(saturated(products), 0) << where;

    const auto [grad_norm, grad_weight] = kernels::rms_norm_ref::backward(wide(grad), sum, rounded, scale);
    const at::Tensor expected = wide(grad_sum) + grad_norm;
    const auto grads = torch::autograd::grad({found.sum, found.y}, {x, branch, weight}, {grad_sum, grad});
    EXPECT_TRUE(at::equal(grads[0], grads[1])) << where;
    EXPECT_EQ(grads[0].scalar_type(), at::kBFloat16) << where;
    EXPECT_LT(relative_error(grads[0], expected), 2 * kBfloatError) << where;
    EXPECT_LT(relative_error(grads[2], grad_weight), 2 * kBfloatError) << where;
    const auto [whole, half, of_weight] = norm_backward(grad_sum, grad, found.sum.detach(), weight.detach());
    EXPECT_EQ(half.scalar_type(), at::kHalf) << where;
    EXPECT_LT(relative_error(whole, expected), 2 * kBfloatError) << where;
    EXPECT_LT(relative_error(half, expected), 2 * kBfloatError) << where;
    EXPECT_LT(relative_error(of_weight, grad_weight), 2 * kBfloatError) << where;
  }
}

void expect_norm_ends(at::Device device, int64_t dim) {
  const kernels::Products products = half_products(device);
  const auto options = at::TensorOptions(device);
  const at::Tensor x = at::ones({5, dim}, options.dtype(at::kBFloat16)), none = at::zeros_like(x),
                   weight = at::ones({dim}, options);
  weight[0] = 1e6;
  weight[dim - 1] = -1e6;
  x[3][1] = std::nan("");
  const at::Tensor y = kernels::residual_rms_norm(x, none, weight, 1e-5, products).y;
  EXPECT_TRUE(y.slice(0, 0, 3).select(1, 0).eq(65504).all().item<bool>());
  EXPECT_TRUE(y.slice(0, 0, 3).select(1, dim - 1).eq(-65504).all().item<bool>());
  EXPECT_TRUE(y[3].isnan().all().item<bool>());
  EXPECT_EQ(saturated(products), 2 * 4) << "of rows that hold numbers";
  const at::Tensor grad = at::ones_like(x);
  grad[4][2] = 1e30;
  x[3][1] = 1;
  const auto [whole, half, of_weight] = norm_backward({}, grad, x, at::ones_like(weight));
  EXPECT_FALSE(half[4].isfinite().all().item<bool>()) << "a gradient keeps its infinity";
  EXPECT_TRUE(whole.isfinite().all().item<bool>()) << "BF16 has it";
  EXPECT_TRUE(half.slice(0, 0, 4).isfinite().all().item<bool>());
}

/// Sees in which type a gradient comes.
void watch(const at::Tensor& x, std::optional<at::ScalarType>& seen) {
  x.register_hook([&seen](const at::Tensor& grad) { seen = grad.scalar_type(); });
}

/// Products around what writes operands: no gradient is cast on its way.
void expect_types_of_gradients(at::Device device) {
  at::manual_seed(43);
  const kernels::Products products = half_products(device);
  const kernels::LinearTypes types = {products, at::kBFloat16};
  const auto weight_of = [&](int64_t out, int64_t in) {
    return (at::randn({out, in}) / std::sqrt(static_cast<double>(in))).to(device).requires_grad_();
  };
  const at::Tensor first = weight_of(64, 32), second = weight_of(32, 32), last = weight_of(48, 32);
  const at::Tensor x = random_states({40, 32}, device).requires_grad_(), scale = at::ones({32}).to(device);
  std::optional<at::ScalarType> by_gates, by_values, by_branch, by_norm, by_other;
  const at::Tensor gate_up = kernels::linear(x, first, {}, types);
  const at::Tensor inner = kernels::swiglu(gate_up, products);
  const at::Tensor branch = kernels::linear(inner, second, {}, types);
  const auto [sum, y] = kernels::residual_rms_norm(x, branch, scale, 1e-5, products);
  const at::Tensor z = kernels::linear(y, last, {}, types);
  watch(gate_up, by_gates);
  watch(inner, by_values);
  watch(branch, by_branch);
  watch(y, by_norm);
  const at::Tensor grad = random_states({40, 48}, device);
  z.backward(grad);
  EXPECT_EQ(by_gates, at::kHalf);
  EXPECT_EQ(by_values, at::kBFloat16);
  EXPECT_EQ(by_branch, at::kHalf);
  EXPECT_EQ(by_norm, at::kBFloat16);
  EXPECT_EQ(x.grad().scalar_type(), at::kBFloat16);

  // The same in float64.
  const auto leaf = [](const at::Tensor& of) { return wide(of).requires_grad_(); };
  const at::Tensor wide_x = leaf(x), wide_first = leaf(first), wide_last = leaf(last);
  const auto exact = kernels::residual_rms_norm(
      wide_x, at::linear(kernels::swiglu(at::linear(wide_x, wide_first)), wide(second)), wide(scale), 1e-5);
  at::linear(exact.y, wide_last).backward(wide(grad));
  EXPECT_LT(relative_error(z, at::linear(exact.y, wide_last)), kBfloatError);
  EXPECT_LT(relative_error(first.grad(), wide_first.grad()), 2 * kBfloatError);
  EXPECT_LT(relative_error(last.grad(), wide_last.grad()), kBfloatError);
  EXPECT_LT(relative_error(x.grad(), wide_x.grad()), 2 * kBfloatError);

  // What is no product takes gradients of its own type.
  const at::Tensor other = kernels::linear(x, first, {}, types) + 0;
  watch(other, by_other);
  kernels::swiglu(other, products).sum().backward();
  EXPECT_EQ(by_other, at::kBFloat16);
}

TEST(HalfProducers, SwigluWritesOperands) {
  expect_half_swiglu(at::kCPU);
  expect_swiglu_ends(at::kCPU, 8);
}

TEST(HalfProducers, TheResidualNormWritesOperands) {
  expect_half_norm(at::kCPU);
  expect_norm_ends(at::kCPU, 8);
}

TEST(HalfProducers, GradientsComeInTheTypeOfWhatTheyFeed) {
  expect_types_of_gradients(at::kCPU);
}

TEST(HalfProducers, OtherStatesStayAsTheyAre) {
  const kernels::Products products = half_products(at::kCPU);
  const at::Tensor x = at::randn({3, 16}), weight = at::randn({16});
  EXPECT_EQ(kernels::swiglu(x, products).scalar_type(), at::kFloat);
  EXPECT_EQ(kernels::residual_rms_norm(x, x, weight, 1e-5, products).y.scalar_type(), at::kFloat);
  EXPECT_EQ(kernels::swiglu(x.to(at::kBFloat16)).scalar_type(), at::kBFloat16);
}

class CudaHalfProducers : public cuda_test::CudaKernels {};

TEST_F(CudaHalfProducers, SwigluWritesOperands) {
  expect_half_swiglu(device_);
  for (const int64_t inner : {5, 8}) expect_swiglu_ends(device_, inner);
}

TEST_F(CudaHalfProducers, TheResidualNormWritesOperands) {
  expect_half_norm(device_);
  for (const int64_t dim : {7, 8, 1024}) expect_norm_ends(device_, dim);
}

TEST_F(CudaHalfProducers, GradientsComeInTheTypeOfWhatTheyFeed) {
  expect_types_of_gradients(device_);
}

}  // namespace
}  // namespace fathom::half_producers_test
