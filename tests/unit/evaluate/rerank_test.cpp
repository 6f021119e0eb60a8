#include "evaluate/rerank.h"

#include <gmock/gmock.h>
#include <torch/torch.h>

#include <rapidcheck/gtest.h>

#include "base/error.h"
#include "nn/init.h"
#include "nn/temperature.h"

namespace fathom::rerank_test {
namespace {

using ::testing::ElementsAre;

/// Ranks by a whole matrix: the head of each row by `first`, ordered anew by `second`.
std::vector<int64_t> by_hand(const at::Tensor& first_QN, const at::Tensor& second_QN,
                             const at::Tensor& right_QN, int64_t top) {
  std::vector<int64_t> ranks;
  for (int64_t q = 0; q < first_QN.size(0); ++q) {
    const at::Tensor order = std::get<1>(first_QN[q].sort(0, /*descending=*/true));
    std::vector<int64_t> line;
    for (int64_t k = 0; k < order.size(0); ++k) line.push_back(order[k].item<int64_t>());
    const auto head = line.begin() + std::min<int64_t>(top, static_cast<int64_t>(line.size()));
    std::sort(line.begin(), head, [&](int64_t a, int64_t b) {
      return second_QN[q][a].item<double>() > second_QN[q][b].item<double>();
    });
    int64_t rank = 1, found = 0;
    for (const int64_t candidate : line) {
      found = right_QN[q][candidate].item<bool>() ? rank : 0;
      if (found > 0) break;
      ++rank;
    }
    ranks.push_back(found);
  }
  return ranks;
}

RC_GTEST_PROP(Rerank, OrdersTheHeadAndLeavesTheRest, ()) {
  const int64_t images = *rc::gen::inRange<int64_t>(2, 9), each = *rc::gen::inRange<int64_t>(1, 4);
  const int64_t top = *rc::gen::inRange<int64_t>(1, 12);
  torch::manual_seed(*rc::gen::inRange(0, 1000));
  RetrievalInput input{.image_ID = torch::randn({images, 6}), .text_CD = torch::randn({images * each, 6})};
  input.image_of_caption_C = at::arange(images, at::kLong).repeat_interleave(each);
  const at::Tensor first_CI = at::mm(input.text_CD.to(at::kDouble), input.image_ID.to(at::kDouble).t());
  const at::Tensor second_CI = torch::randn({images * each, images}, at::kDouble);
  const at::Tensor right_CI = input.image_of_caption_C.unsqueeze(1).eq(at::arange(images));
  const RetrievalRanks found =
      reranked(input, retrieval_ranks(input), top, [&](const at::Tensor& text, const at::Tensor& image) {
        return second_CI.index_select(0, text).index_select(1, image).flatten();
      });
  RC_ASSERT(found.t2i == by_hand(first_CI, second_CI, right_CI, top));
  RC_ASSERT(found.i2t == by_hand(first_CI.t(), second_CI.t(), right_CI.t(), top));
}

TEST(Rerank, TiesAndNaNCountAgainstUs) {
  const RetrievalInput input{
      .image_ID = torch::eye(3), .text_CD = torch::eye(3), .image_of_caption_C = at::arange(3)};
  const auto constant = [](double value) {
    return [value](const at::Tensor& text, const at::Tensor& image) {
      return torch::full({text.numel() * image.numel()}, value);
    };
  };
  const RetrievalRanks global = retrieval_ranks(input);
  EXPECT_THAT(global.t2i, ElementsAre(1, 1, 1));
  EXPECT_THAT(reranked(input, global, 3, constant(1)).t2i, ElementsAre(3, 3, 3));
  EXPECT_THAT(reranked(input, global, 2, constant(1)).i2t, ElementsAre(2, 2, 2));
  EXPECT_THAT(reranked(input, global, 3, constant(std::nan(""))).t2i, ElementsAre(3, 3, 3));
}

TEST(Rerank, LogitsAddBothScoresByTheirTemperatures) {
  DualTowerConfig config;
  config.vision = {
      .image_size = 16, .patch_size = 2, .dim = 8, .depths = {1, 1}, .heads = {2, 2}, .window = 4};
  config.text = {.vocab_size = 50, .dim = 16, .layers = 1, .heads = 2, .max_positions = 12};
  config.embed_dim = 12;
  config.region = RegionScore::kAttention;
  DualTower model(config);
  init_parameters(*model, 1);
  const torch::NoGradGuard no_grad;
  const PairSide image = model->encode_image(torch::randn({3, 3, 16, 16}));
  const PairSide text =
      model->encode_text(torch::randint(0, 50, {4, 7}, at::kLong), torch::tensor({7, 2, 5, 4}, at::kLong));
  const at::Tensor expected = (at::mm(text.whole_ND, image.whole_ND.t()) + pair_scores(text, image)) / 0.07;
  EXPECT_TRUE(at::allclose(rerank_logits(model, text, image), expected, 1e-4, 1e-4));
  config.region = RegionScore::kNone;
  DualTower without(config);
  EXPECT_THROW(rerank_logits(without, text, image), Error);
}

}  // namespace
}  // namespace fathom::rerank_test
