#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/file.h"
#include "base/json.h"
#include "base/safetensors.h"
#include "cli_program.h"

namespace fathom::cli_test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class Cli : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { world_ = std::make_unique<SmallWorld>(); }
  static void TearDownTestSuite() { world_.reset(); }
  static std::string at(const std::string& name) { return *world_ / name; }

 private:
  static inline std::unique_ptr<SmallWorld> world_;
};

TEST_F(Cli, HelpNamesEveryVerb) {
  const ProgramResult help = run_program({"--help"});
  EXPECT_EQ(help.status, 0);
  for (const char* verb : {"train", "eval", "embed", "search", "generate", "report", "doctor", "data",
                           "tokenizer", "launch", "completion", "reference"}) {
    EXPECT_THAT(help.out, HasSubstr(verb));
    const ProgramResult one = run_program({"help", verb});
    EXPECT_EQ(one.status, 0) << verb << one.error;
    EXPECT_GT(one.out.size(), 40u) << verb;
  }
  EXPECT_THAT(run_program({"--version"}).out, StartsWith("fathom 0."));
  EXPECT_EQ(run_program({}).status, 2);
}

TEST_F(Cli, WrongUsageIsStatus2) {
  expect_failure(run_program({"serach"}), 2, {"unknown verb 'serach'", "did you mean 'search'"});
  expect_failure(run_program({"help", "qqqqqqqq"}), 2, {"unknown verb 'qqqqqqqq'"});
  expect_failure(run_program({"eval"}), 2, {"model is required", "fathom eval --help"});
  expect_failure(run_program({"eval", "m", "--speed", "9"}), 2, {"--speed"});
  expect_failure(run_program({"eval", "m", "--task", "guess"}), 2, {"guess"});
  expect_failure(run_program({"generate", "m", "x", "--top-p", "2"}), 2, {"--top-p"});
  expect_failure(run_program({"search", "m"}), 2, {"--image"});
  expect_failure(run_program({"embed", "m", "--out", "x.csv"}), 2, {"x.csv", ".safetensors"});
  expect_failure(run_program({"completion", "tcsh"}), 2, {"tcsh"});
}

TEST_F(Cli, DoctorTellsWhyAFeatureIsMissing) {
  const Json found = expect_json(run_program_under("export FATHOM_PLUGIN=none", {"doctor", "--json"}));
  for (const auto& [name, reason] : {std::pair{"cuda_plugin", "FATHOM_PLUGIN=none"},
                                     {"cuda", "no CUDA plug-in"},
                                     {"cuda_kernels", "no CUDA plug-in"},
                                     {"fp8", "no CUDA plug-in"},
                                     {"nccl", "no CUDA plug-in"}}) {
    EXPECT_FALSE(found.at("features").at(name).as_bool()) << name;
    EXPECT_THAT(found.at("reasons").at(name).as_string(), HasSubstr(reason));
  }
  const Json here = expect_json(run_program({"doctor", "--json"}));  // with or without a GPU
  for (const char* name : {"cuda_plugin", "cuda", "cuda_kernels", "fp8", "nccl"})
    EXPECT_NE(here.at("features").at(name).as_bool(), here.at("reasons").find(name) != nullptr) << name;
  EXPECT_THAT(run_program_under("export FATHOM_PLUGIN=none", {"doctor"}).out,
              HasSubstr("-fp8 (no CUDA plug-in)"));
}

TEST_F(Cli, WhatIsNoModelIsStatus1) {
  expect_failure(run_program({"eval", at("nowhere"), "--data", at("data")}), 1,
                 {"nowhere", "no such folder"});
  expect_failure(run_program({"eval", at("text.txt"), "--data", at("data")}), 1,
                 {"text.txt", "not a model folder"});
  expect_failure(run_program({"eval", at("data"), "--data", at("data")}), 1, {at("data")});
  expect_failure(run_program({"search", at("language"), "--data", at("data"), "x"}), 1,
                 {"language", "dual_tower"});
  expect_failure(run_program({"generate", at("tower"), "x"}), 1, {"tower", "language"});
  expect_failure(run_program({"eval", at("tower"), "--device", "tpu", "--data", at("data")}), 1, {"tpu"});

  std::filesystem::create_directories(at("foreign"));
  write_file_atomically(at("foreign") + "/config.json",
                        R"({"architectures":["BertModel"],"model_type":"bert"})");
  expect_failure(run_program({"eval", at("foreign"), "--data", at("data")}), 1, {"foreign", "ert"});

  std::filesystem::create_directories(at("broken"));
  std::filesystem::copy(at("language"), at("broken"), std::filesystem::copy_options::recursive);
  write_file_atomically(at("broken") + "/model.safetensors", "12345678");
  expect_failure(run_program({"generate", at("broken"), "x"}), 1, {"model.safetensors"});
}

TEST_F(Cli, BadDataIsStatus1) {
  expect_failure(run_program({"eval", at("tower")}), 2, {"--data"});
  expect_failure(run_program({"eval", at("tower"), "--data", at("nothing")}), 1, {"nothing"});
  expect_failure(run_program({"eval", at("tower"), "--data", at("data"), "--split", "tset"}), 1, {"tset"});
  expect_failure(run_program({"search", at("tower"), "--data", at("data"), "--image", at("gone.png")}), 1,
                 {"gone.png"});
  // Progress is silent here: the query comes first and fails.
  expect_failure(run_program({"search", at("tower"), "--data", at("data"), "--image", at("text.txt")}), 1,
                 {"text.txt"});
  expect_failure(run_program({"eval", at("language"), "--data", at("data")}), 1, {"data"});
}

TEST_F(Cli, EvalPrintsTheContractsKeys) {
  const Json retrieval = expect_json(run_program({"eval", at("tower"), "--data", at("data"), "--json"}));
  EXPECT_EQ(retrieval.at("task").as_string(), "retrieval");
  EXPECT_EQ(retrieval.at("images").as_int(), 8);
  EXPECT_EQ(retrieval.at("captions").as_int(), 16);
  EXPECT_TRUE(retrieval.at("t2i").at("r10").as_double() == 100);  // eight candidates
  EXPECT_TRUE(retrieval.at("groups").find("unseen=true"));
  const Json language =
      expect_json(run_program({"eval", at("language"), "--data", at("text.txt"), "--json"}));
  EXPECT_EQ(language.at("task").as_string(), "language");
  EXPECT_NEAR(language.at("bits_per_byte").as_double(), 8, 4);
  EXPECT_GT(language.at("perplexity").as_double(), 1);
  const Json classes =
      expect_json(run_program({"eval", at("tower"), "--data", at("data"), "--task", "zero_shot", "--json"}));
  EXPECT_EQ(classes.at("count").as_int(), 8);
  EXPECT_TRUE(classes.at("accuracy").is_number());
  const ProgramResult shown = run_program({"eval", at("tower"), "--data", at("data")});
  EXPECT_THAT(shown.out, AllOf(HasSubstr("text → image"), HasSubstr("chance")));
}

TEST_F(Cli, EmbedWritesUnitRowsThatSearchReads) {
  const std::string out = at("gallery.safetensors");
  const Json summary = expect_json(
      run_program({"embed", at("tower"), "--data", at("data"), "--split", "all", "--out", out, "--json"}));
  EXPECT_EQ(summary.at("image").dump(), "[8,16]");
  EXPECT_EQ(summary.at("text").dump(), "[16,16]");
  const SafetensorsFile file(out);
  const auto* values = reinterpret_cast<const float*>(file.find("image")->bytes.data());
  double norm = 0;
  for (int i = 0; i < 16; ++i) norm += static_cast<double>(values[i]) * values[i];
  EXPECT_NEAR(norm, 1, 1e-4);

  const std::vector<std::string> search = {"search",  at("tower"), "--data", at("data"),
                                           "shade 1", "--top",     "3",      "--json"};
  const Json direct = expect_json(run_program(search));
  auto with_file = search;
  with_file.insert(with_file.end(), {"--embeddings", out});
  EXPECT_EQ(expect_json(run_program(with_file)).dump(), direct.dump());
  EXPECT_EQ(direct.at("queries").as_array()[0].at("results").size(), 3u);

  expect_json(run_program({"embed", at("tower"), "--data", at("data"), "--out", at("images.npy"), "--json"}));
  const std::string npy = read_file(at("images.npy"));
  EXPECT_THAT(npy.substr(0, 128), AllOf(HasSubstr("NUMPY"), HasSubstr("'shape': (8, 16,)")));
  EXPECT_EQ(npy.size() % 64, (8 * 16 * 4) % 64);
}

TEST_F(Cli, SearchByPictureFindsCaptions) {
  const Json found = expect_json(run_program({"search", at("tower"), "--data", at("data"), "--image",
                                              at("data/picture3.png"), "--top", "16", "--json"}));
  const Json& results = found.at("queries").as_array()[0].at("results");
  ASSERT_EQ(results.size(), 16u);
  double last = 2;
  for (const Json& result : results.as_array()) {
    EXPECT_LE(result.at("score").as_double(), last);
    last = result.at("score").as_double();
    EXPECT_EQ(result.at("captions").size(), 1u);
  }
}

TEST_F(Cli, GenerateRepeatsItselfUnderOneSeed) {
  const std::vector<std::string> arguments = {"generate", at("language"), "One", "--max-tokens",
                                              "10",       "--seed",       "4"};
  const ProgramResult shown = run_program(arguments);
  EXPECT_EQ(shown.status, 0) << shown.error;
  EXPECT_THAT(shown.out, StartsWith("One"));
  auto as_json = arguments;
  as_json.push_back("--json");
  const Json answer = expect_json(run_program(as_json));
  EXPECT_EQ("One" + answer.at("text").as_string() + "\n", shown.out);
  EXPECT_LE(answer.at("tokens").as_int(), 10);
  expect_failure(run_program({"generate", at("language"), std::string(100, 'x')}), 1, {"100 tokens", "32"});
}

TEST_F(Cli, ReportIsOneFileWithoutLinks) {
  const std::string html = at("report.html");
  const Json summary =
      expect_json(run_program({"report", at("tower"), "--data", at("data"), "--html", html, "--json"}));
  EXPECT_EQ(summary.at("html").as_string(), html);
  const std::string page = read_file(html);
  EXPECT_THAT(page, AllOf(HasSubstr("data:image/jpeg;base64,"), HasSubstr("&lt;b&gt;number&lt;/b&gt;"),
                          Not(HasSubstr("<b>number")), Not(HasSubstr("src=\"http"))));
}

TEST_F(Cli, CompletionAndReferenceFollowTheProgram) {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const ProgramResult script = run_program({"completion", shell});
    EXPECT_EQ(script.status, 0);
    EXPECT_THAT(script.out, AllOf(HasSubstr("search"), HasSubstr("fathom"), Not(HasSubstr("@VERBS@"))));
  }
  EXPECT_THAT(run_program({"reference"}).out, AllOf(HasSubstr("learning_rate"), HasSubstr("batch_size")));
  expect_json(run_program({"version", "--json"}));
}

}  // namespace
}  // namespace fathom::cli_test
