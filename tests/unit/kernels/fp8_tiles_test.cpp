// Matrices in FP8 with a scale for each tile: what they are rounded to, what does not fit, their products.
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "fp8_fixture.h"
#include "gradcheck.h"
#include "kernels/fp8_mlp.h"
#include "kernels/swiglu.h"

namespace fathom::fp8_tiles_test {
namespace {

using namespace testing;

using testing::relative_error;

/// Whole tiles, tiles that are cut off at either end, and several of them.
const std::vector<std::vector<int64_t>> kShapes = {{128, 128}, {16, 16},   {144, 272},
                                                   {32, 640},  {400, 128}, {1040, 48}};

TEST(Fp8Tiles, BothFormsHoldTheSameNumbersNearTheMatrix) {
  for (const auto& shape : kShapes)
    for (const auto type : kTypes) {
      const at::Tensor x = at::randn(shape).to(at::kBFloat16);
      const Fp8Pair pair = both(x, type);
      const at::Tensor found = exact(pair.plain, TileScales::kByRow);
      EXPECT_TRUE(at::equal(exact(pair.turned, TileScales::kByTile), found.t()));
      const double half_step = type == at::kFloat8_e4m3fn ? 1.0 / 16 : 1.0 / 8;
      const at::Tensor allowed = x.to(at::kFloat).abs() * half_step + 1e-4;
      EXPECT_TRUE((found - x.to(at::kFloat)).abs().le(allowed).all().item<bool>()) << c10::toString(type);
      EXPECT_FALSE(at::equal(found, x.to(at::kFloat))) << "nothing was rounded";
      EXPECT_TRUE(at::equal(found.to(at::kBFloat16).to(at::kFloat), found)) << "exact in BF16";
    }
}

TEST(Fp8Tiles, ScalesArePowersOfTwoThatFillTheRange) {
  const at::Tensor x = at::randn({256, 384});
  for (const auto type : kTypes) {
    const Fp8Pair pair = both(x, type);
    const at::Tensor bits = pair.turned.scales.slice(1, 0, 2).contiguous().view(at::kInt);
    EXPECT_TRUE(bits.bitwise_and(0x7fffff).eq(0).all().item<bool>());
    const at::Tensor largest = pair.plain.values_RK.to(at::kFloat).abs().view({2, 128, 3, 128}).amax({1, 3});
    const double end = type == at::kFloat8_e4m3fn ? 448 : 57344;
    EXPECT_LE(largest.max().item<double>(), end);
    EXPECT_GE(largest.min().item<double>(), end / 2.2);
  }
}

TEST(Fp8Tiles, ANumberAtTheEndOfTheRangeKeepsIt) {
  at::Tensor x = at::zeros({16, 16});
  x[0][0] = 448 * 8;
  x[0][1] = -448 * 8;
  EXPECT_TRUE(at::equal(rounded(x), x));
  x[0][0] = 450 * 8;  // twice the scale
  EXPECT_EQ(rounded(x)[0][0].item<float>(), 448 * 8);
  EXPECT_EQ(both(x).plain.scales[0][0].item<float>(), 16);
}

TEST(Fp8Tiles, AnOutlierHurtsItsOwnTileAlone) {
  const at::Tensor x = at::randn({256, 256}) * 1e-3;
  at::Tensor with = x.clone();
  with[3][5] = 1e6;
  const at::Tensor found = rounded(with), before = rounded(x);
  EXPECT_TRUE(at::equal(found.slice(0, 128), before.slice(0, 128)));
  EXPECT_TRUE(at::equal(found.slice(1, 128), before.slice(1, 128)));
  EXPECT_EQ(found[4][5].item<float>(), 0) << "too far below the largest";
  EXPECT_NEAR(found[3][5].item<double>(), 1e6, 1e6 / 16);
}

TEST(Fp8Tiles, ZerosAndDenormalsHaveScales) {
  at::Tensor x = at::zeros({128, 256}, at::kBFloat16);
  EXPECT_TRUE(at::equal(rounded(x), at::zeros({128, 256})));
  x[0][0] = 1e-40;
  x[1][0] = -1e-20;
  x[0][200] = 3e38;
  const Fp8Pair pair = both(x);
  EXPECT_TRUE(pair.plain.scales.isfinite().all().item<bool>());
  EXPECT_GT(pair.plain.scales.min().item<double>(), 0);
  const at::Tensor found = exact(pair.plain, TileScales::kByRow);
  EXPECT_TRUE(found.isfinite().all().item<bool>());
  EXPECT_NEAR(found[1][0].item<double>(), -1e-20, 1e-21);
  EXPECT_NEAR(found[0][200].item<double>(), 3e38, 3e37);
  const at::Tensor tiny = at::full({16, 16}, 1e-40);
  EXPECT_TRUE(at::equal(rounded(tiny), at::zeros({16, 16}))) << "below the least scale";
}

TEST(Fp8Tiles, WhatIsNoFiniteNumberHasNoScaleAndIsCounted) {
  for (const double planted : {kInfinity, -kInfinity, std::numeric_limits<double>::quiet_NaN()}) {
    at::Tensor x = at::randn({256, 256});
    x[200][7] = planted;
    x[201][7] = planted;
    const at::Tensor beyond = count_on();
    const Fp8Pair pair = both(x, at::kFloat8_e4m3fn, beyond);
    EXPECT_EQ(beyond.item<int64_t>(), 2);
    const at::Tensor found = exact(pair.plain, TileScales::kByRow);
    EXPECT_TRUE(found.slice(0, 128).slice(1, 0, 128).isnan().all().item<bool>());
    EXPECT_TRUE(found.slice(0, 0, 128).isfinite().all().item<bool>());
    EXPECT_TRUE(found.slice(1, 128).isfinite().all().item<bool>());
    EXPECT_TRUE(pair.turned.scales[0][1].isnan().item<bool>());
  }
}

TEST(Fp8Tiles, MakesWhatIsWishedAlone) {
  const at::Tensor x = at::randn({32, 48});
  const Fp8Pair plain = kernels::fp8_tiles(x, {.plain = TileScales::kByTile});
  EXPECT_FALSE(plain.turned.values_RK.defined());
  EXPECT_EQ(plain.plain.scales.sizes(), (std::vector<int64_t>{1, 4})) << "rounded up to four";
  const Fp8Pair turned = kernels::fp8_tiles(x, {.turned = TileScales::kByRow});
  EXPECT_FALSE(turned.plain.values_RK.defined());
  EXPECT_EQ(turned.turned.values_RK.sizes(), (std::vector<int64_t>{48, 32}));
  EXPECT_EQ(turned.turned.scales.sizes(), (std::vector<int64_t>{1, 48}));
}

/// Of random factors, and of what they were rounded to.
struct Product {
  Fp8Matrix left, right;
  at::Tensor expected;
};

Product random_product(int64_t rows, int64_t inner, int64_t columns, at::ScalarType left_type) {
  const at::Tensor a = uneven(rows, inner), b = uneven(columns, inner);
  const Fp8Pair left = kernels::fp8_tiles(a, {.type = left_type, .plain = TileScales::kByRow}),
                right = kernels::fp8_tiles(b, {.plain = TileScales::kByTile});
  return {left.plain, right.plain,
          rounded(a, left_type).to(at::kDouble).matmul(rounded(b).to(at::kDouble).t())};
}

TEST(Fp8Product, IsThatOfTheRoundedNumbers) {
  const at::Tensor bias = at::randn({80}).to(at::kBFloat16);
  for (const auto type : kTypes) {
    const Product product = random_product(144, 272, 80, type);
    at::Tensor wide = at::zeros({144, 80}), narrow = at::zeros({144, 80}, at::kBFloat16);
    kernels::fp8_product(product.left, product.right, {}, wide);
    EXPECT_LT(relative_error(wide, product.expected), 1e-6);
    kernels::fp8_product(product.left, product.right, bias, narrow);
    EXPECT_LT(relative_error(narrow, product.expected + bias), 5e-3);
  }
}

void expect_same_matrix(const Fp8Matrix& got, const Fp8Matrix& expected, const std::string& where) {
  EXPECT_EQ(got.values_RK.scalar_type(), expected.values_RK.scalar_type()) << where;
  EXPECT_TRUE(at::equal(got.values_RK.cpu().view(at::kByte), expected.values_RK.view(at::kByte))) << where;
  EXPECT_TRUE(at::equal(got.scales.cpu(), expected.scales)) << where;
}

TEST_F(CudaFp8, TilesAreThoseOfTheReference) {
  for (const auto& shape : kShapes)
    for (const auto from : {at::kFloat, at::kBFloat16})
      for (const auto type : kTypes)
        for (const auto layout : {TileScales::kByRow, TileScales::kByTile}) {
          const std::string where = std::to_string(shape[0]) + " x " + std::to_string(shape[1]) + " " +
                                    c10::toString(from) + " " + c10::toString(type);
          at::Tensor x = at::randn(shape).pow(5).to(from);
          x[0][0] = 1e-40;
          x[1].zero_();
          const kernels::Fp8Wish wish{.type = type, .plain = layout, .turned = layout};
          const Fp8Pair expected = kernels::fp8_tiles(x, wish), got = kernels::fp8_tiles(x.to(device_), wish);
          expect_same_matrix(got.plain, expected.plain, where);
          expect_same_matrix(got.turned, expected.turned, where + " turned");
        }
}

TEST_F(CudaFp8, TilesOfZerosAndTheLargestNumbers) {
  at::Tensor x = at::zeros({144, 400});
  x[3][200] = 3.3e38;
  x[3][390] = 448 * 4.0;
  x[3][391] = 449 * 4.0;
  const Fp8Pair expected = both(x), got = both(x.to(device_));
  expect_same_matrix(got.plain, expected.plain, "plain");
  expect_same_matrix(got.turned, expected.turned, "turned");
}

TEST_F(CudaFp8, InfinityHasNoScaleAndIsCounted) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    at::Tensor x = at::randn({256, 272}).to(type);
    x[200][7] = kInfinity;
    x[255][127] = std::numeric_limits<double>::quiet_NaN();
    const at::Tensor beyond = count_on(device_);
    const Fp8Pair got = both(x.to(device_), at::kFloat8_e4m3fn, beyond), expected = both(x);
    EXPECT_EQ(beyond.item<int64_t>(), 2);
    EXPECT_TRUE(at::equal(got.plain.scales.cpu().isnan(), expected.plain.scales.isnan()));
    EXPECT_TRUE(at::equal(got.turned.scales.cpu().isnan(), expected.turned.scales.isnan()));
    EXPECT_EQ(got.turned.scales.isnan().sum().item<int64_t>(), 1);
  }
}

TEST_F(CudaFp8, ProductsAreThoseOfTheReference) {
  for (const auto type : kTypes)
    for (const auto& [rows, inner, columns] : {std::tuple<int64_t, int64_t, int64_t>{128, 128, 128},
                                               {144, 272, 80},
                                               {1024, 2816, 1024},
                                               {16, 1040, 512},
                                               {2048, 48, 16}}) {
      const Product product = random_product(rows, inner, columns, type);
      const auto there = [&](const Fp8Matrix& matrix) {
        return Fp8Matrix{matrix.values_RK.to(device_), matrix.scales.to(device_)};
      };
      const std::string where = std::to_string(rows) + " x " + std::to_string(inner) + " x " +
                                std::to_string(columns) + " " + c10::toString(type);
      const auto on_device = at::TensorOptions().device(device_);
      at::Tensor wide = at::zeros({rows, columns}, on_device.dtype(at::kFloat)),
                 narrow = at::zeros({rows, columns}, on_device.dtype(at::kBFloat16));
      const at::Tensor bias = at::randn({columns}).to(at::kBFloat16);
      kernels::fp8_product(there(product.left), there(product.right), {}, wide);
      EXPECT_LT(relative_error(wide, product.expected), product_error(type)) << where;
      kernels::fp8_product(there(product.left), there(product.right), bias.to(device_), narrow);
      EXPECT_LT(relative_error(narrow, product.expected + bias), product_error(type) + 2 * kBFloat16Rounding)
          << where << ": the bias may come by a pass of its own";
    }
}

/// As in a bucket of gradients.
TEST_F(CudaFp8, AResultMayBeginAtAnyVector) {
  const Product product = random_product(64, 256, 48, at::kFloat8_e4m3fn);
  const at::Tensor bucket = at::full({4 + 64 * 48 + 4}, 7.0, at::TensorOptions().device(device_));
  at::Tensor result = bucket.narrow(0, 4, 64 * 48).view({64, 48});
  kernels::fp8_product({product.left.values_RK.to(device_), product.left.scales.to(device_)},
                       {product.right.values_RK.to(device_), product.right.scales.to(device_)}, {}, result);
  EXPECT_LT(relative_error(result, product.expected), product_error(at::kFloat8_e4m3fn));
  EXPECT_EQ(bucket[3].item<float>(), 7);
  EXPECT_EQ(bucket[4 + 64 * 48].item<float>(), 7);
}

/// What is written in FP8 at once is what is written in BF16 and then in FP8.
TEST_F(CudaFp8, SwigluAndItsGradientAreWrittenAsTilesAre) {
  for (const auto& [rows, inner] : {std::pair<int64_t, int64_t>{144, 256}, {16, 128}, {1040, 384}}) {
    const at::Tensor x = uneven(rows, 2 * inner).to(device_).to(at::kBFloat16),
                     grad = uneven(rows, inner).to(device_).to(at::kBFloat16);
    const std::string where = std::to_string(rows) + " x " + std::to_string(inner);
    for (const auto layout : {TileScales::kByRow, TileScales::kByTile}) {
      kernels::Fp8Wish wish{.plain = layout, .turned = layout};
      const at::Tensor y = kernels::swiglu(x);
      const Fp8Pair at_once = kernels::fp8_swiglu(x, wish), later = kernels::fp8_tiles(y, wish);
      expect_same_matrix(at_once.plain, {later.plain.values_RK.cpu(), later.plain.scales.cpu()}, where);
      expect_same_matrix(at_once.turned, {later.turned.values_RK.cpu(), later.turned.scales.cpu()}, where);
      for (const auto type : kTypes) {
        wish.type = type;
        const at::Tensor leaf = x.clone().requires_grad_();
        kernels::swiglu(leaf).backward(grad);
        const Fp8Pair back = kernels::fp8_swiglu_backward(grad, x, wish),
                      expected = kernels::fp8_tiles(leaf.grad(), wish);
        expect_same_matrix(back.plain, {expected.plain.values_RK.cpu(), expected.plain.scales.cpu()},
                           where + " gradient");
        expect_same_matrix(back.turned, {expected.turned.values_RK.cpu(), expected.turned.scales.cpu()},
                           where + " gradient, turned");
      }
    }
  }
}

}  // namespace
}  // namespace fathom::fp8_tiles_test
