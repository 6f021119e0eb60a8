// A language model trained and measured on several held-out texts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/file.h"
#include "cli_program.h"
#include "training_run.h"

namespace fathom::train_language_test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr const char* kLanguageRecipe = R"(
task = "language"
device = "cpu"
[tokenizer]
vocab_size = 280
[model]
dim = 16
layers = 1
heads = 2
max_positions = 16
[training]
batch_size = 4
max_steps = 6
)";

/// Two held-out texts of one name, in two folders.
class LanguageRun : public ::testing::Test {
 protected:
  LanguageRun() {
    std::string text;
    for (int i = 0; i < 80; ++i) text += "The fox has " + std::to_string(i * i) + " dogs.\n";
    for (const char* folder : {"en", "de"}) std::filesystem::create_directories(folder_ / folder);
    write_file_atomically(folder_ / "train.txt", text);
    write_file_atomically(folder_ / "en/val.txt", "The dog has 81 foxes.\n");
    write_file_atomically(folder_ / "de/val.txt", "Der Hund hat 81 Füchse, und sie haben ihn.\n");
    write_file_atomically(folder_ / "recipe.toml", kLanguageRecipe);
  }

  ProgramResult train(const std::vector<std::string>& settings = {}) const {
    std::vector<std::string> words = {"train", folder_ / "recipe.toml", "--out", run(), "--json"};
    const std::string files =
        "data.val_files=[\"" + (folder_ / "en/val.txt") + "\",\"" + (folder_ / "de/val.txt") + "\"]";
    for (const std::string& setting : {"data.train_files=[\"" + (folder_ / "train.txt") + "\"]", files})
      words.insert(words.end(), {"--set", setting});
    for (const std::string& setting : settings) words.insert(words.end(), {"--set", setting});
    return run_program(words);
  }
  std::string run() const { return folder_ / "run"; }

  TemporaryFolder folder_;
};

TEST_F(LanguageRun, MeasuresAllItsTextsInTrainingEvalAndReport) {
  const ProgramResult trained = train({"evaluation.metric=bits_per_byte/de/val.txt"});
  ASSERT_EQ(trained.status, 0) << trained.error;
  const Json summary = parse_json(trained.out, "train");
  const Json& figures = summary.at("evaluation");
  EXPECT_EQ(summary.at("best").at("metric").as_string(), "bits_per_byte/de/val.txt");
  EXPECT_NE(figures.at("bits_per_byte/en/val.txt"), figures.at("bits_per_byte/de/val.txt"));

  const ProgramResult as_json = run_program({"eval", run(), "--json"});
  ASSERT_EQ(as_json.status, 0) << as_json.error;
  const Json measured = parse_json(as_json.out, "eval");
  for (const char* name : {"en/val.txt", "de/val.txt"})
    EXPECT_NEAR(measured.at("files").at(name).at("bits_per_byte").as_double(),
                figures.at(std::string("bits_per_byte/") + name).as_double(), 1e-5);
  EXPECT_NEAR(measured.at("bits_per_byte").as_double(), figures.at("bits_per_byte").as_double(), 1e-5);
  EXPECT_EQ(measured.at("bytes").as_int(), 22 + 44);

  EXPECT_THAT(run_program({"eval", run()}).out,
              AllOf(HasSubstr("de/val.txt: bits per byte"), HasSubstr("en/val.txt: bits per byte"),
                    HasSubstr("together: bits per byte")));
  const Json one =
      parse_json(run_program({"eval", run(), "--data", folder_ / "en/val.txt", "--json"}).out, "eval");
  EXPECT_EQ(one.find("files"), nullptr);
  EXPECT_EQ(one.at("bits_per_byte"), measured.at("files").at("en/val.txt").at("bits_per_byte"));

  ASSERT_EQ(run_program({"report", run()}).status, 0);
  EXPECT_THAT(read_file(run() + "/report.html"),
              AllOf(HasSubstr("<td>en/val.txt</td>"), HasSubstr("together"), HasSubstr("/de/val.txt</dd>")));
}

TEST_F(LanguageRun, AMetricThatNoTextHasIsRefusedBeforeTraining) {
  expect_failure(train({"evaluation.metric=bits_per_byte/val"}), 1,
                 {"evaluation.metric: the evaluation has no \"bits_per_byte/val\"; it has bits_per_byte, "
                  "bits_per_byte/de/val.txt, bits_per_byte/en/val.txt, perplexity"});
  EXPECT_FALSE(std::filesystem::exists(run() + "/log.jsonl"));
}

TEST_F(LanguageRun, OneTextGivenTwiceIsNamed) {
  const std::string text = folder_ / "en/val.txt", same = folder_ / "de/../en/val.txt";
  expect_failure(train({"data.val_files=[\"" + text + "\",\"" + same + "\"]"}), 1,
                 {text + " and " + same + " are the same text"});
}

}  // namespace
}  // namespace fathom::train_language_test
