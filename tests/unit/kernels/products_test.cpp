// Products of operands in FP16: what they are rounded to, what saturates, and what gradients come through.
#include "kernels/product_type.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <optional>

#include "cuda_fixture.h"
#include "kernels/attention.h"
#include "kernels/half_product.h"
#include "kernels/linear.h"
#include "kernels/window_attention.h"

namespace fathom::products_test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

kernels::Products half_products(at::Device device = at::kCPU) {
  return {.type = at::kHalf, .saturated = at::zeros({}, at::TensorOptions().dtype(at::kLong).device(device))};
}

int64_t saturated(const kernels::Products& products) {
  return products.saturated.item<int64_t>();
}

at::Tensor learned(const at::Tensor& x, at::ScalarType type) {
  return x.detach().to(type, /*non_blocking=*/false, /*copy=*/true).requires_grad_();
}

/// The largest difference, over the largest expected value.
double relative_distance(const at::Tensor& got, const at::Tensor& expected) {
  const at::Tensor x = got.detach().cpu().to(at::kDouble), y = expected.detach().cpu().to(at::kDouble);
  return ((x - y).abs().max() / y.abs().max()).item<double>();
}

TEST(SaturatedHalf, TakesTheEndOfItsRangeAndCounts) {
  const kernels::Products products = half_products();
  const at::Tensor x = at::tensor({1.5, -2.0, 65504.0, 65536.0, -1e9, kInfinity, 1e-30}, at::kDouble);
  for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16}) {
    products.saturated.zero_();
    const at::Tensor y = kernels::saturated_half(x.to(type), products);
    EXPECT_EQ(y.scalar_type(), at::kHalf);
    EXPECT_TRUE(y.isfinite().all().item<bool>()) << c10::toString(type);
    EXPECT_EQ(y[3].item<float>(), 65504);
    EXPECT_EQ(y[4].item<float>(), -65504);
    EXPECT_EQ(y[0].item<float>(), 1.5);
    // BF16 has no 65504: it is 65536 there.
    EXPECT_EQ(saturated(products), type == at::kBFloat16 ? 4 : 3) << c10::toString(type);
  }
  EXPECT_TRUE(kernels::saturated_half(at::full({1}, std::nan("")), products).isnan().all().item<bool>());
}

struct HalfLinear {
  at::Tensor y, grad_x, grad_weight, grad_bias;
};

HalfLinear run_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      const kernels::LinearTypes& types, const at::Tensor& slope) {
  HalfLinear found{.y = kernels::linear(x, weight, bias, types)};
  found.y.backward(slope.to(found.y.scalar_type()));
  found.grad_x = x.grad();
  found.grad_weight = weight.grad();
  found.grad_bias = bias.grad();
  return found;
}

/// One random layer whose inputs BF16 holds exactly.
struct Layer {
  at::Tensor x = at::randn({3, 7, 24}).to(at::kBFloat16), weight = at::randn({10, 24}),
             bias = at::randn({10}), slope = at::randn({3, 7, 10}).to(at::kBFloat16);

  HalfLinear exact() const {
    return run_linear(learned(x, at::kDouble), learned(weight, at::kDouble), learned(bias, at::kDouble), {},
                      slope);
  }
  HalfLinear rounded(const kernels::LinearTypes& types, at::ScalarType type = at::kBFloat16) const {
    return run_linear(learned(x, type), learned(weight, at::kFloat), learned(bias, at::kFloat), types, slope);
  }
};

TEST(HalfLinear, RoundsWeightsToFp16AndNotToBf16) {
  const Layer layer;
  const kernels::Products products = half_products();
  const HalfLinear exact = layer.exact(), half = layer.rounded({products, at::kFloat}),
                   bfloat = layer.rounded({});
  EXPECT_EQ(half.y.scalar_type(), at::kFloat);
  EXPECT_LT(relative_distance(half.y, exact.y), 5e-4);
  EXPECT_GT(relative_distance(half.y, exact.y), 1e-6) << "FP16 was not used";
  EXPECT_GT(relative_distance(bfloat.y, exact.y), 1e-3);
  EXPECT_EQ(half.grad_x.scalar_type(), at::kBFloat16);
  EXPECT_EQ(half.grad_weight.scalar_type(), at::kFloat);
  EXPECT_LT(relative_distance(half.grad_x, exact.grad_x), 5e-3);
  EXPECT_LT(relative_distance(half.grad_weight, exact.grad_weight), 1e-5) << "summed and kept in float32";
  EXPECT_LT(relative_distance(half.grad_bias, exact.grad_bias), 1e-6);
  EXPECT_EQ(saturated(products), 0);
}

TEST(HalfLinear, WritesTheTypeAskedFor) {
  const Layer layer;
  for (const auto type : {at::kHalf, at::kBFloat16, at::kFloat}) {
    const HalfLinear found = layer.rounded({half_products(), type});
    EXPECT_EQ(found.y.scalar_type(), type);
    EXPECT_LT(relative_distance(found.y, layer.exact().y), type == at::kBFloat16 ? 5e-3 : 1e-3);
  }
  EXPECT_EQ(layer.rounded({half_products()}).y.scalar_type(), at::kBFloat16) << "that of the states";
  EXPECT_EQ(layer.rounded({half_products(), at::kBFloat16}, at::kHalf).y.scalar_type(), at::kBFloat16);
}

TEST(HalfLinear, WiderStatesStayAsTheyAre) {
  const Layer layer;
  const at::Tensor y = layer.rounded({half_products()}, at::kFloat).y;
  EXPECT_EQ(y.scalar_type(), at::kFloat);
  EXPECT_TRUE(at::equal(y, layer.rounded({}, at::kFloat).y));
}

TEST(HalfLinear, CountsOperandsAndResultsThatSaturate) {
  const kernels::Products products = half_products();
  const at::Tensor x = at::full({2, 4}, 300.0, at::kBFloat16), weight = at::full({3, 4}, 100.0);
  weight[0][0] = 1e6;
  const at::Tensor wide = kernels::linear(x, weight, {}, {products, at::kBFloat16});
  EXPECT_EQ(saturated(products), 1) << "a weight";
  EXPECT_NEAR(wide[0][1].item<double>(), 120000, 500) << "beyond FP16, since sums are wider";
  const at::Tensor narrow = kernels::linear(x, weight, {}, {products, at::kHalf});
  EXPECT_EQ(saturated(products), 1 + 1 + 6) << "and all results";
  EXPECT_EQ(narrow.max().item<float>(), 65504);
}

TEST(HalfLinear, ScaledGradientsSurviveWhereFp16HasNoSuchNumbers) {
  const Layer layer;
  const auto gradient_at = [&](double scale) {
    const at::Tensor weight = learned(layer.weight, at::kFloat);
    const at::Tensor y = kernels::linear(layer.x, weight, {}, {half_products(), at::kBFloat16});
    y.backward(layer.slope * (1e-9 * scale));
    return weight.grad() / scale;
  };
  const at::Tensor expected = layer.exact().grad_weight * 1e-9;
  EXPECT_EQ(gradient_at(1).abs().max().item<float>(), 0);
  EXPECT_LT(relative_distance(gradient_at(65536), expected), 0.02);
}

TEST(HalfLinear, GradientsThatOverflowAreNoNumbers) {
  const Layer layer;
  const at::Tensor weight = learned(layer.weight, at::kFloat);
  at::Tensor slope = layer.slope.clone();
  slope[0][0][0] = 1e5;
  kernels::linear(layer.x, weight, {}, {half_products(), at::kBFloat16}).backward(slope);
  EXPECT_FALSE(weight.grad()[0].isfinite().any().item<bool>());
  EXPECT_TRUE(weight.grad().slice(0, 1).isfinite().all().item<bool>());
}

TEST(HalfLinear, GradientsComeInTheTypeOfWhatTheyFeed) {
  const Layer layer;
  const at::Tensor x = learned(layer.x, at::kBFloat16), first = learned(layer.weight, at::kFloat),
                   second = at::randn({6, 10});
  for (const auto between : {at::kHalf, at::kBFloat16}) {
    std::optional<at::ScalarType> seen;
    const auto watch = [&](const at::Tensor& grad) { seen = grad.scalar_type(); };
    const at::Tensor inner = kernels::linear(x, first, {}, {half_products(), between});
    inner.register_hook(watch);
    kernels::linear(inner, second, {}, {half_products(), at::kBFloat16}).sum().backward();
    EXPECT_EQ(seen, between) << "of what another product made";
    const at::Tensor y = kernels::linear(x, first, {}, {half_products(), at::kBFloat16});
    y.register_hook(watch);
    y.backward(layer.slope.to(between));
    EXPECT_EQ(seen, between) << "an operand comes as it is";
  }
}

struct ProductShape {
  int64_t rows, reduced, columns;
};

struct ProductRun {
  at::Tensor a, b, bias;

  ProductRun(const ProductShape& shape, at::Device device)
      : a((at::randn({shape.rows, shape.reduced}) / std::sqrt(shape.reduced)).to(at::kHalf).to(device)),
        b(at::randn({shape.reduced, shape.columns}).to(at::kHalf).to(device)),
        bias(at::randn({shape.columns}).to(device)) {}
  at::Tensor exact() const { return at::mm(a.to(at::kDouble), b.to(at::kDouble)); }
  at::Tensor lying(bool is_turned) const { return is_turned ? b.t().contiguous().t() : b; }
};

/// Tiles of either size that are not filled, reductions that are no whole tiles, and what no kernel takes.
void expect_exact_products(at::Device device, at::ArrayRef<ProductShape> shapes) {
  at::manual_seed(31);
  for (const ProductShape& shape : shapes) {
    const ProductRun run(shape, device);
    const at::Tensor exact = run.exact(), added = exact + run.bias;
    for (const auto type : {at::kBFloat16, at::kHalf, at::kFloat})
      for (const bool is_turned : {false, true}) {
        const at::Tensor b = run.lying(is_turned);
        const at::Tensor plain = kernels::half_product(run.a, b, {.type = type}),
                         biased = kernels::half_product(run.a, b, {.type = type, .bias = run.bias});
        EXPECT_EQ(plain.scalar_type(), type);
        const double most = type == at::kBFloat16 ? 4e-3 : type == at::kHalf ? 5e-4 : 2e-5;
        EXPECT_LT(relative_distance(plain, exact), most) << shape.rows << c10::toString(type) << is_turned;
        EXPECT_LT(relative_distance(biased, added), most) << shape.rows << c10::toString(type) << is_turned;
      }
  }
}

TEST(HalfProduct, IsTheExactOneRoundedOnce) {
  expect_exact_products(at::kCPU, {{1, 8, 8}, {5, 9, 13}, {130, 264, 24}});
}

/// One row of large sums, one with NaN and one with infinity among others of a product.
void expect_ends(at::Device device, const ProductShape& shape) {
  const kernels::Products products = half_products(device);
  at::Tensor a = at::full({shape.rows, shape.reduced}, 0.5, at::TensorOptions(device).dtype(at::kHalf)),
             b = at::full({shape.reduced, shape.columns}, 2.0, a.options());
  a[0].fill_(60000);
  a[1].fill_(-60000);
  a[2][0] = std::nan("");
  a[3][0] = kInfinity;
  const at::Tensor held = kernels::half_product(a, b, {.type = at::kHalf, .saturating = &products});
  EXPECT_TRUE(held[0].eq(65504).all().item<bool>());
  EXPECT_TRUE(held[1].eq(-65504).all().item<bool>());
  EXPECT_TRUE(held[2].isnan().all().item<bool>());
  EXPECT_TRUE(held[3].eq(65504).all().item<bool>());
  EXPECT_TRUE(held.slice(0, 4).eq(static_cast<double>(shape.reduced)).all().item<bool>());
  EXPECT_EQ(saturated(products), 3 * shape.columns);
  for (const auto type : {at::kHalf, at::kBFloat16}) {
    const at::Tensor wide = kernels::half_product(a, b, {.type = type});
    EXPECT_EQ(wide[0].isinf().all().item<bool>(), type == at::kHalf) << "a gradient keeps its infinity";
    EXPECT_TRUE(wide[2].isnan().all().item<bool>());
    EXPECT_TRUE(wide[3].eq(kInfinity).all().item<bool>());
    EXPECT_TRUE(wide.slice(0, 4).isfinite().all().item<bool>());
  }
  EXPECT_EQ(saturated(products), 3 * shape.columns);
}

TEST(HalfProduct, SaturatesWhereItShould) {
  expect_ends(at::kCPU, {9, 24, 16});
}

TEST(HalfAttention, OnACpuIsThatInFloat32) {
  const at::Tensor q = at::randn({2, 4, 9, 8}).to(at::kHalf), k = at::randn({2, 2, 9, 8}).to(at::kHalf),
                   v = at::randn({2, 2, 9, 8}).to(at::kHalf);
  const at::Tensor half = kernels::attention(q, k, v, {}, /*causal=*/true);
  EXPECT_EQ(half.scalar_type(), at::kHalf);
  const at::Tensor exact =
      kernels::attention(q.to(at::kFloat), k.to(at::kFloat), v.to(at::kFloat), {}, /*causal=*/true);
  EXPECT_TRUE(at::equal(half, exact.to(at::kHalf)));
}

class CudaHalfProducts : public cuda_test::CudaKernels {};

TEST_F(CudaHalfProducts, LinearIsThatOfACpu) {
  const Layer layer;
  const kernels::Products products = half_products(device_);
  for (const auto type : {at::kHalf, at::kBFloat16, at::kFloat}) {
    const HalfLinear expected = layer.rounded({half_products(), type});
    const auto there = [&](const at::Tensor& x) { return x.to(device_).requires_grad_(); };
    const HalfLinear got = run_linear(there(layer.x), there(layer.weight), there(layer.bias),
                                      {products, type}, layer.slope.to(device_));
    EXPECT_LT(relative_distance(got.y, expected.y), 5e-3);
    EXPECT_LT(relative_distance(got.grad_x, expected.grad_x), 5e-3);
    EXPECT_LT(relative_distance(got.grad_weight, expected.grad_weight), 1e-4);
    EXPECT_LT(relative_distance(got.grad_bias, expected.grad_bias), 1e-4);
  }
}

/// Of vectors and of what is left of them, where vectors may begin and where not.
TEST_F(CudaHalfProducts, CastsSaturateAndAreCountedAsOnACpu) {
  for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16})
    for (const int64_t size : {0, 1, 7, 8, 1000, 270001})
      for (const int64_t offset : {0, 1}) {
        at::Tensor x = (at::randn({size + offset}) * 4e4).to(type);
        if (size > 2) x[offset] = kInfinity;
        if (size > 2) x[offset + 1] = std::nan("");
        const kernels::Products expected_count = half_products(), count = half_products(device_);
        const at::Tensor expected = kernels::saturated_half(x.narrow(0, offset, size), expected_count),
                         got = kernels::saturated_half(x.to(device_).narrow(0, offset, size), count);
        EXPECT_TRUE(at::allclose(got.cpu().to(at::kFloat), expected.to(at::kFloat), 0, 0, /*equal_nan=*/true))
            << c10::toString(type) << size;
        EXPECT_EQ(saturated(count), saturated(expected_count)) << c10::toString(type) << size;
      }
  EXPECT_EQ(kernels::saturated_half(at::full({5}, 1e6, at::TensorOptions(device_)), {}).max().item<float>(),
            65504);
}

TEST_F(CudaHalfProducts, AreTheExactOnesRoundedOnce) {
  expect_exact_products(
      device_,
      {{1, 8, 8}, {5, 9, 13}, {130, 264, 24}, {300, 1000, 136}, {257, 4096, 520}, {4136, 136, 2056}});
  EXPECT_EQ(kernels::half_product(at::zeros({0, 8}, at::TensorOptions(device_).dtype(at::kHalf)),
                                  at::zeros({8, 16}, at::TensorOptions(device_).dtype(at::kHalf)), {})
                .numel(),
            0);
}

TEST_F(CudaHalfProducts, SaturateWhereTheyShould) {
  for (const ProductShape& shape :
       {ProductShape{9, 24, 16}, ProductShape{9, 25, 17}, ProductShape{4136, 136, 2056}})
    expect_ends(device_, shape);
}

TEST_F(CudaHalfProducts, WindowsOfLargeStatesStayFinite) {
  const at::Tensor qkv = (at::randn({2, 4, 25, 3 * 2 * 8}) * 90).to(at::kHalf), bias = at::randn({2, 25, 25});
  const at::Tensor expected = kernels::window_attention(qkv, bias, {});
  const at::Tensor got = kernels::window_attention(qkv.to(device_), bias.to(device_), {});
  EXPECT_TRUE(got.isfinite().all().item<bool>());
  EXPECT_LT((got.cpu().to(at::kFloat) - expected.to(at::kFloat)).abs().mean().item<double>(), 5);
}

}  // namespace
}  // namespace fathom::products_test
