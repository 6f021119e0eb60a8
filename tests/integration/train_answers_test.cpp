// A model that answers questions about pictures: trained, measured, asked.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <sstream>

#include "answers_run.h"
#include "base/file.h"
#include "cli_program.h"
#include "training_run.h"

namespace fathom::train_answers_test {
namespace {

using ::testing::HasSubstr;

INSTANTIATE_TEST_SUITE_P(Classes, AnswersRun, ::testing::Values("classes", "generated"));

TEST_P(AnswersRun, SeesWhatItIsAskedAbout) {
  const ProgramResult trained = train({fmt::format("model.answer={}", GetParam())});
  ASSERT_EQ(trained.status, 0) << trained.error;
  EXPECT_EQ(parse_json(trained.out, "train").at("evaluation").at("accuracy").as_double(), 100);
  EXPECT_EQ(accuracy(), 100);
  EXPECT_LE(accuracy("blind_accuracy"), 70);
  const ProgramResult asked = run_program(
      {"ask", folder_ / "run", "--image", folder_ / "43.png", "what colour is it?", "is it blue?"});
  EXPECT_THAT(asked.out, HasSubstr("what colour is it?\n  green"));
  EXPECT_THAT(asked.out, HasSubstr("is it blue?\n  no"));
  const ProgramResult three = run_program(
      {"ask", folder_ / "run", "--image", folder_ / "43.png", "--top", "3", "what colour is it?"});
  if (std::string(GetParam()) == "classes")
    EXPECT_EQ(std::count(three.out.begin(), three.out.end(), '%'), 3) << three.out;
  else
    expect_failure(three, 2, {"--top", "one"});

  ASSERT_EQ(run_program({"report", folder_ / "run"}).status, 0);
  const std::string page = read_file(folder_ / "run/report.html");
  EXPECT_THAT(page, HasSubstr("Questions and answers"));
  EXPECT_THAT(page, HasSubstr("read by the question"));
  EXPECT_THAT(page, HasSubstr("Weight of each modality"));

  const std::string kept = folder_ / "seen.jsonl", guessed = folder_ / "guessed.jsonl";
  ASSERT_EQ(run_program({"eval", folder_ / "run", "--per-sample", kept}).status, 0);
  std::string wrong = read_file(kept);  // a run that is always wrong about blue
  for (size_t place; (place = wrong.find(R"("groups":["kind=blue"])")) != std::string::npos;) {
    wrong.replace(place, 22, R"("groups":["kind=Blue"])");
    wrong.replace(wrong.find(R"("right":true)", place), 12, R"("right":false)");
  }
  for (size_t place; (place = wrong.find("Blue")) != std::string::npos;) wrong.replace(place, 4, "blue");
  write_file_atomically(guessed, wrong);
  const ProgramResult compared = run_program({"compare", kept, "--against", guessed, "--json"});
  ASSERT_EQ(compared.status, 0) << compared.error;
  const Json report = parse_json(compared.out, "compare");
  EXPECT_EQ(report.at("clusters").as_int(), 18);
  const Json& metrics = report.at("metrics");
  EXPECT_EQ(metrics.at("accuracy").at("difference").as_double(), 50);
  EXPECT_EQ(metrics.at("accuracy").at("count").as_int(), 36);
  EXPECT_EQ(metrics.at("accuracy/kind=blue").at("low").as_double(), 100);
  EXPECT_EQ(metrics.at("accuracy/kind=colour").at("high").as_double(), 0);
  expect_failure(run_program({"compare", kept, "--against", folder_ / "qa.jsonl"}), 1,
                 {"qa.jsonl:1", "measure"});
}

TEST_P(AnswersRun, KnowsFromPictureOrCaption) {
  const ProgramResult trained =
      train({fmt::format("model.answer={}", GetParam()), "model.captions=true",
             "data.question.captions=" + (folder_ / "words.jsonl"), "answering.modality_dropout=0.6",
             "answering.consistency=0.1", "answering.reversal=0.1"});
  ASSERT_EQ(trained.status, 0) << trained.error;
  for (const char* key : {"accuracy", "image_only_accuracy", "caption_only_accuracy", "agreement"})
    EXPECT_GE(accuracy(key), 97) << key;
  const std::string kept = folder_ / "kept.jsonl";
  const Json whole =
      parse_json(run_program({"eval", folder_ / "run", "--per-sample", kept, "--json"}).out, "eval");
  const Json metrics =
      parse_json(run_program({"compare", kept, "--against", kept, "--json"}).out, "compare").at("metrics");
  for (const char* key : {"accuracy", "image_only_accuracy", "caption_only_accuracy", "agreement"}) {
    EXPECT_NEAR(metrics.at(key).at("first").as_double(), whole.at(key).as_double(), 1e-9) << key;
    EXPECT_EQ(metrics.at(key).at("count").as_int(), 36) << key;
  }
  const Json evaluation = parse_json(trained.out, "train").at("evaluation");
  const double sum = evaluation.at("modality_weight/image").as_double() +
                     evaluation.at("modality_weight/caption").as_double() +
                     evaluation.at("modality_weight/question").as_double();
  EXPECT_NEAR(sum, 1, 1e-5);
  const std::string run = folder_ / "run", question = "what colour is it?";
  EXPECT_THAT(run_program({"ask", run, "--image", folder_ / "43.png", question}).out, HasSubstr("green"));
  EXPECT_THAT(run_program({"ask", run, "--caption", "all of it is red", question}).out, HasSubstr("red"));
  const Json both = parse_json(run_program({"ask", run, "--image", folder_ / "43.png", "--caption",
                                            "all of it is green", question, "--json"})
                                   .out,
                               "ask");
  EXPECT_EQ(both.at("caption").as_string(), "all of it is green");
  EXPECT_THAT(both.at("questions").dump(), HasSubstr("green"));
  expect_failure(run_program({"ask", run, question}), 2, {"--image FILE or --caption TEXT"});
}

/// A step is launched a few times before it is recorded. What is left is the order of atomic sums.
TEST_P(AnswersRun, RecordedStepsLearnWhatLaunchedOnesDo) {
  if (parse_json(run_program({"doctor", "--json"}).out, "doctor").at("devices").as_array().size() < 2)
    GTEST_SKIP() << "needs a GPU";
  std::vector<std::vector<double>> losses;
  for (const char* recorded : {"true", "false"})
    for (const char* questions : {"1", "3"}) {
      const std::string name = fmt::format("run{}", losses.size());
      const ProgramResult trained = train(
          {fmt::format("model.answer={}", GetParam()), "device=cuda", "precision=fp32",
           "training.max_steps=24", "training.log_every=1", fmt::format("training.record_step={}", recorded),
           fmt::format("data.pairing.questions_per_image={}", questions)},
          name);
      ASSERT_EQ(trained.status, 0) << trained.error;
      losses.push_back(logged_losses(folder_ / name));
      ASSERT_EQ(losses.back().size(), 24u);
    }
  for (size_t i = 0; i < 2; ++i)
    for (size_t step = 0; step < 24; ++step)
      EXPECT_NEAR(losses[i][step], losses[i + 2][step], 1e-3 * losses[i + 2][step]) << i << " at " << step;
}

/// Two questions a picture, three rows a sample.
TEST_P(AnswersRun, SharesAPictureAmongItsQuestions) {
  const std::string answer = fmt::format("model.answer={}", GetParam());
  const ProgramResult trained =
      train({answer, "data.pairing.questions_per_image=3", "training.batch_size=8", "model.captions=true",
             "data.question.captions=" + (folder_ / "words.jsonl"), "answering.modality_dropout=0.2"});
  ASSERT_EQ(trained.status, 0) << trained.error;
  EXPECT_THAT(trained.error, HasSubstr("84 in 42 samples of up to 3, 66.7 % of the rows"));
  for (const char* key : {"accuracy", "image_only_accuracy", "caption_only_accuracy"})
    EXPECT_GE(accuracy(key), 97) << key;
  std::istringstream log(read_file(folder_ / "run/log.jsonl"));
  std::string line;
  std::getline(log, line);
  const Json first = parse_json(line, "log");
  EXPECT_NEAR(first.at("questions_per_second").as_double() / first.at("samples_per_second").as_double(), 2,
              1e-9);
}

/// Nothing depends on ranks, workers, micro-batches or an interruption.
TEST_P(AnswersRun, SharedPicturesKeepTheGuarantees) {
  const auto words = [&](const char* run, int64_t steps, const std::vector<std::string>& more) {
    std::vector<std::string> all = {"train", folder_ / "recipe.toml", "--out", folder_ / run, "--resume"};
    std::vector<std::string> settings = {"data.train.path=" + folder_.path(),
                                         fmt::format("model.answer={}", GetParam()),
                                         fmt::format("training.max_steps={}", steps),
                                         "data.pairing.questions_per_image=3",
                                         "training.batch_size=8",
                                         "training.log_every=1",
                                         "precision=fp64",
                                         "model.text.dropout=0.1",
                                         "model.vision.drop_path=0.1",
                                         "model.captions=true",
                                         "data.question.captions=" + (folder_ / "words.jsonl"),
                                         "answering.modality_dropout=0.5",
                                         "answering.consistency=0.3",
                                         "schedule.shape=constant",
                                         "evaluation.every=0"};
    settings.insert(settings.end(), more.begin(), more.end());
    for (const std::string& setting : settings) all.insert(all.end(), {"--set", setting});
    return all;
  };
  const auto run = [](const std::vector<std::string>& all) {
    const ProgramResult result = run_program(all);
    EXPECT_EQ(result.status, 0) << result.error;
  };
  run(words("whole", 14, {"data.loader.workers=0"}));
  run(words("parts", 7, {"data.loader.workers=2"}));  // five steps an epoch
  run(words("parts", 14, {"data.loader.workers=3"}));
  run(on_two_ranks(words("two", 14, {"training.micro_batch_size=3"})));
  const std::vector<double> whole = logged_losses(folder_ / "whole"), ranks = logged_losses(folder_ / "two");
  ASSERT_EQ(whole.size(), 14u);
  EXPECT_EQ(logged_losses(folder_ / "parts"), whole);
  ASSERT_EQ(ranks.size(), whole.size());
  for (size_t i = 0; i < whole.size(); ++i) EXPECT_NEAR(ranks[i], whole[i], 1e-9) << i;
  EXPECT_GT(std::abs(whole.front() - whole.back()), 1e-3);
}

TEST_P(AnswersRun, WhatASharedPictureWouldCostIsSaid) {
  const auto estimate = [&](const char* each, const char* batch) {
    const ProgramResult result =
        run_program({"train", folder_ / "recipe.toml", "--dry-run", "--json", "--set",
                     "data.train.path=" + folder_.path(), "--set", fmt::format("model.answer={}", GetParam()),
                     "--set", fmt::format("data.pairing.questions_per_image={}", each), "--set",
                     fmt::format("training.batch_size={}", batch), "--set", "training.epochs=2", "--set",
                     "training.max_steps=0"});
    EXPECT_EQ(result.status, 0) << result.error;
    return parse_json(result.out, "estimate");
  };
  const Json alone = estimate("1", "14"), shared = estimate("2", "7");
  EXPECT_EQ(alone.at("steps"), shared.at("steps"));
  EXPECT_LT(shared.at("step_flops").as_double(), 0.95 * alone.at("step_flops").as_double());
  EXPECT_GT(shared.at("step_flops").as_double(), 0.5 * alone.at("step_flops").as_double());
  EXPECT_LT(shared.at("activation_bytes").as_int(), alone.at("activation_bytes").as_int());
}

TEST_P(AnswersRun, GuessesWithoutSeeing) {
  ASSERT_EQ(train({fmt::format("model.answer={}", GetParam()), "model.fusion=question_only",
                   "training.max_steps=60"})
                .status,
            0);
  EXPECT_LE(accuracy(), 70);
}

TEST_P(AnswersRun, SaysWhatIsWrong) {
  expect_failure(train({"answering.consistency=1"}), 1, {"answering.consistency", "model.captions"});
  expect_failure(train({"model.captions=true"}), 1, {"qa.jsonl", "caption"});
  expect_failure(train({"data.pairing.questions_per_image=0"}), 1, {"data.pairing.questions_per_image"});
  std::filesystem::create_directory(folder_ / "blind");
  write_file_atomically(folder_ / "blind/qa.jsonl",
                        "{\"question\":\"why?\",\"answer\":\"so\",\"split\":\"train\"}\n");
  expect_failure(train({"data.train.path=" + (folder_ / "blind/qa.jsonl"), "model.fusion=question_only",
                        "data.pairing.questions_per_image=2"}),
                 1, {"qa.jsonl:1: no image", "data.pairing.questions_per_image"});
  ASSERT_EQ(train({"training.max_steps=1"}).status, 0);
  expect_failure(run_program({"ask", folder_ / "run", "what colour is it?"}), 2, {"--image"});
  expect_failure(run_program({"ask", folder_ / "run", "--caption", "green", "what colour is it?"}), 2,
                 {"this model reads no captions"});
  for (const char* question : {"", " \n"})
    expect_failure(run_program({"ask", folder_ / "run", "--image", folder_ / "43.png", "why?", question}), 2,
                   {"ask: a question without words"});
  std::string rambling = "what colour is it";
  for (int i = 0; i < 20; ++i) rambling += ", and what colour is it";
  const ProgramResult answered =
      run_program({"ask", folder_ / "run", "--image", folder_ / "43.png", "why?", rambling});
  EXPECT_EQ(answered.status, 0) << answered.error;
  EXPECT_THAT(answered.error, HasSubstr("question 2: its last "));
  EXPECT_THAT(answered.error, HasSubstr(" tokens are cut, the model takes 12"));
  EXPECT_THAT(answered.error, ::testing::Not(HasSubstr("question 1:")));
  expect_failure(run_program({"ask", folder_ / "run", "--image", folder_ / "no.png", "why?"}), 1, {"no.png"});
  expect_failure(run_program({"generate", folder_ / "run", "why?"}), 1, {"language", "fusion"});
  expect_failure(train({"model.early_layers=7"}), 1, {"model.early_layers"});
}

}  // namespace
}  // namespace fathom::train_answers_test
