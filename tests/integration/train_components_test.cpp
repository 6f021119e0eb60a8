// Models with region scores, and pre-trained image encoders, from the recipe to the verbs that use them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/file.h"
#include "cli_program.h"
#include "training_run.h"

namespace fathom::train_components_test {
namespace {

TEST(RegionScores, OrderRankingsAnewInEvalAndSearch) {
  const TrainingWorld world;
  const std::string run = world / "run", data = world / "data";
  const ProgramResult trained = run_program(
      world.arguments(run, {"training.max_steps=40", "model.region=late", "evaluation.rerank=7"}));
  ASSERT_EQ(trained.status, 0) << trained.error;
  const Json anew = run_json({"eval", run}), global = run_json({"eval", run, "--rerank", "0"});
  EXPECT_EQ(anew.at("rerank").as_int(), 7) << "as in training";
  EXPECT_EQ(run_json({"eval", run, "--rerank", "3"}).at("rerank").as_int(), 3);
  EXPECT_EQ(global.find("rerank"), nullptr);
  for (const char* direction : {"t2i", "i2t"})
    EXPECT_EQ(anew.at("global").at(direction), global.at(direction)) << direction;
  EXPECT_NE(anew.at("t2i"), global.at("t2i"));
  const Json trained_figures = read_json_file(run + "/model/fathom.json").at("record").at("evaluation");
  EXPECT_EQ(trained_figures.at("t2i_r5").as_double(), anew.at("t2i").at("r5").as_double())
      << "training evaluates alike";

  const auto images = [&](const std::vector<std::string>& more) {
    std::vector<std::string> words = {"search", run, "--data", data, "a red circle and two blue squares",
                                      "--top",  "7"};
    words.insert(words.end(), more.begin(), more.end());
    std::vector<std::string> found;
    const Json answer = run_json(words);
    for (const Json& result : answer.at("queries").as_array().front().at("results").as_array())
      found.push_back(result.at("image").as_string());
    return found;
  };
  std::vector<std::string> plain = images({"--rerank", "0"}), ordered = images({});
  EXPECT_NE(plain, ordered);
  std::sort(plain.begin(), plain.end());
  std::sort(ordered.begin(), ordered.end());
  EXPECT_EQ(plain, ordered) << "the same seven";
  const Json captions = run_json({"search", run, "--data", data, "--image", ordered.front(), "--top", "3"});
  EXPECT_EQ(captions.at("queries").as_array().front().at("results").size(), 3u);
}

TEST(MaskedImages, LeaveAnImageEncoderAndGoOnExactly) {
  const TrainingWorld world;
  const std::string recipe = world / "masked.toml";
  write_file_atomically(recipe, R"(
task = "masked_image"
device = "cpu"
[masked_image]
mask_size = 16
[model]
image_size = 32
patch_size = 4
dim = 16
depths = [1, 1]
heads = [2, 2]
window = 4
[training]
batch_size = 8
log_every = 1
[checkpoint]
every = 1
[schedule]
shape = "constant"
warmup_steps = 2
)");
  const auto train = [&](const std::string& run, int64_t steps) {
    const ProgramResult result = run_program({"train", recipe, "--out", run, "--resume", "--set",
                                              "data.train.path=" + (world / "data"), "--set",
                                              "training.max_steps=" + std::to_string(steps)});
    EXPECT_EQ(result.status, 0) << result.error;
  };
  train(world / "whole", 30);
  train(world / "parts", 11);
  train(world / "parts", 30);
  for (const char* file : {"/model.safetensors", "/optimizer.safetensors"})
    EXPECT_TRUE(read_file(newest_state(world / "parts") + file) ==
                read_file(newest_state(world / "whole") + file))
        << file;
  const std::vector<Json> log = timeless_log(world / "whole");
  EXPECT_LT(log[28].at("loss").as_double(), 0.8 * log[0].at("loss").as_double());
  const Json record = read_json_file(world / "whole/model/fathom.json");
  EXPECT_EQ(record.at("kind").as_string(), "swin");
  EXPECT_GT(record.at("record").at("evaluation").at("masked_l1").as_double(), 0.0);
}

TEST(MaskedImages, RefuseMasksThatDoNotFit) {
  const TrainingWorld world;
  const std::string recipe = world / "masked.toml";
  write_file_atomically(
      recipe, "task = \"masked_image\"\n[model]\nimage_size = 32\n[masked_image]\nmask_size = 12\n");
  const ProgramResult result =
      run_program({"train", recipe, "--out", world / "run", "--set", "data.train.path=" + (world / "data"),
                   "--set", "training.max_steps=2"});
  EXPECT_EQ(result.status, 1);
  EXPECT_NE(result.error.find("masked_image.mask_size"), std::string::npos) << result.error;
}

/// Eight steps an epoch; orders are fixed from epoch 2 on.
TEST(HardNegatives, ChangeTheOrderOfLaterEpochs) {
  const TrainingWorld world;
  const auto losses = [&](const std::string& name, std::vector<std::string> settings) {
    settings.insert(settings.end(), {"training.max_steps=24", "training.log_every=1"});
    EXPECT_EQ(run_program(world.arguments(world / name, settings)).status, 0);
    return logged_losses(world / name);
  };
  const std::vector<double> plain = losses("plain", {}),
                            grouped = losses("grouped", {"contrastive.hard_negatives.refresh=3",
                                                         "contrastive.hard_negatives.group=4"});
  ASSERT_EQ(plain.size(), 24u);
  ASSERT_EQ(grouped.size(), 24u);
  for (size_t i = 0; i < 16; ++i) EXPECT_NEAR(plain[i], grouped[i], 1e-6) << i;
  EXPECT_GT(std::abs(plain[16] - grouped[16]), 1e-4);
}

}  // namespace
}  // namespace fathom::train_components_test
