// What the verbs make of data and tokenizers as they come from elsewhere.
#include <gtest/gtest.h>

#include <filesystem>

#include "base/file.h"
#include "base/json.h"
#include "base/safetensors.h"
#include "cli_program.h"

namespace fathom::cli_inputs_test {
namespace {

namespace fs = std::filesystem;

class CliInputs : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { world_ = std::make_unique<SmallWorld>(); }
  static void TearDownTestSuite() { world_.reset(); }
  static std::string at(const std::string& name) { return *world_ / name; }

  /// A folder of `count` pictures and nothing else.
  std::string pictures(int count) const {
    const std::string folder = folder_ / "pictures";
    fs::create_directories(folder);
    for (int i = 0; i < count; ++i) {
      const std::string name = "/picture" + std::to_string(i) + ".png";
      fs::copy_file(at("data") + name, folder + name, fs::copy_options::overwrite_existing);
    }
    return folder;
  }
  ProgramResult embed(const std::string& data, const std::vector<std::string>& more = {}) const {
    std::vector<std::string> words = {"embed", at("tower"), "--data", data, "--out", out(), "--json"};
    words.insert(words.end(), more.begin(), more.end());
    return run_program(words);
  }
  std::string out() const { return folder_ / "out.safetensors"; }

  TemporaryFolder folder_;

 private:
  static inline std::unique_ptr<SmallWorld> world_;
};

TEST_F(CliInputs, EmbedsPicturesWithoutCaptionsAndSearchesThem) {
  const std::string data = pictures(3);
  const Json summary = expect_json(embed(data));
  EXPECT_EQ(summary.at("image").dump(), "[3,16]");
  EXPECT_EQ(summary.find("text"), nullptr);
  expect_failure(embed(data, {"--what", "text"}), 1, {"pictures: there is no text to embed"});
  const Json found = expect_json(run_program({"search", at("tower"), "--data", data, "shade", "--json"}));
  EXPECT_EQ(found.at("queries").as_array()[0].at("results").size(), 3u);
  expect_failure(run_program({"search", at("tower"), "--data", data, "--image", data + "/picture0.png"}), 1,
                 {"pictures: no captions to search"});
}

TEST_F(CliInputs, EmbedsTheCaptionsThatAreThere) {
  const std::string data = pictures(3);
  write_file_atomically(
      data + "/captions.jsonl",
      "{\"image\":\"picture0.png\"}\n{\"image\":\"picture1.png\",\"captions\":[\"a\",\"b\"]}\n"
      "{\"image\":\"picture2.png\",\"caption\":\"c\"}\n");
  const Json summary = expect_json(embed(data));
  EXPECT_EQ(summary.at("image").dump(), "[3,16]");
  EXPECT_EQ(summary.at("text").dump(), "[3,16]");
  const SafetensorsFile file(out());
  const auto* owner = reinterpret_cast<const int64_t*>(file.find("image_of_caption")->bytes.data());
  EXPECT_EQ(std::vector<int64_t>(owner, owner + 3), (std::vector<int64_t>{1, 1, 2}));
}

TEST_F(CliInputs, TheDefaultSplitIsForDataThatNamesSplits) {
  const std::string data = pictures(2);
  expect_failure(embed(data, {"--split", "val"}), 1, {"no usable rows of split \"val\""});
  write_file_atomically(data + "/captions.jsonl", R"({"image":"picture0.png","split":"train"})"
                                                  "\n"
                                                  R"({"image":"picture1.png"})"
                                                  "\n");
  expect_failure(embed(data), 1, {"no usable rows of split \"val\"", "\"train\" (1 rows)"});
  EXPECT_EQ(expect_json(embed(data, {"--split", "all"})).at("image").dump(), "[2,16]");
}

TEST_F(CliInputs, EmbeddingsOfAnotherWidthAreAnotherModels) {
  const std::vector<float> values(8 * 4, 0.5F);
  write_safetensors(out(), {{"image", DType::kF32, {8, 4}, std::as_bytes(std::span(values))}});
  expect_failure(run_program({"search", at("tower"), "--data", at("data"), "--embeddings", out(), "shade"}),
                 1, {"out.safetensors: \"image\" embeddings of width 4, this model's have 16"});
}

TEST_F(CliInputs, GenerateBeginsWithWhatTheTokenizerPutsBeforeAText) {
  const std::string model = folder_ / "language";
  fs::copy(at("language"), model, fs::copy_options::recursive);
  Json tokenizer = read_json_file(model + "/tokenizer.json");
  tokenizer["post_processor"] = parse_json(
      R"({"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"A","type_id":0}},
          {"Sequence":{"id":"A","type_id":0}}],"pair":[],"special_tokens":{"A":{"id":"A","ids":[65],"tokens":["A"]}}})",
      "post-processor");
  write_json_file(model + "/tokenizer.json", tokenizer);
  const auto generate = [](const std::string& folder, const std::string& prompt) {
    return expect_json(run_program(
        {"generate", folder, prompt, "--max-tokens", "8", "--temperature", "0", "--ignore-end", "--json"}));
  };
  const Json begun = generate(model, "One"), written = generate(at("language"), "AOne");
  EXPECT_EQ(begun.at("prompt_tokens").as_int(), 4);
  EXPECT_EQ(begun.at("text"), written.at("text"));
  EXPECT_EQ(run_program({"generate", model, "One", "--max-tokens", "1"}).out.substr(0, 3), "One");
  EXPECT_EQ(generate(model, "").at("prompt_tokens").as_int(), 1);
  expect_failure(run_program({"generate", at("language"), ""}), 1, {"the prompt is empty"});
}

}  // namespace
}  // namespace fathom::cli_inputs_test
