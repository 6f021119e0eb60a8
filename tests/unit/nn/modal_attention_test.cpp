// Region scores against their definitions, written out one pair after another.
#include "nn/modal_attention.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "gradcheck.h"
#include "nn/pair_blocks.h"
#include "nn/temperature.h"

namespace fathom::modal_attention_test {
namespace {

using testing::expect_gradients;

constexpr int64_t kTexts = 5, kImages = 4, kTokens = 6, kRegions = 3, kWidth = 8;

class RegionScores : public ::testing::TestWithParam<RegionScore> {
 protected:
  RegionScores() {
    torch::manual_seed(3);
    attention_ = ModalAttention(ModalAttentionOptions{
        .score = GetParam(), .text_dim = 10, .region_dim = 12, .dim = kWidth, .logit_bias = true});
    init_parameters(*attention_, 1);
    attention_->to(at::kDouble);
    state_ = torch::randn({kTexts, kTokens, 10}, at::kDouble);
    region_ = torch::randn({kImages, kRegions, 12}, at::kDouble);
    text_ = unit_length(torch::randn({kTexts, kWidth}, at::kDouble));
    image_ = unit_length(torch::randn({kImages, kWidth}, at::kDouble));
    length_ = torch::tensor({6, 1, 3, 2, 5}, at::kLong);
  }

  PairSide texts() const { return attention_->tokens(state_, length_, text_); }
  PairSide images() const { return attention_->regions(region_, image_); }

  static double cosine(const at::Tensor& a, const at::Tensor& b) {
    return (a.dot(b) / a.norm() / b.norm()).item<double>();
  }
  double by_hand(int64_t m, int64_t n) const {
    const torch::NoGradGuard no_grad;
    const auto weights = attention_->named_parameters();
    const int64_t tokens = length_[m].item<int64_t>();
    const at::Tensor state_TD = state_[m].slice(0, 0, tokens), region_PD = region_[n];
    const at::Tensor query_TD = at::mm(state_TD, weights["query.weight"].t());
    const at::Tensor key_PD = at::mm(region_PD, weights["key.weight"].t());
    if (GetParam() == RegionScore::kLate) {
      double sum = 0;
      for (int64_t t = 0; t < tokens; ++t) {
        double best = -2;
        for (int64_t p = 0; p < kRegions; ++p) best = std::max(best, cosine(query_TD[t], key_PD[p]));
        sum += best;
      }
      return sum / static_cast<double>(tokens);
    }
    const at::Tensor attention_TP = at::mm(query_TD, key_PD.t()) / std::sqrt(static_cast<double>(kWidth));
    const at::Tensor of_region_P = attention_TP.mean(0).softmax(0),
                     of_token_T = attention_TP.mean(1).softmax(0);
    const at::Tensor region_D =
        at::mv(at::mm(region_PD, weights["region_value.weight"].t()).t(), of_region_P);
    const at::Tensor token_D = at::mv(at::mm(state_TD, weights["token_value.weight"].t()).t(), of_token_T);
    return 0.5 * (cosine(region_D, text_[m]) + cosine(token_D, image_[n]));
  }

  ModalAttention attention_{nullptr};
  at::Tensor state_, region_, text_, image_, length_;
};

TEST_P(RegionScores, AreThoseOfTheDefinition) {
  const at::Tensor score_MN = pair_scores(texts(), images());
  ASSERT_EQ(score_MN.sizes(), at::IntArrayRef({kTexts, kImages}));
  for (int64_t m = 0; m < kTexts; ++m)
    for (int64_t n = 0; n < kImages; ++n)
      EXPECT_NEAR(score_MN[m][n].item<double>(), by_hand(m, n), 1e-12) << m << ", " << n;
  EXPECT_GT(score_MN.std().item<double>(), 0.05);
}

TEST_P(RegionScores, DoNotDependOnBlocksInValueAndGradient) {
  const auto run = [&](int64_t max_elements) {
    const at::Tensor state = state_.clone().requires_grad_(), region = region_.clone().requires_grad_();
    const at::Tensor text = text_.clone().requires_grad_(), image = image_.clone().requires_grad_();
    const at::Tensor score = pair_scores(attention_->tokens(state, length_, text),
                                         attention_->regions(region, image), max_elements);
    const at::Tensor weight = torch::arange(kTexts * kImages, at::kDouble).view({kTexts, kImages}).cos();
    (score * weight).sum().backward();
    return std::vector<at::Tensor>{score.detach(), state.grad(), region.grad(),
                                   text.grad().defined() ? text.grad() : at::zeros_like(text)};
  };
  const auto whole = run(1 << 20);
  for (const int64_t most : {1, 40, 100}) {
    const auto parts = run(most);
    for (size_t i = 0; i < whole.size(); ++i)
      EXPECT_TRUE(at::allclose(parts[i], whole[i], 1e-10, 1e-12)) << most << ", " << i;
  }
  EXPECT_GT(whole[1].abs().max().item<double>(), 1e-3);
}

TEST_P(RegionScores, PaddingDoesNotMatter) {
  const at::Tensor before = pair_scores(texts(), images());
  state_ = state_.clone();
  state_[1].slice(0, 1).fill_(std::nan(""));
  state_[3].slice(0, 2).fill_(1e6);
  EXPECT_TRUE(at::equal(pair_scores(texts(), images()), before));
  state_ = at::constant_pad_nd(state_, {0, 0, 0, 4}, 7.0);
  EXPECT_TRUE(at::allclose(pair_scores(texts(), images()), before, 1e-12, 1e-14));
}

TEST_P(RegionScores, HaveTheRightDerivatives) {
  for (const int64_t most : {1 << 20, 20})
    expect_gradients(
        [&](const std::vector<at::Tensor>& inputs) {
          return pair_scores(attention_->tokens(inputs[0], length_, unit_length(inputs[2])),
                             attention_->regions(inputs[1], unit_length(inputs[3])), most) +
                 1e-3 * (inputs[2].square().sum() + inputs[3].square().sum());
        },
        {state_.slice(1, 0, 6), region_, text_, image_}, 1e-5);
}

TEST_P(RegionScores, LogitsHaveTheirOwnTemperatureAndBias) {
  EXPECT_NEAR(attention_->logit_scale().item<double>(), 1 / 0.07, 1e-5);
  EXPECT_NEAR(attention_->logit_bias().item<double>(), -10, 1e-12);
}

INSTANTIATE_TEST_SUITE_P(Kinds, RegionScores, ::testing::Values(RegionScore::kAttention, RegionScore::kLate));

TEST(PairBlocks, KeepOnlyTheirInputs) {
  const at::Tensor a = torch::randn({7, 3}, at::kDouble).requires_grad_();
  const at::Tensor b = torch::randn({5, 3}, at::kDouble);
  int calls = 0;
  const auto product = [&](const std::vector<at::Tensor>& rows, const std::vector<at::Tensor>& columns) {
    ++calls;
    EXPECT_LE(rows[0].size(0), 3);
    EXPECT_LE(columns[0].size(0), 2);
    return at::mm(rows[0], columns[0].t()).exp();
  };
  const at::Tensor y = pair_blocks(product, {a}, {b}, {.rows = 3, .columns = 2});
  EXPECT_EQ(calls, 9);
  EXPECT_TRUE(at::allclose(y, at::mm(a, b.t()).exp()));
  y.sum().backward();
  EXPECT_EQ(calls, 18);
  EXPECT_TRUE(at::allclose(a.grad(), at::mm(at::mm(a, b.t()).exp(), b)));
}

}  // namespace
}  // namespace fathom::modal_attention_test
