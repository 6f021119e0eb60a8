// Three towers, from scenes with sounds to every verb that listens.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <numeric>
#include <sstream>

#include "base/file.h"
#include "cli_program.h"
#include "training_run.h"

namespace fathom::train_sound_test {
namespace {

using ::testing::HasSubstr;

/// Scenes of which some lack their picture, some their captions, some their sound.
class SoundWorld : public ::testing::Test {
 protected:
  SoundWorld() {
    const ProgramResult made =
        run_program({"data", "make", "scenes", data(), "--train", "64", "--val", "16", "--sounds"});
    EXPECT_EQ(made.status, 0) << made.error;
  }
  std::string data() const { return world_ / "sounds"; }
  /// A manifest beside the scenes' own, with what row i of each split lacks by i modulo 5.
  std::string with_gaps() const {
    std::istringstream lines(read_file(data() + "/captions.jsonl"));
    std::string rows;
    int64_t i = 0;
    for (std::string line; std::getline(lines, line); ++i) {
      Json row = parse_json(line, "manifest");
      const char* gap = i % 5 == 1 ? "image" : i % 5 == 2 ? "captions" : i % 5 == 3 ? "audio" : "";
      std::erase_if(row.as_object(), [&](const auto& member) { return member.first == gap; });
      rows += row.dump() + "\n";
    }
    write_file_atomically(data() + "/gaps.jsonl", rows);
    return data() + "/gaps.jsonl";
  }
  std::vector<std::string> arguments(const std::string& run, const std::vector<std::string>& more) const {
    std::vector<std::string> settings = {"data.train.path=" + data(),  "model.audio_tower=true",
                                         "model.audio.dim=16",         "model.audio.layers=1",
                                         "model.audio.heads=2",        "model.audio.bands=20",
                                         "model.audio.dropout=0.1",    "model.audio.max_frames=180",
                                         "data.audio.max_seconds=1.8", "data.audio.augment.gain_db=3"};
    settings.insert(settings.end(), more.begin(), more.end());
    return world_.arguments(run, settings);
  }
  void train(const std::string& run, const std::vector<std::string>& more) const {
    const ProgramResult result = run_program(arguments(run, more));
    ASSERT_EQ(result.status, 0) << result.error;
  }
  TrainingWorld world_;
};

TEST_F(SoundWorld, TwoRanksEqualOneWithGapsAndAccumulation) {
  const std::vector<std::string> settings = {"training.max_steps=20",
                                             "training.log_every=1",
                                             "precision=fp64",
                                             "training.micro_batch_size=1",
                                             "data.train.path=" + with_gaps(),
                                             "contrastive.consistency=0.5",
                                             "contrastive.reversal=0.5",
                                             "model.centred=true"};
  train(world_ / "one", settings);
  const ProgramResult result = run_program(on_two_ranks(arguments(world_ / "two", settings)));
  ASSERT_EQ(result.status, 0) << result.error;
  std::vector<std::string> whole = settings;
  whole[3] = "training.micro_batch_size=0";
  train(world_ / "whole", whole);
  const std::vector<double> one = logged_losses(world_ / "one");
  for (const char* other : {"two", "whole"}) {
    const std::vector<double> got = logged_losses(world_ / other);
    ASSERT_EQ(got.size(), one.size());
    ASSERT_EQ(one.size(), 20u);
    for (size_t i = 0; i < one.size(); ++i) EXPECT_NEAR(got[i], one[i], 1e-6) << other << " step " << i;
  }
  EXPECT_GT(std::abs(one.front() - one.back()), 1e-3);
}

TEST_F(SoundWorld, GoesOnExactly) {
  const std::vector<std::string> settings = {"training.max_steps=10", "checkpoint.keep=2",
                                             "data.train.path=" + with_gaps()};
  train(world_ / "whole", settings);
  std::filesystem::copy(world_ / "whole", world_ / "half", std::filesystem::copy_options::recursive);
  std::filesystem::remove_all(newest_state(world_ / "half"));  // as if the run had ended earlier
  ASSERT_FALSE(newest_state(world_ / "half").empty());
  ASSERT_LT(newest_step(world_ / "half"), 10);
  std::filesystem::remove_all(world_ / "half/model");
  std::vector<std::string> words = arguments(world_ / "half", settings);
  words.emplace_back("--resume");
  const ProgramResult result = run_program(words);
  ASSERT_EQ(result.status, 0) << result.error;
  ASSERT_EQ(newest_step(world_ / "half"), 10);
  for (const std::string& file : state_files())
    EXPECT_EQ(read_file(newest_state(world_ / "half") + "/" + file),
              read_file(newest_state(world_ / "whole") + "/" + file))
        << file;
  for (const char* tower : {"audio", "vision", "text"}) {
    const std::string file = std::string("/model/") + tower + "/model.safetensors";
    EXPECT_EQ(read_file((world_ / "half") + file), read_file((world_ / "whole") + file)) << tower;
  }
}

TEST_F(SoundWorld, EveryVerbListens) {
  const std::string run = world_ / "run";
  train(run, {"training.max_steps=30", "evaluation.metric=a2i_r10"});
  const Json measured = run_json({"eval", run});
  EXPECT_EQ(measured.at("sounds").as_int(), 16);
  const Json trained = read_json_file(run + "/model/fathom.json").at("record").at("evaluation");
  for (const std::string direction : {"t2i", "i2t", "a2i", "i2a", "a2t", "t2a"})
    EXPECT_EQ(measured.at(direction).at("r5").as_double(), trained.at(direction + "_r5").as_double())
        << direction;

  const std::string out = world_ / "all.safetensors";
  const Json embedded = run_json({"embed", run, "--data", data(), "--out", out});
  EXPECT_EQ(embedded.at("audio").dump(), "[16,16]");

  const std::string clip = data() + "/sounds/val-000003.wav";
  const auto results = [&](const std::vector<std::string>& more) {
    std::vector<std::string> words = {"search", run, "--data", data(), "--split", "val"};
    words.insert(words.end(), more.begin(), more.end());
    return run_json(words).at("queries").as_array().front().at("results");
  };
  const Json pictures = results({"--audio", clip, "--top", "3"});
  ASSERT_EQ(pictures.size(), 3u);
  EXPECT_THAT(pictures.as_array().front().at("image").as_string(), HasSubstr(".png"));
  EXPECT_EQ(results({"--audio", clip, "--top", "3", "--embeddings", out}), pictures);
  const Json itself = results({"--audio", clip, "--find", "audio", "--top", "1"}).as_array().front();
  EXPECT_THAT(itself.at("audio").as_string(), HasSubstr("sounds/val-000003.wav"));
  EXPECT_NEAR(itself.at("score").as_double(), 1, 1e-4);
  EXPECT_EQ(results({"--audio", clip, "--find", "text"}).as_array().front().at("captions").size(), 1u);
  EXPECT_EQ(results({"a red circle", "--find", "audio", "--top", "4"}).size(), 4u);

  const Json report = run_json({"report", run, "--queries", "2"});
  const std::string page = read_file(report.at("html").as_string());
  EXPECT_THAT(page, HasSubstr("Sounds that find pictures"));
  EXPECT_THAT(page, HasSubstr("class=\"spectrogram\""));
  EXPECT_THAT(page, HasSubstr("audio → text"));
}

TEST_F(SoundWorld, MaskedAudioLeavesAnEncoderThatTheThirdTowerBeginsWith) {
  const std::string recipe = world_ / "masked.toml", towers = world_ / "towers.toml";
  write_file_atomically(recipe, R"(
task = "masked_audio"
device = "cpu"
[data.audio]
max_seconds = 1.8
[masked_audio]
mask_frames = 10
[model]
bands = 20
dim = 16
layers = 1
heads = 2
max_frames = 180
[training]
batch_size = 8
log_every = 1
[checkpoint]
every = 1
[schedule]
shape = "constant"
warmup_steps = 2
)");
  const auto masked = [&](const std::string& run, int64_t steps) {
    const ProgramResult result =
        run_program({"train", recipe, "--out", run, "--resume", "--set", "data.train.path=" + data(), "--set",
                     "training.max_steps=" + std::to_string(steps)});
    EXPECT_EQ(result.status, 0) << result.error;
  };
  masked(world_ / "masked", 24);
  masked(world_ / "parts", 7);
  masked(world_ / "parts", 24);
  EXPECT_EQ(read_file(newest_state(world_ / "parts") + "/model.safetensors"),
            read_file(newest_state(world_ / "masked") + "/model.safetensors"));
  const std::vector<Json> log = timeless_log(world_ / "masked");
  EXPECT_LT(log[22].at("loss").as_double(), 0.9 * log[0].at("loss").as_double());
  const Json record = read_json_file(world_ / "masked/model/fathom.json");
  EXPECT_EQ(record.at("kind").as_string(), "audio");
  EXPECT_GT(record.at("record").at("evaluation").at("masked_l1").as_double(), 0);

  write_file_atomically(towers, read_file(world_ / "recipe.toml") + "\n[[init]]\nfrom = \"" +
                                    (world_ / "masked/model") + "\"\nas = \"audio.*\"\n");
  std::vector<std::string> words =
      arguments(world_ / "run", {"training.max_steps=2", "model.audio.dropout=0"});
  words[1] = towers;
  const ProgramResult result = run_program(words);
  ASSERT_EQ(result.status, 0) << result.error;
  const Json init = read_json_file(world_ / "run/model/fathom.json").at("record").at("init");
  EXPECT_GT(init.at("loaded").size(), 5u);
  for (const Json& loaded : init.at("loaded").as_array())
    EXPECT_TRUE(loaded.at("parameter").as_string().starts_with("audio.")) << loaded.dump();
  for (const Json& left : init.at("left").as_array())
    EXPECT_FALSE(left.at("name").as_string().starts_with("audio.")) << left.dump();
}

TEST_F(SoundWorld, AThirdTowerLearnsOnTwoThatStay) {
  const std::string two = world_ / "two", three = world_ / "three", towers = world_ / "towers.toml";
  std::vector<std::string> settings = {"training.max_steps=100", "training.log_every=1",
                                       "training.average_decay=0", "optimizer.learning_rate=5e-3",
                                       "data.train.path=" + data()};
  const ProgramResult first = run_program(world_.arguments(two, settings));
  ASSERT_EQ(first.status, 0) << first.error;
  write_file_atomically(towers,
                        read_file(world_ / "recipe.toml") + "\n[[init]]\nfrom = \"" + two + "/model\"\n");
  settings.push_back("tokenizer.path=" + two + "/model/tokenizer.json");
  settings.emplace_back("contrastive.pairs.image_text=0");
  settings.emplace_back(
      R"(optimizer.freeze=["vision.*", "text.*", "image_projection.*", "text_projection.*"])");
  std::vector<std::string> words = arguments(three, settings);
  words[1] = towers;
  const ProgramResult second = run_program(words);
  ASSERT_EQ(second.status, 0) << second.error;
  EXPECT_THAT(second.error, HasSubstr("no rule gives it: audio."));

  const std::vector<double> losses = logged_losses(three);
  ASSERT_EQ(losses.size(), 100u);
  EXPECT_LT(std::accumulate(losses.end() - 20, losses.end(), 0.0),
            std::accumulate(losses.begin(), losses.begin() + 20, 0.0));
  const Json before = run_json({"eval", two}), after = run_json({"eval", three});
  EXPECT_EQ(after.at("sounds").as_int(), 16);
  for (const char* direction : {"t2i", "i2t"})
    EXPECT_EQ(after.at(direction).dump(), before.at(direction).dump()) << direction;
  for (const char* tower : {"vision", "text"}) {
    const std::string file = std::string("/model/") + tower + "/model.safetensors";
    EXPECT_EQ(read_file(three + file), read_file(two + file)) << tower;
  }
}

TEST_F(SoundWorld, SaysWhatIsWrong) {
  const auto reason = [&](const std::vector<std::string>& more) {
    std::filesystem::remove_all(world_ / "bad");
    const ProgramResult result = run_program(arguments(world_ / "bad", more));
    EXPECT_EQ(result.status, 1);
    return result.error;
  };
  EXPECT_THAT(reason({"data.train.path=" + (world_ / "data")}),
              HasSubstr("model.audio_tower, but no row has audio"));
  EXPECT_THAT(reason({"data.audio.max_seconds=2"}), HasSubstr("more than model.audio.max_frames = 180"));
  EXPECT_THAT(reason({"contrastive.pairs.image_text=0", "contrastive.pairs.image_sound=0",
                      "contrastive.pairs.text_sound=0"}),
              HasSubstr("weight 0"));
  EXPECT_THAT(reason({"data.train.path=" + with_gaps(), "contrastive.hard_negatives.refresh=2"}),
              HasSubstr("contrastive.hard_negatives needs captions in every row"));
  write_file_atomically(data() + "/sounds/train-000007.wav", "");
  EXPECT_THAT(reason({"training.max_steps=8"}), HasSubstr("train-000007.wav"));
  std::filesystem::remove(data() + "/sounds/train-000007.wav");
  EXPECT_THAT(reason({}), HasSubstr("captions.jsonl:8"));
}

}  // namespace
}  // namespace fathom::train_sound_test
