#include "training_run.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>

#include "base/file.h"
#include "cli_program.h"
#include "train/checkpoint.h"

namespace fathom {
namespace {

constexpr const char* kRecipe = R"(
task = "contrastive"
device = "cpu"
[data.text]
max_tokens = 24
mask_probability = 0.1
[data.pairing]
captions_per_image = 2
[data.image.augment]
crop_scale_min = 0.7
jitter = 0.5
brightness = 0.3
[tokenizer]
vocab_size = 320
[model]
embed_dim = 16
[model.vision]
image_size = 32
patch_size = 4
dim = 16
depths = [1, 1]
heads = [2, 2]
window = 4
drop_path = 0.2
dropout = 0.1
[model.text]
dim = 16
layers = 2
heads = 2
max_positions = 24
dropout = 0.1
[training]
batch_size = 8
max_steps = 400
log_every = 3
average_decay = 0.99
[checkpoint]
every = 4
keep = 2
model_every = 100
[evaluation]
every = 150
)";

}  // namespace

TrainingWorld::TrainingWorld() {
  const ProgramResult made =
      run_program({"data", "make", "scenes", folder_ / "data", "--train", "64", "--val", "16"});
  EXPECT_EQ(made.status, 0) << made.error;
  write_file_atomically(folder_ / "recipe.toml", kRecipe);
}

std::vector<std::string> TrainingWorld::arguments(const std::string& run,
                                                  const std::vector<std::string>& settings) const {
  std::vector<std::string> words = {
      "train", folder_ / "recipe.toml", "--out", run, "--set", "data.train.path=" + (folder_ / "data")};
  for (const std::string& setting : settings) words.insert(words.end(), {"--set", setting});
  return words;
}

std::vector<Json> timeless_log(const std::string& run) {
  std::istringstream text(read_file(run + "/log.jsonl"));
  std::vector<Json> lines;
  for (std::string line; std::getline(text, line);) {
    const Json whole = parse_json(line, "log");
    Json kept = Json::object();
    for (const char* key : {"step", "loss", "learning_rate", "gradient_norm", "loss_scale", "skipped_steps",
                            "saturated_casts", "evaluation"})
      if (const Json* value = whole.find(key)) kept[key] = *value;
    for (const auto& [key, value] : whole.as_object())
      if (key.find("density") == 0 || key.find("gate_") == 0) kept[key] = value;
    lines.push_back(kept);
  }
  return lines;
}

std::vector<double> logged_losses(const std::string& run) {
  std::vector<double> values;
  for (const Json& line : timeless_log(run))
    if (const Json* loss = line.find("loss")) values.push_back(loss->as_double());
  return values;
}

std::vector<std::string> on_two_ranks(std::vector<std::string> words) {
  words.insert(words.begin(), {"launch", "-n", "2", "--"});
  return words;
}

int64_t newest_step(const std::string& run) {
  const std::vector<int64_t> steps = checkpoint_steps(run + "/checkpoints");
  return steps.empty() ? -1 : steps.back();
}

std::string newest_state(const std::string& run) {
  const int64_t step = newest_step(run);
  return step < 0 ? "" : checkpoint_path(run + "/checkpoints", step);
}

std::vector<std::string> state_files() {
  return {"model.safetensors", "optimizer.safetensors", "average.safetensors"};
}

}  // namespace fathom
