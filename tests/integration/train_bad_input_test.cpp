// What a training run says when something is wrong with its recipe, its data, its models or the machine.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "base/file.h"
#include "cli_program.h"
#include "train/checkpoint.h"
#include "training_run.h"

namespace fathom::train_bad_input_test {
namespace {

namespace fs = std::filesystem;

class BadInput : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { world_ = std::make_unique<TrainingWorld>(); }
  static void TearDownTestSuite() { world_.reset(); }

  /// A run of its own for every test.
  std::string run() const { return folder_ / "run"; }
  static std::string at(const std::string& name) { return *world_ / name; }
  static const TrainingWorld& world() { return *world_; }
  std::vector<std::string> words(std::vector<std::string> settings = {},
                                 const std::vector<std::string>& more = {}) const {
    settings.insert(settings.begin(), "training.max_steps=8");
    std::vector<std::string> result = world_->arguments(run(), settings);
    result.insert(result.end(), more.begin(), more.end());
    return result;
  }
  ProgramResult train(const std::vector<std::string>& settings = {},
                      const std::vector<std::string>& more = {}) const {
    return run_program(words(settings, more));
  }
  void expect_refused(const std::string& setting, const std::vector<std::string>& said) const {
    SCOPED_TRACE(setting);
    expect_failure(train({setting}), 1, said);
    EXPECT_FALSE(fs::exists(run() + "/log.jsonl")) << "nothing was trained";
  }
  /// A data set of `rows` beside the world's pictures.
  std::string manifest(const std::string& rows) const {
    write_file_atomically(folder_ / "data.jsonl", rows);
    return "data.train.path=" + (folder_ / "data.jsonl");
  }
  static std::string row(const std::string& image) {
    return R"({"image":")" + image + R"(","caption":"a red ring","split":"train"})" + "\n";
  }
  static std::string picture(const char* split, int number) {
    std::vector<fs::path> found;
    for (const auto& entry : fs::recursive_directory_iterator(at("data/images")))
      if (entry.is_regular_file() && entry.path().string().find(split) != std::string::npos)
        found.push_back(entry.path());
    std::sort(found.begin(), found.end());
    return found.at(static_cast<size_t>(number)).string();
  }

  TemporaryFolder folder_;

 private:
  static inline std::unique_ptr<TrainingWorld> world_;
};

TEST_F(BadInput, RecipesThatCannotBeMeant) {
  expect_refused("training.batch_sise=4", {"training.batch_sise: unknown key; did you mean \"batch_size\"?"});
  expect_refused("modle.embed_dim=4", {"modle: unknown key; did you mean \"model\"?"});
  expect_refused("training.batch_size=\"eight\"",
                 {"training.batch_size: expected an integer, got string \"eight\""});
  expect_refused("training.batch_size=0", {"training.batch_size: expected at least 1, got 0"});
  expect_refused("training=3", {"training: expected a table, got integer 3"});
  expect_refused("optimizer.learning_rate=nan", {"optimizer.learning_rate: expected a finite number"});
  expect_refused("schedule.shape=zigzag", {"schedule.shape: expected one of \"cosine\", \"linear\""});
  expect_refused(
      "precision=int4",
      {"precision: expected one of \"fp32\", \"bf16\", \"fp16_bf16\", \"fp8\", \"fp64\", got \"int4\""});
  expect_refused("device=tpu", {"tpu"});
  expect_refused("optimizer.freeze=[\"visoin.*\"]", {"optimizer.freeze: no parameter fits \"visoin.*\""});
  expect_refused("evaluation.metric=recal",
                 {"evaluation.metric: the evaluation has no \"recal\"; it has i2t_median_rank, "});
  expect_refused("tokenizer.vocab_size=9", {"tokenizer.vocab_size: expected a value from 256"});
  expect_refused("tokenizer.special_tokens=[\"a\",\"a\"]", {"tokenizer: special token \"a\" is given twice"});
}

TEST_F(BadInput, ShapesThatAreImpossible) {
  expect_refused("model.vision.heads=[3,2]",
                 {"model.vision", "stage 0 has width 16, which 3 heads do not divide"});
  expect_refused("model.vision.depths=[1]", {"model.vision", "depths and heads need one value a stage"});
  expect_refused("model.vision.patch_size=5",
                 {"model.vision", "patch_size = 5 does not divide image_size = 32"});
  expect_refused("model.text.heads=3", {"model.text", "dim = 16 cannot be divided among heads = 3"});
  expect_refused("data.text.max_tokens=25",
                 {"data.text.max_tokens: 25 is more than model.text.max_positions = 24"});
  expect_refused("training.micro_batch_size=9", {"micro_batch_size (9) is larger than batch_size (8)"});
  expect_refused("training.batch_size=65", {"batch_size: 65 is more than the 64 samples"});
}

TEST_F(BadInput, RecipesThatAreNotThere) {
  expect_failure(run_program({"train", folder_ / "none.toml"}), 1, {"none.toml: cannot open: No such file"});
  expect_failure(run_program({"train", folder_.path()}), 1, {"not a regular file"});
  write_file_atomically(folder_ / "cut.toml", "task = \"contrastive\"\n[training\nbatch_size = 8\n");
  expect_failure(run_program({"train", folder_ / "cut.toml"}), 1, {"cut.toml:2:"});
  write_file_atomically(folder_ / "binary.toml", std::string("\0\x01\xff\xfe", 4));
  expect_failure(run_program({"train", folder_ / "binary.toml"}), 1, {"binary.toml:1:"});
  expect_failure(run_program({"train", at("recipe.toml"), "--set", "seed"}), 2, {"--set expects key=value"});
  expect_failure(run_program({"train"}), 2, {"recipe is required"});
}

TEST_F(BadInput, DataThatIsNotThere) {
  expect_refused("data.train.path=/no/where", {"data.train.path: \"/no/where\" does not exist"});
  expect_refused("data.train.path=" + std::string(5000, 'x'), {"data.train.path: \"xxx", "does not exist"});
  expect_refused("data.train.split=tarin", {"no usable rows of split \"tarin\"", "\"train\" (64 rows)"});
  expect_refused("tokenizer.path=/no/tokenizer.json",
                 {"tokenizer.path: \"/no/tokenizer.json\" does not exist"});
  expect_refused("init_from=/no/model", {"init_from: \"/no/model\" does not exist"});
  fs::create_directories(folder_ / "empty");
  expect_refused("data.train.path=" + (folder_ / "empty"), {"empty: no manifest", "no images"});
  expect_refused(manifest(""), {"data.jsonl: no usable rows"});
  expect_refused(manifest(row("gone.png")),
                 {"data.jsonl:1: ", "gone.png: no such file (data.train.on_error = \"skip\" leaves"});
  expect_refused(manifest("{\"image\": \n"), {"data.jsonl:1: column", "not valid JSON"});
  write_file_atomically(folder_ / "data.csv", "file,words\na.png,red\n");
  expect_refused("data.train.path=" + (folder_ / "data.csv"),
                 {"data.csv:1: none of the columns", "\"words\""});
}

TEST_F(BadInput, APictureThatIsCutOffStopsTheRunOrIsSkipped) {
  const std::string whole = read_file(picture("train", 0));
  write_file_atomically(folder_ / "cut.png", whole.substr(0, whole.size() / 2));
  std::string rows = row(folder_ / "cut.png");
  for (int i = 1; i < 16; ++i) rows += row(picture("train", i));
  const std::vector<std::string> settings = {manifest(rows), "data.val.path=" + at("data"),
                                             "data.train.split=train"};
  expect_failure(train(settings), 1, {"cut.png: ", "(data.loader.on_error = \"skip\" puts another sample"});
  auto skipping = settings;
  skipping.emplace_back("data.loader.on_error=skip");
  const ProgramResult skipped = train(skipping, {"--resume", "--json"});
  EXPECT_EQ(skipped.status, 0) << skipped.error;
  EXPECT_EQ(parse_json(skipped.out, "standard output").at("replaced").as_int(), 1);
  EXPECT_NE(skipped.error.find("left out: "), std::string::npos);
  EXPECT_NE(skipped.error.find("cut.png: "), std::string::npos);
  EXPECT_EQ(timeless_log(run()).back().at("step").as_int(), 8);
}

TEST_F(BadInput, TokenizersOfOtherKinds) {
  const auto refused = [&](const std::string& json, const std::vector<std::string>& said) {
    write_file_atomically(folder_ / "tokenizer.json", json);
    expect_refused("tokenizer.path=" + (folder_ / "tokenizer.json"), said);
  };
  refused(R"({"model":{"type":"Unigram","unk_id":0,"vocab":[["a",-1.0]]}})", {"tokenizer.json: ", "Unigram"});
  refused(R"({"model":{"type":"BPE","vocab":{"a":0},"merges":["a b"]}})", {"tokenizer.json: ", "\"b\""});
  refused(R"({"model":{"type":"BPE",)", {"tokenizer.json:1:"});
  refused("", {"tokenizer.json:"});
}

TEST_F(BadInput, AnotherModelsWeights) {
  const SmallWorld other;
  const auto refused = [&](const std::string& model, const std::vector<std::string>& said) {
    // Their tokenizer has no token for masking.
    expect_failure(train({"data.text.mask_probability=0", "init_from=" + (other / model)}), 1, said);
  };
  refused("language", {"init_from: ", "holds a language model, the recipe needs a dual_tower model"});
  refused("tower", {"init_from: ", "of another shape; the recipe's [model] must have the folder's shape"});
  const std::string weights = other / "tower/vision/model.safetensors";
  const std::string whole = read_file(weights);
  write_file_atomically(weights, whole.substr(0, whole.size() - 7));
  refused("tower", {"vision/model.safetensors: "});
}

TEST_F(BadInput, InitFromTakesTheWeightsAndTheTokenizer) {
  ASSERT_EQ(train().status, 0);
  const std::string first = run() + "/model";
  const TemporaryFolder second;
  std::vector<std::string> settings = {"training.max_steps=8",     "optimizer.learning_rate=0",
                                       "optimizer.weight_decay=0", "training.average_decay=0",
                                       "init_from=" + first,       "seed=99"};
  std::vector<std::string> arguments = world().arguments(second / "run", settings);
  const ProgramResult result = run_program(arguments);
  ASSERT_EQ(result.status, 0) << result.error;
  for (const char* file : {"/vision/model.safetensors", "/text/model.safetensors", "/tokenizer.json"})
    EXPECT_EQ(read_file(second / ("run/model" + std::string(file))), read_file(first + file)) << file;
}

TEST_F(BadInput, ResumingWithAnotherRecipeIsRefusedAndKeepsTheRun) {
  ASSERT_EQ(train().status, 0);
  const std::string recipe = read_file(run() + "/recipe.toml");
  const auto refused = [&](const std::string& setting, const std::vector<std::string>& said) {
    expect_failure(train({setting}, {"--resume"}), 1, said);
    EXPECT_EQ(read_file(run() + "/recipe.toml"), recipe);
  };
  refused("model.embed_dim=8", {"checkpoints/step-00000008: model.embed_dim: the run began with 16, got 8"});
  refused("model.text.layers=3", {"model.text.layers: the run began with 2, got 3"});
  refused("seed=3", {"seed: the run began with 0, got 3"});
  refused("training.batch_size=32", {"training.batch_size: the run began with 8, got 32"});
  refused("data.train.split=val", {"data.train.split: the run began with \"train\", got \"val\""});
  const ProgramResult more = train({"training.max_steps=10"}, {"--resume"});
  EXPECT_EQ(more.status, 0) << more.error;
  EXPECT_NE(more.error.find("the run goes on with other settings than before: training.max_steps\n"),
            std::string::npos)
      << more.error;
  EXPECT_EQ(timeless_log(run()).back().at("step").as_int(), 10);
}

/// The tokenizer that an attempt has left behind was made of who knows what; that of a state belongs to it.
TEST_F(BadInput, ATokenizerThatAFailedAttemptLeftIsNotUsed) {
  const std::string kept = run() + "/tokenizer.json", left = folder_ / "left.json";
  ASSERT_EQ(run_program({"tokenizer", "train", at("recipe.toml"), "--vocab", "260", "--out", left}).status,
            0);
  const auto trains_a_tokenizer = [](const ProgramResult& result) {
    EXPECT_EQ(result.status, 0) << result.error;
    return result.error.find("training a tokenizer of") != std::string::npos;
  };
  for (const std::vector<std::string>& more : {std::vector<std::string>{}, {"--resume"}}) {
    fs::remove_all(run());
    fs::create_directories(run());
    fs::copy_file(left, kept);
    EXPECT_TRUE(trains_a_tokenizer(train({}, more)));
    EXPECT_NE(read_file(kept), read_file(left));
    EXPECT_EQ(read_file(kept), read_file(run() + "/model/tokenizer.json"));
  }
  EXPECT_FALSE(trains_a_tokenizer(train({}, {"--resume"})));
}

TEST_F(BadInput, AnInvalidLossNamesItsStepAndTheRunGoesOn) {
  const std::vector<std::string> wild = {"optimizer.learning_rate=1e30", "optimizer.clip_norm=0",
                                         "schedule.warmup_steps=0", "checkpoint.every=1"};
  expect_failure(train(wild), 1, {"step 2: the loss is", "A lower learning_rate"});
  const std::vector<int64_t> states = checkpoint_steps(run() + "/checkpoints");
  EXPECT_EQ(states, std::vector<int64_t>{1});
}

TEST_F(BadInput, AFullDiskEndsTheRunWhichThenGoesOn) {
  const std::vector<std::string> settings = {"checkpoint.every=2", "tokenizer.vocab_size=300"};
  ASSERT_EQ(train(settings).status, 0);
  const TemporaryFolder straight;
  fs::rename(run(), straight / "run");
  // Blocks of 512 bytes: room for the tokenizer and the log, not for the weights.
  const std::string limit = "trap '' XFSZ; ulimit -f 50";
  expect_failure(run_program_under(limit, words(settings)), 1, {".tmp/", "cannot write: File too large"});
  const ProgramResult resumed = train(settings, {"--resume"});
  ASSERT_EQ(resumed.status, 0) << resumed.error;
  EXPECT_EQ(timeless_log(run()), timeless_log(straight / "run"));
  for (const std::string& file : state_files())
    EXPECT_EQ(read_file(newest_state(run()) + "/" + file),
              read_file(newest_state(straight / "run") + "/" + file));
}

/// A file that is opened must not take the place of a closed stream, whose lines would then go into it.
TEST_F(BadInput, ClosedStreamsAreNotTakenForFiles) {
  const ProgramResult result = run_program_under("exec >&- 2>&-", words());
  EXPECT_EQ(result.status, 1) << "the summary could not be written";
  EXPECT_EQ(timeless_log(run()).back().at("step").as_int(), 8);
  const ProgramResult resumed = train({}, {"--resume"});
  EXPECT_EQ(resumed.status, 0) << resumed.error;
}

TEST_F(BadInput, FoldersThatCannotBeWritten) {
  std::vector<std::string> arguments = world().arguments("/proc/self/run");
  expect_failure(run_program(arguments), 1, {"--out: cannot create /proc/self/run: "});
  write_file_atomically(folder_ / "file", "x");
  arguments = world().arguments(folder_ / "file/run");
  expect_failure(run_program(arguments), 1, {"--out: cannot create", "file/run: Not a directory"});
}

TEST_F(BadInput, OutOfMemorySaysWhatToLower) {
  // Within every range, and far beyond what a process may have: by its weights, and by its activations.
  const std::string limit = "ulimit -v 3000000";
  const std::vector<std::string> advice = {"out of memory", "lower the (micro-)batch size",
                                           "checkpoint_blocks"};
  expect_failure(run_program_under(limit, words({"data.loader.workers=1024"})), 1,
                 {"loader.workers: cannot start 1024 threads: "});
  expect_failure(run_program_under(limit, words({"model.text.dim=65536", "model.text.layers=1000"})), 1,
                 advice);
  expect_failure(run_program_under(limit, words({"model.vision.image_size=4096", "training.batch_size=64"})),
                 1, advice);
}

TEST_F(BadInput, DryRunCountsAModelThatNoMemoryHolds) {
  const ProgramResult result =
      train({"model.text.dim=65536", "model.text.layers=1000"}, {"--dry-run", "--json"});
  ASSERT_EQ(result.status, 0) << result.error;
  EXPECT_GT(parse_json(result.out, "standard output").at("parameters").as_int(), int64_t{10} << 40);
}

/// Names are compared without a weight being read.
TEST_F(BadInput, DryRunRefusesTheNamesThatARunRefuses) {
  const SmallWorld other;
  const std::string unmasked = "data.text.mask_probability=0";  // their tokenizer has no token for masking
  const auto refused = [&](const std::vector<std::string>& settings, const std::vector<std::string>& said) {
    SCOPED_TRACE(settings.back());
    expect_failure(train(settings), 1, said);
    expect_failure(train(settings, {"--dry-run"}), 1, said);
  };
  refused({"optimizer.freeze=[\"visoin.*\"]"}, {"optimizer.freeze: no parameter fits \"visoin.*\""});
  refused({"optimizer.freeze=[\"*\"]"}, {"optimizer.freeze: nothing is left to train"});
  refused({"optimizer.freeze_layers=3"}, {"optimizer.freeze_layers: 3 layers, the deepest tower has 2"});
  refused({"optimizer.rules=[{pattern=\"nosuch\"}]"},
          {"optimizer.rules.pattern: no parameter fits \"nosuch\""});
  refused({"lora.rank=64", "lora.patterns=[\"text.blocks.7.*\"]"},
          {"lora.patterns: no linear layer fits \"text.blocks.7.*\""});
  refused({unmasked, "init_from=" + (other / "language")},
          {"holds a language model, the recipe needs a dual_tower model"});
  const std::string from = "init=[{from=\"" + (other / "tower");
  refused({unmasked, from + "\",take=\"viison.*\"}]"}, {"none of its parameters fits \"viison.*\""});
  refused({unmasked, from + "\",take=\"text.*\",as=\"txet.*\"}]"},
          {" parameters fit \"text.*\", but (of text.embedding) the model has no such parameter"});
  const ProgramResult good =
      train({unmasked, "optimizer.freeze=[\"vision.*\"]", "model.text.dim=65536", "lora.rank=4",
             "lora.patterns=[\"text.*\"]", from + "\",take=\"vision.*\"}]"},
            {"--dry-run", "--json"});
  EXPECT_EQ(good.status, 0) << good.error;
}

TEST_F(BadInput, DryRunCountsAndWritesNothing) {
  const ProgramResult result = train({"training.max_steps=50"}, {"--dry-run", "--json"});
  ASSERT_EQ(result.status, 0) << result.error;
  const Json estimate = parse_json(result.out, "standard output");
  EXPECT_EQ(estimate.at("steps").as_int(), 50);
  EXPECT_FALSE(fs::exists(run()));
  ASSERT_EQ(train().status, 0);
  int64_t parameters = 0;
  const TrainingState state = load_checkpoint(newest_state(run()));
  for (const auto& [name, tensor] : state.tensors.at("model")) parameters += tensor.numel();
  EXPECT_EQ(estimate.at("parameters").as_int(), parameters);
  EXPECT_EQ(estimate.at("state_bytes").as_int(), parameters * 4 * 5);  // weight, gradient, moments, average
  for (const char* key : {"step_flops", "activation_bytes", "estimated_seconds"})
    EXPECT_GT(estimate.at(key).as_double(), 0) << key;
}

}  // namespace
}  // namespace fathom::train_bad_input_test
