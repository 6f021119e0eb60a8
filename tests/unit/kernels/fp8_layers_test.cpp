// Layers whose operands are FP8: results, what gradients come through, and what is kept for a step.
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <vector>

#include "fp8_fixture.h"
#include "gradcheck.h"
#include "kernels/fp8_mlp.h"
#include "kernels/linear.h"
#include "kernels/swiglu.h"

namespace fathom::fp8_layers_test {
namespace {

using namespace testing;

using kernels::Fp8Products;
using testing::relative_error;

/// A place for one gradient.
struct OneRoom : GradientRooms {
  at::Tensor room;
  at::Tensor take(const at::Tensor&) override { return room; }
};

struct LinearResult {
  at::Tensor y, grad_x, grad_weight, grad_bias;
};

/// One random layer, large enough for several tiles, on a device.
struct Layer {
  at::Tensor x = uneven(144, 272).view({3, 48, 272}).to(at::kBFloat16), weight = uneven(144, 272) * 0.1,
             bias = at::randn({144}), slope = uneven(144, 144).view({3, 48, 144}).to(at::kBFloat16);

  LinearResult run(const Fp8Products* fp8, at::Device device = at::kCPU,
                   GradientRooms* rooms = nullptr) const {
    const auto there = [&](const at::Tensor& t) {
      return t.to(t.options().device(device), /*non_blocking=*/false, /*copy=*/true).requires_grad_();
    };
    const at::Tensor inputs = there(x), factor = there(weight), shift = there(bias);
    LinearResult found{.y = kernels::linear(inputs, factor, shift, {.rooms = rooms, .fp8 = fp8})};
    found.y.backward(slope.to(device));
    found.grad_x = inputs.grad();
    found.grad_weight = factor.grad();
    found.grad_bias = shift.grad();
    return found;
  }
  /// By double products of what operands are rounded to.
  LinearResult expected(at::ScalarType gradients = at::kFloat8_e4m3fn) const {
    const auto wide = [](const at::Tensor& t) { return t.to(at::kDouble); };
    const at::Tensor rows = wide(rounded(x.view({144, 272}))), factor = wide(rounded(weight)),
                     grad = wide(rounded(slope.view({144, 144}), gradients));
    return {(rows.matmul(factor.t()) + wide(bias)).view({3, 48, 144}), grad.matmul(factor).view(x.sizes()),
            grad.t().matmul(rows), wide(slope).view({144, 144}).sum(0)};
  }
};

Fp8Products every_product() {
  return {.least_intensity = 0};
}

void expect_near(const LinearResult& found, const LinearResult& expected, double wide, double narrow) {
  EXPECT_LT(relative_error(found.y, expected.y), narrow);
  EXPECT_LT(relative_error(found.grad_x, expected.grad_x), narrow);
  EXPECT_LT(relative_error(found.grad_weight, expected.grad_weight), wide);
  EXPECT_EQ(found.grad_bias.scalar_type(), at::kFloat);
  EXPECT_LT(relative_error(found.grad_bias, expected.grad_bias), 1e-5) << "summed in float32";
}

TEST(Fp8Linear, MultipliesRoundedOperandsBothWays) {
  const Layer layer;
  for (const auto type : kTypes) {
    Fp8Products products = every_product();
    products.gradients = type;
    const LinearResult found = layer.run(&products);
    expect_near(found, layer.expected(type), 1e-5, 6e-3);
    EXPECT_EQ(found.y.scalar_type(), at::kBFloat16);
    EXPECT_EQ(found.grad_weight.scalar_type(), at::kFloat);
  }
  const LinearResult plain = layer.run(nullptr);
  EXPECT_GT(relative_error(plain.y, layer.expected().y), 1e-2) << "FP8 was not used";
}

TEST(Fp8Linear, WritesTheWeightsGradientWhereItIsToLie) {
  const Layer layer;
  const Fp8Products products = every_product();
  OneRoom rooms;
  rooms.room = at::full({144, 272}, 7.0);
  layer.run(&products, at::kCPU, &rooms);
  EXPECT_TRUE(at::equal(rooms.room, layer.run(&products).grad_weight));
}

TEST(Fp8Linear, WhatDoesNotFitStaysAsItWas) {
  const Fp8Products products = every_product();
  Layer layer;
  layer.x = layer.x.slice(1, 0, 47);
  layer.slope = layer.slope.slice(1, 0, 47);
  EXPECT_TRUE(at::equal(layer.run(&products).y, layer.run(nullptr).y)) << "rows are no multiple of 16";
  const Layer fits;
  const Fp8Products large_alone = {.least_intensity = 60};  // it is 57
  EXPECT_TRUE(at::equal(fits.run(&large_alone).y, fits.run(nullptr).y));
  const Fp8Products small_too = {.least_intensity = 55};
  EXPECT_FALSE(at::equal(fits.run(&small_too).y, fits.run(nullptr).y));
  EXPECT_FALSE(kernels::multiplies_in_fp8(fits.x.to(at::kFloat), fits.weight, products));
  EXPECT_FALSE(kernels::multiplies_in_fp8(fits.x, fits.weight.to(at::kBFloat16), products));
}

TEST(Fp8Linear, AFrozenWeightHasNoGradient) {
  const Layer layer;
  const Fp8Products products = every_product();
  const at::Tensor x = layer.x.clone().requires_grad_();
  kernels::linear(x, layer.weight, {}, {.fp8 = &products}).backward(layer.slope);
  EXPECT_LT(relative_error(x.grad(), layer.expected().grad_x), 6e-3);
  const at::NoGradGuard no_grad;
  EXPECT_FALSE(kernels::linear(x, layer.weight, {}, {.fp8 = &products}).requires_grad());
}

TEST(Fp8Linear, InfinityOnEitherWayIsSeen) {
  const at::Tensor beyond = count_on();
  Fp8Products products = every_product();
  products.beyond = beyond;
  Layer forward;
  forward.x[0][0][0] = kInfinity;
  EXPECT_TRUE(forward.run(&products).y[0][0].isnan().all().item<bool>());
  EXPECT_EQ(beyond.item<int64_t>(), 1);
  Layer backward;
  backward.slope[0][0][0] = kInfinity;
  const LinearResult found = backward.run(&products);
  EXPECT_TRUE(found.y.isfinite().all().item<bool>());
  EXPECT_FALSE(found.grad_weight.sum().isfinite().item<bool>());
  EXPECT_FALSE(found.grad_x.to(at::kFloat).sum().isfinite().item<bool>());
  EXPECT_EQ(beyond.item<int64_t>(), 2);
}

/// A feed-forward layer, in one function or in three.
struct Mlp {
  at::Tensor x = uneven(144, 96).view({3, 48, 96}).to(at::kBFloat16), gate_up = uneven(512, 96) * 0.1,
             down = uneven(80, 256) * 0.1, slope = uneven(144, 80).view({3, 48, 80}).to(at::kBFloat16);

  /// The result and its gradients by x and both weights.
  std::vector<at::Tensor> run(const Fp8Products& fp8, bool together, at::Device device = at::kCPU) const {
    const auto there = [&](const at::Tensor& t) {
      return t.to(t.options().device(device), /*non_blocking=*/false, /*copy=*/true).requires_grad_();
    };
    const at::Tensor inputs = there(x), first = there(gate_up), second = there(down);
    const at::Tensor y =
        together ? kernels::fp8_mlp(inputs, first, second, fp8, nullptr)
                 : kernels::linear(kernels::swiglu(kernels::linear(inputs, first, {}, {.fp8 = &fp8})), second,
                                   {}, {.fp8 = &fp8});
    y.backward(slope.to(device));
    return {y.detach(), inputs.grad(), first.grad(), second.grad()};
  }
};

TEST(Fp8Mlp, IsTwoLinearLayersWithSwigluBetween) {
  const Mlp mlp;
  for (const auto type : kTypes) {
    Fp8Products products = every_product();
    products.gradients = type;
    ASSERT_TRUE(kernels::is_fp8_mlp(mlp.x, mlp.gate_up, mlp.down, products));
    const auto together = mlp.run(products, true), apart = mlp.run(products, false);
    for (size_t i = 0; i < apart.size(); ++i) {
      EXPECT_TRUE(at::equal(together[i], apart[i])) << i;
      EXPECT_GT(apart[i].abs().max().item<double>(), 0) << i;
    }
  }
  EXPECT_FALSE(kernels::is_fp8_mlp(mlp.x, at::randn({96, 96}), at::randn({80, 48}), every_product()))
      << "tiles of gates and of values would overlap";
}

TEST(Fp8Mlp, LearnsWhatIsAskedForAlone) {
  const Mlp mlp;
  const Fp8Products products = every_product();
  const auto whole = mlp.run(products, true);
  const at::Tensor x = mlp.x.clone(), down = mlp.down.clone().requires_grad_();
  kernels::fp8_mlp(x, mlp.gate_up, down, products, nullptr).backward(mlp.slope);
  EXPECT_TRUE(at::equal(down.grad(), whole[3]));
  const at::Tensor inputs = mlp.x.clone().requires_grad_();
  kernels::fp8_mlp(inputs, mlp.gate_up, mlp.down, products, nullptr).backward(mlp.slope);
  EXPECT_TRUE(at::equal(inputs.grad(), whole[1]));
}

TEST(Fp8Weights, AreMadeOnceUntilTheyAreForgottenOrChange) {
  kernels::Fp8Weights weights;
  const at::Tensor weight = at::randn({32, 48});
  const void* const first = weights.of(weight, {}).plain.values_RK.const_data_ptr();
  EXPECT_EQ(weights.of(weight, {}).plain.values_RK.const_data_ptr(), first);
  EXPECT_EQ(weights.size(), 1);
  weight.mul_(3);
  const at::Tensor found = exact(weights.of(weight, {}).plain, TileScales::kByTile);
  EXPECT_LT(relative_error(found, weight), 0.0626) << "half of the last of three digits";
  at::Tensor moved = weight;
  moved.set_data(at::full({32, 48}, 2.0));
  EXPECT_TRUE(at::equal(exact(weights.of(weight, {}).plain, TileScales::kByTile), weight))
      << "elements elsewhere";
  weights.forget();
  EXPECT_EQ(weights.size(), 0);
  const Layer layer;
  Fp8Products products = every_product();
  const LinearResult without = layer.run(&products);
  products.weights = &weights;
  EXPECT_TRUE(at::equal(layer.run(&products).grad_x, without.grad_x));
}

TEST_F(CudaFp8, LinearIsThatOfACpu) {
  const Layer layer;
  for (const auto type : kTypes) {
    Fp8Products products = every_product();
    products.gradients = type;
    const LinearResult found = layer.run(&products, device_);
    // The forward pass is E4M3's; a bias may be added after the rounding.
    expect_near(found, layer.expected(type), product_error(type),
                product_error(at::kFloat8_e4m3fn) + 2 * kBFloat16Rounding);
    EXPECT_EQ(found.grad_weight.scalar_type(), at::kFloat);
  }
}

TEST_F(CudaFp8, MlpIsThatOfACpuAndOfItsParts) {
  const Mlp mlp;
  const Fp8Products products = every_product();
  const auto expected = mlp.run(products, true), together = mlp.run(products, true, device_),
             apart = mlp.run(products, false, device_);
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_LT(relative_error(together[i], apart[i]), 1e-3) << i;
    EXPECT_LT(relative_error(together[i], expected[i]), 0.05) << i;  // what lies between is rounded anew
  }
}

TEST_F(CudaFp8, InfinityComesThroughProducts) {
  Fp8Products products = every_product();
  Layer forward;
  forward.x[0][0][0] = kInfinity;
  EXPECT_TRUE(forward.run(&products, device_).y[0][0].isnan().all().item<bool>());
  Layer backward;
  backward.slope[0][0][0] = kInfinity;
  const LinearResult found = backward.run(&products, device_);
  EXPECT_TRUE(found.y.isfinite().all().item<bool>());
  EXPECT_FALSE(found.grad_weight.sum().isfinite().item<bool>());
  EXPECT_FALSE(found.grad_x.to(at::kFloat).sum().isfinite().item<bool>());
}

}  // namespace
}  // namespace fathom::fp8_layers_test
