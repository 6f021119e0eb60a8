#include <gtest/gtest.h>
#include <torch/torch.h>

#include "cuda_fixture.h"
#include "gradcheck.h"
#include "train/losses/contrastive_losses.h"
#include "train/losses/linear_cross_entropy.h"

namespace fathom::losses_test {
namespace {

using testing::expect_gradients;
using testing::relative_error;

TEST(LinearCrossEntropy, EqualsTheLossOfWholeLogits) {
  torch::manual_seed(1);
  const at::Tensor hidden = torch::randn({37, 8}, at::kDouble).requires_grad_();
  const at::Tensor head = torch::randn({19, 8}, at::kDouble).requires_grad_();
  at::Tensor target = torch::randint(0, 19, {37}, at::kLong);
  target[3] = -1;
  target[36] = -1;
  const at::Tensor expected =
      at::cross_entropy_loss(at::mm(hidden, head.t()), target, {}, at::Reduction::Sum, -1);
  const auto expected_gradients = torch::autograd::grad({expected}, {hidden, head});
  for (const int64_t chunk : {1, 5, 37, 100}) {
    const at::Tensor loss = linear_cross_entropy(hidden, head, target, {.chunk_rows = chunk});
    EXPECT_NEAR(loss.item<double>(), expected.item<double>(), 1e-10);
    const auto gradients = torch::autograd::grad({2 * loss}, {hidden, head});
    for (size_t i = 0; i < 2; ++i)
      EXPECT_TRUE(at::allclose(gradients[i], 2 * expected_gradients[i], 1e-9, 1e-11));
  }
}

TEST(LinearCrossEntropy, HasTheRightGradients) {
  const at::Tensor target = torch::tensor({2, 0, -1, 4}, at::kLong);
  for (const at::Tensor& divisor : {at::Tensor(), torch::full({}, 7.0)})
    expect_gradients(
        [&](const auto& inputs) {
          return linear_cross_entropy(inputs[0], inputs[1], target, {.chunk_rows = 3, .divisor = divisor});
        },
        {torch::randn({4, 3}, at::kDouble), torch::randn({5, 3}, at::kDouble)});
}

TEST(LinearCrossEntropy, Bfloat16KeepsFloat32Gradients) {
  const at::Tensor hidden = torch::randn({64, 32}).requires_grad_();
  const at::Tensor head = (torch::randn({50, 32}) * 0.2).requires_grad_();
  const at::Tensor target = torch::randint(0, 50, {64}, at::kLong);
  const auto exact = torch::autograd::grad({linear_cross_entropy(hidden, head, target)}, {hidden, head});
  const at::Tensor loss = linear_cross_entropy(hidden.to(at::kBFloat16), head, target);
  EXPECT_EQ(loss.scalar_type(), at::kFloat);
  const auto rounded = torch::autograd::grad({loss}, {hidden, head});
  EXPECT_EQ(rounded[1].scalar_type(), at::kFloat);
  EXPECT_LT((rounded[1] - exact[1]).norm().item<double>() / exact[1].norm().item<double>(), 0.02);
}

TEST(LinearCrossEntropy, HalfOperandsKeepLogitsAndSmallGradients) {
  torch::manual_seed(2);
  const kernels::Products products{.type = at::kHalf, .saturated = torch::zeros({}, at::kLong)};
  // Of so large a vocabulary that FP16 knows no probability that is not much larger than most.
  const at::Tensor hidden = torch::randn({8, 16}).to(at::kBFloat16).to(at::kFloat).requires_grad_();
  const at::Tensor head = (torch::randn({4000, 16}) * 1.5).requires_grad_();
  const at::Tensor target = torch::randint(0, 4000, {8}, at::kLong);
  const at::Tensor expected = linear_cross_entropy(hidden, head, target);
  const auto exact = torch::autograd::grad({expected}, {hidden, head});
  const at::Tensor loss =
      linear_cross_entropy(hidden.to(at::kBFloat16), head, target, {.chunk_rows = 3, .types = {products}});
  EXPECT_NEAR(loss.item<double>(), expected.item<double>(), 1e-3 * expected.item<double>());
  const auto rounded = torch::autograd::grad({loss}, {hidden, head});
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(rounded[i].scalar_type(), at::kFloat);
    EXPECT_LT((rounded[i] - exact[i]).norm().item<double>() / exact[i].norm().item<double>(), 1e-2) << i;
  }
  const at::Tensor small = exact[1].abs().lt(1e-6) & exact[1].abs().gt(1e-8);
  ASSERT_GT(small.sum().item<int64_t>(), 100);
  const at::Tensor error = (rounded[1] - exact[1]).masked_select(small);
  EXPECT_LT((error.norm() / exact[1].masked_select(small).norm()).item<double>(), 0.05);
  EXPECT_EQ(products.saturated.item<int64_t>(), 0);
}

TEST(LinearCrossEntropy, WithoutGradientsOnlyTheLoss) {
  const torch::NoGradGuard no_grad;
  const at::Tensor loss = linear_cross_entropy(torch::randn({4, 3}), torch::randn({5, 3}),
                                               torch::randint(0, 5, {4}, at::kLong), {.chunk_rows = 2});
  EXPECT_GT(loss.item<double>(), 0);
}

/// Hidden states, a head, and what is looked for.
struct HeadCase {
  at::Tensor hidden = torch::randn({9, 8}), head = torch::randn({21, 8}).requires_grad_(),
             target = torch::randint(0, 21, {9}, at::kLong);
  LinearCrossEntropyOptions options = {.chunk_rows = 4};

  explicit HeadCase(at::ScalarType type, at::Device device = at::kCPU) {
    hidden = hidden.to(device, type).requires_grad_();
    head = head.detach().to(device, at::promote_types(type, at::kFloat)).requires_grad_();
    target = target.to(device);
  }
  at::Tensor loss() const { return linear_cross_entropy(hidden, head, target, options); }
  std::vector<at::Tensor> gradients(const at::Tensor& of, double by = 1, bool retain = false) const {
    return torch::autograd::grad({of}, {hidden, head}, {at::full_like(of, by)}, retain);
  }
};

void expect_divided(HeadCase given, double tolerance) {
  const at::Tensor whole = given.loss();
  const std::vector<at::Tensor> of_whole = given.gradients(whole, 1 / 3000.0);
  given.options.divisor = torch::full({}, 3000.0).to(given.hidden.device());
  const at::Tensor loss = given.loss();
  EXPECT_NEAR(loss.item<double>(), whole.item<double>() / 3000, 1e-6);
  const std::vector<at::Tensor> gradients = given.gradients(loss);
  for (size_t i = 0; i < 2; ++i)
    EXPECT_LT(relative_error(gradients[i], of_whole[i]), tolerance) << (i == 0 ? "hidden" : "head");
}

void expect_divided_in_every_type(at::Device device) {
  torch::manual_seed(8);
  expect_divided(HeadCase(at::kDouble, device), 1e-6);
  expect_divided(HeadCase(at::kFloat, device), 1e-5);
  expect_divided(HeadCase(at::kBFloat16, device), 2e-2);
  HeadCase half(at::kBFloat16, device);
  half.options.types.products = {.type = at::kHalf};
  expect_divided(half, 8e-3);
}

TEST(LinearCrossEntropy, IsDividedInEveryType) {
  expect_divided_in_every_type(at::kCPU);
}

void expect_the_same_again(const HeadCase& given) {
  const std::vector<at::Tensor> expected = given.gradients(given.loss(), 3);
  const at::Tensor loss = given.loss();
  for (const double by : {1.0, 3.0}) {
    const std::vector<at::Tensor> found = given.gradients(loss, by, /*retain=*/true);
    for (size_t i = 0; i < 2; ++i) EXPECT_LT(relative_error(found[i] * 3 / by, expected[i]), 1e-6);
    for (const at::Tensor& gradient : found) gradient.zero_();
  }
  const std::vector<at::Tensor> last = given.gradients(loss, 3);
  for (size_t i = 0; i < 2; ++i) EXPECT_TRUE(at::equal(last[i], expected[i]));
  EXPECT_THROW(given.gradients(loss, 3), c10::Error);
}

TEST(LinearCrossEntropy, ARetainedGraphGivesTheSameAgain) {
  expect_the_same_again(HeadCase(at::kFloat));
}

TEST(LinearCrossEntropy, OfAFrozenHeadOnlyStatesLearn) {
  HeadCase given(at::kFloat);
  const at::Tensor expected = given.gradients(given.loss())[0];
  given.head = given.head.detach();
  EXPECT_TRUE(at::equal(torch::autograd::grad({given.loss()}, {given.hidden})[0], expected));
}

TEST(LinearCrossEntropy, OfNoRowsTheHeadsGradientIsZero) {
  HeadCase given(at::kFloat);
  given.hidden = torch::empty({0, 8}).requires_grad_();
  given.target = torch::empty({0}, at::kLong);
  given.loss().backward();
  EXPECT_TRUE(at::equal(given.head.grad(), torch::zeros({21, 8})));
}

PairLabels diagonal(int64_t size) {
  const at::Tensor index = torch::arange(size);
  return label_pairs(index, index);
}

TEST(InfoNce, WithOnePositiveARowIsCrossEntropy) {
  torch::manual_seed(2);
  const at::Tensor logits = torch::randn({6, 6}, at::kDouble) * 3;
  const at::Tensor target = torch::arange(6);
  for (const double smoothing : {0.0, 0.1}) {
    const at::Tensor expected =
        at::cross_entropy_loss(logits, target, {}, at::Reduction::Sum, -100, smoothing);
    EXPECT_NEAR(info_nce(logits, diagonal(6), smoothing).item<double>(), expected.item<double>(), 1e-10);
  }
}

TEST(InfoNce, PositivesDoNotStandAgainstEachOther) {
  const at::Tensor logits = torch::tensor({{2.0, 5.0, 1.0, 0.0}}, at::kDouble);
  const PairLabels labels{torch::tensor({{true, true, false, false}}),
                          torch::tensor({{false, false, true, false}})};
  const auto one = [](double positive) { return std::log(std::exp(positive) + std::exp(1.0)) - positive; };
  EXPECT_NEAR(info_nce(logits, labels).item<double>(), (one(2.0) + one(5.0)) / 2, 1e-12);
}

TEST(InfoNce, HasTheRightGradients) {
  const at::Tensor owner = torch::tensor({0, 0, 1, 2}), images = torch::tensor({0, 1, 2});
  const PairLabels labels = label_pairs(owner, images);
  for (const double smoothing : {0.0, 0.2})
    expect_gradients([&](const auto& inputs) { return info_nce(inputs[0], labels, smoothing); },
                     {torch::randn({4, 3}, at::kDouble)});
}

TEST(InfoNce, OneSampleCostsNothing) {
  const at::Tensor logits = torch::randn({1, 1}).requires_grad_();
  const at::Tensor loss = info_nce(logits, diagonal(1));
  loss.backward();
  EXPECT_EQ(loss.item<double>(), 0);
  EXPECT_EQ(logits.grad().item<double>(), 0);
}

TEST(InfoNce, WeighsPositivesByTheirTargets) {
  torch::manual_seed(6);
  const at::Tensor logits = torch::randn({2, 4}, at::kDouble);
  PairLabels labels{torch::tensor({{true, true, false, false}, {false, false, true, false}}),
                    torch::tensor({{false, false, true, true}, {true, false, false, false}})};
  labels.target_RC = torch::tensor({{0.7, 0.1, 0.0, 0.0}, {0.0, 0.0, 0.4, 0.0}}, at::kDouble);
  const auto z = [&](int64_t i, int64_t j) { return std::exp(logits[i][j].item<double>()); };
  const double negatives = z(0, 2) + z(0, 3);
  const double expected = 0.7 * std::log(1 + negatives / z(0, 0)) + 0.1 * std::log(1 + negatives / z(0, 1)) +
                          0.4 * std::log(1 + z(1, 0) / z(1, 2));
  EXPECT_NEAR(info_nce(logits, labels).item<double>(), expected, 1e-12);
  expect_gradients([&](const auto& inputs) { return info_nce(inputs[0], labels); }, {logits});
}

TEST(SoftCrossEntropy, IsThatOfEveryRowsDistribution) {
  torch::manual_seed(7);
  const at::Tensor logits = torch::randn({3, 4}, at::kDouble), target = torch::rand({3, 4}, at::kDouble);
  double expected = 0;
  for (int64_t i = 0; i < 3; ++i)
    for (int64_t j = 0; j < 4; ++j)
      expected -= target[i][j].item<double>() * (logits[i][j] - logits[i].exp().sum().log()).item<double>();
  EXPECT_NEAR(soft_cross_entropy(logits, target).item<double>(), expected, 1e-12);
  expect_gradients([&](const auto& inputs) { return soft_cross_entropy(inputs[0], target); }, {logits});
}

TEST(PairwiseSigmoid, SumsOverLabelledPairs) {
  const at::Tensor logits = torch::randn({3, 4}, at::kDouble);
  const PairLabels labels{torch::eye(3, 4, at::kBool), torch::eye(3, 4, at::kBool).logical_not()};
  double expected = 0;
  for (int64_t i = 0; i < 3; ++i)
    for (int64_t j = 0; j < 4; ++j)
      expected += std::log1p(std::exp((i == j ? -1 : 1) * logits[i][j].item<double>()));
  EXPECT_NEAR(pairwise_sigmoid(logits, labels).item<double>(), expected, 1e-12);
  expect_gradients([&](const auto& inputs) { return pairwise_sigmoid(inputs[0], labels); }, {logits});
}

TEST(PairwiseSigmoid, LeavesUnlabelledPairsOut) {
  const at::Tensor none = torch::zeros({2, 2}, at::kBool);
  EXPECT_EQ(pairwise_sigmoid(torch::randn({2, 2}), {none, none}).item<double>(), 0);
}

TEST(PairLabels, SameOwnerIsPositiveAndEqualCaptionIsNoNegative) {
  const at::Tensor owner_T = torch::tensor({7, 8, 7, 9}), owner_I = torch::tensor({7, 8, 7, 9});
  const at::Tensor caption = torch::tensor({1, 2, 3, 2});
  const PairLabels labels = label_pairs(owner_T, owner_I, caption, caption.view({4, 1}));
  EXPECT_TRUE(labels.positive_RC[0][2].item<bool>());
  EXPECT_FALSE(labels.positive_RC[1][3].item<bool>());
  EXPECT_FALSE(labels.negative_RC[1][3].item<bool>());
  EXPECT_FALSE(labels.negative_RC[3][1].item<bool>());
  EXPECT_TRUE(labels.negative_RC[0][1].item<bool>());
  EXPECT_EQ(labels.negative_RC.sum().item<int64_t>(), 16 - 6 - 2);
}

TEST(CaptionIds, DependOnTokensAndNotOnPadding) {
  const at::Tensor length = torch::tensor({2, 2, 3});
  const at::Tensor narrow = caption_ids(torch::tensor({{5, 6, 0}, {6, 5, 0}, {5, 6, 0}}), length);
  const at::Tensor wide = caption_ids(torch::tensor({{5, 6, 9, 9}, {6, 5, 9, 9}, {5, 6, 0, 9}}), length);
  EXPECT_TRUE(at::equal(narrow, wide));
  EXPECT_NE(narrow[0].item<int64_t>(), narrow[1].item<int64_t>());
  EXPECT_NE(narrow[0].item<int64_t>(), narrow[2].item<int64_t>());
}

TEST(NegativeWeights, MultiplyNegativesAndAreOneOnAverage) {
  torch::manual_seed(3);
  const at::Tensor logits = torch::randn({3, 5}, at::kDouble), likeness = torch::randn({3, 5}, at::kDouble);
  PairLabels labels{torch::eye(3, 5, at::kBool), torch::eye(3, 5, at::kBool).logical_not()};
  labels.negative_RC[1][4] = false;
  const double plain = info_nce(logits, labels).item<double>();
  weigh_negatives(labels, likeness, 2.0);
  double expected = 0;
  for (int64_t i = 0; i < 3; ++i) {
    double sum = 0, count = 0, negatives = 0;
    const auto is_negative = [&](int64_t j) { return labels.negative_RC[i][j].item<bool>(); };
    for (int64_t j = 0; j < 5; ++j) {
      if (!is_negative(j)) continue;
      sum += std::exp(2 * likeness[i][j].item<double>());
      ++count;
    }
    for (int64_t j = 0; j < 5; ++j)
      if (is_negative(j))
        negatives +=
            std::exp(2 * likeness[i][j].item<double>()) * count / sum * std::exp(logits[i][j].item<double>());
    const double positive = std::exp(logits[i][i].item<double>());
    expected -= std::log(positive / (positive + negatives));
  }
  EXPECT_NEAR(info_nce(logits, labels).item<double>(), expected, 1e-12);
  EXPECT_GT(std::abs(expected - plain), 0.01);
  expect_gradients([&](const auto& inputs) { return info_nce(inputs[0], labels); }, {logits});
  const at::Tensor mean_R =
      labels.log_weight_RC.exp().masked_fill(~labels.negative_RC, 0).sum(1) / labels.negative_RC.sum(1);
  EXPECT_TRUE(at::allclose(mean_R, torch::ones({3}, at::kDouble)));
}

TEST(NegativeWeights, CountInTheSigmoidLossToo) {
  const at::Tensor logits = torch::randn({2, 3}, at::kDouble);
  PairLabels labels{torch::eye(2, 3, at::kBool), torch::eye(2, 3, at::kBool).logical_not()};
  labels.log_weight_RC = torch::randn({2, 3}, at::kDouble);
  double expected = 0;
  for (int64_t i = 0; i < 2; ++i)
    for (int64_t j = 0; j < 3; ++j) {
      const double z = logits[i][j].item<double>();
      expected += i == j ? std::log1p(std::exp(-z))
                         : std::exp(labels.log_weight_RC[i][j].item<double>()) * std::log1p(std::exp(z));
    }
  EXPECT_NEAR(pairwise_sigmoid(logits, labels).item<double>(), expected, 1e-12);
}

TEST(NegativeWeights, OfARowWithoutNegativesDoNoHarm) {
  PairLabels labels{torch::eye(2, 2, at::kBool), torch::zeros({2, 2}, at::kBool)};
  weigh_negatives(labels, torch::randn({2, 2}, at::kDouble), 3.0);
  const at::Tensor logits = torch::randn({2, 2}, at::kDouble).requires_grad_();
  const at::Tensor loss = info_nce(logits, labels);
  loss.backward();
  EXPECT_NEAR(loss.item<double>(), 0, 1e-12);
  EXPECT_TRUE(logits.grad().isfinite().all().item<bool>());
}

class CudaLinearCrossEntropy : public cuda_test::CudaKernels {};

TEST_F(CudaLinearCrossEntropy, IsDividedInEveryType) {
  expect_divided_in_every_type(device_);
}

TEST_F(CudaLinearCrossEntropy, ARetainedGraphGivesTheSameAgain) {
  expect_the_same_again(HeadCase(at::kFloat, device_));
}

TEST(SymmetricDivergence, IsTheMeanOfBothDirections) {
  torch::manual_seed(5);
  const at::Tensor a = torch::randn({3, 4}, at::kDouble), b = torch::randn({3, 4}, at::kDouble);
  at::Tensor keep = torch::ones({3, 4}, at::kBool);
  keep[0][1] = false;
  keep[2].fill_(false);
  double expected = 0;
  for (int64_t i = 0; i < 2; ++i) {
    double sum_a = 0, sum_b = 0;
    for (int64_t j = 0; j < 4; ++j) {
      if (!keep[i][j].item<bool>()) continue;
      sum_a += std::exp(a[i][j].item<double>());
      sum_b += std::exp(b[i][j].item<double>());
    }
    for (int64_t j = 0; j < 4; ++j) {
      if (!keep[i][j].item<bool>()) continue;
      const double p = std::exp(a[i][j].item<double>()) / sum_a, q = std::exp(b[i][j].item<double>()) / sum_b;
      expected += 0.5 * (p * std::log(p / q) + q * std::log(q / p));
    }
  }
  EXPECT_NEAR(symmetric_divergence(a, b, keep).item<double>(), expected, 1e-12);
  EXPECT_NEAR(symmetric_divergence(a, a, keep).item<double>(), 0, 1e-15);
  expect_gradients([&](const auto& inputs) { return symmetric_divergence(inputs[0], inputs[1], keep); },
                   {a, b});
}

}  // namespace
}  // namespace fathom::losses_test
