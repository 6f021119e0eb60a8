// A text encoder pre-trained on texts or captions alone, and what begins with it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <sstream>

#include "base/file.h"
#include "cli_program.h"
#include "data/tokenizer/tokenizer.h"
#include "training_run.h"

namespace fathom::train_masked_token_test {
namespace {

using ::testing::HasSubstr;

constexpr const char* kMaskedTokenRecipe = R"(
task = "masked_token"
device = "cpu"
seed = 3
[data.text]
max_tokens = 24
[tokenizer]
vocab_size = 320
[masked_token]
ratio = 0.3
[model]
dim = 32
layers = 2
heads = 2
max_positions = 24
attention = "bidirectional"
[training]
batch_size = 16
log_every = 1
[optimizer]
learning_rate = 5e-3
[schedule]
shape = "constant"
warmup_steps = 5
)";

/// Captions of scenes, the same as a text, and a recipe that masks them.
class MaskedTokenRun : public ::testing::Test {
 protected:
  MaskedTokenRun() {
    write_file_atomically(world_ / "masked.toml", kMaskedTokenRecipe);
    write_file_atomically(world_ / "train.txt", text_of("train"));
    write_file_atomically(world_ / "val.txt", text_of("val"));
  }
  /// The captions of a split, a line each.
  std::string text_of(const std::string& split) const {
    std::istringstream lines(read_file(world_ / "data/captions.jsonl"));
    std::string text;
    for (std::string line; std::getline(lines, line);) {
      const Json row = parse_json(line, "manifest");
      if (row.at("split").as_string() != split) continue;
      for (const Json& caption : row.at("captions").as_array()) text += caption.as_string() + "\n";
    }
    return text;
  }
  std::vector<std::string> words(const std::string& run, const std::vector<std::string>& settings) const {
    std::vector<std::string> words = {"train", world_ / "masked.toml", "--out", world_ / run, "--resume"};
    for (const std::string& setting : settings) words.insert(words.end(), {"--set", setting});
    return words;
  }
  std::vector<std::string> texts() const {
    return {"data.train_files=[\"" + (world_ / "train.txt") + "\"]",
            "data.val_files=[\"" + (world_ / "val.txt") + "\"]"};
  }
  void train(const std::string& run, std::vector<std::string> settings, int64_t steps) const {
    settings.push_back("training.max_steps=" + std::to_string(steps));
    const ProgramResult result = run_program(words(run, settings));
    ASSERT_EQ(result.status, 0) << result.error;
  }
  Json record_of(const std::string& run) const {
    return read_json_file(world_ / (run + "/model/fathom.json")).at("record");
  }

  TrainingWorld world_;
};

/// Nats a token of a text under the frequencies of its own tokens: the least that context-free guesses reach.
double unigram_nats(const Tokenizer& tokenizer, const std::string& text) {
  std::map<int32_t, double> counts;
  const std::vector<int32_t> tokens = tokenizer.encode(text);
  for (const int32_t token : tokens) ++counts[token];
  double nats = 0;
  for (const auto& [token, count] : counts)
    nats -= count * std::log(count / static_cast<double>(tokens.size()));
  return nats / static_cast<double>(tokens.size());
}

TEST_F(MaskedTokenRun, LearnsMoreThanFrequenciesAndResumes) {
  std::vector<std::string> settings = texts();
  settings.push_back("checkpoint.every=20");
  train("whole", settings, 400);
  train("parts", settings, 60);
  train("parts", settings, 400);
  EXPECT_EQ(read_file(newest_state(world_ / "parts") + "/model.safetensors"),
            read_file(newest_state(world_ / "whole") + "/model.safetensors"));

  const Tokenizer tokenizer = Tokenizer::from_file(world_ / "whole/model/tokenizer.json");
  EXPECT_TRUE(tokenizer.mask());
  const Json figures = record_of("whole").at("evaluation");
  EXPECT_LT(figures.at("masked_nats").as_double(),
            0.7 * unigram_nats(tokenizer, read_file(world_ / "val.txt")));
  EXPECT_GT(figures.at("masked_accuracy").as_double(), 40);

  const ProgramResult measured = run_program({"eval", world_ / "whole", "--json"});
  ASSERT_EQ(measured.status, 0) << measured.error;
  const Json again = parse_json(measured.out, "eval");
  EXPECT_EQ(again.at("task").as_string(), "masked_token");
  EXPECT_NEAR(again.at("masked_nats").as_double(), figures.at("masked_nats").as_double(), 1e-5);
  EXPECT_NEAR(again.at("masked_accuracy").as_double(), figures.at("masked_accuracy").as_double(), 1e-5);
  EXPECT_THAT(run_program({"eval", world_ / "whole"}).out, HasSubstr("hidden tokens: "));
  expect_failure(run_program({"eval", world_ / "whole", "--task", "language"}), 1, {"--task masked_token"});
  const ProgramResult report = run_program({"report", world_ / "whole"});
  ASSERT_EQ(report.status, 0) << report.error;
  EXPECT_THAT(read_file(world_ / "whole/report.html"), HasSubstr("nats a hidden token"));
}

TEST_F(MaskedTokenRun, LeavesWhatTextTowersAndLanguageModelsBeginWith) {
  train("masked", {"data.train.path=" + (world_ / "data")}, 12);
  const std::string model = world_ / "masked/model",
                    vocabulary = "tokenizer.path=" + model + "/tokenizer.json";
  EXPECT_GT(record_of("masked").at("evaluation").at("masked_nats").as_double(), 0);
  EXPECT_EQ(run_program({"eval", world_ / "masked"}).status, 0) << "sentences of a manifest";

  write_file_atomically(world_ / "towers.toml", read_file(world_ / "recipe.toml") + "\n[[init]]\nfrom = \"" +
                                                    model + "\"\nas = \"text.*\"\n");
  std::vector<std::string> towers =
      world_.arguments(world_ / "towers", {"training.max_steps=1", vocabulary, "model.text.dim=32"});
  towers[1] = world_ / "towers.toml";
  const ProgramResult aligned = run_program(towers);
  ASSERT_EQ(aligned.status, 0) << aligned.error;
  const Json init = record_of("towers").at("init");
  EXPECT_GT(init.at("loaded").size(), 10u);
  for (const Json& loaded : init.at("loaded").as_array())
    EXPECT_TRUE(loaded.at("parameter").as_string().starts_with("text.")) << loaded.dump();
  for (const Json& left : init.at("left").as_array())
    EXPECT_FALSE(left.at("name").as_string().starts_with("text.")) << left.dump();

  std::string decoding = kMaskedTokenRecipe;
  const std::string masks = "[masked_token]\nratio = 0.3\n";
  decoding.erase(decoding.find(masks), masks.size());
  write_file_atomically(world_ / "language.toml", decoding + "[[init]]\nfrom = \"" + model + "\"\n");
  std::vector<std::string> language =
      words("language", {"task=language", "model.attention=causal", "training.max_steps=1", vocabulary,
                         "data.train_files=[\"" + (world_ / "train.txt") + "\"]"});
  language[1] = world_ / "language.toml";
  const ProgramResult decoder = run_program(language);
  ASSERT_EQ(decoder.status, 0) << decoder.error;
  for (const Json& left : record_of("language").at("init").at("left").as_array())
    ADD_FAILURE() << left.dump();
}

/// Windows of texts, whose rows are full, and sentences, of which each micro-batch hides another number of
/// tokens.
TEST_F(MaskedTokenRun, TwoRanksEqualOneWithAccumulation) {
  for (const bool sentences : {false, true}) {
    SCOPED_TRACE(sentences ? "sentences" : "texts");
    std::vector<std::string> settings = texts();
    if (sentences) settings = {"data.train.path=" + (world_ / "data")};
    settings.insert(settings.end(), {"precision=fp64", "model.dropout=0.1", "evaluation.at_end=false"});
    const std::string one = sentences ? "one_of_sentences" : "one", two = "two_and_" + one;
    train(one, settings, 20);
    settings.insert(settings.end(), {"training.micro_batch_size=3", "training.max_steps=20"});
    const ProgramResult result = run_program(on_two_ranks(words(two, settings)));
    ASSERT_EQ(result.status, 0) << result.error;
    const std::vector<double> expected = logged_losses(world_ / one), got = logged_losses(world_ / two);
    ASSERT_EQ(expected.size(), 20u);
    ASSERT_EQ(got.size(), 20u);
    for (size_t i = 0; i < 20; ++i) EXPECT_NEAR(got[i], expected[i], 1e-7) << i;
    EXPECT_LT(expected.back(), expected.front() - 0.1);
  }
}

TEST_F(MaskedTokenRun, SaysWhatIsWrong) {
  const auto refuses = [&](std::vector<std::string> settings, const std::string& said) {
    settings.push_back("training.max_steps=1");
    expect_failure(run_program(words("bad", settings)), 1, {said});
  };
  const std::string file = texts().front();
  refuses({}, "data.train_files: not given (nor data.train.path, nor data.mix)");
  refuses({file, "data.train.path=" + (world_ / "data")}, "give one of them");
  refuses({file, "model.attention=causal"}, "take \"bidirectional\"");
  refuses({file, "masked_token.mask_share=0.95"}, "more than 1 together");
  refuses({file, "evaluation.metric=accuracy"}, "masked_accuracy");
  refuses({"data.train.path=" + (world_ / "data"), "data.text.max_tokens=25"}, "model.max_positions = 24");
}

TEST_F(MaskedTokenRun, ADryRunCountsIt) {
  std::vector<std::string> settings = texts();
  settings.push_back("training.max_steps=1");
  std::vector<std::string> dry = words("dry", settings);
  dry.insert(dry.end(), {"--dry-run", "--json"});
  const ProgramResult result = run_program(dry);
  ASSERT_EQ(result.status, 0) << result.error;
  EXPECT_GT(parse_json(result.out, "train").at("step_flops").as_double(), 0);
}

}  // namespace
}  // namespace fathom::train_masked_token_test
