// Intervals of differences: against closed forms, and the files that they come from.
#include "evaluate/paired_bootstrap.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <torch/torch.h>

#include <cmath>

#include "base/error.h"
#include "base/file.h"
#include "byte_tokenizer.h"
#include "data/image/encode.h"
#include "temporary_folder.h"

namespace fathom::paired_bootstrap_test {
namespace {

using ::testing::HasSubstr;

/// One answer a picture, right where `right` says.
template <typename Right>
std::vector<SampleResult> answers(int64_t count, const Right& right) {
  std::vector<SampleResult> results;
  for (int64_t i = 0; i < count; ++i)
    results.push_back({.measure = "answers",
                       .sample = i,
                       .query = "what?",
                       .cluster = std::to_string(i),
                       .rank = right(i) ? 1 : 0});
  return results;
}

const PairedDifference& metric(const PairedReport& report, const std::string& name) {
  for (const PairedDifference& one : report.differences)
    if (one.metric == name) return one;
  throw std::runtime_error("no metric " + name);
}

TEST(PairedBootstrap, EqualRunsDifferByNothing) {
  const auto run = answers(50, [](int64_t i) { return i % 3 == 0; });
  const PairedReport report = compare_runs({run}, {run});
  ASSERT_EQ(report.differences.size(), 1);
  EXPECT_EQ(report.clusters, 50);
  EXPECT_NEAR(metric(report, "accuracy").first, 34, 1e-9);
  EXPECT_EQ(metric(report, "accuracy").low, 0);
  EXPECT_EQ(metric(report, "accuracy").high, 0);
}

/// Differences of 0 or 1 with share p: the interval is that of a binomial share.
TEST(PairedBootstrap, IsAsWideAsTheNormalLimitSays) {
  const auto first = answers(2000, [](int64_t i) { return i % 4 != 0; });
  const auto second = answers(2000, [](int64_t i) { return i % 4 == 1; });
  const PairedDifference one = metric(compare_runs({first}, {second}), "accuracy");
  EXPECT_NEAR(one.difference(), 50, 1e-9);
  const double half = 100 * 1.96 * std::sqrt(0.5 * 0.5 / 2000);
  EXPECT_NEAR(one.high - 50, half, 0.06 * half);
  EXPECT_NEAR(50 - one.low, half, 0.06 * half);
}

TEST(PairedBootstrap, PairsWhatBothWereAsked) {
  // Both are right on the same half but for 20 samples: unpaired, the interval would be five times as wide.
  const auto first = answers(1000, [](int64_t i) { return i % 2 == 0 || i < 40; });
  const auto second = answers(1000, [](int64_t i) { return i % 2 == 0; });
  const PairedDifference one = metric(compare_runs({first}, {second}), "accuracy");
  EXPECT_NEAR(one.difference(), 2, 1e-9);
  EXPECT_GT(one.low, 1);
  EXPECT_LT(one.high, 3);
}

TEST(PairedBootstrap, QuestionsOfOnePictureAreDrawnTogether) {
  const auto first = answers(300, [](int64_t i) { return i % 3 != 0; });
  const auto second = answers(300, [](int64_t i) { return i % 5 == 0; });
  std::vector<SampleResult> many_first, many_second;
  for (int64_t i = 0; i < 300; ++i)
    for (int64_t question = 0; question < 9; ++question)
      for (auto [from, to] : {std::pair(&first, &many_first), std::pair(&second, &many_second)}) {
        to->push_back((*from)[static_cast<size_t>(i)]);
        to->back().sample = 9 * i + question;
      }
  const PairedDifference one = metric(compare_runs({first}, {second}), "accuracy");
  const PairedDifference many = metric(compare_runs({many_first}, {many_second}), "accuracy");
  EXPECT_NEAR(one.low, many.low, 1e-9);
  EXPECT_NEAR(one.high, many.high, 1e-9);
  EXPECT_EQ(many.count, 2700);
  EXPECT_LT(one.low, one.high);
}

TEST(PairedBootstrap, SeedsOfAnArmAreAveraged) {
  const auto right = answers(10, [](int64_t) { return true; });
  const auto wrong = answers(10, [](int64_t) { return false; });
  const PairedDifference one = metric(compare_runs({right, wrong}, {wrong}), "accuracy");
  EXPECT_EQ(one.first, 50);
  EXPECT_EQ(one.second, 0);
  EXPECT_EQ(one.count, 10);
}

TEST(PairedBootstrap, IsDecidedByItsSeed) {
  const auto first = answers(90, [](int64_t i) { return i % 2 == 0; });
  const auto second = answers(90, [](int64_t i) { return i % 3 == 0; });
  const auto low = [&](int64_t seed) {
    return metric(compare_runs({first}, {second}, {.resamples = 501, .seed = seed}), "accuracy").low;
  };
  EXPECT_EQ(low(1), low(1));
  EXPECT_NE(compare_runs({first}, {second}, {.resamples = 501, .seed = 1}).to_json(),
            compare_runs({first}, {second}, {.resamples = 501, .seed = 2}).to_json());
}

TEST(PairedBootstrap, RanksGiveRecallsAndGroupsTheirOwn) {
  std::vector<SampleResult> first, second;
  for (const int64_t rank : {1, 4, 8, 30}) {
    const SampleResult result{.measure = "t2i",
                              .sample = rank,
                              .query = "a cup",
                              .cluster = std::to_string(rank),
                              .groups = {rank < 5 ? "unseen=true" : "unseen=false"},
                              .rank = rank};
    first.push_back(result);
    second.push_back(result);
    second.back().rank = 30;
  }
  const PairedReport report = compare_runs({first}, {second});
  EXPECT_EQ(metric(report, "t2i_r1").difference(), 25);
  EXPECT_EQ(metric(report, "t2i_r5").difference(), 50);
  EXPECT_EQ(metric(report, "t2i_r10").difference(), 75);
  EXPECT_EQ(metric(report, "t2i_r5/unseen=true").low, 100);
  EXPECT_EQ(metric(report, "t2i_r10/unseen=false").count, 2);
}

TEST(PairedBootstrap, KeepsFiguresApart) {
  std::vector<SampleResult> first;
  for (const char* measure : {"answers", "image_only_accuracy", "caption_only_accuracy", "agreement", "a2t"})
    for (int64_t i = 0; i < 4; ++i)
      first.push_back({.measure = measure,
                       .sample = i,
                       .query = "what?",
                       .cluster = std::to_string(i),
                       .groups = {"kind=x"},
                       .rank = 1});
  std::vector<SampleResult> second = first;
  second[4].rank = 0;   // one by the picture
  second[12].rank = 0;  // two agreements
  second[13].rank = 0;
  second[16].rank = 7;
  const PairedReport report = compare_runs({first}, {second});
  EXPECT_EQ(metric(report, "accuracy").difference(), 0);
  EXPECT_EQ(metric(report, "image_only_accuracy").difference(), 25);
  EXPECT_EQ(metric(report, "caption_only_accuracy").difference(), 0);
  EXPECT_EQ(metric(report, "agreement/kind=x").difference(), 50);
  EXPECT_EQ(metric(report, "a2t_r5").difference(), 25);
  EXPECT_EQ(metric(report, "a2t_r10").difference(), 0);
  const TemporaryFolder folder;
  write_sample_results(folder / "second.jsonl", second);
  EXPECT_EQ(compare_runs({first}, {read_sample_results(folder / "second.jsonl")}).to_json(),
            report.to_json());
}

template <typename Call>
std::string error_of(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kData) << error.what();
    return error.what();
  }
  return "";
}

TEST(PairedBootstrap, RefusesRunsThatWereAskedOtherThings) {
  const auto run = answers(5, [](int64_t) { return true; });
  const auto refusal = [&](const std::vector<SampleResult>& other) {
    return error_of([&] { compare_runs({{run, "a.jsonl"}}, {{run, "b.jsonl"}, {other, "c.jsonl"}}); });
  };
  auto other = run;
  other[3].query = "why?";
  EXPECT_EQ(
      refusal(other),
      "c.jsonl: was not asked the same as a.jsonl: answers 3 is \"why?\" here, answers 3 is \"what?\" there");
  other = run;
  other.pop_back();
  EXPECT_EQ(refusal(other), "c.jsonl: was not asked the same as a.jsonl: 4 results here, 5 there");
  other = run;
  other[2].groups = {"kind=x", "unseen=true"};
  EXPECT_THAT(refusal(other), HasSubstr("answers 2 is of kind=x, unseen=true here, of no group there"));
}

TEST(SampleResults, ComeBackFromTheirFile) {
  const TemporaryFolder folder;
  const std::vector<SampleResult> all = {
      {.measure = "answers", .sample = 0, .query = "\"what\"?", .cluster = "a.png", .said = "two", .rank = 0},
      {.measure = "classification", .sample = 1, .query = "b", .cluster = "b", .rank = 1},
      {.measure = "i2t",
       .sample = 7,
       .query = "c",
       .cluster = "c",
       .groups = {"unseen=true", "kind=x"},
       .rank = 12}};
  write_sample_results(folder / "all.jsonl", all);
  const auto read = read_sample_results(folder / "all.jsonl");
  ASSERT_EQ(read.size(), all.size());
  for (size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(read[i].measure, all[i].measure);
    EXPECT_EQ(read[i].sample, all[i].sample);
    EXPECT_EQ(read[i].query, all[i].query);
    EXPECT_EQ(read[i].cluster, all[i].cluster);
    EXPECT_EQ(read[i].groups, all[i].groups);
    EXPECT_EQ(read[i].said, all[i].said);
    EXPECT_EQ(read[i].rank, all[i].rank);
  }
}

TEST(SampleResults, AreRefusedWithFileAndLine) {
  const TemporaryFolder folder;
  const std::string path = folder / "rows.jsonl";
  const auto refusal = [&](const std::string& rows) {
    write_file_atomically(path, rows);
    return error_of([&] { read_sample_results(path); });
  };
  EXPECT_THAT(refusal(""), HasSubstr("rows.jsonl: no results"));
  EXPECT_THAT(
      refusal("{\"measure\":\"answers\",\"sample\":0,\"query\":\"q\",\"cluster\":\"c\",\"right\":true}\n{\n"),
      HasSubstr("rows.jsonl:2: column "));
  EXPECT_THAT(refusal("{\"measure\":\"taste\",\"sample\":0,\"query\":\"q\",\"cluster\":\"c\"}\n"),
              HasSubstr("rows.jsonl:1: unknown measure \"taste\""));
  EXPECT_THAT(
      refusal("{\"measure\":\"t2i\",\"sample\":0,\"query\":\"q\",\"cluster\":\"c\",\"right\":true}\n"),
      HasSubstr("rows.jsonl:1: no \"rank\""));
  EXPECT_THAT(refusal("[1]\n"), HasSubstr("rows.jsonl:1: expected an object, got array"));
  EXPECT_THAT(refusal("{\"measure\":3}\n"), HasSubstr(":1: \"measure\": expected a string, got integer"));
  EXPECT_THAT(refusal("{\"measure\":\"t2i\",\"sample\":0,\"query\":\"q\",\"cluster\":\"c\",\"rank\":0}\n"),
              HasSubstr(":1: \"rank\": expected at least 1, got 0"));
  EXPECT_THAT(refusal("{\"measure\":\"answers\",\"sam"), HasSubstr("is the file cut off?"));
}

TEST(SampleResults, OfRetrievalAreTheRanksByPicture) {
  const TemporaryFolder folder;
  std::vector<Record> records;
  for (const char* name : {"0.png", "1.png"}) {
    write_file_atomically(folder / name,
                          encode_png({.height = 4, .width = 4, .pixels = std::vector<uint8_t>(48, 90)}));
    Record& record = records.emplace_back();
    record.id = record.source = name;
    record.image_path = folder / name;
    record.captions = {std::string("of ") + name, std::string("see ") + name};
    record.tags["unseen"] = name[0] == '0' ? "true" : "false";
  }
  const RetrievalData data(std::make_shared<const Dataset>(folder.path(), DataFormat::kImageCaptions, records,
                                                           std::make_shared<DataReport>()),
                           ModelInputs{}, std::make_shared<const Tokenizer>(byte_tokenizer()), {});
  MeasuredData measured;
  measured.ranks = {.t2i = {1, 2, 2, 1}, .i2t = {3, 1}};
  const auto results = sample_results(measured, data);
  ASSERT_EQ(results.size(), 6);
  EXPECT_EQ(results[2].measure, "t2i");
  EXPECT_EQ(results[2].query, "of 1.png");
  EXPECT_EQ(results[2].cluster, "1.png");
  EXPECT_EQ(results[2].rank, 2);
  EXPECT_EQ(results[4].measure, "i2t");
  EXPECT_EQ(results[4].rank, 3);
  EXPECT_EQ(results[4].cluster, results[0].cluster);
  EXPECT_EQ(results[4].groups, std::vector<std::string>{"unseen=true"});
}

}  // namespace
}  // namespace fathom::paired_bootstrap_test
