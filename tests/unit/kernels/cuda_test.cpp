// The same on a GPU as on a CPU. Skipped where there is none.
#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ne.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include <string>
#include <tuple>
#include <utility>

#include "base/error.h"
#include "cuda_fixture.h"
#include "gradcheck.h"
#include "kernels/keyed_dropout.h"
#include "kernels/layer_norm.h"
#include "kernels/linear.h"
#include "kernels/merged_layer_norm.h"
#include "kernels/residual_layer_norm.h"
#include "kernels/shifted_window_attention.h"
#include "kernels/window_attention.h"

namespace fathom::cuda_test {
namespace {

TEST_F(CudaKernels, DropoutDropsTheSameElements) {
  for (const auto type : {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16})
    for (const std::vector<int64_t>& shape :
         {std::vector<int64_t>{3, 5}, {2, 1, 64}, {4, 7, 24}, {70000, 8}, {1, 1}}) {
      const at::Tensor x = at::randn(shape).to(type);
      const at::Tensor key_B = at::arange(shape[0]) * 7919 + 3;
      const at::Tensor expected = kernels::keyed_dropout(x, key_B, 5, 0.3);
      const at::Tensor got = kernels::keyed_dropout(x.to(device_), key_B.to(device_), 5, 0.3).cpu();
      EXPECT_TRUE(at::equal(got.ne(0), expected.ne(0))) << c10::toString(type) << shape;
      EXPECT_TRUE(at::allclose(got.to(at::kDouble), expected.to(at::kDouble), 1e-2, 1e-6)) << shape;
    }
}

TEST_F(CudaKernels, WindowAttentionAndItsGradients) {
  const auto run = [](at::Device device, const at::Tensor& qkv, const at::Tensor& bias,
                      const at::Tensor& mask) {
    const at::Tensor x = qkv.to(device).clone().requires_grad_(),
                     b = bias.to(device).clone().requires_grad_();
    const at::Tensor y = kernels::window_attention(x, b, mask.to(device));
    y.square().sum().backward();
    return std::vector<at::Tensor>{y.detach().cpu(), x.grad().cpu(), b.grad().cpu()};
  };
  const at::Tensor qkv = at::randn({2, 4, 25, 3 * 2 * 8}, at::kDouble),
                   bias = at::randn({2, 25, 25}, at::kDouble);
  const at::Tensor mask = at::randn({4, 25, 25}, at::kDouble);
  const auto expected = run(at::kCPU, qkv, bias, mask), got = run(device_, qkv, bias, mask);
  for (size_t i = 0; i < expected.size(); ++i)
    EXPECT_TRUE(at::allclose(got[i], expected[i], 1e-6, 1e-9)) << i;
}

struct ShiftedWindowCase {
  int64_t images;
  int64_t heads;
  kernels::WindowShape shape;
};

/// Every number of places that has a kernel of its own; one window across, and more windows than warps; as
/// many heads as leave a head a few blocks.
TEST_F(CudaKernels, ShiftedWindowAttentionAndItsGradients) {
  for (const auto type : {at::kBFloat16, at::kHalf})
    for (const auto& [images, heads, shape] :
         {ShiftedWindowCase{3, 3, {2, 2, 2, 0}}, ShiftedWindowCase{1, 1, {6, 9, 3, 1}},
          ShiftedWindowCase{1, 1, {8, 12, 4, 2}}, ShiftedWindowCase{3, 3, {10, 15, 5, 2}},
          ShiftedWindowCase{3, 3, {5, 10, 5, 0}}, ShiftedWindowCase{3, 3, {40, 40, 5, 2}},
          ShiftedWindowCase{3, 3, {6, 12, 6, 3}}, ShiftedWindowCase{3, 3, {14, 14, 7, 3}},
          ShiftedWindowCase{1, 1, {7, 7, 7, 0}}, ShiftedWindowCase{1, 1, {21, 14, 7, 6}},
          ShiftedWindowCase{5, 24, {28, 28, 7, 3}}, ShiftedWindowCase{3, 3, {16, 8, 8, 4}},
          ShiftedWindowCase{2, 24, {48, 48, 8, 3}}, ShiftedWindowCase{1, 24, {40, 40, 2, 1}}}) {
      const int64_t places = shape.side * shape.side;
      const std::string where = c10::toString(type) + std::string(" side ") + std::to_string(shape.side) +
                                ", " + std::to_string(heads) + " heads";
      const at::Tensor qkv = at::randn({images, shape.height, shape.width, 3 * heads * 32}).to(type),
                       bias = at::randn({heads, places, places}),
                       grad = at::randn({images, shape.height, shape.width, heads * 32}).to(type);
      ASSERT_TRUE(kernels::has_shifted_window_attention(qkv.to(device_), shape, 32)) << where;
      const auto run = [&, &shape = shape] {
        const at::Tensor x = qkv.to(device_).requires_grad_(), b = bias.to(device_).requires_grad_();
        const at::Tensor y = kernels::shifted_window_attention(x, b, shape);
        y.backward(grad.to(device_));
        return std::vector<at::Tensor>{y.detach(), x.grad(), b.grad()};
      };
      const auto got = run(), again = run();
      for (size_t i = 0; i < got.size(); ++i) EXPECT_TRUE(at::equal(got[i], again[i])) << where;
      const at::Tensor expected = kernels::shifted_window_attention_ref::forward(
          qkv.to(at::kDouble), bias.to(at::kDouble), shape.side, shape.shift);
      const auto [grad_qkv, grad_bias] = kernels::shifted_window_attention_ref::backward(
          grad.to(at::kDouble), qkv.to(at::kDouble), bias.to(at::kDouble), shape.side, shape.shift);
      const double tolerance = type == at::kHalf ? 4e-3 : 2e-2;
      EXPECT_LT(testing::relative_error(got[0], expected), tolerance) << where;
      for (int64_t part = 0; part < 3; ++part)
        EXPECT_LT(testing::relative_error(got[1].chunk(3, -1)[static_cast<size_t>(part)],
                                          grad_qkv.chunk(3, -1)[static_cast<size_t>(part)]),
                  tolerance)
            << where << ", part " << part;
      EXPECT_LT(testing::relative_error(got[2], grad_bias), tolerance) << where;
    }
  EXPECT_FALSE(kernels::has_shifted_window_attention(
      at::empty({1, 8, 7, 96}, at::TensorOptions(device_).dtype(at::kHalf)), {8, 7, 7, 3}, 32))
      << "windows that do not divide the map";
}

/// Scores far beyond what sixteen bits hold after an exponential, and a seam in every window.
TEST_F(CudaKernels, ShiftedWindowAttentionOfLargeScoresStaysFinite) {
  const kernels::WindowShape shape = {7, 7, 7, 3};
  const auto half = at::TensorOptions(device_).dtype(at::kHalf);
  const at::Tensor x = (at::randn({2, 7, 7, 3 * 64}, half) * 20).requires_grad_(),
                   b = at::randn({2, 49, 49}, half.dtype(at::kFloat)).requires_grad_();
  const at::Tensor y = kernels::shifted_window_attention(x, b, shape);
  y.backward(at::ones_like(y));
  const at::Tensor expected = kernels::shifted_window_attention_ref::forward(
      x.detach().cpu().to(at::kDouble), b.detach().cpu().to(at::kDouble), shape.side, shape.shift);
  EXPECT_LT(testing::relative_error(y.detach(), expected), 4e-3);
  for (const at::Tensor& gradient : {x.grad(), b.grad()}) EXPECT_TRUE(gradient.isfinite().all().item<bool>());
}

TEST_F(CudaKernels, LayerNormAndItsGradients) {
  for (const auto type : {at::kFloat, at::kHalf, at::kBFloat16, at::kDouble})
    for (const auto& [rows, dim] : {std::pair<int64_t, int64_t>{1, 8},
                                    {5, 24},
                                    {1000, 96},
                                    {1000, 100},
                                    {40001, 192},
                                    {130, 384},
                                    {77, 768},
                                    {77, 1000},
                                    {5001, 1024},
                                    {33, 1536},
                                    {9, 2048},
                                    {6, 4096},
                                    {6, 33}})
      for (const bool narrow : {false, true}) {
        const std::string where = c10::toString(type) + std::string(" width ") + std::to_string(dim);
        const at::Tensor x = (at::randn({rows, dim}) + 0.5).to(type), grad = at::randn({rows, dim}).to(type);
        const at::Tensor weight = at::randn({dim}).to(type), bias = at::randn({dim}).to(type);
        const auto run = [&](at::Device device, at::ScalarType precision) {
          const auto leaf = [&](const at::Tensor& t, at::ScalarType as) {
            return t.to(at::TensorOptions(device).dtype(as)).clone().requires_grad_();
          };
          const at::Tensor a = leaf(x, precision);
          const auto parameters = precision == at::kDouble || narrow ? precision : at::kFloat;
          const at::Tensor w = leaf(weight, parameters), b = leaf(bias, parameters);
          const at::Tensor y = kernels::layer_norm(a, w, b, 1e-5);
          y.backward(grad.to(at::TensorOptions(device).dtype(precision)));
          return std::vector<at::Tensor>{y.detach(), a.grad(), w.grad(), b.grad()};
        };
        const auto got = run(device_, type), expected = run(at::kCPU, at::kDouble);
        const double tolerance = type == at::kBFloat16 ? 2e-2 : type == at::kHalf ? 3e-3 : 1e-4;
        for (size_t i = 0; i < got.size(); ++i)
          EXPECT_LT(testing::relative_error(got[i], expected[i]), tolerance) << where << ", part " << i;
      }
}

TEST_F(CudaKernels, LayerNormOfTensorsThatBeginAnywhere) {
  constexpr int64_t kRows = 37, kDim = 96;
  const auto moved = [&](const at::Tensor& x, int64_t by) {
    const auto room = at::empty({x.numel() + by}, x.options().device(device_));
    return room.narrow(0, by, x.numel()).view(x.sizes()).copy_(x);
  };
  const at::Tensor x = at::randn({kRows, kDim}), weight = at::randn({kDim}), bias = at::randn({kDim});
  const auto run = [&](int64_t rows_by, int64_t parameters_by) {
    const at::Tensor a = moved(x, rows_by).requires_grad_(),
                     w = moved(weight, parameters_by).requires_grad_(),
                     b = moved(bias, parameters_by).requires_grad_();
    const at::Tensor y = kernels::layer_norm(a, w, b, 1e-5);
    y.square().sum().backward();
    return std::vector<at::Tensor>{y.detach().cpu(), a.grad().cpu(), w.grad().cpu(), b.grad().cpu()};
  };
  const auto expected = run(0, 0);
  for (const auto& [rows_by, parameters_by] : {std::pair<int64_t, int64_t>{1, 0}, {0, 1}, {3, 2}}) {
    const auto got = run(rows_by, parameters_by);
    for (size_t i = 0; i < got.size(); ++i)
      EXPECT_LT(testing::relative_error(got[i], expected[i]), 1e-5) << i;
  }
}

TEST_F(CudaKernels, ResidualLayerNormAndItsGradients) {
  for (const auto type : {at::kFloat, at::kHalf, at::kBFloat16, at::kDouble})
    for (const auto& [rows, dim] : {std::pair<int64_t, int64_t>{1, 8},
                                    {5, 24},
                                    {1000, 96},
                                    {40001, 192},
                                    {77, 768},
                                    {77, 1000},
                                    {501, 1024},
                                    {33, 1536},
                                    {9, 2048},
                                    {6, 4096},
                                    {6, 33}})
      for (const bool narrow : {false, true}) {
        const std::string where = c10::toString(type) + std::string(" width ") + std::to_string(dim);
        const at::Tensor x = (at::randn({rows, dim}) + 0.5).to(type),
                         branch = at::randn({rows, dim}).to(type), grad_sum = at::randn({rows, dim}).to(type),
                         grad_y = at::randn({rows, dim}).to(type), weight = at::randn({dim}).to(type),
                         bias = at::randn({dim}).to(type);
        const auto run = [&](at::Device device, at::ScalarType precision, bool with_sum) {
          const auto options = at::TensorOptions(device).dtype(precision);
          const auto leaf = [&](const at::Tensor& t, at::ScalarType as) {
            return t.to(options.dtype(as)).clone().requires_grad_();
          };
          const at::Tensor a = leaf(x, precision), b = leaf(branch, precision);
          const auto parameters = precision == at::kDouble || narrow ? precision : at::kFloat;
          const at::Tensor w = leaf(weight, parameters), c = leaf(bias, parameters);
          const auto [sum, y] = kernels::residual_layer_norm(a, {b}, w, c, 1e-5);
          const at::Tensor slope = grad_y.to(options);
          if (with_sum)
            ((sum * grad_sum.to(options)).sum() + (y * slope).sum()).backward();
          else
            y.backward(slope);
          EXPECT_TRUE(at::equal(a.grad(), b.grad())) << where;
          return std::vector<at::Tensor>{sum.detach(), y.detach(), a.grad(), w.grad(), c.grad()};
        };
        const double tolerance = type == at::kBFloat16 ? 2e-2 : type == at::kHalf ? 3e-3 : 1e-4;
        for (const bool with_sum : {true, false}) {
          const auto got = run(device_, type, with_sum), expected = run(at::kCPU, at::kDouble, with_sum);
          for (size_t i = 0; i < got.size(); ++i)
            EXPECT_LT(testing::relative_error(got[i], expected[i]), tolerance) << where << ", part " << i;
        }
      }
}

/// Both forms, with samples whose branch is left out.
TEST_F(CudaKernels, LayerNormsOfBranchesScaledBySample) {
  for (const auto type : {at::kFloat, at::kHalf, at::kBFloat16, at::kDouble})
    for (const bool merges : {false, true}) {
      const at::Tensor x = (at::randn({3, 6, 10, 96}) + 0.5).to(type),
                       branch = at::randn({3, 6, 10, 96}).to(type), scale_B = at::tensor({0.0, 1.25, 0.5});
      const int64_t dim = merges ? 384 : 96;
      const at::Tensor weight = at::randn({dim}), bias = at::randn({dim}), slope = at::randn({dim});
      const auto run = [&](at::Device device, at::ScalarType precision) {
        const auto options = at::TensorOptions(device).dtype(precision);
        const at::Tensor a = x.to(options).clone().requires_grad_(),
                         b = branch.to(options).clone().requires_grad_(), w = weight.to(options),
                         c = bias.to(options);
        const kernels::Branch added = {b, scale_B.to(options)};
        at::Tensor y, sum;
        if (merges)
          y = kernels::merged_layer_norm(a, added, w, c, 1e-5);
        else
          std::tie(sum, y) = [&] {
            auto both = kernels::residual_layer_norm(a, added, w, c, 1e-5);
            return std::pair{both.sum, both.y};
          }();
        const at::Tensor objective = (y * slope.to(options)).to(at::kDouble).sum();
        (merges ? objective : objective + sum.to(at::kDouble).square().sum()).backward();
        return std::vector<at::Tensor>{y.detach(), a.grad(), b.grad()};
      };
      const auto got = run(device_, type), expected = run(at::kCPU, at::kDouble);
      const double tolerance = type == at::kBFloat16 ? 2e-2 : type == at::kHalf ? 3e-3 : 1e-4;
      for (size_t i = 0; i < got.size(); ++i)
        EXPECT_LT(testing::relative_error(got[i], expected[i]), tolerance)
            << c10::toString(type) << merges << i;
      EXPECT_EQ(got[2][0].abs().max().item<double>(), 0) << "its branch is left out";
    }
}

TEST_F(CudaKernels, MergedLayerNormAndItsGradients) {
  struct Map {
    int64_t images, height, width, dim;
  };
  for (const auto type : {at::kFloat, at::kHalf, at::kBFloat16, at::kDouble})
    for (const Map& map : {Map{1, 2, 2, 8}, Map{3, 4, 10, 96}, Map{2, 28, 28, 192}, Map{5, 14, 6, 384},
                           Map{2, 4, 6, 768}, Map{2, 4, 6, 5}})
      for (const bool branched : {true, false}) {
        const std::vector<int64_t> sizes = {map.images, map.height, map.width, map.dim};
        const at::Tensor x = (at::randn(sizes) + 0.5).to(type), branch = at::randn(sizes).to(type),
                         weight = at::randn({4 * map.dim}), bias = at::randn({4 * map.dim}),
                         grad = at::randn({map.images, map.height / 2, map.width / 2, 4 * map.dim}).to(type);
        const auto run = [&](at::Device device, at::ScalarType precision) {
          const auto options = at::TensorOptions(device).dtype(precision);
          const auto leaf = [&](const at::Tensor& t, at::ScalarType as) {
            return t.to(options.dtype(as)).clone().requires_grad_();
          };
          const at::Tensor a = leaf(x, precision), b = leaf(branch, precision);
          const auto parameters = precision == at::kDouble ? at::kDouble : at::kFloat;
          const at::Tensor w = leaf(weight, parameters), c = leaf(bias, parameters);
          const at::Tensor added = branched ? b : at::Tensor();
          const at::Tensor y = kernels::merged_layer_norm(a, {added}, w, c, 1e-5);
          y.backward(grad.to(options));
          EXPECT_TRUE(!branched || at::equal(a.grad(), b.grad()));
          const kernels::Branch fixed = {branched ? b.detach() : at::Tensor()};
          EXPECT_TRUE(
              at::equal(y, kernels::merged_layer_norm(a.detach(), fixed, w.detach(), c.detach(), 1e-5)))
              << "without gradients";
          return std::vector<at::Tensor>{y.detach(), a.grad(), w.grad(), c.grad()};
        };
        const auto got = run(device_, type), expected = run(at::kCPU, at::kDouble);
        const double tolerance = type == at::kBFloat16 ? 2e-2 : type == at::kHalf ? 3e-3 : 1e-4;
        for (size_t i = 0; i < got.size(); ++i)
          EXPECT_LT(testing::relative_error(got[i], expected[i]), tolerance)
              << c10::toString(type) << " width " << map.dim << ", part " << i;
      }
}

TEST_F(CudaKernels, SumsAreTheSameInEveryRunAndForAnyLayout) {
  const kernels::WindowShape shape = {10, 10, 5, 2};
  const auto half = at::TensorOptions(device_).dtype(at::kHalf);
  const at::Tensor odd =
      at::randn({2 * 10 * 10 * 3 * 64 + 1}, half).narrow(0, 1, 2 * 10 * 10 * 3 * 64);  // misaligned
  const at::Tensor bias = at::randn({2, 25, 25}, at::TensorOptions(device_));
  const auto run = [&](const at::Tensor& flat) {
    const at::Tensor x = flat.view({2, 10, 10, 192}).detach().requires_grad_(),
                     b = bias.detach().clone().requires_grad_();
    kernels::shifted_window_attention(x, b, shape).square().sum().backward();
    const at::Tensor rows = x.grad().transpose(1, 2), w = at::ones({192}, b.options()).requires_grad_(),
                     c = at::zeros({192}, b.options()).requires_grad_();
    kernels::layer_norm(rows.to(at::kFloat), w, c, 1e-5).square().sum().backward();
    return std::vector<at::Tensor>{x.grad(), b.grad(), w.grad(), kernels::column_sum(rows)};
  };
  const auto first = run(odd), second = run(odd.clone());
  for (size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(at::equal(first[i], second[i])) << i;
  EXPECT_EQ(kernels::layer_norm(at::empty({0, 192}, half), at::ones({192}, half), at::ones({192}, half), 1e-5)
                .numel(),
            0);
  EXPECT_THROW(
      kernels::shifted_window_attention(at::ones({1, 5, 5, 96}, at::TensorOptions(device_)),
                                        at::ones({1, 25, 25}, at::TensorOptions(device_)), {5, 5, 5, 0}),
      Error);  // float32 has no kernel
}

TEST_F(CudaKernels, LinearAndItsGradients) {
  for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble})
    for (const auto& [rows, dim] :
         {std::pair<int64_t, int64_t>{1, 8}, {1001, 96}, {300, 3072}, {70000, 40}, {5, 7}}) {
      const at::Tensor x = at::randn({rows, 16}).to(type), grad = at::randn({rows, dim}).to(type);
      const at::Tensor weight = at::randn({dim, 16}), bias = at::randn({dim});
      const auto run = [&](at::Device device, at::ScalarType precision) {
        const auto options = at::TensorOptions(device).dtype(precision);
        const at::Tensor a = x.to(options).clone().requires_grad_();
        const at::Tensor w = weight.to(options).clone().requires_grad_(),
                         b = bias.to(options).clone().requires_grad_();
        const at::Tensor y = kernels::linear(a, w, b);
        y.backward(grad.to(options));
        return std::vector<at::Tensor>{y.detach(), a.grad(), w.grad(), b.grad()};
      };
      const auto got = run(device_, type), expected = run(at::kCPU, at::kDouble);
      for (size_t i = 0; i < got.size(); ++i)
        EXPECT_LT(testing::relative_error(got[i], expected[i]), type == at::kBFloat16 ? 2e-2 : 2e-3)
            << dim << ", part " << i;
    }
}

}  // namespace
}  // namespace fathom::cuda_test
