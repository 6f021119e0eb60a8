// Two data sets that every task can learn from, and the smallest recipes that mix them.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/file.h"
#include "data/image/encode.h"
#include "temporary_folder.h"
#include "wav_file.h"

namespace fathom::testing {

struct MixedRecipe {
  std::string name;
  std::string task;
  std::string model;  ///< its tables, and whatever else a recipe of the task needs
};

/// One of each task and encoder, all of them random in training where they can be.
inline std::vector<MixedRecipe> mixed_recipes() {
  const std::string vision =
      "image_size = 16\npatch_size = 4\ndim = 8\ndepths = [1, 1]\nheads = [1, 1]\nwindow = 2\n"
      "drop_path = 0.2\n";
  const std::string text = "dim = 8\nlayers = 2\nheads = 1\nmax_positions = 32\ndropout = 0.1\n";
  const std::string audio = "bands = 16\ndim = 8\nlayers = 1\nheads = 1\nmax_frames = 50\ndropout = 0.1\n";
  const std::string towers = "[model.vision]\n" + vision + "[model.text]\n" + text;
  return {{"contrastive", "contrastive", "[model]\nembed_dim = 8\n" + towers},
          {"answers", "answers", "[model]\nearly_layers = 1\n" + towers},
          {"generated", "answers", "[model]\nanswer = \"generated\"\nearly_layers = 1\n" + towers},
          {"pictures", "classification", "[model]\nencoder = \"image\"\n[model.vision]\n" + vision},
          {"sounds", "classification", "[model.audio]\n" + audio},
          {"texts", "classification", "[model]\nencoder = \"text\"\n[model.text]\n" + text},
          {"masked_image", "masked_image", "[model]\n" + vision + "[masked_image]\nmask_size = 8\n"},
          {"masked_audio", "masked_audio", "[model]\n" + audio + "[masked_audio]\nmask_frames = 10\n"},
          {"masked_token", "masked_token", "[model]\nattention = \"bidirectional\"\n" + text}};
}

/// That of a name. REQUIRES one.
inline MixedRecipe mixed_recipe(const std::string& name) {
  for (const MixedRecipe& recipe : mixed_recipes())
    if (recipe.name == name) return recipe;
  throw std::out_of_range(name);
}

/// What tells a sample of one data set from that of another.
struct SetTraits {
  int grey = 0;             ///< of the first picture
  size_t clip_samples = 0;  ///< at 8 kHz
  std::string caption = {};
  std::vector<std::string> labels = {}, answers = {};  ///< in turn
};

/// Data sets of eight rows, each with all that any task learns from: "one" of dark pictures, short sounds and
/// short captions, "two" of bright, long and long ones. Every byte of a text is a token or nearly so.
class MixedSets {
 public:
  MixedSets() {
    write("one", {40, 1600, "red", {"cat", "dog"}, {"yes", "no"}});
    write("two", {200, 3200, "one two three", {"dog", "owl"}, {"no", "red"}});
  }

  void write(const std::string& set, const SetTraits& traits) const {
    std::filesystem::create_directories(folder_ / set);
    std::string rows;
    for (size_t i = 0; i < 8; ++i) {
      write_file_atomically(folder_ / fmt::format("{}/{}.png", set, i),
                            picture(static_cast<uint8_t>(traits.grey + i)));
      write_file_atomically(folder_ / fmt::format("{}/{}.wav", set, i),
                            wav_file(std::vector<int16_t>(traits.clip_samples, 900), 8000));
      rows += fmt::format(
          R"({{"image":"{0}.png","audio":"{0}.wav","caption":"{1} {0}","question":"which is it?",)"
          R"("answer":"{2}","label":"{3}","split":"train"}})"
          "\n",
          i, traits.caption, traits.answers[i % 2], traits.labels[i % 2]);
    }
    write_file_atomically(rows_file(set), rows);
  }
  static std::string picture(uint8_t grey) {
    return encode_png({.height = 16, .width = 16, .pixels = std::vector<uint8_t>(768, grey)});
  }

  std::string operator/(const std::string& name) const { return folder_ / name; }
  std::string rows_file(const std::string& set) const { return folder_ / (set + "/rows.jsonl"); }
  /// What a table of `[[data.mix]]` has for a set.
  std::string rows(const std::string& set) const { return "data = {path = \"" + rows_file(set) + "\"}"; }
  std::string texts(const std::string& file) const { return "files = [\"" + (folder_ / file) + "\"]"; }
  /// Three parts of `heavy` and one of `light`.
  static std::string mix(const std::string& heavy, const std::string& light) {
    return "[[data.mix]]\nweight = 3\n" + heavy + "\n[[data.mix]]\nweight = 1\n" + light + "\n";
  }
  std::string mix() const { return mix(rows("one"), rows("two")); }

  /// Four steps of four samples an epoch.
  std::string recipe(const MixedRecipe& of, const std::string& mix, int64_t workers = 0) const {
    return fmt::format(
        "task = \"{}\"\nseed = 5\ndevice = \"cpu\"\n{}\n{}[data.val]\npath = \"{}\"\nsplit = \"train\"\n"
        "[data.mixing]\nepoch_samples = 16\n[data.audio]\nmax_seconds = 0.5\n[data.text]\nmax_tokens = 20\n"
        "[data.loader]\nworkers = {}\n[tokenizer]\nvocab_size = 259\n[training]\nmax_steps = 10\n"
        "batch_size = 4\nlog_every = 1\n",
        of.task, mix, of.model, rows_file("one"), workers);
  }

 private:
  TemporaryFolder folder_;
};

}  // namespace fathom::testing
