#include "evaluate/retrieval.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>
#include <limits>

#include "base/error.h"

namespace fathom::retrieval_test {
namespace {

using ::testing::ElementsAre;

/// The definition, one pair at a time, in float64 on plain vectors.
struct PlainInput {
  std::vector<std::vector<double>> images;
  std::vector<std::vector<double>> texts;
  std::vector<int64_t> owner;
};

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

RetrievalRanks brute_force(const PlainInput& input) {
  RetrievalRanks ranks;
  for (size_t c = 0; c < input.texts.size(); ++c) {
    const double right = dot(input.texts[c], input.images[input.owner[c]]);
    int64_t rank = 1;
    for (size_t i = 0; i < input.images.size(); ++i)
      if (static_cast<int64_t>(i) != input.owner[c] && dot(input.texts[c], input.images[i]) >= right) ++rank;
    ranks.t2i.push_back(rank);
  }
  for (size_t i = 0; i < input.images.size(); ++i) {
    double best = -std::numeric_limits<double>::infinity();
    bool any = false;
    for (size_t c = 0; c < input.texts.size(); ++c)
      if (input.owner[c] == static_cast<int64_t>(i)) {
        any = true;
        best = std::max(best, dot(input.texts[c], input.images[i]));
      }
    int64_t rank = 1;
    for (size_t c = 0; c < input.texts.size(); ++c)
      if (input.owner[c] != static_cast<int64_t>(i) && dot(input.texts[c], input.images[i]) >= best) ++rank;
    ranks.i2t.push_back(any ? rank : 0);
  }
  return ranks;
}

at::Tensor to_tensor(const std::vector<std::vector<double>>& rows, int64_t width) {
  std::vector<double> flat;
  for (const auto& row : rows) flat.insert(flat.end(), row.begin(), row.end());
  return at::tensor(flat, at::kDouble).reshape({static_cast<int64_t>(rows.size()), width}).to(at::kFloat);
}

/// Small integers, so that many similarities are exactly equal.
PlainInput draw_input(int64_t images, int64_t captions, int64_t width) {
  PlainInput input;
  const auto row = [&] {
    std::vector<double> values;
    for (int64_t d = 0; d < width; ++d) values.push_back(*rc::gen::inRange(-2, 3));
    return values;
  };
  for (int64_t i = 0; i < images; ++i) input.images.push_back(row());
  for (int64_t c = 0; c < captions; ++c) {
    input.texts.push_back(row());
    input.owner.push_back(*rc::gen::inRange<int64_t>(0, images));
  }
  return input;
}

RC_GTEST_PROP(RetrievalRanks, EqualTheDefinitionForAnyBlock, ()) {
  const int64_t images = *rc::gen::inRange<int64_t>(1, 12), captions = *rc::gen::inRange<int64_t>(1, 20),
                width = 3;
  const PlainInput plain = draw_input(images, captions, width);
  const RetrievalInput input{.image_ID = to_tensor(plain.images, width),
                             .text_CD = to_tensor(plain.texts, width),
                             .image_of_caption_C = at::tensor(plain.owner, at::kLong)};
  const RetrievalRanks expected = brute_force(plain);
  const RetrievalRanks found = retrieval_ranks(input, *rc::gen::inRange<int64_t>(1, 24));
  RC_ASSERT(found.t2i == expected.t2i);
  RC_ASSERT(found.i2t == expected.i2t);
}

RetrievalInput five_captions_each(const at::Tensor& image_ID, const at::Tensor& text_CD) {
  return {.image_ID = image_ID,
          .text_CD = text_CD,
          .image_of_caption_C = at::arange(image_ID.size(0), at::kLong).repeat_interleave(5)};
}

TEST(Retrieval, ConstantEmbeddingScoresAtMostChance) {
  // Sizes that leave ragged blocks, and a width at which float32 sums depend on their order.
  const auto constant = (at::randn({1, 97}) * 0.1);
  const auto report =
      evaluate_retrieval(five_captions_each(constant.expand({151, 97}), constant.expand({755, 97})));
  for (const auto& [found, chance] :
       {std::pair{report.all.t2i, report.chance.t2i}, std::pair{report.all.i2t, report.chance.i2t}}) {
    EXPECT_LE(found.r1, chance.r1);
    EXPECT_LE(found.r5, chance.r5);
    EXPECT_LE(found.r10, chance.r10);
    EXPECT_GE(found.median_rank, chance.median_rank);
  }
  EXPECT_EQ(report.all.t2i.r10, 0);
  EXPECT_EQ(report.all.t2i.median_rank, 151);
  EXPECT_EQ(report.all.i2t.median_rank, 751);
}

TEST(Retrieval, RandomEmbeddingsScoreChance) {
  const auto report = evaluate_retrieval(five_captions_each(at::randn({400, 16}), at::randn({2000, 16})));
  EXPECT_NEAR(report.all.t2i.r10, report.chance.t2i.r10, 2.0);
  EXPECT_NEAR(report.all.i2t.r10, report.chance.i2t.r10, 4.0);
  EXPECT_NEAR(report.all.t2i.median_rank, report.chance.t2i.median_rank, 40);
}

TEST(Retrieval, RightEmbeddingsScoreEverything) {
  const auto images = at::randn({40, 32});
  const auto report = evaluate_retrieval(five_captions_each(images, images.repeat_interleave(5, 0)));
  EXPECT_EQ(report.all.t2i.r1, 100);
  EXPECT_EQ(report.all.i2t.r1, 100);
  EXPECT_EQ(report.all.i2t.median_rank, 1);
}

TEST(Retrieval, NanIsAgainstUs) {
  const auto images = at::full({20, 4}, std::numeric_limits<float>::quiet_NaN());
  const auto report = evaluate_retrieval(five_captions_each(images, at::randn({100, 4})));
  EXPECT_EQ(report.all.t2i.median_rank, 20);
  EXPECT_EQ(report.all.i2t.median_rank, 96);
}

TEST(Retrieval, AnyCaptionOfTheImageIsRight) {
  // Image 0 is nearest to its second caption; its first one lies behind the captions of image 1.
  const RetrievalInput input{.image_ID = at::tensor({1.0, 0.0, 0.0, 1.0}).reshape({2, 2}),
                             .text_CD = at::tensor({-1.0, 0.0, 1.0, 0.0, 0.5, 0.5, 0.0, 1.0}).reshape({4, 2}),
                             .image_of_caption_C = at::tensor({0, 0, 1, 1}, at::kLong)};
  const RetrievalRanks ranks = retrieval_ranks(input);
  EXPECT_THAT(ranks.i2t, ElementsAre(1, 1));
  EXPECT_THAT(ranks.t2i, ElementsAre(2, 1, 2, 1));
}

TEST(Retrieval, ImagesWithoutCaptionsAreCandidatesOnly) {
  const RetrievalInput input{.image_ID = at::tensor({1.0, 2.0}).reshape({2, 1}),
                             .text_CD = at::tensor({1.0}).reshape({1, 1}),
                             .image_of_caption_C = at::tensor({0}, at::kLong)};
  const RetrievalReport report = evaluate_retrieval(input);
  EXPECT_EQ(report.all.i2t.queries, 1);
  EXPECT_EQ(report.all.t2i.median_rank, 2);
}

TEST(Retrieval, GroupsAreQueriesApartAmongAllCandidates) {
  RetrievalInput input = five_captions_each(at::randn({30, 8}), at::randn({150, 8}));
  for (int64_t i = 0; i < 30; ++i) input.group_of_image.push_back(i % 3 == 0 ? "true" : "false");
  const RetrievalReport report = evaluate_retrieval(input);
  const auto& seen = report.groups.at("false");
  const auto& unseen = report.groups.at("true");
  EXPECT_EQ(seen.t2i.queries, 100);
  EXPECT_EQ(unseen.i2t.queries, 10);
  EXPECT_NEAR(report.all.t2i.r5, (100 * seen.t2i.r5 + 50 * unseen.t2i.r5) / 150, 1e-9);
  EXPECT_NEAR(report.all.i2t.r10, (20 * seen.i2t.r10 + 10 * unseen.i2t.r10) / 30, 1e-9);
}

TEST(Retrieval, ChanceIsThatOfDrawingWithoutReplacement) {
  EXPECT_NEAR(chance_of_recall(1, 1000, 10), 0.01, 1e-12);
  EXPECT_NEAR(chance_of_recall(5, 5000, 1), 0.001, 1e-12);
  EXPECT_NEAR(chance_of_recall(2, 4, 2), 5.0 / 6.0, 1e-12);
  EXPECT_NEAR(chance_of_recall(3, 5, 3), 1.0, 1e-12);
  EXPECT_NEAR(chance_of_recall(1, 4, 10), 1.0, 1e-12);
}

TEST(Retrieval, MedianOfAnEvenNumberIsTheMiddleTwosMean) {
  const RecallFigures figures = recall_figures({7, 1, 0, 3, 12});
  EXPECT_EQ(figures.queries, 4);
  EXPECT_EQ(figures.median_rank, 5);
  EXPECT_EQ(figures.r1, 25);
  EXPECT_EQ(figures.r5, 50);
  EXPECT_EQ(figures.r10, 75);
}

TEST(Retrieval, TakesRanksThatAreThere) {
  const RetrievalInput input = five_captions_each(at::randn({30, 8}), at::randn({150, 8}));
  const RetrievalRanks ranks{.t2i = std::vector<int64_t>(150, 3), .i2t = std::vector<int64_t>(30, 7)};
  const RetrievalReport report = evaluate_retrieval(input, ranks);
  EXPECT_EQ(report.all.t2i.median_rank, 3);
  EXPECT_EQ(report.all.i2t.median_rank, 7);
  EXPECT_EQ(evaluate_retrieval(input).to_json(), evaluate_retrieval(input, retrieval_ranks(input)).to_json());
}

TEST(Retrieval, RefusesWhatDoesNotFit) {
  EXPECT_THROW(evaluate_retrieval({.image_ID = at::randn({2, 3}),
                                   .text_CD = at::randn({1, 3}),
                                   .image_of_caption_C = at::tensor({2}, at::kLong)}),
               Error);
  EXPECT_THROW(evaluate_retrieval({.image_ID = at::randn({2, 3}),
                                   .text_CD = at::randn({0, 3}),
                                   .image_of_caption_C = at::full({0}, 0, at::kLong)}),
               Error);
}

TEST(Retrieval, JsonHasTheKeysOfTheContract) {
  const auto json = evaluate_retrieval(five_captions_each(at::randn({4, 2}), at::randn({20, 2}))).to_json();
  EXPECT_EQ(json.at("task").as_string(), "retrieval");
  EXPECT_EQ(json.at("images").as_int(), 4);
  EXPECT_EQ(json.at("captions").as_int(), 20);
  for (const char* direction : {"t2i", "i2t"})
    for (const char* key : {"r1", "r5", "r10", "median_rank"}) {
      EXPECT_TRUE(json.at(direction).at(key).is_number());
      EXPECT_TRUE(json.at("chance").at(direction).at(key).is_number());
    }
}

}  // namespace
}  // namespace fathom::retrieval_test
