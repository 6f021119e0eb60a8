// Every recipe that comes with the program is read, finds its data and names its model: a dry run of each,
// upon small stand-ins that lie where the recipes say.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <memory>

#include "base/config.h"
#include "base/file.h"
#include "base/json.h"
#include "cli_program.h"
#include "data/tokenizer/trainer.h"
#include "models/model_folder.h"
#include "nn/init.h"
#include "temporary_folder.h"
#include "train/recipe.h"
#include "wav_file.h"

namespace fathom::recipes_test {
namespace {

namespace fs = std::filesystem;

constexpr const char* kRecipes = FATHOM_RECIPES;

/// What the recipes' paths name, in a folder in which they are run.
class StandIns {
 public:
  StandIns() {
    for (const char* folder : {"data", "data/daquar", "data/easy-vqa", "data/fsdd", "data/text-lm",
                               "data/chat", "runs", "runs/demo", "runs/text-lm"})
      fs::create_directories(folder_ / folder);
    make_scenes();
    make_clips();
    make_texts();
    make_models();
  }
  const TemporaryFolder& folder() const { return folder_; }

 private:
  /// As many as the largest batch of pictures takes.
  void make_scenes() {
    const ProgramResult made = run_program(
        {"data", "make", "scenes", folder_ / "runs/scenes", "--train", "256", "--val", "16", "--sounds"});
    ASSERT_EQ(made.status, 0) << made.error;
    for (const char* same :
         {"data/scenes", "data/flickr8k", "data/tuxpaint-stamps", "runs/scenes-few", "runs/scenes-sound"})
      fs::create_directory_symlink(folder_ / "runs/scenes", folder_ / same);
    for (const char* asks : {"data/daquar", "data/easy-vqa"}) {
      fs::copy_file(folder_ / "runs/scenes/questions.jsonl", (folder_ / asks) + "/qa.jsonl");
      fs::create_directory_symlink(folder_ / "runs/scenes/images", (folder_ / asks) + "/images");
    }
  }
  void make_clips() {
    const std::string folder = folder_ / "data/fsdd";
    write_file_atomically(folder + "/clip.wav", wav_file(std::vector<int16_t>(800, 100), 8000));
    std::string rows;
    for (int i = 0; i < 80; ++i)
      rows += fmt::format("{{\"audio\":\"clip.wav\",\"label\":\"{}\",\"split\":\"{}\"}}\n", i % 4,
                          i < 72 ? "train" : "val");
    write_file_atomically(folder + "/clips.jsonl", rows);
    fs::create_directory_symlink(folder, folder_ / "data/esc10");
  }
  /// Texts of as many windows, and conversations of as many rows, as a batch takes.
  void make_texts() {
    for (const char* name : {"gutenberg-train", "us-speeches-train", "movie-reviews-train", "gutenberg-val",
                             "movie-reviews-val"}) {
      std::string text;
      for (int i = 0; i < 2500; ++i) text += fmt::format("The {} foxes saw {} dogs.\n", i % 97, i % 89);
      write_file_atomically(fmt::format("{}/{}.txt", folder_ / "data/text-lm", name), text);
    }
    std::string answer;
    for (int i = 0; i < 1200; ++i) answer += " dogs";
    for (const auto& [name, count] : {std::pair{"train", 20}, {"val", 2}}) {
      std::string rows;
      for (int i = 0; i < count; ++i)
        rows += fmt::format("{{\"prompt\":\"what did fox {} see?\",\"response\":\"{}\"}}\n", i, answer);
      write_file_atomically(fmt::format("{}/{}.jsonl", folder_ / "data/chat", name), rows);
    }
  }
  RecipeConfig read_recipe(const std::string& name, const std::vector<std::string>& settings) const {
    ConfigTree tree = read_toml_file(std::string(kRecipes) + "/" + name + ".toml");
    for (const std::string& setting : settings) apply_override(tree, setting);
    return resolve(read_config<RecipeConfig>(tree));
  }
  /// Models that others begin with; a dry run asks for the names of their weights alone.
  void make_models() {
    const std::string text = read_file(folder_ / "data/text-lm/gutenberg-val.txt");
    const std::vector<std::string_view> texts = {text};
    const Tokenizer tokenizer = train_tokenizer(
        texts,
        {.vocab_size = 300, .special_tokens = {"<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"}});
    DualTowerConfig towers = read_recipe("demo", {"data.train.path=" + (folder_ / "runs/scenes")}).dual_tower;
    towers.text.vocab_size = tokenizer.vocab_size();
    DualTower demo(towers);
    init_parameters(*demo, 1);
    save_model_folder(folder_ / "runs/demo/model", demo, {.tokenizer_json = tokenizer.to_json()});
    const std::string files = "[\"" + (folder_ / "data/text-lm/gutenberg-val.txt") + "\"]";
    LanguageModelConfig narrow =
        read_recipe("text-lm", {"data.train_files=" + files, "data.val_files=" + files, "model.dim=64",
                                "model.mlp_dim=64"})
            .language;
    narrow.vocab_size = tokenizer.vocab_size();
    LanguageModel language(narrow);
    init_parameters(*language, 1);
    save_model_folder(folder_ / "runs/text-lm/model", language, {.tokenizer_json = tokenizer.to_json()});
  }

  TemporaryFolder folder_;
};

std::vector<std::string> recipe_names() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(kRecipes))
    if (entry.path().extension() == ".toml") names.push_back(entry.path().stem().string());
  std::sort(names.begin(), names.end());
  return names;
}

class Recipes : public ::testing::TestWithParam<std::string> {
 protected:
  static void SetUpTestSuite() { stand_ins_ = std::make_unique<StandIns>(); }
  static void TearDownTestSuite() { stand_ins_.reset(); }

  static inline std::unique_ptr<StandIns> stand_ins_;
};

TEST_P(Recipes, DryRun) {
  const std::string recipe = std::string(kRecipes) + "/" + GetParam() + ".toml",
                    out = stand_ins_->folder() / "out";
  const ProgramResult result =
      run_program_under("cd " + stand_ins_->folder().path(),
                        {"train", recipe, "--dry-run", "--json", "--out", out, "--set", "device=cpu"});
  ASSERT_EQ(result.status, 0) << result.error;
  const Json estimate = parse_json(result.out, "standard output");
  for (const char* key : {"parameters", "steps", "step_flops", "state_bytes", "activation_bytes"})
    EXPECT_GT(estimate.at(key).as_double(), 0) << key;
  EXPECT_FALSE(fs::exists(out)) << "nothing was to be trained";
}

INSTANTIATE_TEST_SUITE_P(All, Recipes, ::testing::ValuesIn(recipe_names()), [](const auto& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

}  // namespace
}  // namespace fathom::recipes_test
