// What a model that answers is measured on: data of other formats, and pictures that have captions and no
// questions.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "answers_run.h"
#include "base/file.h"
#include "cli_program.h"

namespace fathom::train_answers_data_test {
namespace {

using ::testing::HasSubstr;

/// Data that a path alone does not say how to read: a run knows how it was evaluated.
class EvaluatedAsTrained : public AnswersRun {
 protected:
  EvaluatedAsTrained() {
    Json questions = Json::array(), answers = Json::array();
    std::string rows;
    for (int i = 0; i < 60; ++i) {
      const char* answer = kColours[static_cast<size_t>(i) % 3].name;
      questions.push_back(Json::Object{{"question_id", i}, {"image_id", i}, {"question", "what colour?"}});
      const Json person = Json::Object{{"answer", answer}};
      Json people = Json::array();
      for (int j = 0; j < 3; ++j) people.push_back(person);
      answers.push_back(Json::Object{
          {"question_id", i}, {"image_id", i}, {"multiple_choice_answer", answer}, {"answers", people}});
      rows += fmt::format(R"({{"image":"{}.png","question":"what colour?","answer":"{}","fold":{}}})"
                          "\n",
                          i, answer, i % 4);
    }
    std::filesystem::create_directory(folder_ / "vqa");
    write_file_atomically(folder_ / "vqa/questions.json",
                          Json(Json::Object{{"questions", questions}}).dump());
    write_file_atomically(folder_ / "vqa/answers.json", Json(Json::Object{{"annotations", answers}}).dump());
    write_file_atomically(folder_ / "folds.jsonl", rows);
  }
  int64_t asked(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> words = {"eval", folder_ / "run", "--json"};
    words.insert(words.end(), more.begin(), more.end());
    const ProgramResult result = run_program(words);
    EXPECT_EQ(result.status, 0) << result.error;
    return result.status == 0 ? parse_json(result.out, "eval").at("count").as_int() : -1;
  }
};

TEST_F(EvaluatedAsTrained, OnQuestionsWithAnswersInAnotherFile) {
  const auto relative = [&](const char* name) { return std::filesystem::relative(folder_ / name).string(); };
  const std::string path = relative("vqa/questions.json");
  const ProgramResult trained =
      train({"data.train.path=" + path, "data.train.annotations=" + relative("vqa/answers.json"),
             "data.train.images=" + relative("."), "data.train.image_name=#.png",
             "data.train.split=1,2,3 of 4", "data.val.split=0 of 4", "training.max_steps=1"});
  ASSERT_EQ(trained.status, 0) << trained.error;
  const int64_t part = asked();
  EXPECT_GT(part, 4);
  EXPECT_LT(part, 30);
  EXPECT_EQ(asked({"--data", folder_ / "vqa/../vqa/questions.json"}), part);
  EXPECT_EQ(asked({"--split", "all"}), 60);
  EXPECT_EQ(asked({"--limit", "3"}), 3);
  const Json figures = parse_json(run_program({"eval", folder_ / "run", "--json"}).out, "eval");
  EXPECT_NEAR(figures.at("vqa_accuracy").as_double(), figures.at("accuracy").as_double() * 2 / 3, 1e-9)
      << "two of three people are left when one is left out";
  expect_failure(run_program({"eval", folder_ / "run", "--annotations", folder_ / "no.json"}), 1,
                 {"no.json"});
  ASSERT_EQ(run_program({"report", folder_ / "run"}).status, 0);
  EXPECT_THAT(read_file(folder_ / "run/report.html"), HasSubstr("0 of 4"));
}

TEST_F(EvaluatedAsTrained, OnAFoldOfRenamedColumns) {
  const ProgramResult trained =
      train({"data.train.path=" + (folder_ / "folds.jsonl"), R"(data.train.columns=["fold=split"])",
             "data.train.split=1,2", R"(data.val.split="3")", "data.val.limit=9", "training.max_steps=1"});
  ASSERT_EQ(trained.status, 0) << trained.error;
  EXPECT_EQ(asked(), 9);
  EXPECT_EQ(asked({"--limit", "0"}), 15);
  EXPECT_EQ(asked({"--split", "1,2"}), 30);
  std::filesystem::copy(folder_ / "folds.jsonl", folder_ / "copy.jsonl");
  EXPECT_EQ(asked({"--data", folder_ / "copy.jsonl"}), 60) << "other data is read by its options alone";
}

/// The same pictures with two captions each and no question.
class CaptionsRun : public AnswersRun {
 protected:
  CaptionsRun() {
    std::string rows;
    for (int i = 0; i < 60; ++i)
      rows += fmt::format(R"({{"image":"{0}.png","captions":["it is {1}","all of it is {1}"],"split":"{2}"}})"
                          "\n",
                          i, kColours[static_cast<size_t>(i) % 3].name, i < 42 ? "train" : "val");
    write_file_atomically(folder_ / "described.jsonl", rows);
  }
  ProgramResult train_captions(std::vector<std::string> more = {}) const {
    more.insert(more.end(), {"data.train.path=" + (folder_ / "described.jsonl"), "model.answer=generated",
                             "data.question.max_answer_tokens=24", "data.question.caption_prompt=what?",
                             "evaluation.every=100"});
    return train(more);
  }
};

/// Two captions, either of which may be meant: their 27 tokens at most cost two bits at least.
TEST_F(CaptionsRun, AreMeasuredByHowProbableTheyAre) {
  const ProgramResult trained = train_captions();
  ASSERT_EQ(trained.status, 0) << trained.error;
  const Json summary = parse_json(trained.out, "train");
  EXPECT_EQ(summary.at("best").at("metric").as_string(), "caption_nats");
  EXPECT_GT(summary.at("best").at("step").as_int(), 100) << "the first model is not the best";
  const ProgramResult evaluated = run_program({"eval", folder_ / "run", "--json"});
  ASSERT_EQ(evaluated.status, 0) << evaluated.error;
  const Json report = parse_json(evaluated.out, "eval");
  const double nats = report.at("caption_nats").as_double();
  EXPECT_NEAR(nats, summary.at("best").at("value").as_double(), 1e-4);
  EXPECT_GT(nats, 2 * std::log(2.0) / 27);
  EXPECT_LT(nats, 0.25);
  EXPECT_GT(report.at("blind_caption_nats").as_double(), nats + 0.05);
  EXPECT_EQ(report.at("captions").as_int(), 36);
  EXPECT_GE(report.at("accuracy").as_double(), 97) << "any of the captions is right";
  EXPECT_THAT(run_program({"eval", folder_ / "run"}).out, HasSubstr("nats a token of captions"));
}

TEST_F(CaptionsRun, RefusesAMetricThatTheDataDoesNotGive) {
  expect_failure(train({"evaluation.metric=caption_nats", "model.answer=generated"}), 1,
                 {"evaluation.metric", "\"caption_nats\"", "accuracy"});
  const ProgramResult by_hits = train_captions({"evaluation.metric=accuracy", "training.max_steps=2"});
  ASSERT_EQ(by_hits.status, 0) << by_hits.error;
}

}  // namespace
}  // namespace fathom::train_answers_data_test
