// What encoders' layers do to rows that the device counts, operation by operation, on a GPU.
#include "kernels/counted_layers.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "cuda_fixture.h"
#include "gradcheck.h"
#include "kernels/counted_windows.h"
#include "kernels/row_scores.h"

namespace fathom::counted_layers_test {
namespace {

using kernels::CountedRows;
using testing::relative_error;

int64_t last(const at::Tensor& start_S1) {
  return start_S1[-1].item<int64_t>();
}

CountedRows rows_on(at::Device device, const at::Tensor& active_BT, double explore) {
  return kernels::chosen_rows({.active_BT = active_BT.to(device),
                               .key_B = explore > 0 ? at::arange(active_BT.size(0)).to(device) : at::Tensor(),
                               .stream = 3,
                               .explore = explore})
      .first;
}

struct Sizes {
  int64_t sequences, tokens, dim, inner;
};

/// What each operation makes of the rows in use; what lies behind them is no number.
std::vector<std::pair<std::string, at::Tensor>> found(at::Device device, at::ScalarType type,
                                                      const Sizes& sizes, const at::Tensor& active_BT) {
  at::manual_seed(7);
  const int64_t room = sizes.sequences * sizes.tokens;
  const CountedRows rows = rows_on(device, active_BT, 0.3);
  const int64_t count = last(rows.all()), active = last(rows.start_S1);
  // The values of 16 bits, whatever they are computed in.
  const auto random = [&](at::IntArrayRef shape) {
    return at::randn(shape).to(at::kBFloat16).to(at::TensorOptions(device).dtype(type));
  };
  const auto of_rows = [&](int64_t dim, int64_t used) {
    auto x = random({room, dim});
    x.narrow(0, used, room - used).fill_(NAN);
    return x;
  };
  const auto first = [](const at::Tensor& x, int64_t used) { return x.narrow(0, 0, used); };
  const auto x_BTD = random({sizes.sequences, sizes.tokens, sizes.dim});
  const auto weight = random({sizes.dim}).to(at::kFloat), bias = random({sizes.dim}).to(at::kFloat);
  const auto up = random({sizes.inner, sizes.dim}).div_(8), up_bias = random({sizes.inner});

  const auto normed = kernels::gathered_layer_norm(x_BTD, weight, bias, 1e-5, rows);
  const auto input = of_rows(sizes.dim, count);
  const auto linear = kernels::counted_linear(input, up, up_bias, rows);
  const auto gelu = kernels::counted_linear_gelu(input, up, up_bias, rows, /*keep=*/true);
  const auto grad = of_rows(sizes.inner, active), inner = of_rows(sizes.inner, count);
  const auto [grad_inner, sum] = kernels::counted_gelu_backward(grad, inner, rows);
  const auto column_sum = kernels::counted_column_sum(grad, rows);
  auto grad_BTD = random({sizes.sequences, sizes.tokens, sizes.dim});
  const auto [grad_weight, grad_bias] =
      kernels::gathered_layer_norm_backward(of_rows(sizes.dim, active), x_BTD, weight, 1e-5, grad_BTD, rows);
  return {{"normed", first(normed, count)},
          {"linear", first(linear, count)},
          {"GELU", first(gelu.y, count)},
          {"what GELU is taken of", first(gelu.inner, count)},
          {"gradient of it", first(grad_inner, active)},
          {"its sum", sum},
          {"column sum", column_sum},
          {"gradient of states", grad_BTD},
          {"gradient of the norm's weight", grad_weight},
          {"gradient of its bias", grad_bias}};
}

class CudaCountedLayers : public cuda_test::CudaKernels {};

/// One lane a row, and a whole warp; fewer rows than blocks, and more; none and all.
TEST_F(CudaCountedLayers, AreThoseOfTheReferences) {
  for (const Sizes& sizes : {Sizes{2, 9, 8, 8}, Sizes{3, 700, 96, 384}, Sizes{2, 130, 384, 1536},
                             Sizes{1, 40, 1000, 72}, Sizes{2, 33, 2048, 256}})
    for (const double density : {0.0, 0.4, 1.0}) {
      const auto active = at::rand({sizes.sequences, sizes.tokens}).lt(density);
      const auto expected = found(at::kCPU, at::kFloat, sizes, active);
      for (const auto type : {at::kBFloat16, at::kHalf}) {
        const auto got = found(device_, type, sizes, active);
        for (size_t i = 0; i < got.size(); ++i)
          EXPECT_LT(relative_error(got[i].second.cpu(), expected[i].second), type == at::kHalf ? 5e-3 : 3e-2)
              << got[i].first << ", " << c10::toString(type) << ", width " << sizes.dim << ", density "
              << density;
      }
    }
}

TEST_F(CudaCountedLayers, SumsAreTheSameInEveryRun) {
  const Sizes sizes = {3, 700, 96, 384};
  const auto active = at::rand({sizes.sequences, sizes.tokens}).lt(0.4);
  const auto once = found(device_, at::kBFloat16, sizes, active),
             again = found(device_, at::kBFloat16, sizes, active);
  for (size_t i = 0; i < once.size(); ++i)
    EXPECT_TRUE(at::equal(once[i].second, again[i].second)) << once[i].first;
}

/// Scores by rows' means, with their sums' gradients.
std::vector<std::pair<std::string, at::Tensor>> scored(at::Device device, at::ScalarType type, int64_t tokens,
                                                       int64_t inner, bool padded) {
  at::manual_seed(11);
  constexpr int64_t kRows = 3;
  const auto moved = [&](const at::Tensor& x) { return x.to(device); };
  const auto length = at::tensor({tokens, int64_t{0}, tokens / 2 + 1}).unsqueeze(1);
  const auto there = at::arange(tokens).unsqueeze(0).lt(length);
  const auto present = padded ? moved(there) : at::Tensor();
  const kernels::ScorerWeights weights = {moved(at::randn({2 * inner})), moved(at::randn({inner})),
                                          moved(at::randn({1}))};
  kernels::ScorerProduct product = {.both = moved(at::randn({kRows, tokens, 2 * inner})),
                                    .scale_BT1 = moved(at::rand({kRows, tokens, 1}) + 0.5)};
  at::Tensor score;
  std::tie(score, product.chunk_sums) = kernels::row_scores(product.both, weights, present);
  auto grad = at::randn({kRows, tokens});
  if (padded) grad = grad * there;
  const auto [grad_both, behind] = kernels::row_scores_backward(moved(grad), product, weights, present, type);
  return {{"score", score},
          {"gradient of the product", grad_both},
          {"gradient of the shift", behind.shift},
          {"gradient of out", behind.out},
          {"gradient of the bias", behind.bias}};
}

TEST_F(CudaCountedLayers, ScoresByRowsAreThoseOfTheReferences) {
  for (const int64_t tokens : {1, 49, 64, 65, 1600})
    for (const int64_t inner : {1, 12, 96, 300})
      for (const bool padded : {false, true})
        for (const auto type : {at::kFloat, at::kBFloat16}) {
          const auto expected = scored(at::kCPU, type, tokens, inner, padded),
                     got = scored(device_, type, tokens, inner, padded);
          for (size_t i = 0; i < got.size(); ++i)
            EXPECT_LT(relative_error(got[i].second.cpu().to(at::kFloat), expected[i].second.to(at::kFloat)),
                      got[i].second.scalar_type() == at::kBFloat16 ? 1e-2 : 1e-4)
                << got[i].first << ", " << tokens << " tokens, " << inner << (padded ? ", padded" : "");
        }
}

/// The chosen windows' places, their attention and its gradients, and what scores learn of them.
std::vector<std::pair<std::string, at::Tensor>> windowed(at::Device device, at::ScalarType type,
                                                         const kernels::WindowShape& shape,
                                                         const at::Tensor& active_BW) {
  at::manual_seed(9);
  constexpr int64_t kHeads = 3, kHeadSize = 32;
  const int64_t room = active_BW.size(0) * shape.height * shape.width, places = shape.side * shape.side;
  const CountedRows windows = rows_on(device, active_BW, 0.5), rows = kernels::window_rows(windows, shape);
  const int64_t count = last(rows.all()), active = last(rows.start_S1);
  const auto of_rows = [&](int64_t dim, int64_t used) {
    auto x = at::randn({room, dim}).to(at::kBFloat16).to(at::TensorOptions(device).dtype(type));
    x.narrow(0, used, room - used).fill_(NAN);
    return x;
  };
  const auto qkv = of_rows(3 * kHeads * kHeadSize, count), grad = of_rows(kHeads * kHeadSize, active);
  const auto bias = at::randn({kHeads, places, places}).to(device);
  const auto y = kernels::counted_window_attention(qkv, bias, shape, rows);
  const auto [grad_qkv, grad_bias] = kernels::counted_window_attention_backward(grad, qkv, bias, shape, rows);
  auto brought = at::randn({room}).to(device);
  brought.narrow(0, count, room - count).fill_(NAN);
  const auto score = at::randn(active_BW.sizes()).to(device);
  const auto multiplier = at::full({}, 0.5, at::TensorOptions(device).dtype(at::kDouble));
  const auto grad_score = kernels::window_score_grad(
      brought, {.score_BT = score, .explore = 0.25, .multiplier = multiplier, .share = 0.1}, windows);
  const auto map = at::randn({active_BW.size(0), shape.height, shape.width, 72})
                       .to(at::kBFloat16)
                       .to(at::TensorOptions(device).dtype(type));
  return {{"means", kernels::window_means(map, shape)},
          {"place", rows.place_N.narrow(0, 0, count)},
          {"slot", rows.slot_N},
          {"start", rows.start_S1},
          {"used", rows.all()},
          {"attention", y.narrow(0, 0, count)},
          {"gradient of qkv", grad_qkv.narrow(0, 0, active)},
          {"gradient of the bias", grad_bias},
          {"gradient of scores", grad_score}};
}

TEST_F(CudaCountedLayers, WindowsAreThoseOfTheReferences) {
  for (const kernels::WindowShape& shape :
       {kernels::WindowShape{14, 21, 7, 3}, kernels::WindowShape{7, 7, 7, 0},
        kernels::WindowShape{8, 8, 4, 2}, kernels::WindowShape{10, 5, 5, 0}, kernels::WindowShape{6, 9, 3, 1},
        kernels::WindowShape{16, 8, 8, 4}})
    for (const double density : {0.0, 0.4, 1.0}) {
      const auto active = at::rand({3, shape.count()}).lt(density);
      const auto expected = windowed(at::kCPU, at::kFloat, shape, active);
      for (const auto type : {at::kBFloat16, at::kHalf}) {
        const auto got = windowed(device_, type, shape, active);
        for (size_t i = 0; i < got.size(); ++i) {
          const auto found = got[i].second.cpu();
          if (found.scalar_type() == at::kInt) {
            EXPECT_TRUE(at::equal(found, expected[i].second)) << got[i].first << ", side " << shape.side;
          } else {
            EXPECT_LT(relative_error(found, expected[i].second), type == at::kHalf ? 5e-3 : 3e-2)
                << got[i].first << ", " << c10::toString(type) << ", side " << shape.side << ", density "
                << density;
          }
        }
      }
    }
}

}  // namespace
}  // namespace fathom::counted_layers_test
