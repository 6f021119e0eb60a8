// Runs whose layers choose their tokens: held at a density, resumed, on two ranks, from a dense model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <optional>

#include "base/file.h"
#include "cli_program.h"
#include "training_run.h"

namespace fathom::train_gates_test {
namespace {

constexpr const char* kRecipe = R"(
task = "language"
device = "cpu"
[tokenizer]
vocab_size = 280
[model]
dim = 32
layers = 3
heads = 2
max_positions = 32
[model.gate]
kind = "causal"
density = 0.5
[gating]
dense_warmup = 10
[training]
batch_size = 4
max_steps = 30
log_every = 1
[optimizer]
learning_rate = 5e-3
[schedule]
shape = "constant"
warmup_steps = 4
)";

class GatedRun : public ::testing::Test {
 protected:
  GatedRun() {
    std::string text;
    for (int i = 0; i < 400; ++i)
      text += "Item " + std::to_string(i % 37) + " costs " + std::to_string(i * i % 91) + " coins.\n";
    write_file_atomically(folder_ / "train.txt", text);
    write_file_atomically(folder_ / "val.txt", "Item 81 costs 12 coins.\nItem 3 costs 9 coins.\n");
    write_file_atomically(folder_ / "recipe.toml", kRecipe);
  }

  ProgramResult try_train(const std::string& run, const std::vector<std::string>& settings,
                          bool resume = false) const {
    std::vector<std::string> words = {"train", folder_ / "recipe.toml", "--out", folder_ / run};
    for (const std::string& setting : {"data.train_files=[\"" + (folder_ / "train.txt") + "\"]",
                                       "data.val_files=[\"" + (folder_ / "val.txt") + "\"]"})
      words.insert(words.end(), {"--set", setting});
    for (const std::string& setting : settings) words.insert(words.end(), {"--set", setting});
    if (resume) words.emplace_back("--resume");
    return run_program(words);
  }
  void train(const std::string& run, const std::vector<std::string>& settings, bool resume = false) const {
    const ProgramResult result = try_train(run, settings, resume);
    ASSERT_EQ(result.status, 0) << result.error;
  }
  std::vector<double> figures(const std::string& run, const std::string& name) const {
    std::vector<double> values;
    for (const Json& line : timeless_log(folder_ / run))
      if (const Json* value = line.find(name)) values.push_back(value->as_double());
    return values;
  }

  TemporaryFolder folder_;
};

double mean_of_last(const std::vector<double>& values, size_t count) {
  double sum = 0;
  for (size_t i = values.size() - count; i < values.size(); ++i) sum += values[i];
  return sum / static_cast<double>(count);
}

TEST_F(GatedRun, HoldsTheDensityAndEveryLayerKeepsSome) {
  for (const char* density : {"0.5", "0.3"}) {
    const std::string run = std::string("run") + density;
    train(run, {std::string("model.gate.density=") + density, "training.max_steps=260"});
    const std::vector<double> densities = figures(run, "density");
    ASSERT_EQ(densities.size(), 260u);
    for (size_t step = 0; step < 10; ++step) EXPECT_EQ(densities[step], 1.0);
    EXPECT_NEAR(mean_of_last(densities, 60), std::stod(density), 0.06);
    double sum = 0;
    for (const char* layer : {"density/0", "density/1", "density/2"})
      sum += mean_of_last(figures(run, layer), 60);
    EXPECT_NEAR(sum / 3, mean_of_last(densities, 60), 1e-6);
    EXPECT_GT(mean_of_last(figures(run, "gate_entropy/1"), 60), 0);
  }
}

TEST_F(GatedRun, LayersMayHaveDensitiesOfTheirOwn) {
  train("run", {"model.gate.layer_density=[0.8,0.4,0.4]", "training.max_steps=400"});
  // Around its target a density sways for a hundred steps and more.
  EXPECT_NEAR(mean_of_last(figures("run", "density/0"), 300), 0.8, 0.08);
  EXPECT_NEAR(mean_of_last(figures("run", "density/1"), 300), 0.4, 0.08);
}

/// As Mixture-of-Depths routes every other layer: only the gated one has figures, and counts.
TEST_F(GatedRun, ALayerOfDensityOneIsDense) {
  train("run", {"model.gate.layer_density=[1,0.3,1]", "training.max_steps=400", "evaluation.every=100"});
  EXPECT_NEAR(mean_of_last(figures("run", "density/1"), 60), 0.3, 0.1);
  EXPECT_THAT(figures("run", "density"),
              ::testing::Pointwise(::testing::DoubleNear(1e-6), figures("run", "density/1")));
  EXPECT_TRUE(figures("run", "density/0").empty());
  EXPECT_TRUE(figures("run", "density/2").empty());
  EXPECT_EQ(run_program({"eval", folder_ / "run"}).status, 0);
}

TEST_F(GatedRun, GoesOnBitForBit) {
  const std::vector<std::string> settings = {"model.dropout=0.1",
                                             "model.drop_path=0.1",
                                             "training.checkpoint_blocks=true",
                                             "training.micro_batch_size=2",
                                             "gating.explore=0.3",
                                             "checkpoint.every=1",
                                             "checkpoint.keep=0"};
  const auto until = [&](int64_t step) {
    std::vector<std::string> all = settings;
    all.push_back("training.max_steps=" + std::to_string(step));
    return all;
  };
  train("whole", until(30));
  for (const int64_t step : {4, 13, 22, 30}) train("run", until(step), /*resume=*/true);
  for (const char* file : {"/model.safetensors", "/optimizer.safetensors", "/gates.safetensors"})
    EXPECT_TRUE(read_file(newest_state(folder_ / "run") + file) ==
                read_file(newest_state(folder_ / "whole") + file))
        << file;
  EXPECT_EQ(figures("run", "gate_multiplier"), figures("whole", "gate_multiplier"));
}

/// How settled the gates are is measured against the evaluation before, be it that of an earlier process.
TEST_F(GatedRun, AgreementGoesOnToo) {
  const auto agreement = [&](const std::string& run) {
    std::vector<std::optional<double>> found;
    for (const Json& line : timeless_log(folder_ / run))
      if (const Json* figures = line.find("evaluation")) {
        const Json* share = figures->find("gate_agreement");
        found.push_back(share ? std::make_optional(share->as_double()) : std::nullopt);
      }
    return found;
  };
  const auto until = [](int64_t step) {
    return std::vector<std::string>{"evaluation.every=15", "gating.dense_warmup=5",
                                    "training.max_steps=" + std::to_string(step)};
  };
  train("whole", until(45));
  train("parts", until(15));
  train("parts", until(45), /*resume=*/true);
  ASSERT_EQ(agreement("whole").size(), 3u);
  EXPECT_FALSE(agreement("whole")[0]);
  EXPECT_TRUE(agreement("whole")[1]);
  EXPECT_EQ(agreement("parts"), agreement("whole"));
}

TEST_F(GatedRun, EachSwitchChangesTheResult) {
  const std::string steps = "training.max_steps=60";
  train("plain", {steps});
  const auto loss = [&](const std::string& run) { return figures(run, "loss").back(); };
  for (const char* setting :
       {"gating.explore=0", "gating.dense_warmup=5", "gating.rate=0.5", "gating.damping=5",
        "model.gate.part=mlp", "model.gate.part=attention", "model.gate.inner=4", "model.gate.kind=top_k",
        "model.gate.kind=random", "model.gate.kind=alternate", "model.gate.kind=none"}) {
    const std::string run = std::string("run-") + setting;
    train(run, {steps, setting});
    EXPECT_NE(loss(run), loss("plain")) << setting;
  }
}

TEST_F(GatedRun, ADenseModelIsGivenGates) {
  train("dense", {"model.gate.kind=none", "training.max_steps=100"});
  train("gated", {"init_from=" + (folder_ / "dense/model"), "gating.dense_warmup=1", "training.max_steps=2",
                  "model.gate.density=0.99"});
  const std::vector<double> losses = figures("dense", "loss");
  EXPECT_LT(figures("gated", "loss").front(), losses.front() - 1);
  EXPECT_NEAR(figures("gated", "loss").front(), mean_of_last(losses, 10), 0.3);
}

TEST_F(GatedRun, NewGatesLearnBesideLowRankAdapters) {
  train("dense", {"model.gate.kind=none", "training.max_steps=60"});
  const std::vector<std::string> settings = {"init_from=" + (folder_ / "dense/model"), "lora.rank=2",
                                             "gating.dense_warmup=2", "training.max_steps=150"};
  train("gated", settings);
  EXPECT_LT(mean_of_last(figures("gated", "density"), 20), 0.8);
  std::vector<std::string> adapter = settings;
  adapter.emplace_back("lora.save=adapter");
  expect_failure(try_train("adapter", adapter), 1, {"gives the model gates", "merged"});
  const ProgramResult back = try_train(
      "back", {"init_from=" + (folder_ / "gated/model"), "model.gate.kind=none", "training.max_steps=1"});
  EXPECT_EQ(back.status, 0) << back.error;
  EXPECT_THAT(back.error, ::testing::HasSubstr("have no place in this model"));
}

TEST_F(GatedRun, ALayerThatSkipsEverythingMayBeComputedAgain) {
  train("run", {"model.gate.kind=alternate", "training.checkpoint_blocks=true",
                "optimizer.freeze=[\"embedding\"]", "training.max_steps=20", "gating.dense_warmup=0"});
  EXPECT_EQ(figures("run", "density/0").back(), 0);
  EXPECT_EQ(figures("run", "density/1").back(), 1);
}

/// What is evaluated is what is saved, also of a run that ends before its gates have begun to choose.
TEST_F(GatedRun, IsEvaluatedAsItIsSaved) {
  train("run", {"training.max_steps=12", "gating.dense_warmup=12", "evaluation.every=6"});
  const Json last = timeless_log(folder_ / "run").back();
  const ProgramResult measured = run_program({"eval", folder_ / "run", "--json"});
  ASSERT_EQ(measured.status, 0) << measured.error;
  EXPECT_NEAR(parse_json(measured.out, "eval").at("bits_per_byte").as_double(),
              last.at("evaluation").at("bits_per_byte").as_double(), 1e-5);
}

TEST_F(GatedRun, IsMeasuredShownAndRunDenseOnRequest) {
  train("run", {"training.max_steps=60", "evaluation.every=20"});
  const std::string run = folder_ / "run";
  const auto measured = [&](const std::vector<std::string>& more) {
    std::vector<std::string> words = {"eval", run, "--json"};
    words.insert(words.end(), more.begin(), more.end());
    const ProgramResult result = run_program(words);
    EXPECT_EQ(result.status, 0) << result.error;
    if (!more.empty()) {
      EXPECT_THAT(result.error, ::testing::HasSubstr("trained to skip tokens"));
    }
    return parse_json(result.out, "eval");
  };
  const Json gated = measured({}), dense = measured({"--dense"});
  EXPECT_LT(gated.at("density").as_double(), 0.9);
  EXPECT_EQ(dense.find("density"), nullptr);
  EXPECT_NE(gated.at("bits_per_byte"), dense.at("bits_per_byte"));
  std::vector<double> agreement;
  for (const Json& line : timeless_log(run))
    if (const Json* figures = line.find("evaluation"))
      if (const Json* share = figures->find("gate_agreement")) agreement.push_back(share->as_double());
  ASSERT_EQ(agreement.size(), 2u);  // of three evaluations
  EXPECT_EQ(run_program({"generate", run, "Item 3", "--max-tokens", "12"}).status, 0);
  ASSERT_EQ(run_program({"report", run}).status, 0);
  EXPECT_THAT(read_file(run + "/report.html"),
              ::testing::AllOf(::testing::HasSubstr("What each layer computes"),
                               ::testing::HasSubstr("layer 2"), ::testing::HasSubstr("of 3 layers")));
}

TEST(BenchSparse, SkipsWhatIsNotComputed) {
  const ProgramResult result = run_program({"bench",
                                            "sparse",
                                            "--device",
                                            "cpu",
                                            "--layers",
                                            "2",
                                            "--dim",
                                            "64",
                                            "--heads",
                                            "2",
                                            "--mlp-dim",
                                            "160",
                                            "--vocabulary",
                                            "50",
                                            "--prefill-batch",
                                            "2",
                                            "--prefill-tokens",
                                            "64",
                                            "--training-tokens",
                                            "64",
                                            "--decode-batch",
                                            "1",
                                            "3",
                                            "--decode-context",
                                            "16",
                                            "48",
                                            "--decode-tokens",
                                            "4",
                                            "--rounds",
                                            "1",
                                            "--density",
                                            "0.25",
                                            "--json"});
  ASSERT_EQ(result.status, 0) << result.error;
  const Json report = parse_json(result.out, "bench");
  EXPECT_NEAR(report.at("activated_share").as_double(), 0.25, 1e-9);
  // Attention's products shrink with the square; the head is never gated.
  EXPECT_LT(report.at("executed_flop_share").as_double(), 0.32);
  EXPECT_GT(report.at("executed_flop_share").as_double(), 0.15);
  for (const char* key : {"inference_speedup", "training_speedup"}) EXPECT_GT(report.at(key).as_double(), 0);
  const auto& decode = report.at("decode").as_array();
  ASSERT_EQ(decode.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(decode[i].at("batch").as_int(), i % 2 == 0 ? 1 : 3);
    EXPECT_EQ(decode[i].at("context").as_int(), i < 2 ? 16 : 48);
    const double limit = decode[i].at("dense_bytes").as_double() / decode[i].at("gated_bytes").as_double();
    EXPECT_DOUBLE_EQ(decode[i].at("limit").as_double(), limit);
    EXPECT_GT(limit, 1);
  }
  // One block of two, which holds a quarter of 16 keys; the head has 50 rows.
  constexpr double kBlock = 4 * 64 * 64 + 3 * 64 * 160 + 2 * 64, kHead = 50 * 64, kKey = 2 * 64;
  EXPECT_EQ(decode[0].at("dense_bytes").as_double(), 4 * (2 * kBlock + kHead + 2 * 16 * kKey));
  EXPECT_EQ(decode[0].at("gated_bytes").as_double(), 4 * (kBlock + kHead + 4 * kKey));
  expect_failure(run_program({"bench", "dense"}), 2, {"expected \"sparse\"", "dense"});
}

TEST_F(GatedRun, SettingsWithoutEffectAreNamed) {
  const ProgramResult result = try_train(
      "run", {"training.max_steps=2", "model.gate.kind=random", "model.gate.inner=4", "gating.rate=0.5"});
  ASSERT_EQ(result.status, 0) << result.error;
  for (const char* setting : {"without effect: model.gate.inner", "without effect: gating.rate"})
    EXPECT_THAT(result.error, ::testing::HasSubstr(setting));
  EXPECT_THAT(result.error, ::testing::Not(::testing::HasSubstr("gating.dense_warmup")));
}

TEST_F(GatedRun, WrongGatesAreNamed) {
  expect_failure(try_train("run", {"model.gate.kind=token"}), 1, {"gate.kind", "looks at later tokens"});
  expect_failure(try_train("run", {"model.gate.kind=casual"}), 1, {"model.gate.kind", "causal"});
  expect_failure(try_train("run", {"model.gate.density=0"}), 1, {"model.gate.density"});
  expect_failure(try_train("run", {"model.gate.layer_density=[0.5]"}), 1,
                 {"layer_density has 1 values for 3 layers"});
}

std::string report_of(const std::string& run) {
  const ProgramResult result = run_program({"report", run});
  EXPECT_EQ(result.status, 0) << result.error;
  return result.status == 0 ? read_file(run + "/report.html") : "";
}

TEST(GatedPictures, AreDrawnOnTheReport) {
  const TrainingWorld world;
  const std::vector<std::string> gates = {"model.text.gate.kind=causal", "model.vision.gate.kind=token",
                                          "training.max_steps=4"};
  ASSERT_EQ(run_program(world.arguments(world / "towers", gates)).status, 0);
  const std::string towers = report_of(world / "towers");
  for (const char* text : {"What each layer computes", "of 2 layers", "image encoder, layer by layer",
                           "0.0.attention: ", "1.0.mlp: "})
    EXPECT_THAT(towers, ::testing::HasSubstr(text));
}

TEST(GatedPictures, AreDrawnForAnEncoderAlone) {
  const TrainingWorld world;
  write_file_atomically(world / "masked.toml", R"(
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
[model.gate]
kind = "token"
[training]
batch_size = 8
max_steps = 2
)");
  const ProgramResult result = run_program({"train", world / "masked.toml", "--out", world / "run", "--set",
                                            "data.train.path=" + (world / "data")});
  ASSERT_EQ(result.status, 0) << result.error;
  EXPECT_THAT(report_of(world / "run"), ::testing::HasSubstr("1.0.attention: "));
}

TEST(GatedRanks, TwoEqualOne) {
  const TrainingWorld world;
  const std::vector<std::string> settings = {
      "training.max_steps=30",       "training.log_every=1",         "precision=fp64",
      "model.text.gate.kind=causal", "model.vision.gate.kind=token", "gating.dense_warmup=5",
      "gating.explore=0.2",          "training.micro_batch_size=3"};
  ASSERT_EQ(run_program(world.arguments(world / "one", settings)).status, 0);
  std::vector<std::string> two = {"launch", "-n", "2", "--"};
  for (const std::string& word : world.arguments(world / "two", settings)) two.push_back(word);
  ASSERT_EQ(run_program(two).status, 0);
  const auto one_log = timeless_log(world / "one"), two_log = timeless_log(world / "two");
  ASSERT_EQ(one_log.size(), two_log.size());
  int lines = 0;
  for (size_t i = 0; i < one_log.size(); ++i)
    for (const char* name : {"loss", "density", "gate_multiplier"}) {
      const Json *one = one_log[i].find(name), *other = two_log[i].find(name);
      if (one == nullptr) continue;
      ++lines;
      EXPECT_NEAR(one->as_double(), other->as_double(), 1e-5) << name << i;
    }
  EXPECT_EQ(lines, 90);
}

}  // namespace
}  // namespace fathom::train_gates_test
