// rms_norm, with the sum before it too, layer_norm, swiglu and linear: CPU against reference, per type and
// odd shape; gradients by finite differences.
#include <ATen/Parallel.h>

#include "base/error.h"
#include "gradcheck.h"
#include "kernels/biased_product.h"
#include "kernels/layer_norm.h"
#include "kernels/linear.h"
#include "kernels/merged_layer_norm.h"
#include "kernels/residual_layer_norm.h"
#include "kernels/residual_rms_norm.h"
#include "kernels/rms_norm.h"
#include "kernels/swiglu.h"

namespace fathom::norm_and_gate_test {
namespace {

using testing::expect_gradients;
using testing::relative_error;
using testing::tolerance_of;

const at::ScalarType kNormTypes[] = {at::kFloat, at::kDouble, at::kBFloat16};
const std::vector<int64_t> kShapes[] = {{1, 3}, {3, 5}, {2, 7, 33}, {130, 96}, {4, 257}};

at::Tensor random_tensor(at::IntArrayRef shape, at::ScalarType type) {
  return at::randn(shape, at::kDouble).mul(1.5).to(type);
}

/// Value and input gradients of `function`, for a fixed gradient of its output.
std::vector<at::Tensor> value_and_gradients(const testing::TensorFunction& function,
                                            const std::vector<at::Tensor>& inputs, const at::Tensor& grad) {
  std::vector<at::Tensor> leaves;
  for (const auto& input : inputs) leaves.push_back(input.detach().clone().requires_grad_(true));
  const auto y = function(leaves);
  auto result = torch::autograd::grad({y}, leaves, {grad});
  result.insert(result.begin(), y);
  return result;
}

TEST(RmsNorm, EqualsReferenceForwardAndBackward) {
  for (const auto type : kNormTypes)
    for (const auto& shape : kShapes) {
      at::manual_seed(1);
      const auto x = random_tensor(shape, type), weight = random_tensor({shape.back()}, type),
                 grad = random_tensor(shape, type);
      const auto ours = value_and_gradients(
          [](const auto& in) { return kernels::rms_norm(in[0], in[1], 1e-5); }, {x, weight}, grad);
      const auto [y, scale] = kernels::rms_norm_ref::forward(x, weight, 1e-5);
      const auto [grad_x, grad_weight] = kernels::rms_norm_ref::backward(grad, x, weight, scale);
      EXPECT_LT(relative_error(ours[0], y), tolerance_of(type)) << c10::toString(type);
      EXPECT_LT(relative_error(ours[1], grad_x), 4 * tolerance_of(type)) << c10::toString(type);
      EXPECT_LT(relative_error(ours[2], grad_weight), 4 * tolerance_of(type)) << c10::toString(type);
      EXPECT_EQ(ours[0].scalar_type(), type);
    }
}

TEST(RmsNorm, GradientsByFiniteDifferences) {
  at::manual_seed(2);
  expect_gradients([](const auto& in) { return kernels::rms_norm(in[0], in[1], 1e-5); },
                   {at::randn({3, 5}, at::kDouble), at::randn({5}, at::kDouble)});
}

TEST(ResidualRmsNorm, IsTheNormOfTheRoundedSumForwardAndBackward) {
  for (const auto type : kNormTypes)
    for (const auto& shape : kShapes)
      for (const auto parameters : {type, type == at::kDouble ? at::kDouble : at::kFloat}) {
        at::manual_seed(11);
        const auto x = random_tensor(shape, type).requires_grad_(),
                   branch = random_tensor(shape, type).requires_grad_(),
                   weight = random_tensor({shape.back()}, parameters).requires_grad_();
        const auto grad_sum = random_tensor(shape, type), grad_y = random_tensor(shape, type);
        const auto both = kernels::residual_rms_norm(x, branch, weight, 1e-5);
        const auto grads = torch::autograd::grad({both.sum, both.y}, {x, branch, weight}, {grad_sum, grad_y});
        const auto sum = x.detach() + branch.detach(), rounded = weight.detach().to(type);
        const auto [y, scale] = kernels::rms_norm_ref::forward(sum, rounded, 1e-5);
        const auto [grad_x, grad_weight] = kernels::rms_norm_ref::backward(grad_y, sum, rounded, scale);
        EXPECT_TRUE(at::equal(both.sum, sum));
        EXPECT_LT(relative_error(both.y, y), tolerance_of(type)) << c10::toString(type);
        EXPECT_LT(relative_error(grads[0], grad_sum + grad_x), 4 * tolerance_of(type));
        EXPECT_TRUE(at::equal(grads[0], grads[1]));
        EXPECT_LT(relative_error(grads[2], grad_weight), 4 * tolerance_of(type));
        EXPECT_EQ(grads[2].scalar_type(), parameters);
      }
}

TEST(ResidualRmsNorm, GradientsByFiniteDifferences) {
  at::manual_seed(12);
  const std::vector<at::Tensor> inputs = {at::randn({3, 5}, at::kDouble), at::randn({3, 5}, at::kDouble),
                                          at::randn({5}, at::kDouble)};
  const auto outputs = [](const auto& in) { return kernels::residual_rms_norm(in[0], in[1], in[2], 1e-5); };
  expect_gradients([&](const auto& in) { return outputs(in).y; }, inputs);
  expect_gradients([&](const auto& in) { return outputs(in).sum * outputs(in).y; }, inputs);
  expect_gradients(
      [&](const auto& in) { return kernels::residual_rms_norm(in[0], in[1], inputs[2], 1e-5).sum.square(); },
      {inputs[0], inputs[1]});
  EXPECT_THROW(kernels::residual_rms_norm(inputs[0], at::ones({3, 4}, at::kDouble), inputs[2], 1e-5), Error);
  EXPECT_THROW(kernels::residual_rms_norm(inputs[0], at::ones({3, 5}), inputs[2], 1e-5), Error);
}

TEST(LayerNorm, EqualsTheFormulaWithParametersOfEitherType) {
  at::manual_seed(21);
  for (const auto type : {at::kDouble, at::kBFloat16}) {
    const auto x = random_tensor({4, 33}, type);
    for (const auto parameters : {type, at::kFloat}) {
      const auto weight = random_tensor({33}, at::kDouble).to(parameters),
                 bias = random_tensor({33}, at::kDouble).to(parameters);
      const auto wide = x.to(at::kDouble), centred = wide - wide.mean(-1, true);
      const auto expected =
          centred / (centred.square().mean(-1, true) + 1e-5).sqrt() * weight.to(at::kDouble) +
          bias.to(at::kDouble);
      const auto y = kernels::layer_norm(x, weight, bias, 1e-5);
      EXPECT_EQ(y.scalar_type(), type);
      EXPECT_LT(relative_error(y, expected), type == at::kDouble && parameters == at::kDouble ? 1e-12 : 1e-2);
    }
  }
  EXPECT_THROW(kernels::layer_norm(at::ones({2, 3}), at::ones({2}), at::ones({2}), 1e-5), Error);
}

TEST(LayerNorm, GradientsByFiniteDifferences) {
  at::manual_seed(22);
  expect_gradients(
      [](const auto& in) { return kernels::layer_norm(in[0], in[1], in[2], 1e-5); },
      {at::randn({3, 5}, at::kDouble), at::randn({5}, at::kDouble), at::randn({5}, at::kDouble)});
}

TEST(ResidualLayerNorm, IsTheNormOfTheRoundedSumForwardAndBackward) {
  for (const auto type : kNormTypes)
    for (const auto& shape : kShapes)
      for (const auto parameters : {type, type == at::kDouble ? at::kDouble : at::kFloat}) {
        at::manual_seed(23);
        const auto x = random_tensor(shape, type).requires_grad_(),
                   branch = random_tensor(shape, type).requires_grad_(),
                   weight = random_tensor({shape.back()}, parameters).requires_grad_(),
                   bias = random_tensor({shape.back()}, parameters).requires_grad_();
        const auto grad_sum = random_tensor(shape, type), grad_y = random_tensor(shape, type);
        const auto both = kernels::residual_layer_norm(x, {branch}, weight, bias, 1e-5);
        const auto grads =
            torch::autograd::grad({both.sum, both.y}, {x, branch, weight, bias}, {grad_sum, grad_y});
        const auto sum = x.detach() + branch.detach();
        const auto [y, mean, scale] = kernels::layer_norm_ref::forward(sum, weight, bias, 1e-5);
        const auto [grad_x, grad_weight, grad_bias] =
            kernels::layer_norm_ref::backward(grad_y, sum, weight, bias, mean, scale);
        EXPECT_TRUE(at::equal(both.sum, sum));
        EXPECT_LT(relative_error(both.y, y), tolerance_of(type)) << c10::toString(type);
        EXPECT_LT(relative_error(grads[0], grad_sum + grad_x), 4 * tolerance_of(type));
        EXPECT_TRUE(at::equal(grads[0], grads[1]));
        EXPECT_LT(relative_error(grads[2], grad_weight), 4 * tolerance_of(type));
        EXPECT_LT(relative_error(grads[3], grad_bias), 4 * tolerance_of(type));
        EXPECT_EQ(grads[2].scalar_type(), parameters);
      }
}

TEST(ResidualLayerNorm, GradientsByFiniteDifferences) {
  at::manual_seed(24);
  const std::vector<at::Tensor> inputs = {at::randn({3, 5}, at::kDouble), at::randn({3, 5}, at::kDouble),
                                          at::randn({5}, at::kDouble), at::randn({5}, at::kDouble)};
  const auto outputs = [](const auto& in) {
    return kernels::residual_layer_norm(in[0], {in[1]}, in[2], in[3], 1e-5);
  };
  expect_gradients([&](const auto& in) { return outputs(in).y; }, inputs);
  expect_gradients([&](const auto& in) { return outputs(in).sum * outputs(in).y; }, inputs);
  expect_gradients(
      [&](const auto& in) {
        return kernels::residual_layer_norm(in[0], {in[1]}, inputs[2], inputs[3], 1e-5).sum.square();
      },
      {inputs[0], inputs[1]});
  const auto refuses = [&](const at::Tensor& branch, const at::Tensor& bias) {
    EXPECT_THROW(kernels::residual_layer_norm(inputs[0], {branch}, inputs[2], bias, 1e-5), Error);
  };
  refuses(at::ones({3, 4}, at::kDouble), inputs[3]);
  refuses(at::ones({3, 5}), inputs[3]);
  refuses(inputs[1], at::ones({4}, at::kDouble));
}

/// As stochastic depth scales branches: some samples' are left out.
TEST(ResidualLayerNorm, AddsABranchScaledBySample) {
  at::manual_seed(27);
  const auto scale_B = at::tensor({0.0, 1.25, 0.5}, at::kDouble);
  const std::vector<at::Tensor> inputs = {at::randn({3, 2, 4, 2}, at::kDouble),
                                          at::randn({3, 2, 4, 2}, at::kDouble)};
  const auto weight = at::randn({2}, at::kDouble), bias = at::randn({2}, at::kDouble),
             wide = at::randn({8}, at::kDouble), wide_bias = at::randn({8}, at::kDouble);
  const auto sum = inputs[0] + inputs[1] * scale_B.view({3, 1, 1, 1});
  const kernels::Branch branch = {inputs[1], scale_B};
  EXPECT_LT(relative_error(kernels::residual_layer_norm(inputs[0], branch, weight, bias, 1e-5).y,
                           kernels::layer_norm(sum, weight, bias, 1e-5)),
            1e-12);
  EXPECT_LT(relative_error(kernels::merged_layer_norm(inputs[0], branch, wide, wide_bias, 1e-5),
                           kernels::merged_layer_norm(sum, {}, wide, wide_bias, 1e-5)),
            1e-12);
  const auto outputs = [&](const auto& in) {
    return kernels::residual_layer_norm(in[0], {in[1], scale_B}, weight, bias, 1e-5);
  };
  expect_gradients([&](const auto& in) { return outputs(in).sum * outputs(in).y; }, inputs);
  expect_gradients([&](const auto& in) { return outputs(in).sum.square(); }, inputs);
  expect_gradients(
      [&](const auto& in) {
        return kernels::merged_layer_norm(in[0], {in[1], scale_B}, wide, wide_bias, 1e-5);
      },
      inputs);
  EXPECT_THROW(
      kernels::residual_layer_norm(inputs[0], {inputs[1], at::ones({2}, at::kDouble)}, weight, bias, 1e-5),
      Error);
  EXPECT_THROW(kernels::merged_layer_norm(inputs[0], {{}, scale_B}, wide, wide_bias, 1e-5), Error);
}

/// Neighbours one by one: by column, then row.
at::Tensor merged_by_slices(const at::Tensor& x) {
  std::vector<at::Tensor> parts;
  for (const int64_t column : {0, 1})
    for (const int64_t row : {0, 1})
      parts.push_back(x.slice(1, row, std::nullopt, 2).slice(2, column, std::nullopt, 2));
  return at::cat(parts, -1);
}

TEST(MergedLayerNorm, IsTheNormOfMergedNeighbours) {
  at::manual_seed(25);
  for (const auto type : kNormTypes)
    for (const bool branched : {false, true}) {
      const auto x = random_tensor({2, 4, 6, 5}, type), branch = random_tensor({2, 4, 6, 5}, type),
                 weight = random_tensor({20}, type), bias = random_tensor({20}, type),
                 grad = random_tensor({2, 2, 3, 20}, type);
      const auto of = [&](const auto& in) { return branched ? in[1] : at::Tensor(); };
      const std::vector<at::Tensor> inputs =
          branched ? std::vector{x, branch, weight, bias} : std::vector{x, weight, bias};
      const size_t last = inputs.size() - 1;
      const auto got = value_and_gradients(
          [&](const auto& in) {
            return kernels::merged_layer_norm(in[0], {of(in)}, in[last - 1], in[last], 1e-5);
          },
          inputs, grad);
      const auto expected = value_and_gradients(
          [&](const auto& in) {
            const auto sum = branched ? in[0] + in[1] : in[0];
            return kernels::layer_norm(merged_by_slices(sum), in[last - 1], in[last], 1e-5);
          },
          inputs, grad);
      for (size_t i = 0; i < got.size(); ++i)
        EXPECT_LT(relative_error(got[i], expected[i]), 4 * tolerance_of(type)) << c10::toString(type) << i;
      const at::NoGradGuard no_grad;
      EXPECT_TRUE(at::equal(kernels::merged_layer_norm(x, {of(inputs)}, weight, bias, 1e-5), got[0]));
    }
  const auto ones = at::ones({8});
  EXPECT_THROW(kernels::merged_layer_norm(at::ones({1, 3, 2, 2}), {}, ones, ones, 1e-5), Error);
  EXPECT_THROW(kernels::merged_layer_norm(at::ones({1, 2, 2, 3}), {}, ones, ones, 1e-5), Error);
  EXPECT_THROW(kernels::merged_layer_norm(at::ones({1, 2, 2, 2}), {at::ones({1, 2, 2, 1})}, ones, ones, 1e-5),
               Error);
}

TEST(MergedLayerNorm, GradientsByFiniteDifferences) {
  at::manual_seed(26);
  expect_gradients(
      [](const auto& in) { return kernels::merged_layer_norm(in[0], {in[1]}, in[2], in[3], 1e-5); },
      {at::randn({1, 2, 4, 2}, at::kDouble), at::randn({1, 2, 4, 2}, at::kDouble),
       at::randn({8}, at::kDouble), at::randn({8}, at::kDouble)});
}

TEST(ColumnSum, SumsAllButTheLastDimension) {
  const auto x = at::arange(24, at::kFloat).view({2, 3, 4});
  EXPECT_TRUE(at::equal(kernels::column_sum(x), x.view({6, 4}).sum(0)));
  const auto wide = kernels::column_sum(at::ones({1001, 4}, at::kBFloat16), at::kFloat);
  EXPECT_TRUE(at::equal(wide, at::full({4}, 1001.F))) << "BF16 has no 1001";
  at::manual_seed(28);
  for (const auto type : kNormTypes)
    for (const auto& shape :
         std::vector<std::vector<int64_t>>{{1, 3}, {7, 33}, {2, 601, 17}, {5000, 96}, {0, 4}}) {
      const auto many = random_tensor(shape, type);
      const auto sum = kernels::column_sum(many);
      EXPECT_EQ(sum.scalar_type(), type);
      const auto expected = at::sum(many.to(at::kDouble).reshape({-1, shape.back()}), {0});
      EXPECT_LT((sum.to(at::kDouble) - expected).abs().sum().item<double>(),
                tolerance_of(type) * (expected.abs().sum().item<double>() + 1e-30));
    }
}

TEST(RmsNorm, WeightGradientDoesNotDependOnThreads) {
  at::manual_seed(3);
  const auto x = at::randn({900, 64}), weight = at::randn({64}), grad = at::randn({900, 64});
  const auto run = [&] {
    return value_and_gradients([](const auto& in) { return kernels::rms_norm(in[0], in[1], 1e-5); },
                               {x, weight}, grad)[2];
  };
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const auto one = run();
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(one, run()));
}

TEST(RmsNorm, KeepsNaNAndRefusesWrongShapes) {
  auto x = at::ones({2, 8}, at::kBFloat16);
  x[0][3] = NAN;
  const auto y = kernels::rms_norm(x, at::ones({8}, at::kBFloat16), 1e-5);
  EXPECT_TRUE(y[0].isnan().all().item<bool>());
  EXPECT_FALSE(y[1].isnan().any().item<bool>());
  EXPECT_THROW(kernels::rms_norm(at::ones({2, 8}), at::ones({7}), 1e-5), Error);
  EXPECT_THROW(kernels::rms_norm(at::ones({2, 8}), at::ones({8}, at::kDouble), 1e-5), Error);
}

TEST(Swiglu, EqualsReferenceForwardAndBackward) {
  for (const auto type : kNormTypes)
    for (const auto& shape : kShapes) {
      at::manual_seed(4);
      auto wide = shape;
      wide.back() *= 2;
      const auto x = random_tensor(wide, type).mul(3), grad = random_tensor(shape, type);
      const auto ours = value_and_gradients([](const auto& in) { return kernels::swiglu(in[0]); }, {x}, grad);
      const auto reference_type = type == at::kBFloat16 ? at::kFloat : type;
      const auto y = kernels::swiglu_ref::forward(x.to(reference_type));
      const auto grad_x = kernels::swiglu_ref::backward(grad.to(reference_type), x.to(reference_type));
      EXPECT_LT(relative_error(ours[0], y), tolerance_of(type)) << c10::toString(type);
      EXPECT_LT(relative_error(ours[1], grad_x), tolerance_of(type)) << c10::toString(type);
    }
}

TEST(Swiglu, HoldsAtExtremes) {
  const auto x =
      at::tensor({-1e30, -100.0, -88.0, 0.0, 88.0, 100.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0}, at::kFloat);
  const auto y = kernels::swiglu(x);
  const auto expected = kernels::swiglu_ref::forward(x.to(at::kDouble));
  EXPECT_LT(relative_error(y, expected), 1e-6);
}

TEST(Swiglu, GradientsByFiniteDifferences) {
  at::manual_seed(5);
  expect_gradients([](const auto& in) { return kernels::swiglu(in[0]); }, {at::randn({3, 10}, at::kDouble)});
  EXPECT_THROW(kernels::swiglu(at::ones({3})), Error);
}

TEST(Linear, CastsParametersAndStaysNearFloat32InBFloat16) {
  at::manual_seed(6);
  const auto x = at::randn({4, 3, 40}), weight = at::randn({17, 40}), bias = at::randn({17});
  const auto exact = at::linear(x, weight, bias);
  EXPECT_TRUE(at::allclose(kernels::linear(x, weight, bias), exact));
  const auto y = kernels::linear(x.to(at::kBFloat16), weight, bias);
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  EXPECT_LT(relative_error(y, exact), 1e-2);
  EXPECT_THROW(kernels::linear(at::ones({2, 5}), at::ones({3, 4})), Error);
}

TEST(Linear, AddsTheBiasThatLibTorchAdds) {
  at::manual_seed(29);
  for (const auto type : {at::kBFloat16, at::kFloat})
    for (const auto& [rows, in, out] : {std::array{1, 8, 3}, std::array{50, 33, 17}, std::array{0, 8, 4}}) {
      const auto x = at::randn({rows, in}).to(type), weight = at::randn({out, in}).to(type),
                 bias = 100 * at::randn({out}).to(type);
      const auto exact = at::linear(x.to(at::kDouble), weight.to(at::kDouble), bias.to(at::kDouble));
      const auto y = kernels::biased_product(x, weight, bias);
      EXPECT_EQ(y.scalar_type(), type);
      EXPECT_TRUE(at::allclose(y.to(at::kDouble), exact, type == at::kFloat ? 1e-5 : 8e-3, 1e-4));
      EXPECT_TRUE(at::allclose(kernels::biased_product(x, weight, std::nullopt).to(at::kDouble),
                               at::linear(x.to(at::kDouble), weight.to(at::kDouble)),
                               type == at::kFloat ? 1e-5 : 8e-3, 1e-2));
    }
}

TEST(Linear, Float32ParametersCollectFloat32Gradients) {
  at::manual_seed(7);
  auto weight = at::randn({8, 6}).requires_grad_(true);
  kernels::linear(at::randn({5, 6}).to(at::kBFloat16), weight).sum().backward();
  EXPECT_EQ(weight.grad().scalar_type(), at::kFloat);
  EXPECT_GT(weight.grad().abs().max().item<float>(), 0);
}

}  // namespace
}  // namespace fathom::norm_and_gate_test
