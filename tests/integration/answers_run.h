// Pictures of one colour, questions about them, and a small model that answers.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "base/random.h"
#include "cli_program.h"
#include "data/image/encode.h"
#include "temporary_folder.h"

namespace fathom {

constexpr const char* kAnswersRecipe = R"(
task = "answers"
device = "cpu"
seed = 2
[data.image]
size = 16
[data.image.augment]
crop_scale_min = 1.0
[data.text]
max_tokens = 12
[tokenizer]
vocab_size = 300
[model]
adapter_dim = 16
early_layers = 1
late_layers = 1
memory_slots = 2
cross_heads = 2
cross_head_dim = 8
initial_gate = 1.0
[model.vision]
image_size = 16
patch_size = 4
dim = 16
depths = [1, 1]
heads = [2, 2]
window = 2
[model.text]
dim = 24
layers = 2
heads = 2
max_positions = 40
[training]
batch_size = 16
max_steps = 400
[optimizer]
learning_rate = 3e-3
[schedule]
warmup_steps = 10
)";

struct Colour {
  const char* name;
  std::array<int, 3> rgb;
};
constexpr std::array<Colour, 3> kColours = {
    {{"red", {200, 30, 30}}, {"green", {30, 190, 40}}, {"blue", {40, 40, 210}}}};

/// Pictures of one noisy colour each, and what it is: nothing in the question gives the answer away.
class AnswersRun : public ::testing::TestWithParam<const char*> {
 protected:
  AnswersRun() {
    std::string rows, captions;
    Random random(5);
    for (int i = 0; i < 60; ++i) {
      const Colour& colour = kColours[static_cast<size_t>(i) % 3];
      Image image{.height = 16, .width = 16, .pixels = {}};
      for (int j = 0; j < 256; ++j)
        for (const int value : colour.rgb)
          image.pixels.push_back(static_cast<uint8_t>(value + random.below(30)));
      write_file_atomically(folder_ / fmt::format("{}.png", i), encode_png(image));
      captions +=
          fmt::format("{{\"image\":\"{}.png\",\"captions\":[\"all of it is {}\"]}}\n", i, colour.name);
      const char* split = i < 42 ? "train" : "val";
      rows += fmt::format(
          R"({{"image":"{0}.png","question":"what colour is it?","answer":"{1}","split":"{2}","kind":"colour"}})"
          "\n"
          R"({{"image":"{0}.png","question":"is it blue?","answer":"{3}","split":"{2}","kind":"blue"}})"
          "\n",
          i, colour.name, split, colour.name == std::string("blue") ? "yes" : "no");
    }
    write_file_atomically(folder_ / "qa.jsonl", rows);
    write_file_atomically(folder_ / "words.jsonl", captions);
    write_file_atomically(folder_ / "recipe.toml", kAnswersRecipe);
  }
  ProgramResult train(const std::vector<std::string>& settings, const std::string& name = "run") const {
    std::vector<std::string> words = {"train",
                                      folder_ / "recipe.toml",
                                      "--out",
                                      folder_ / name,
                                      "--json",
                                      "--set",
                                      "data.train.path=" + folder_.path()};
    for (const std::string& setting : settings) words.insert(words.end(), {"--set", setting});
    return run_program(words);
  }
  double accuracy(const char* key = "accuracy") const {
    const ProgramResult result = run_program({"eval", folder_ / "run", "--json"});
    EXPECT_EQ(result.status, 0) << result.error;
    return parse_json(result.out, "eval").at(key).as_double();
  }

  TemporaryFolder folder_;
};

}  // namespace fathom
