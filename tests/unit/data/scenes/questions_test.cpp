#include "data/scenes/questions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/error.h"
#include "base/file.h"

namespace fathom::scenes::questions_test {
namespace {

constexpr int64_t kQuestionSeed = 11;

Object object(int shape, int color, int pattern, int size, double x, double y) {
  return {.attributes = {shape, color, pattern, size}, .x = x, .y = y, .radius = 0.1};
}

/// A red star left of a blue ring, a red ring below.
Scene small_scene() {
  Scene scene;
  scene.objects = {object(5, 0, 0, 2, 0.2, 0.3), object(9, 4, 1, 0, 0.8, 0.35), object(9, 0, 2, 1, 0.5, 0.8)};
  return scene;
}

TEST(Execute, AnswersFromTheObjects) {
  const Scene scene = small_scene();
  const Program red = {{"scene", {}, ""}, {"filter_color", {0}, "red"}};
  const auto with = [](Program program, std::initializer_list<Operation> rest) {
    program.insert(program.end(), rest);
    return program;
  };
  EXPECT_EQ(execute(with(red, {{"count", {1}, ""}}), scene), "2");
  EXPECT_EQ(execute(with(red, {{"filter_shape", {1}, "heart"}, {"exist", {2}, ""}}), scene), "no");
  EXPECT_EQ(
      execute(with(red, {{"filter_shape", {1}, "ring"}, {"unique", {2}, ""}, {"query_pattern", {3}, ""}}),
              scene),
      "dotted");
  EXPECT_EQ(execute(with(red, {{"filter_shape", {0}, "ring"}, {"more", {1, 2}, ""}}), scene), "no");
  const Program star = {{"scene", {}, ""}, {"filter_shape", {0}, "star"}, {"unique", {1}, ""}};
  EXPECT_EQ(execute(with(star, {{"right_of", {2}, ""}, {"count", {3}, ""}}), scene), "2");
  EXPECT_EQ(execute(with(star, {{"above", {2}, ""}, {"exist", {3}, ""}}), scene), "no");
  EXPECT_EQ(
      execute(with(star, {{"filter_color", {0}, "blue"}, {"unique", {3}, ""}, {"is_left_of", {2, 4}, ""}}),
              scene),
      "yes");
  EXPECT_EQ(
      execute(with(star, {{"filter_color", {0}, "blue"}, {"unique", {3}, ""}, {"same_color", {2, 4}, ""}}),
              scene),
      "no");
}

TEST(Execute, RefusesProgramsThatDoNotFit) {
  const Scene scene = small_scene();
  const auto reason = [&](const Program& program) -> std::string {
    try {
      return execute(program, scene);
    } catch (const Error& error) {
      return error.what();
    }
  };
  EXPECT_EQ(reason({{"scene", {}, ""}, {"unique", {0}, ""}}), "unique: expected one object, got 3");
  EXPECT_EQ(reason({{"fly", {}, ""}}), "unknown operation \"fly\"");
  EXPECT_EQ(reason({{"count", {0}, ""}}), "count: input 0 does not fit");
  EXPECT_EQ(reason({{"scene", {}, ""}}), "the program ends without an answer");
}

TEST(Questions, TenKindsWithAnswersThatTheirProgramsGive) {
  std::map<std::string, int> kinds;
  for (int64_t i = 0; i < 300; ++i) {
    const Scene scene = make_scene(Split::kTrain, kQuestionSeed, i);
    const auto questions = make_questions(scene);
    EXPECT_GE(questions.size(), 4u);
    for (const Question& question : questions) {
      ++kinds[question.kind];
      EXPECT_EQ(execute(question.program, scene), question.answer);
      EXPECT_EQ(question.text.back(), '?');
    }
  }
  EXPECT_EQ(kinds.size(), 10u);
  for (const auto& [kind, count] : kinds) EXPECT_GT(count, 60) << kind;
}

/// Fails when questions change: raise kScenesVersion then, and this number with it.
TEST(Questions, VersionIsFrozen) {
  std::string text;
  for (int64_t i = 0; i < 50; ++i)
    for (const Split split : {Split::kTrain, Split::kVal})
      for (const Question& question : make_questions(make_scene(split, 0, i)))
        text += question.text + " " + question.answer + "\n";
  EXPECT_EQ(kScenesVersion, 1);
  EXPECT_EQ(checksum64(std::as_bytes(std::span(text))), 14680332086336403526u);
}

TEST(Questions, AskNothingThatFewObjectsCannotAnswer) {
  const auto kinds_of = [](int max_objects) {
    std::set<std::string> kinds;
    for (int64_t i = 0; i < 300; ++i) {
      const Scene scene = make_scene(Split::kTrain, kQuestionSeed, i, max_objects);
      for (const Question& question : make_questions(scene)) {
        kinds.insert(question.kind);
        EXPECT_EQ(execute(question.program, scene), question.answer);
      }
    }
    return kinds;
  };
  const std::set<std::string> all(kQuestionKinds.begin(), kQuestionKinds.end());
  std::set<std::string> expected = all;
  EXPECT_EQ(kinds_of(3), expected);
  expected.erase("compare_same");  // would mostly be answered by no
  EXPECT_EQ(kinds_of(2), expected);
  expected.erase("relate");
  expected.erase("relate_query");
  EXPECT_EQ(kinds_of(1), expected);
}

TEST(Questions, CountMatchesThePlan) {
  for (int64_t i = 0; i < 200; ++i) {
    const Scene scene = make_scene(Split::kTrain, kQuestionSeed, i);
    for (const Question& question : make_questions(scene))
      EXPECT_TRUE(question.kind != "count" || question.answer == std::to_string(scene.plan.count));
  }
}

/// How often the most frequent answer to a question's words, learned on other scenes, is right.
class QuestionOnly {
 public:
  void learn(const Question& question) {
    ++by_text_[question.text][question.answer];
    ++by_kind_[question.kind][question.answer];
  }
  std::string guess(const Question& question) const {
    const auto place = by_text_.find(question.text);
    return most_frequent(place == by_text_.end() ? by_kind_.at(question.kind) : place->second);
  }

 private:
  using Counts = std::map<std::string, int64_t>;
  static std::string most_frequent(const Counts& counts) {
    return std::max_element(counts.begin(), counts.end(),
                            [](auto& a, auto& b) { return a.second < b.second; })
        ->first;
  }
  std::map<std::string, Counts> by_text_;
  std::map<std::string, Counts> by_kind_;
};

/// One over the number of answers that questions of this sort have.
double chance_of(const Question& question, int max_objects) {
  if (question.answer == "yes" || question.answer == "no") return 1.0 / 2;
  if (question.kind == "count") return 1.0 / (std::min(max_objects, 4) + 1);
  const std::string& query = question.program.back().name;
  for (const Attribute attribute : kAttributes)
    if (query == "query_" + std::string(attribute_name(attribute))) return 1.0 / num_values(attribute);
  return 1;
}

class QuestionsOfWorlds : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(MaxObjects, QuestionsOfWorlds, ::testing::Values(1, 2, kMaxObjects));

TEST_P(QuestionsOfWorlds, WordsAloneDoNotTellTheAnswer) {
  const int max_objects = GetParam();
  QuestionOnly model;
  for (int64_t i = 0; i < 8000; ++i)
    for (const Question& question : make_questions(make_scene(Split::kTrain, kQuestionSeed, i, max_objects)))
      model.learn(question);
  for (const Split split : {Split::kTrain, Split::kVal}) {
    double right = 0;
    double total = 0;
    std::map<std::string, std::array<double, 3>> kinds;  // right, chance, count
    for (int64_t i = 20000; i < 23500; ++i) {
      for (const Question& question : make_questions(make_scene(split, kQuestionSeed, i, max_objects))) {
        const double is_right = model.guess(question) == question.answer;
        right += is_right;
        ++total;
        auto& [kind_right, kind_chance, kind_count] = kinds[question.kind];
        kind_right += is_right;
        kind_chance += chance_of(question, max_objects);
        ++kind_count;
      }
    }
    EXPECT_GE(total, 20000);
    EXPECT_LE(right / total, 0.45);
    for (const auto& [kind, tally] : kinds) {
      RecordProperty(kind + "_" + split_name(split), std::to_string(100 * tally[0] / tally[2]));
      EXPECT_LE(tally[0] / tally[2], tally[1] / tally[2] + 0.10) << kind << " in " << split_name(split);
    }
    RecordProperty(std::string("overall_") + split_name(split), std::to_string(100 * right / total));
  }
}

}  // namespace
}  // namespace fathom::scenes::questions_test
