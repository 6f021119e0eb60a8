// What writes operands in FP8 at once: heads' gradients.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <string>
#include <tuple>
#include <vector>

#include "fp8_fixture.h"
#include "kernels/call.h"
#include "kernels/fp8_heads.h"

namespace fathom::fp8_producers_test {
namespace {

using namespace testing;

using kernels::Fp8Products;
using kernels::Fp8Wish;
using kernels::HeadRotation;
using kernels::Heads;

Fp8Products every_product() {
  return {.least_intensity = 0};
}

struct HeadSizes {
  int64_t batch, tokens, heads, kv_heads, size;

  int64_t width() const { return (heads + 2 * kv_heads) * size; }
  std::string name() const {
    return std::to_string(batch) + " x " + std::to_string(tokens) + " of " + std::to_string(heads) + " and " +
           std::to_string(kv_heads) + " heads of " + std::to_string(size);
  }
};

HeadRotation random_rotation(const HeadSizes& sizes, at::Device device = at::kCPU) {
  const at::Tensor angle_TF = at::randn({sizes.tokens, sizes.size / 2}, at::TensorOptions().device(device));
  return {.cos_TF = angle_TF.cos(), .sin_TF = angle_TF.sin(), .layout = {sizes.heads, sizes.kv_heads}};
}

/// The op that gives heads' gradients back packed.
at::Tensor packed_gradient(const Heads& grads, const HeadRotation& rotation) {
  static const auto op =
      kernels::find_op<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                  const at::Tensor&)>("fathom::rope_heads_backward");
  const auto& [q, k, v] = grads;
  return op.call(q, k, v, rotation.cos_TF, rotation.sin_TF).flatten(0, 1);
}

/// Three tensors of gradients; tokens' heads lie together, or heads' tokens.
Heads random_gradients(const HeadSizes& sizes, bool together, at::Device device) {
  const auto made = [&](int64_t count) {
    const at::Tensor x = at::randn({sizes.batch, sizes.tokens, count, sizes.size}) *
                         at::randn({sizes.batch, 1, count, 1}).exp();
    const at::Tensor heads = x.to(at::kBFloat16).to(device).transpose(1, 2);
    return together ? heads : heads.contiguous();
  };
  return {made(sizes.heads), made(sizes.kv_heads), made(sizes.kv_heads)};
}

TEST(Fp8Heads, AreThoseOfALinearLayerThatAreTurned) {
  const HeadSizes sizes{.batch = 2, .tokens = 72, .heads = 4, .kv_heads = 2, .size = 16};
  const HeadRotation rotation = random_rotation(sizes);
  const at::Tensor x = uneven(144, 96).view({2, 72, 96}).to(at::kBFloat16),
                   weight = uneven(sizes.width(), 96) * 0.1;
  const Heads slopes = random_gradients(sizes, true, at::kCPU);
  for (const auto type : kTypes) {
    Fp8Products products = every_product();
    products.gradients = type;
    const auto run = [&](bool together) {
      const at::Tensor inputs = x.clone().requires_grad_(), factor = weight.clone().requires_grad_();
      const auto [q, k, v] =
          together ? kernels::fp8_heads({inputs}, factor, rotation, products, nullptr)
                   : kernels::rope_heads(kernels::fp8_linear(inputs, factor, {}, products, nullptr),
                                         rotation.cos_TF, rotation.sin_TF, rotation.layout);
      ((q * std::get<0>(slopes)).sum() + (k * std::get<1>(slopes)).sum() + (v * std::get<2>(slopes)).sum())
          .backward();
      return std::vector{q.detach(), k.detach(), v.detach(), inputs.grad(), factor.grad()};
    };
    const auto found = run(true), expected = run(false);
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_TRUE(at::equal(found[i], expected[i])) << i;
      EXPECT_GT(expected[i].abs().max().item<double>(), 0) << i;
    }
  }
}

TEST(Fp8Heads, LearnWhatIsAskedForAlone) {
  const HeadSizes sizes{.batch = 1, .tokens = 48, .heads = 2, .kv_heads = 2, .size = 16};
  const HeadRotation rotation = random_rotation(sizes);
  const at::Tensor x = at::randn({1, 48, 32}).to(at::kBFloat16), weight = at::randn({sizes.width(), 32});
  const auto sum_of = [](const Heads& heads) {
    return std::get<0>(heads).sum() + std::get<2>(heads).square().sum();
  };
  const at::Tensor inputs = x.clone().requires_grad_(), factor = weight.clone().requires_grad_();
  sum_of(kernels::fp8_heads({inputs}, factor, rotation, every_product(), nullptr)).backward();
  const at::Tensor only_x = x.clone().requires_grad_(), only_weight = weight.clone().requires_grad_();
  sum_of(kernels::fp8_heads({only_x}, weight, rotation, every_product(), nullptr)).backward();
  sum_of(kernels::fp8_heads({x}, only_weight, rotation, every_product(), nullptr)).backward();
  EXPECT_TRUE(at::equal(only_x.grad(), inputs.grad()));
  EXPECT_TRUE(at::equal(only_weight.grad(), factor.grad()));
}

const std::vector<HeadSizes> kHeadSizes = {{2, 72, 4, 2, 64}, {1, 144, 3, 3, 32},  {2, 40, 2, 1, 128},
                                           {1, 16, 2, 2, 16}, {1, 48, 1, 1, 256},  {1, 272, 2, 1, 96},
                                           {2, 24, 2, 1, 24}, {8, 256, 16, 16, 64}};

/// What is written in FP8 at once is what is written in BF16 and then in FP8, to the last bit: the turned
/// gradient is rounded to BF16 in between.
TEST_F(CudaFp8, GradientsOfHeadsAreWrittenAsTilesAre) {
  for (const HeadSizes& sizes : kHeadSizes)
    for (const bool together : {true, false}) {
      const HeadRotation rotation = random_rotation(sizes, device_);
      const Heads grads = random_gradients(sizes, together, device_);
      for (const auto type : kTypes)
        for (const auto layout : {TileScales::kByRow, TileScales::kByTile}) {
          const Fp8Wish wish{.type = type, .plain = layout, .turned = layout};
          expect_same_forms(kernels::fp8_rope_heads_backward(grads, rotation, wish),
                            kernels::fp8_tiles(packed_gradient(grads, rotation), wish), sizes.name());
        }
    }
}

TEST_F(CudaFp8, HeadsAreTurnedWhereTheyLie) {
  for (const HeadSizes& sizes : kHeadSizes)
    for (const auto type : {at::kBFloat16, at::kFloat}) {
      const HeadRotation rotation = random_rotation(sizes, device_);
      const at::Tensor before = at::randn({sizes.batch, sizes.tokens, sizes.width()}).to(device_).to(type),
                       qkv = before.clone();
      kernels::rope_heads_in_place(qkv, rotation);
      const auto [q, k, v] = kernels::rope_heads(before, rotation.cos_TF, rotation.sin_TF, rotation.layout);
      const at::Tensor expected = at::cat({q, k, v}, 1).transpose(1, 2).flatten(2);
      EXPECT_TRUE(at::equal(qkv, expected)) << sizes.name();
      EXPECT_FALSE(at::equal(qkv, before)) << sizes.name();
    }
}

}  // namespace
}  // namespace fathom::fp8_producers_test
