// A language model trained on texts and conversations, then taught other answers by adapters, kept merged and
// alone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/file.h"
#include "base/json.h"
#include "cli_program.h"
#include "temporary_folder.h"

namespace fathom::train_fine_tuning_test {
namespace {

using ::testing::HasSubstr;

constexpr const char* kBase = R"(
task = "language"
device = "cpu"
[tokenizer]
vocab_size = 280
[model]
dim = 32
layers = 2
heads = 2
max_positions = 48
[data.mixing]
unit = "batch"
[training]
batch_size = 8
max_steps = 150
[optimizer]
learning_rate = 0.01
)";
constexpr const char* kTuning = R"(
task = "language"
device = "cpu"
[model]
dim = 32
layers = 2
heads = 2
max_positions = 48
[lora]
rank = 4
alpha = 8
patterns = ["*"]
[optimizer]
learning_rate = 0.02
[training]
batch_size = 4
max_steps = 200
)";

class FineTuning : public ::testing::Test {
 protected:
  FineTuning() {
    std::string text, chats, others;
    for (int i = 0; i < 60; ++i) {
      text += "The fox has " + std::to_string(i * i) + " dogs.\n";
      const std::string prompt = R"({"prompt": "who is number )" + std::to_string(i) + R"(?", "response": ")";
      chats += prompt + "the fox\"}\n";
      others += prompt + "a dog\"}\n";
    }
    write_file_atomically(folder_ / "train.txt", text);
    write_file_atomically(folder_ / "chat.jsonl", chats);
    write_file_atomically(folder_ / "others.jsonl", others);
    write_file_atomically(folder_ / "base.toml", kBase);
    write_file_atomically(folder_ / "tuning.toml", kTuning);
  }
  ProgramResult train(const std::string& recipe, const std::string& out,
                      const std::vector<std::string>& settings) const {
    std::vector<std::string> words = {"train", folder_ / recipe, "--out", folder_ / out, "--json"};
    for (const std::string& setting : settings) words.insert(words.end(), {"--set", setting});
    return run_program(words);
  }
  /// Trains the base model; its answer is "a dog".
  ProgramResult train_base() const {
    return train("base.toml", "base",
                 {"data.mix=[{files=[\"" + (folder_ / "train.txt") + "\"], weight=1}, {chat_files=[\"" +
                  (folder_ / "others.jsonl") + "\"], weight=2}]"});
  }
  ProgramResult tune(const std::string& out, std::vector<std::string> settings = {}) const {
    const std::string chats = "=[\"" + (folder_ / "chat.jsonl") + "\"]";
    settings.push_back("init_from=" + (folder_ / "base/model"));
    settings.push_back("data.chat.train_files" + chats);
    settings.push_back("data.chat.val_files" + chats);
    return train("tuning.toml", out, settings);
  }
  std::string answer(const std::vector<std::string>& model) const {
    std::vector<std::string> words = {"generate"};
    words.insert(words.end(), model.begin(), model.end());
    for (const char* word : {"who is number 7?", "--chat", "--temperature", "0", "--json"})
      words.emplace_back(word);
    const ProgramResult result = run_program(words);
    EXPECT_EQ(result.status, 0) << result.error;
    return parse_json(result.out, "").at("text").as_string();
  }
  TemporaryFolder folder_;
};

TEST_F(FineTuning, AdaptersLearnAnswers) {
  const ProgramResult base = train_base();
  ASSERT_EQ(base.status, 0) << base.error;
  const ProgramResult merged = tune("merged");
  ASSERT_EQ(merged.status, 0) << merged.error;
  EXPECT_GT(parse_json(merged.out, "").at("evaluation").at("answer_accuracy").as_double(), 90);
  EXPECT_EQ(answer({folder_ / "merged"}), "the fox");
  EXPECT_THAT(read_file(folder_ / "merged/model/tokenizer_config.json"), HasSubstr("<|im_start|>"));

  const ProgramResult alone = tune("alone", {"lora.save=adapter"});
  ASSERT_EQ(alone.status, 0) << alone.error;
  EXPECT_FALSE(std::filesystem::exists(folder_ / "alone/model/model.safetensors"));
  EXPECT_EQ(answer({folder_ / "alone"}), "the fox");
  EXPECT_EQ(answer({folder_ / "base", "--adapter", folder_ / "alone"}), "the fox");
  EXPECT_EQ(answer({folder_ / "base", "--adapter", (folder_ / "alone") + ":0"}), "a dog");

  const ProgramResult refused = tune("refused", {"lora.patterns=[\"*.attention.qvk\"]"});
  EXPECT_EQ(refused.status, 1);
  EXPECT_THAT(refused.error, HasSubstr("lora.patterns: no linear layer fits"));
}

TEST_F(FineTuning, PartsOfAModelBeginAnother) {
  const ProgramResult base = train_base();
  ASSERT_EQ(base.status, 0) << base.error;
  const std::string files = "data.train_files=[\"" + (folder_ / "train.txt") + "\"]";
  write_file_atomically(folder_ / "parts.toml", std::string(kBase) + "[[init]]\nfrom = \"" +
                                                    (folder_ / "base/model") + "\"\ntake = \"blocks.*\"\n");
  const ProgramResult parts = train("parts.toml", "parts", {files});
  ASSERT_EQ(parts.status, 0) << parts.error;
  EXPECT_THAT(parts.error, HasSubstr("no rule gives it: embedding, norm.weight"));
  const Json record = read_json_file(folder_ / "parts/model/fathom.json");
  EXPECT_GT(record.at("record").at("init").at("loaded").size(), 5u);
  const ProgramResult empty = train("parts.toml", "empty", {files, "model.dim=48", "model.heads=3"});
  EXPECT_EQ(empty.status, 1);
  EXPECT_THAT(empty.error, HasSubstr("gives nothing"));
}

}  // namespace
}  // namespace fathom::train_fine_tuning_test
