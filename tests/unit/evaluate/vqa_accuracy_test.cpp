// VQA's own measure of answers, against its definition person by person.
#include "evaluate/vqa_accuracy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace fathom::vqa_accuracy_test {
namespace {

double by_definition(const std::vector<std::string>& people, const std::string& answer) {
  double sum = 0;
  for (size_t left_out = 0; left_out < people.size(); ++left_out) {
    double same = 0;
    for (size_t i = 0; i < people.size(); ++i) same += i != left_out && people[i] == answer;
    sum += std::min(same / 3, 1.0);
  }
  return sum / static_cast<double>(people.size());
}

std::vector<std::string> ten_people(int64_t said_yes) {
  std::vector<std::string> people(static_cast<size_t>(said_yes), "yes");
  people.resize(10, "no");
  return people;
}

TEST(VqaAccuracy, IsTheMeanOverPeopleLeftOut) {
  for (int64_t said_yes = 0; said_yes <= 10; ++said_yes)
    for (const char* answer : {"yes", "no", "maybe"})
      EXPECT_NEAR(vqa_score(ten_people(said_yes), answer), by_definition(ten_people(said_yes), answer), 1e-12)
          << said_yes << " " << answer;
  EXPECT_NEAR(vqa_score(ten_people(3), "yes"), 0.9, 1e-12);
  EXPECT_EQ(vqa_score(ten_people(4), "yes"), 1);
}

TEST(VqaAccuracy, OfFewPeople) {
  EXPECT_EQ(vqa_score({"yes"}, "yes"), 1);
  EXPECT_EQ(vqa_score({"yes"}, "no"), 0);
  EXPECT_EQ(vqa_score({}, "no"), 0);
}

TEST(VqaAccuracy, CountsRecordsThatSayWhatPeopleAnswered) {
  VqaFigures figures;
  EXPECT_TRUE(std::isnan(figures.accuracy()));
  Record record;
  figures.add(record, "yes");
  EXPECT_EQ(figures.count, 0);
  record.tags["human_answers"] = R"(["yes","yes","no"])";
  figures.add(record, "yes");
  figures.add(record, "maybe");
  EXPECT_EQ(figures.count, 2);
  EXPECT_NEAR(figures.accuracy(), 100 * by_definition({"yes", "yes", "no"}, "yes") / 2, 1e-9);
}

}  // namespace
}  // namespace fathom::vqa_accuracy_test
