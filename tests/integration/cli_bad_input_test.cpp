// Models, data and places that are wrong: what each verb says of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "base/file.h"
#include "base/json.h"
#include "base/safetensors.h"
#include "cli_program.h"
#include "models/model_folder.h"

namespace fathom::cli_bad_input_test {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

class CliBadInput : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { world_ = std::make_unique<SmallWorld>(); }
  static void TearDownTestSuite() { world_.reset(); }
  static std::string at(const std::string& name) { return *world_ / name; }

  /// A copy of one of the world's models, to be damaged.
  std::string copy_of(const std::string& model) const {
    const std::string copy = folder_ / model;
    fs::remove_all(copy);
    fs::copy(at(model), copy, fs::copy_options::recursive);
    return copy;
  }
  static ProgramResult eval(const std::string& model) {
    return run_program({"eval", model, "--data", at("data"), "--split", "val"});
  }

  TemporaryFolder folder_;

 private:
  static inline std::unique_ptr<SmallWorld> world_;
};

/// The file with its header changed by `edit`, sizes as the header then says.
std::string with_header(const std::string& file, const std::function<void(Json&)>& edit) {
  uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  Json header = parse_json(std::string_view(file).substr(8, length), "header");
  edit(header);
  const std::string text = header.dump();
  length = text.size();
  std::string changed(reinterpret_cast<const char*>(&length), 8);
  uint64_t before = 0;
  std::memcpy(&before, file.data(), 8);
  return changed + text + file.substr(8 + before);
}

TEST_F(CliBadInput, WeightsThatAreDamagedOrHostile) {
  const auto refused = [&](const std::function<std::string(const std::string&)>& damage, const char* said) {
    const std::string path = copy_of("tower") + "/vision/model.safetensors";
    write_file_atomically(path, damage(read_file(path)));
    expect_failure(eval(folder_ / "tower"), 1, {"vision/model.safetensors: ", said});
  };
  refused([](const std::string& file) { return file.substr(0, file.size() - 1); }, "do not lie in");
  refused([](const std::string& file) { return file.substr(0, 300); }, "truncated: header of");
  refused([](const std::string& file) { return file.substr(0, 3); }, "too short");
  refused([](const std::string&) { return std::string(300, '\xff'); }, "at most 100000000 are accepted");
  refused([](const std::string& file) { return file + "more"; }, "4 bytes behind the last tensor");
  refused(
      [](const std::string& file) {
        return with_header(file, [](Json& header) {
          Json &first = header.as_object()[1].second, &second = header.as_object()[2].second;
          const int64_t start = first.at("data_offsets").as_array()[0].as_int();
          const int64_t size = second.at("data_offsets").as_array()[1].as_int() -
                               second.at("data_offsets").as_array()[0].as_int();
          second["data_offsets"] = Json(Json::Array{start, start + size});
        });
      },
      "leaves a hole or overlaps another");
  refused(
      [](const std::string& file) {
        return with_header(file, [](Json& header) {
          header.as_object()[1].second["shape"] = Json(Json::Array{int64_t{1} << 62, int64_t{1} << 62});
        });
      },
      "overflows 64 bits");
}

TEST_F(CliBadInput, AModelOfAnotherArchitecture) {
  const auto refused = [&](const char* config, const char* said) {
    fs::create_directories(folder_ / "other");
    write_file_atomically(folder_ / "other/config.json", config);
    expect_failure(eval(folder_ / "other"), 1, {"other/config.json:", said});
  };
  refused(R"({"model_type": "bert"})", "model_type 'bert' is not supported (llama, qwen2 and swin are)");
  refused(R"({"model_type": "llama", "vocab_size": "many"})", "vocab_size must be an integer");
  refused(R"({"model_type": "llama",)", "not valid JSON");
  const std::string tower = copy_of("tower");
  Json record = read_json_file(tower + "/fathom.json");
  record["config"]["text"]["layers"] = 3;
  write_json_file(tower + "/fathom.json", record);
  expect_failure(eval(tower), 1,
                 {"tower/text/config.json: num_hidden_layers is 1, but ", "tower/fathom.json says 3"});
  Json text = read_json_file(tower + "/text/config.json");
  text["num_hidden_layers"] = 3;
  write_json_file(tower + "/text/config.json", text);
  expect_failure(
      eval(tower), 1,
      {"tower/text: the weights do not fit the model in 18 places:\n", "missing: model.layers.1."});
}

TEST_F(CliBadInput, AConfigurationBeyondItsWeightsIsRefusedBeforeItTakesMemory) {
  const std::string tower = copy_of("tower");
  Json record = read_json_file(tower + "/fathom.json");
  record["config"]["text"]["dim"] = 65536;
  record["config"]["text"]["layers"] = 1000;
  write_json_file(tower + "/fathom.json", record);
  expect_failure(run_program_under("ulimit -v 3000000", {"eval", tower, "--data", at("data")}), 1,
                 {"tower/fathom.json: a model of ", " parameters, the weights beside it hold "});
}

TEST_F(CliBadInput, TokenizersThatAreMissingOrOfAnotherKind) {
  const std::string tower = copy_of("tower");
  write_file_atomically(tower + "/tokenizer.json", R"({"model":{"type":"Unigram","vocab":[["a",-1.0]]}})");
  expect_failure(eval(tower), 1, {"tower/tokenizer.json: ", "Unigram"});
  fs::remove(tower + "/tokenizer.json");
  expect_failure(eval(tower), 1, {"tower: no tokenizer.json"});
  const std::string language = copy_of("language");
  Json tokenizer = read_json_file(language + "/tokenizer.json");
  tokenizer["model"]["vocab"]["On"] = 257;
  tokenizer["model"]["merges"].push_back("O n");
  write_json_file(language + "/tokenizer.json", tokenizer);
  expect_failure(run_program({"eval", language, "--data", at("text.txt")}), 1,
                 {"the text has token 257, outside the model's vocabulary of 257"});
  expect_failure(run_program({"generate", language, "One"}), 1,
                 {"the text has token 257, outside the model's vocabulary of 257"});
}

TEST_F(CliBadInput, PlacesThatCannotBeWritten) {
  expect_failure(run_program({"embed", at("tower"), "--data", at("data"), "--split", "val", "--out",
                              "/no/x.safetensors"}),
                 2, {"--out: /no/x.safetensors: there is no folder /no"});
  expect_failure(run_program({"eval", at("tower"), "--data", at("data"), "--per-sample", "/no/x"}), 2,
                 {"--per-sample: /no/x: there is no folder /no"});
  expect_failure(run_program({"report", at("tower"), "--data", at("data"), "--html", "/no/x.html"}), 2,
                 {"--html: /no/x.html: there is no folder /no"});
  expect_failure(run_program({"data", "make", "scenes", at("text.txt"), "--train", "1", "--val", "1"}), 1,
                 {"text.txt", "Not a directory"});
  expect_failure(run_program_under("trap '' XFSZ; ulimit -f 1", {"embed", at("tower"), "--data", at("data"),
                                                                 "--out", folder_ / "x.safetensors"}),
                 1, {"x.safetensors: cannot write: File too large"});
  EXPECT_TRUE(fs::is_empty(folder_.path()));
}

/// Results that could not be written are no results, however they were written.
TEST_F(CliBadInput, AFullStandardOutput) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "there is no /dev/full here";
  const auto full = [](const std::vector<std::string>& words) {
    expect_failure(run_program_under("exec >/dev/full", words), 1, {"cannot write to "});
  };
  full({"version"});
  full({"reference"});
  full({"eval", at("language"), "--data", at("text.txt"), "--json"});
  full({"generate", at("language"), "One"});
  expect_failure(run_program_under("exec >&-", {"version"}), 1, {"cannot write to standard output"});
  // Nowhere to complain is no reason to fail otherwise.
  EXPECT_EQ(run_program_under("exec 2>/dev/full", {"eval", at("nowhere")}).status, 1);
  EXPECT_EQ(
      run_program_under("exec 2>/dev/full", {"eval", at("tower"), "--data", at("data"), "--split", "val"})
          .status,
      0);
}

TEST_F(CliBadInput, ArgumentsOutOfRange) {
  expect_failure(run_program({"eval", at("tower"), "--limit", "-3"}), 2,
                 {"--limit: expected a number of at least 0, got -3"});
  expect_failure(run_program({"eval", at("language"), "--data", at("text.txt"), "--window", "99"}), 1,
                 {"--window 99: the model sees at most 32 tokens"});
  expect_failure(run_program({"eval", at("tower"), "--data", at("data"), "--group", "nosuch"}), 1,
                 {"--group nosuch: no row of ", "has this field"});
  expect_failure(run_program({"search", at("tower"), "--data", at("data"), ""}), 2,
                 {"a query without words"});
  expect_failure(run_program({"launch", "-n", "0", "--", "version"}), 2, {"--ranks: Value 0 not in range"});
  expect_failure(run_program({"launch", "-n", "2", "--", "launch", "-n", "2"}), 2, {"cannot launch itself"});
  expect_failure(run_program({"data", "make", "scenes", folder_ / "w", "--size", "3"}), 2,
                 {"a size of 3 pixels"});
  for (const char* most : {"0", "6", "-1"})
    expect_failure(run_program({"data", "make", "scenes", folder_ / "w", "--max-objects", most}), 2,
                   {"max_objects of " + std::string(most) + ": expected 1 to 5"});
  expect_failure(run_program({"data", "make", "scenes", folder_ / "w", "--max-objects", "two"}), 2,
                 {"--max-objects", "two"});
  EXPECT_FALSE(fs::exists(folder_ / "w"));
}

TEST_F(CliBadInput, HostileNamesStayOnTheirLine) {
  const ProgramResult result = run_program({"eval", "a\nb\nc\x1b[31m"});
  expect_failure(result, 1, {"a\nb c [31m: no such folder"});
}

TEST_F(CliBadInput, TheTokenizersFilters) {
  write_file_atomically(folder_ / "latin1.txt", "caf\xe9\n");
  expect_failure(run_program({"tokenizer", "train", folder_ / "latin1.txt", "--vocab", "300", "--out",
                              folder_ / "t.json"}),
                 1, {"latin1.txt: byte 4 of the file is not valid UTF-8"});
  expect_failure(
      run_program({"tokenizer", "train", at("text.txt"), "--vocab", "9", "--out", folder_ / "t.json"}), 1,
      {"vocab_size 9 has no room"});
  const std::string tokenizer = at("language/tokenizer.json");
  const auto filter = [&](const std::string& input, const std::vector<std::string>& words) {
    write_file_atomically(folder_ / "input", input);
    return run_program_under("exec <'" + (folder_ / "input") + "'", words);
  };
  expect_failure(filter("7 x", {"tokenizer", "decode", "--tokenizer", tokenizer}), 1,
                 {"\"x\" on standard input"});
  expect_failure(filter("999", {"tokenizer", "decode", "--tokenizer", tokenizer}), 1,
                 {"the vocabulary of 257 ids has no token with id 999"});
  const ProgramResult lines =
      filter("\"a\"\n[1]\n", {"tokenizer", "encode", "--json-lines", "--tokenizer", tokenizer});
  EXPECT_EQ(lines.status, 1);
  EXPECT_THAT(lines.error, HasSubstr("standard input: line 2: expected a JSON string, got array"));
}

/// The one verb whose result is the list of problems: it prints them and still ends with 1.
TEST_F(CliBadInput, InspectListsEveryProblemAndEndsWith1) {
  fs::copy(at("data"), folder_ / "data", fs::copy_options::recursive);
  const std::string picture = folder_ / "data/picture3.png";
  write_file_atomically(picture, read_file(picture).substr(0, 60));
  fs::remove(folder_ / "data/picture5.png");
  const ProgramResult result = run_program({"data", "inspect", folder_ / "data", "--json"});
  EXPECT_EQ(result.status, 1);
  const Json summary = parse_json(result.out, "standard output");
  EXPECT_EQ(summary.at("num_problems").as_int(), 2);
  EXPECT_THAT(result.out, HasSubstr("picture3.png"));
  EXPECT_THAT(result.out, HasSubstr("picture5.png: no such file"));
  EXPECT_EQ(run_program({"data", "inspect", at("data"), "--json"}).status, 0);
}

/// A tower whose embeddings say nothing gets no more than chance out of any measure.
TEST_F(CliBadInput, AConstantEmbeddingScoresAtMostChance) {
  const std::string tower = copy_of("tower");
  LoadedModel loaded = load_model_folder(tower);
  {
    const at::NoGradGuard no_grad;
    for (auto& item : loaded.dual_tower->named_parameters())
      if (item.key().find("projection") != std::string::npos) item.value().zero_();
  }
  save_model_folder(tower, loaded.dual_tower, loaded.extras);
  const ProgramResult result = run_program({"eval", tower, "--data", at("data"), "--split", "val", "--json"});
  ASSERT_EQ(result.status, 0) << result.error;
  const Json report = parse_json(result.out, "standard output");
  for (const char* direction : {"t2i", "i2t"}) {
    for (const char* recall : {"r1", "r5", "r10"})
      EXPECT_LE(report.at(direction).at(recall).as_double(),
                report.at("chance").at(direction).at(recall).as_double())
          << direction << " " << recall;
    EXPECT_EQ(report.at(direction).at("r1").as_double(), 0);
    EXPECT_GE(report.at(direction).at("median_rank").as_double(),
              report.at("chance").at(direction).at("median_rank").as_double());
  }
  const ProgramResult classes =
      run_program({"eval", tower, "--data", at("data"), "--task", "zero_shot", "--json"});
  ASSERT_EQ(classes.status, 0) << classes.error;
  const Json accuracy = parse_json(classes.out, "standard output");
  EXPECT_LE(accuracy.at("accuracy").as_double(), accuracy.at("chance").as_double());
}

}  // namespace
}  // namespace fathom::cli_bad_input_test
