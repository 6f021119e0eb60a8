// What writes operands in FP8 at once: heads' gradients, norms, and gradients of the sums that norms are
// taken of.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "fp8_fixture.h"
#include "gradcheck.h"
#include "kernels/call.h"
#include "kernels/fp8_heads.h"
#include "kernels/fp8_mlp.h"
#include "kernels/fp8_parts.h"
#include "kernels/fp8_rms_norm.h"
#include "kernels/fp8_rms_norm_parts.h"
#include "kernels/linear.h"
#include "kernels/residual_rms_norm.h"

namespace fathom::fp8_producers_test {
namespace {

using namespace testing;

using kernels::Fp8Products;
using kernels::Fp8Wish;
using kernels::HeadRotation;
using kernels::Heads;
using testing::relative_error;

constexpr double kEps = 1e-5;

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

/// A layer, the norm of what it adds to the stream, and a feed-forward layer of that.
struct Chain {
  at::Tensor x = uneven(144, 96).view({3, 48, 96}).to(at::kBFloat16), below = uneven(96, 64) * 0.1,
             inputs = uneven(144, 64).view({3, 48, 64}).to(at::kBFloat16), weight = at::randn({96}),
             gate_up = uneven(512, 96) * 0.1, down = uneven(96, 256) * 0.1,
             slope = uneven(144, 96).view({3, 48, 96}).to(at::kBFloat16);

  /// The results, and gradients of all inputs.
  std::vector<at::Tensor> run(const Fp8Products& products, bool together, bool has_branch = true,
                              at::Device device = at::kCPU) const {
    const auto there = [&](const at::Tensor& t) {
      return t.to(t.options().device(device), /*non_blocking=*/false, /*copy=*/true).requires_grad_();
    };
    const at::Tensor leaf = there(x), first = there(below), rows = there(inputs), factor = there(weight),
                     second = there(gate_up), third = there(down);
    at::Tensor branch, stream = leaf;
    if (has_branch) branch = kernels::fp8_linear(rows, first, {}, products, nullptr);
    at::Tensor sum, y;
    if (together) {
      const auto normed = kernels::fp8_rms_norm(stream, branch, {factor, kEps}, true, products);
      sum = normed.sum;
      y = kernels::fp8_mlp(normed.rows, second, third, products, nullptr);
    } else {
      const at::Tensor added = has_branch ? branch : at::zeros_like(stream);
      const auto normed = kernels::residual_rms_norm(stream, added, factor, kEps);
      sum = has_branch ? normed.sum : stream;
      y = kernels::fp8_mlp({normed.y}, second, third, products, nullptr);
    }
    (sum + y).backward(slope.to(device));
    std::vector<at::Tensor> found = {sum.detach(),  y.detach(),    leaf.grad(),
                                     factor.grad(), second.grad(), third.grad()};
    if (has_branch) found.insert(found.end(), {rows.grad(), first.grad()});
    return found;
  }
};

TEST(Fp8RmsNorm, IsTheNormThatIsThenCast) {
  const Chain chain;
  for (const auto type : kTypes)
    for (const bool has_branch : {true, false}) {
      Fp8Products products = every_product();
      products.gradients = type;
      const auto found = chain.run(products, true, has_branch),
                 expected = chain.run(products, false, has_branch);
      for (size_t i = 0; i < expected.size(); ++i) {
        EXPECT_EQ(found[i].scalar_type(), expected[i].scalar_type()) << i;
        EXPECT_TRUE(at::equal(found[i], expected[i])) << i << (has_branch ? "" : " without a branch");
        EXPECT_GT(expected[i].abs().max().item<double>(), 0) << i;
      }
    }
}

TEST(Fp8RmsNorm, OfAFrozenWeightIsNotTurned) {
  const at::Tensor x = at::randn({2, 16, 32}).to(at::kBFloat16).requires_grad_();
  const auto frozen = kernels::fp8_rms_norm(x, {}, {at::randn({32}), kEps}, false, every_product());
  EXPECT_TRUE(frozen.rows.in_fp8.plain.values_RK.defined());
  EXPECT_FALSE(frozen.rows.in_fp8.turned.values_RK.defined());
  EXPECT_EQ(frozen.rows.states.sizes(), x.sizes());
  kernels::fp8_mlp(frozen.rows, at::randn({256, 32}), at::randn({32, 128}), every_product(), nullptr)
      .sum()
      .backward();
  EXPECT_EQ(x.grad().scalar_type(), at::kBFloat16);
  EXPECT_GT(x.grad().abs().max().item<double>(), 0);
}

TEST(Fp8RmsNorm, InfinityOnEitherWayIsCountedOnce) {
  Chain chain;
  const at::Tensor beyond = count_on();
  Fp8Products products = every_product();
  products.beyond = beyond;
  chain.run(products, true);
  EXPECT_EQ(beyond.item<int64_t>(), 0);
  chain.x[0][0][0] = kInfinity;
  EXPECT_FALSE(chain.run(products, true)[1].isfinite().all().item<bool>());
  const auto counted = [&](bool together) {
    beyond.zero_();
    chain.run(products, together);
    return beyond.item<int64_t>();
  };
  EXPECT_GT(counted(false), 0);
  EXPECT_EQ(counted(true), counted(false));
}

/// A gradient's forms are taken with the very tensor that they were left for, and once.
TEST(Fp8RmsNorm, HandsGradientsToLayersThatTakeThem) {
  const at::Tensor weight = at::randn({32, 48}).requires_grad_(),
                   x = at::randn({16, 48}).to(at::kBFloat16).requires_grad_();
  const at::Tensor y = kernels::fp8_linear(x, weight, {}, every_product(), nullptr);
  const auto layer = kernels::fp8_linear_of(y);
  ASSERT_TRUE(layer);
  EXPECT_FALSE(kernels::fp8_mlp_of(y));
  EXPECT_FALSE(kernels::fp8_linear_of(y * 2)) << "its gradient is another's";
  EXPECT_FALSE(kernels::fp8_linear_of(x));
  EXPECT_EQ(layer->awaited.plain, TileScales::kByRow);
  EXPECT_EQ(layer->awaited.turned, TileScales::kByRow);

  const at::Tensor grad = at::randn({16, 32}).to(at::kBFloat16), other = grad.clone();
  const Fp8Pair forms = kernels::fp8_tiles(grad, layer->awaited);
  const auto taken = [&](const at::Tensor& of) {
    const Fp8Pair found = layer->in_fp8(of, layer->awaited);
    expect_same_forms(found, kernels::fp8_tiles(of, layer->awaited), "taken");
    return found.plain.values_RK.is_same(forms.plain.values_RK);
  };
  layer->hand(grad, forms);
  EXPECT_TRUE(taken(grad));
  EXPECT_FALSE(taken(grad)) << "a second time";
  layer->hand(grad, forms);
  EXPECT_FALSE(taken(other));
  layer->hand(grad, forms);
  grad.mul_(3);
  EXPECT_FALSE(taken(grad)) << "what was left is that of another content";
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

using MaybeTensor = std::optional<at::Tensor>;
using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
using kernels::fp8_rms_norm_parts::Six;

Fp8Pair forms_of(const Six& six) {
  return {{std::get<2>(six), std::get<3>(six)}, {std::get<4>(six), std::get<5>(six)}};
}

/// Widths of one tile and of several, cut off or not; the last ones need two tiles a block, or go through the
/// parts.
const std::vector<std::pair<int64_t, int64_t>> kNormSizes = {
    {16, 16},    {144, 128},  {1040, 272}, {128, 896},  {272, 1024},
    {400, 1008}, {144, 1040}, {48, 2048},  {160, 1296}, {32, 2064}};

struct NormInputs {
  at::Tensor x, branch, weight;

  NormInputs(int64_t rows, int64_t columns, at::Device device)
      : x(uneven(rows, columns).to(at::kBFloat16).to(device)),
        branch(uneven(rows, columns).to(at::kBFloat16).to(device)),
        weight(at::randn({columns}).to(device)) {}
};

Six fp8_norm(const at::Tensor& x, const MaybeTensor& branch, const at::Tensor& weight) {
  static const auto op =
      kernels::find_op<Six(const at::Tensor&, const MaybeTensor&, const at::Tensor&, double, int64_t, int64_t,
                           const MaybeTensor&)>("fathom::fp8_rms_norm");
  return op.call(x, branch, weight, kEps, static_cast<int64_t>(TileScales::kByRow),
                 static_cast<int64_t>(TileScales::kByTile), std::nullopt);
}

Three plain_norm(const at::Tensor& x, const at::Tensor& branch, const at::Tensor& weight) {
  static const auto op =
      kernels::find_op<Three(const at::Tensor&, const at::Tensor&, const at::Tensor&, double, bool,
                             const MaybeTensor&)>("fathom::residual_rms_norm");
  return op.call(x, branch, weight, kEps, false, std::nullopt);
}

/// The sum has the bits of the two operations', and so has the norm by the row's figure that is given back;
/// the figure itself is summed in another order.
TEST_F(CudaFp8, NormsAreWrittenAsTilesAre) {
  for (const auto& [rows, columns] : kNormSizes)
    for (const bool has_branch : {true, false}) {
      const std::string where = std::to_string(rows) + " x " + std::to_string(columns);
      const NormInputs given(rows, columns, device_);
      const at::Tensor added = has_branch ? given.branch : at::zeros_like(given.x);
      const Six found =
          fp8_norm(given.x, has_branch ? std::make_optional(given.branch) : std::nullopt, given.weight);
      const auto [sum, y, scale] = plain_norm(given.x, added, given.weight);
      EXPECT_EQ(std::get<0>(found).defined(), has_branch);
      if (has_branch) EXPECT_TRUE(at::equal(std::get<0>(found), sum)) << where;
      const at::Tensor& own_scale = std::get<1>(found);
      EXPECT_LT(relative_error(own_scale, scale), 1e-6) << where;
      const at::Tensor own = sum.to(at::kFloat)
                                 .mul(own_scale)
                                 .mul(given.weight.to(at::kBFloat16).to(at::kFloat))
                                 .to(at::kBFloat16);
      EXPECT_LT(relative_error(own, y), 8e-3) << where;
      expect_same_forms(forms_of(found), both(own), where);
    }
}

/// The forms have the bits of the gradient's that is given back; that is summed in another order than the two
/// operations' is.
TEST_F(CudaFp8, GradientsOfNormedSumsAreWrittenAsTilesAre) {
  static const auto fused =
      kernels::find_op<Six(const MaybeTensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                           const at::Tensor&, at::ScalarType, int64_t, int64_t, const MaybeTensor&)>(
          "fathom::fp8_rms_norm_backward");
  static const auto apart =
      kernels::find_op<Three(const MaybeTensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                             const at::Tensor&, bool)>("fathom::residual_rms_norm_backward");
  for (const auto& [rows, columns] : kNormSizes)
    for (const bool has_beside : {true, false})
      for (const auto type : kTypes) {
        const std::string where = std::to_string(rows) + " x " + std::to_string(columns);
        const NormInputs given(rows, columns, device_), grads(rows, columns, device_);
        const auto [sum, y, scale] = plain_norm(given.x, given.branch, given.weight);
        const MaybeTensor beside = has_beside ? std::make_optional(grads.branch) : std::nullopt;
        const Six found = fused.call(beside, grads.x, sum, given.weight, scale, type,
                                     static_cast<int64_t>(TileScales::kByRow),
                                     static_cast<int64_t>(TileScales::kByTile), std::nullopt);
        const auto [grad_x, same, grad_weight] = apart.call(beside, grads.x, sum, given.weight, scale, false);
        EXPECT_LT(relative_error(std::get<0>(found), grad_x), 8e-3) << where;
        EXPECT_LT(relative_error(std::get<1>(found), grad_weight), 1e-5) << where;
        expect_same_forms(forms_of(found), both(std::get<0>(found), type), where);
      }
}

TEST_F(CudaFp8, InfinityInANormIsCounted) {
  at::Tensor x = at::randn({256, 272}).to(at::kBFloat16);
  x[200][7] = kInfinity;
  const at::Tensor beyond = count_on(device_);
  Fp8Products products = every_product();
  products.beyond = beyond;
  const at::Tensor weight = at::randn({272}).to(device_);
  const Fp8Pair found = kernels::fp8_rms_norm(x.to(device_), {}, {weight, kEps}, true, products).rows.in_fp8;
  const auto [sum, y, scale] = plain_norm(x.to(device_), at::zeros_like(x).to(device_), weight);
  EXPECT_EQ(beyond.item<int64_t>(), y.isfinite().logical_not().sum().item<int64_t>());
  EXPECT_TRUE(at::equal(found.turned.scales.isnan(), both(y).turned.scales.isnan()));
}

TEST_F(CudaFp8, ChainsOfLayersAreThoseOfTheirParts) {
  const Chain chain;
  for (const bool has_branch : {true, false}) {
    const auto found = chain.run(every_product(), true, has_branch, device_),
               expected = chain.run(every_product(), false, has_branch, device_);
    for (size_t i = 0; i < expected.size(); ++i)
      EXPECT_LT(relative_error(found[i], expected[i]), 0.05) << i;  // what lies between may round otherwise
  }
}

}  // namespace
}  // namespace fathom::fp8_producers_test
