#include "kernels/counted_rows.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "cuda_fixture.h"
#include "gradcheck.h"
#include "kernels/counted_gradients.h"

namespace fathom::causal_scorer_test {
namespace {

constexpr int64_t kDim = 64, kInner = 32;

/// Of rows that a device multiplies as they come, norms and sums.
struct ScorerShape {
  int64_t sequences, tokens, dim, inner;
};
struct ScorerOperands {
  at::Tensor x_BTD, norm, project;
};
ScorerOperands scorer_operands(const ScorerShape& shape, at::ScalarType type) {
  return {(at::randn({shape.sequences, shape.tokens, shape.dim}) * 3).to(type),
          (at::rand({shape.dim}) + 0.5).to(type), (at::randn({2 * shape.inner, shape.dim}) / 8).to(type)};
}

TEST(CausalScorer, ItsWeightsLearnFromTheirProduct) {
  const auto [x_BTD, norm, project] = scorer_operands({2, 5, 12, 4}, at::kDouble);
  const auto joint = at::randn({8, 12}, at::kDouble);
  auto grad_project = at::full_like(joint, NAN);
  const auto grad_norm = kernels::scorer_weight_grad(joint, norm, project, grad_project);
  EXPECT_LT(testing::relative_error(grad_project, joint * norm), 1e-12);
  EXPECT_LT(testing::relative_error(grad_norm, (joint * project).sum(0)), 1e-12);
}

/// Scores of no token, of some sequences or none: no error, sums of nothing, and nothing is learned.
void expect_scores_of_no_tokens(at::Device device, at::ScalarType type) {
  const auto options = at::TensorOptions(device).dtype(type);
  for (const int64_t sequences : {3, 0})
    for (const int64_t tokens : {0, 5}) {
      if (sequences * tokens > 0) continue;
      const auto product =
          kernels::scorer_product(at::randn({sequences, tokens, kDim}, options), at::ones({kDim}, options),
                                  at::randn({2 * kInner, kDim}, options), 1e-5);
      ASSERT_EQ(product.both.sizes(), at::IntArrayRef({sequences, tokens, 2 * kInner}));
      const kernels::ScorerWeights weights = {at::randn({2 * kInner}, options), at::randn({kInner}, options),
                                              at::randn({1}, options)};
      auto sum = at::full({sequences, 1, kInner}, 7, product.both.options());
      EXPECT_EQ(kernels::causal_scores(product, weights, sum).sizes(), at::IntArrayRef({sequences, tokens}));
      EXPECT_TRUE(at::equal(sum.cpu(), at::zeros({sequences, 1, kInner}, sum.scalar_type())));
      const auto grad = at::empty({sequences, tokens}, product.both.options());
      const auto [grad_both, learned] = kernels::causal_scores_backward(grad, product, weights, type);
      EXPECT_EQ(grad_both.sizes(), product.both.sizes());
      EXPECT_EQ(grad_both.scalar_type(), type);
      for (const auto& [part, size] :
           {std::pair{learned.shift, 2 * kInner}, {learned.out, kInner}, {learned.bias, int64_t{1}}})
        EXPECT_TRUE(at::equal(part.cpu(), at::zeros({size}, part.scalar_type())));
    }
}

TEST(CausalScorer, ScoresOfNoTokens) {
  expect_scores_of_no_tokens(at::kCPU, at::kFloat);
}

class CudaCausalScorer : public cuda_test::CudaKernels {};

TEST_F(CudaCausalScorer, ScoresOfNoTokens) {
  for (const auto type : {at::kBFloat16, at::kFloat}) expect_scores_of_no_tokens(device_, type);
}

/// Where chunks of tokens and blocks of columns end, against the references in float64.
TEST_F(CudaCausalScorer, ScoresLearnWhereverTheirTokensEnd) {
  for (const auto type : {at::kFloat, at::kBFloat16})
    for (const int64_t inner : {32, 128, 160, 1024})
      for (const int64_t tokens : {1, 31, 32, 33, 2048, 2049}) {
        const int64_t sequences = tokens > 100 ? 2 : 5;
        const auto both = at::randn({sequences, tokens, 2 * inner}), grad = at::rand({sequences, tokens}),
                   scale = at::rand({sequences, tokens, 1}) + 0.5;
        const kernels::ScorerWeights narrow = {at::randn({2 * inner}).to(type), at::randn({inner}).to(type),
                                               at::randn({1}).to(type)};
        const auto found = [&](at::Device device, at::ScalarType wide, at::ScalarType weights,
                               at::ScalarType grad_type) {
          const auto moved = [&](const at::Tensor& x) { return x.to(device, wide); };
          const kernels::ScorerProduct product = {.both = moved(both), .scale_BT1 = moved(scale)};
          const kernels::ScorerWeights behind = {narrow.shift.to(device, weights),
                                                 narrow.out.to(device, weights),
                                                 narrow.bias.to(device, weights)};
          auto sum = at::full({sequences, 1, inner}, NAN, product.both.options());
          const auto score = kernels::causal_scores(product, behind, sum);
          const auto [grad_both, learned] =
              kernels::causal_scores_backward(moved(grad), product, behind, grad_type);
          return std::vector{score, sum, learned.shift, learned.out, learned.bias, grad_both};
        };
        const auto expected = found(at::kCPU, at::kDouble, at::kDouble, at::kDouble),
                   got = found(device_, at::kFloat, type, type),
                   again = found(device_, at::kFloat, type, type);
        for (size_t i = 0; i < got.size(); ++i) {
          const double bound = got[i].scalar_type() == at::kBFloat16 ? 8e-3 : 2e-5;
          EXPECT_LT(testing::relative_error(got[i], expected[i]), bound)
              << i << " of " << tokens << " tokens, " << inner;
          EXPECT_TRUE(at::equal(got[i], again[i])) << i << " of " << tokens << " tokens, " << inner;
        }
      }
}

/// Tiles of both sizes, whole and not, and a width that no kernel takes.
TEST_F(CudaCausalScorer, ItsProductIsThatOfNormedRows) {
  for (const auto type : {at::kBFloat16, at::kHalf})
    for (const ScorerShape& shape :
         {ScorerShape{1, 1, 64, 32}, ScorerShape{3, 70, 96, 32}, ScorerShape{2, 129, 1000, 96},
          ScorerShape{1, 2048, 1024, 128}, ScorerShape{4, 2040, 1024, 128}, ScorerShape{2, 33, 100, 32}}) {
      const auto [x_BTD, norm, project] = scorer_operands(shape, type);
      const auto expected =
          kernels::scorer_product(x_BTD.to(at::kFloat), norm.to(at::kFloat), project.to(at::kFloat), 1e-5);
      const auto got =
          kernels::scorer_product(x_BTD.to(device_), norm.to(device_), project.to(device_), 1e-5);
      EXPECT_LT(testing::relative_error(got.both.cpu(), expected.both), type == at::kHalf ? 2e-3 : 1e-2)
          << shape.dim;
      EXPECT_LT(testing::relative_error(got.scale_BT1.cpu(), expected.scale_BT1), 1e-5) << shape.dim;
      ASSERT_EQ(got.chunk_sums.numel() > 0, shape.dim % 8 == 0) << shape.dim;
      const kernels::ScorerWeights behind = {at::randn({2 * shape.inner}).to(device_),
                                             at::randn({shape.inner}).to(device_),
                                             at::randn({1}).to(device_)};
      auto sum = at::empty({shape.sequences, 1, shape.inner}, got.both.options()), sum_anew = sum.clone();
      const auto score = kernels::causal_scores(got, behind, sum),
                 anew = kernels::causal_scores({.both = got.both}, behind, sum_anew);
      EXPECT_LT(testing::relative_error(score.cpu(), anew.cpu()), 1e-5) << shape.dim;
      EXPECT_LT(testing::relative_error(sum.cpu(), sum_anew.cpu()), 1e-5) << shape.dim;
    }
}

TEST_F(CudaCausalScorer, ItsProductOfRowsThatBeginAnywhere) {
  const auto [x_BTD, norm, project] = scorer_operands({2, 40, 64, 32}, at::kBFloat16);
  const auto moved = [&](const at::Tensor& x) {
    const auto room = at::empty({x.numel() + 1}, x.options().device(device_));
    return room.narrow(0, 1, x.numel()).view(x.sizes()).copy_(x);
  };
  const auto expected =
      kernels::scorer_product(x_BTD.to(at::kFloat), norm.to(at::kFloat), project.to(at::kFloat), 1e-5);
  const auto got = kernels::scorer_product(moved(x_BTD), moved(norm), moved(project), 1e-5);
  EXPECT_LT(testing::relative_error(got.both.cpu(), expected.both), 1e-2);
  EXPECT_LT(testing::relative_error(got.scale_BT1.cpu(), expected.scale_BT1), 1e-5);
}

TEST_F(CudaCausalScorer, ItsWeightsLearnFromTheirProduct) {
  for (const int64_t dim : {96, 100, 1000, 1024}) {
    const auto [x_BTD, norm, project] = scorer_operands({1, 1, dim, 64}, at::kBFloat16);
    const auto joint = at::randn({128, dim});
    auto expected = at::empty_like(joint), got = at::full_like(joint.to(device_), NAN);
    const auto expected_norm =
        kernels::scorer_weight_grad(joint, norm.to(at::kFloat), project.to(at::kFloat), expected);
    const auto got_norm =
        kernels::scorer_weight_grad(joint.to(device_), norm.to(device_), project.to(device_), got);
    EXPECT_LT(testing::relative_error(got.cpu(), expected), 1e-6) << dim;
    EXPECT_LT(testing::relative_error(got_norm.cpu(), expected_norm), 1e-5) << dim;
  }
}

}  // namespace
}  // namespace fathom::causal_scorer_test
