// A classifier of sounds: trained, measured and reported by the program; what is wrong with clips or labels
// is said.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "base/file.h"
#include "base/random.h"
#include "cli_program.h"
#include "training_run.h"
#include "wav_file.h"

namespace fathom::train_classification_test {
namespace {

using ::testing::HasSubstr;

constexpr const char* kRecipe = R"(
task = "classification"
device = "cpu"
[data.audio]
max_seconds = 0.5
[model.audio]
bands = 16
dim = 16
layers = 1
heads = 2
max_frames = 50
[training]
batch_size = 8
max_steps = 60
[optimizer]
learning_rate = 1e-2
[schedule]
warmup_steps = 5
)";

/// Forty clips of two pitches at two rates, every fourth held out.
class ClassificationRun : public ::testing::Test {
 protected:
  ClassificationRun() {
    for (int i = 0; i < 40; ++i) {
      const bool high = i % 2 == 1;
      const uint32_t rate = i % 4 < 2 ? 8000 : 11025;
      std::vector<int16_t> samples(rate / 5 + static_cast<uint32_t>(40 * i));
      Random random({static_cast<uint64_t>(i)});
      const double hz = (high ? 1500 : 400) * random.uniform(0.9, 1.1);
      for (size_t n = 0; n < samples.size(); ++n)
        samples[n] = static_cast<int16_t>(8000 * std::sin(6.2832 * hz * static_cast<double>(n) / rate));
      write_file_atomically(folder_ / fmt::format("{}.wav", i), wav_file(samples, rate));
      rows_ += row(i, high ? "high" : "low", i % 4 == 3 || i % 8 == 4 ? "val" : "train");
    }
    write_file_atomically(folder_ / "clips.jsonl", rows_);
    write_file_atomically(folder_ / "recipe.toml", kRecipe);
  }
  static std::string row(int number, const std::string& label, const std::string& split) {
    return fmt::format("{{\"audio\":\"{}.wav\",\"label\":\"{}\",\"split\":\"{}\"}}\n", number, label, split);
  }
  ProgramResult train(const std::vector<std::string>& settings = {}) const {
    std::vector<std::string> words = {"train",
                                      folder_ / "recipe.toml",
                                      "--out",
                                      run(),
                                      "--json",
                                      "--set",
                                      "data.train.path=" + folder_.path()};
    for (const std::string& setting : settings) words.insert(words.end(), {"--set", setting});
    return run_program(words);
  }
  std::string run() const { return folder_ / "run"; }

  TemporaryFolder folder_;
  std::string rows_;
};

TEST_F(ClassificationRun, LearnsAndIsMeasuredAlikeByTrainingAndEval) {
  const ProgramResult trained = train();
  ASSERT_EQ(trained.status, 0) << trained.error;
  const Json figures = parse_json(trained.out, "train").at("evaluation");
  EXPECT_GE(figures.at("accuracy").as_double(), 95);
  const ProgramResult as_json = run_program({"eval", run(), "--json"});
  ASSERT_EQ(as_json.status, 0) << as_json.error;
  const Json measured = parse_json(as_json.out, "eval");
  EXPECT_EQ(measured.at("task").as_string(), "classification");
  EXPECT_EQ(measured.at("accuracy"), figures.at("accuracy"));
  EXPECT_EQ(measured.at("count").as_int(), 15);
  EXPECT_EQ(measured.at("classes").as_int(), 2);
  ASSERT_EQ(run_program({"report", run()}).status, 0);
  EXPECT_THAT(read_file(run() + "/report.html"), HasSubstr("audio encoder"));
  expect_failure(run_program({"eval", run(), "--task", "language"}), 1,
                 {"the task language needs a model of kind language, this one is classifier"});
}

TEST_F(ClassificationRun, SubBandsAndMixingAreSwitches) {
  const ProgramResult trained =
      train({"model.audio.front_end=sub_bands", "classification.mixup=0.2", "data.audio.augment.speed=0.05"});
  ASSERT_EQ(trained.status, 0) << trained.error;
  EXPECT_GE(parse_json(trained.out, "train").at("evaluation").at("accuracy").as_double(), 80);
}

TEST_F(ClassificationRun, LabelsThatAreMissingOrUnknownAreNamed) {
  write_file_atomically(folder_ / "clips.jsonl", rows_ + row(0, "middle", "val"));
  expect_failure(train(), 1, {"clips.jsonl:41: label \"middle\" is not among the 2 classes"});
  write_file_atomically(folder_ / "clips.jsonl", rows_ + row(0, "", "train"));
  expect_failure(train(), 1, {"clips.jsonl:41: classification needs a label in every row"});
  write_file_atomically(folder_ / "clips.jsonl", row(0, "low", "train") + row(0, "low", "val"));
  expect_failure(train(), 1,
                 {"clips.jsonl: rows with 1 different labels, classification needs at least two"});
}

TEST_F(ClassificationRun, ShapesThatDoNotFitAreRefused) {
  expect_failure(train({"data.audio.max_seconds=0.52"}), 1,
                 {"data.audio.max_seconds: 0.52 are 52 frames, more than model.audio.max_frames = 50"});
  expect_failure(train({"data.audio.bands=80"}), 1,
                 {"data.audio.bands: 80 differs from model.audio.bands = 16"});
  expect_failure(train({"model.audio.heads=3"}), 1,
                 {"model.audio", "dim = 16 cannot be divided among heads = 3"});
  expect_failure(train({"model.encoder=smell"}), 1,
                 {"model.encoder: expected one of \"audio\", \"image\", \"text\""});
}

TEST_F(ClassificationRun, BrokenClipsStopTrainingOrAreReplaced) {
  write_file_atomically(folder_ / "0.wav", read_file(folder_ / "0.wav").substr(0, 900));
  expect_failure(train(), 1, {"0.wav: the file is cut off: "});
  std::filesystem::remove_all(run());
  const ProgramResult trained = train({"data.loader.on_error=skip", "training.max_steps=12"});
  EXPECT_EQ(trained.status, 0) << trained.error;
}

}  // namespace
}  // namespace fathom::train_classification_test
