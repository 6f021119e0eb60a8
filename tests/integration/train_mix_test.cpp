// Runs that learn from several data sets: resumed, on two ranks, counted before they begin, reported.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/file.h"
#include "cli_program.h"
#include "mixed_sets.h"
#include "training_run.h"

namespace fathom::train_mix_test {
namespace {

using namespace testing;
using ::testing::HasSubstr;

/// Ten steps of a recipe, two and a half epochs.
class Mix : public MixedSets {
 protected:
  std::vector<std::string> words(const std::string& run, const std::string& recipe,
                                 const std::vector<std::string>& settings = {}) const {
    write_file_atomically(*this / "recipe.toml", recipe);
    std::vector<std::string> all = {"train", *this / "recipe.toml", "--out", *this / run, "--resume"};
    for (const std::string& setting : settings) all.insert(all.end(), {"--set", setting});
    for (const char* setting : {"precision=fp64", "checkpoint.every=3", "schedule.shape=constant",
                                "schedule.warmup_steps=2", "evaluation.every=0"})
      all.insert(all.end(), {"--set", setting});
    return all;
  }
  void train(const std::vector<std::string>& words) const {
    const ProgramResult result = run_program(words);
    ASSERT_EQ(result.status, 0) << result.error;
  }
  void expect_the_guarantees(const std::string& recipe) const {
    train(words("whole", recipe, {"data.loader.workers=0"}));
    train(words("parts", recipe, {"data.loader.workers=2", "training.max_steps=6"}));
    train(words("parts", recipe, {"data.loader.workers=3"}));
    for (const char* file : {"/model.safetensors", "/optimizer.safetensors"})
      EXPECT_TRUE(read_file(newest_state(*this / "parts") + file) ==
                  read_file(newest_state(*this / "whole") + file))
          << file;
    const std::vector<double> whole = logged_losses(*this / "whole");
    ASSERT_EQ(whole.size(), 10u);
    EXPECT_EQ(logged_losses(*this / "parts"), whole);
    train(on_two_ranks(words("two", recipe, {"training.micro_batch_size=1"})));
    const std::vector<double> ranks = logged_losses(*this / "two");
    ASSERT_EQ(ranks.size(), 10u);
    for (size_t i = 0; i < 10; ++i) EXPECT_NEAR(ranks[i], whole[i], 1e-6) << i;
    EXPECT_GT(std::abs(whole.front() - whole.back()), 1e-6);
    train(words("less", recipe, {"data.mixing.epoch_samples=15"}));
    EXPECT_NE(logged_losses(*this / "less"), whole) << "the mixture decides what is learned";
  }
};

class MixRun : public ::testing::TestWithParam<MixedRecipe>, protected Mix {};
INSTANTIATE_TEST_SUITE_P(All, MixRun, ::testing::ValuesIn(mixed_recipes()),
                         [](const auto& info) { return info.param.name; });

TEST_P(MixRun, DependsOnNoRanksWorkersOrInterruption) {
  expect_the_guarantees(recipe(GetParam(), mix()));
}

class OneMixRun : public ::testing::Test, protected Mix {};

TEST_F(OneMixRun, OfTextsAndSentencesKeepsTheGuarantees) {
  std::string text;
  for (int i = 0; i < 60; ++i) text += fmt::format("{} and {} are {}. ", i, 7 * i, 8 * i);
  write_file_atomically(*this / "sums.txt", text);
  expect_the_guarantees(recipe(mixed_recipe("masked_token"), mix(texts("sums.txt"), rows("two"))));
  const ProgramResult measured = run_program({"eval", *this / "whole", "--json"});
  ASSERT_EQ(measured.status, 0) << measured.error;
  EXPECT_EQ(parse_json(measured.out, "eval").at("tokens").as_int(), 8) << "one token of each sentence";
}

TEST_F(OneMixRun, OfQuestionsThatSharePicturesKeepsTheGuarantees) {
  std::string shared;
  for (int i = 0; i < 16; ++i)
    shared += fmt::format(R"({{"image":"{}.png","question":"which {}?","answer":"yes","split":"train"}})"
                          "\n",
                          i / 2, i % 2);
  write_file_atomically(*this / "one/shared.jsonl", shared);
  expect_the_guarantees(recipe(mixed_recipe("answers"),
                               mix("data = {path = \"" + (*this / "one/shared.jsonl") + "\"}", rows("two")) +
                                   "[data.pairing]\nquestions_per_image = 2\n"));
}

TEST_F(OneMixRun, IsCountedBeforeItBegins) {
  std::vector<std::string> dry = words("dry", recipe(mixed_recipe("pictures"), mix()));
  dry.emplace_back("--dry-run");
  const ProgramResult shown = run_program(dry);
  ASSERT_EQ(shown.status, 0) << shown.error;
  EXPECT_THAT(shown.out, HasSubstr("mix                12 of 16 samples an epoch (75.0 %) from " +
                                   rows_file("one") + ", which has 8\n"));
  EXPECT_THAT(shown.out, HasSubstr("4 of 16 samples an epoch (25.0 %) from " + rows_file("two")));
  dry.emplace_back("--json");
  const ProgramResult as_json = run_program(dry);
  ASSERT_EQ(as_json.status, 0) << as_json.error;
  const Json mixed = parse_json(as_json.out, "train").at("mix");
  ASSERT_EQ(mixed.size(), 2u);
  const Json& heavy = mixed.as_array()[0];
  EXPECT_EQ(heavy.at("data").as_string(), rows_file("one"));
  EXPECT_EQ(heavy.at("weight").as_double(), 3);
  EXPECT_EQ(heavy.at("samples").as_int(), 8);
  EXPECT_EQ(heavy.at("epoch_samples").as_int(), 12);
  std::vector<std::string> alone =
      words("dry", recipe(mixed_recipe("pictures"), ""), {"data.train.path=" + rows_file("one")});
  alone.insert(alone.end(), {"--dry-run", "--json"});
  EXPECT_EQ(parse_json(run_program(alone).out, "train").find("mix"), nullptr);
}

TEST_F(OneMixRun, IsReportedAndGoesOnAsItBegan) {
  const std::string pictures = recipe(mixed_recipe("pictures"), mix());
  train(words("run", pictures));
  const ProgramResult report = run_program({"report", *this / "run"});
  ASSERT_EQ(report.status, 0) << report.error;
  const std::string page = read_file(*this / "run/report.html");
  for (const char* set : {"one", "two"}) EXPECT_THAT(page, HasSubstr(rows_file(set) + " (train), weight"));
  expect_failure(run_program(words("run", pictures, {"data.mixing.epoch_samples=12"})), 1,
                 {"data.mixing.epoch_samples: the run began with 16, got 12"});
}

}  // namespace
}  // namespace fathom::train_mix_test
