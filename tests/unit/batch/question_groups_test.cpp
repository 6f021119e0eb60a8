#include "batch/question_groups.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "base/error.h"

namespace fathom::question_groups_test {
namespace {

using ::testing::ElementsAre;

/// Picture p has counts[p] questions; those of all pictures are interleaved.
std::vector<Record> make_records(std::vector<int> counts) {
  std::vector<Record> records;
  for (bool any = true; any;) {
    any = false;
    for (size_t p = 0; p < counts.size(); ++p) {
      if (counts[p]-- <= 0) continue;
      records.push_back({.image_path = fmt::format("{}.png", p)});
      any = true;
    }
  }
  return records;
}

class EveryMost : public ::testing::TestWithParam<int64_t> {};
INSTANTIATE_TEST_SUITE_P(All, EveryMost, ::testing::Values(1, 2, 3, 4, 5, 10, 64));

TEST_P(EveryMost, AnEpochHasEveryQuestionOnceInFewEvenGroups) {
  const std::vector<int> counts = {1, 9, 3, 10, 4};
  const std::vector<Record> records = make_records(counts);
  const int64_t most = GetParam();
  const QuestionGroups groups(records, most, 5);
  int64_t fewest = 0;
  for (const int count : counts) fewest += (count + most - 1) / most;
  EXPECT_EQ(groups.size(), fewest);
  for (const int64_t epoch : {0, 1, 7}) {
    std::set<int64_t> seen;
    std::map<std::string, std::set<size_t>> sizes;
    for (int64_t i = 0; i < groups.size(); ++i) {
      const std::vector<int64_t> asked = groups.questions(i, epoch);
      ASSERT_GE(asked.size(), 1u);
      ASSERT_LE(static_cast<int64_t>(asked.size()), most);
      const std::string& picture = records[static_cast<size_t>(asked.front())].image_path;
      sizes[picture].insert(asked.size());
      for (const int64_t which : asked) {
        EXPECT_EQ(records[static_cast<size_t>(which)].image_path, picture);
        EXPECT_TRUE(seen.insert(which).second) << which << " twice";
      }
    }
    EXPECT_EQ(seen.size(), records.size());
    for (const auto& [picture, all] : sizes) EXPECT_LE(*all.rbegin() - *all.begin(), 1u) << picture;
  }
}

TEST(QuestionGroups, OthersMeetInEachEpochAboutTheSamePicture) {
  const std::vector<Record> records = make_records({10, 10});
  const QuestionGroups groups(records, 5, 3), again(records, 5, 3), other(records, 5, 4);
  std::set<std::set<int64_t>> met;
  int differing = 0;
  for (int64_t epoch = 0; epoch < 20; ++epoch) {
    const std::vector<int64_t> asked = groups.questions(2, epoch);
    EXPECT_EQ(asked, again.questions(2, epoch));
    differing += asked != other.questions(2, epoch);
    EXPECT_EQ(records[static_cast<size_t>(asked.front())].image_path, "1.png");
    met.insert({asked.begin(), asked.end()});
  }
  EXPECT_GT(met.size(), 15u);
  EXPECT_GT(differing, 15);
}

TEST(QuestionGroups, AloneEveryRecordIsAGroupInItsPlace) {
  const QuestionGroups groups(make_records({2, 3}), 1, 0);
  ASSERT_EQ(groups.size(), 5);
  for (int64_t i = 0; i < 5; ++i) EXPECT_THAT(groups.questions(i, 2), ElementsAre(i));
  EXPECT_THROW(QuestionGroups(make_records({2}), 0, 0), Error);
}

}  // namespace
}  // namespace fathom::question_groups_test
