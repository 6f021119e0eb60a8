// Ids and decoded texts against the `tokenizers` package (tests/golden/tokenizer.py), and against OpenAI's
// GPT-2 and CLIP on the shared samples.
#include <gtest/gtest.h>
#include <zlib.h>

#include <cstdlib>
#include <memory>

#include "base/file.h"
#include "base/json.h"
#include "data/tokenizer/spec.h"
#include "data/tokenizer/tokenizer.h"

namespace fathom::golden_test {
namespace {

std::vector<int32_t> ids_of(const Json& list) {
  std::vector<int32_t> ids;
  for (const Json& id : list.as_array()) ids.push_back(static_cast<int32_t>(id.as_int()));
  return ids;
}

class TokenizerGolden : public ::testing::TestWithParam<const char*> {
 protected:
  /// The reference leaves CLIP's </w> in the text, and puts U+FFFD where bytes are broken, as without most of
  /// them.
  static bool decodes_alike() {
    const std::string_view kind = GetParam();
    return kind != "clip" && kind != "unknowns";
  }

  const Json golden_ = read_json_file(std::string(FATHOM_GOLDENS "/tokenizer/") + GetParam() + ".json");
  const Tokenizer tokenizer_ = Tokenizer::from_json(golden_.at("tokenizer").dump(), GetParam());
};

TEST_P(TokenizerGolden, IdsAndTextsEqualTheReference) {
  ASSERT_GE(golden_.at("samples").size(), 100u);
  for (const Json& sample : golden_.at("samples").as_array()) {
    const std::string& text = sample.at("text").as_string();
    const std::vector<int32_t> ids = ids_of(sample.at("ids"));
    EXPECT_EQ(tokenizer_.encode(text, true), ids) << text;
    if (decodes_alike()) {
      EXPECT_EQ(tokenizer_.decode(ids), sample.at("decoded").as_string()) << text;
    }
  }
}

TEST_P(TokenizerGolden, SavedAndReadBackItIsTheSame) {
  const Tokenizer again = Tokenizer::from_json(tokenizer_.to_json(), "again");
  EXPECT_EQ(again.to_json(), tokenizer_.to_json());
  for (const Json& sample : golden_.at("samples").as_array())
    EXPECT_EQ(again.encode(sample.at("text").as_string(), true), ids_of(sample.at("ids")));
}

INSTANTIATE_TEST_SUITE_P(Kinds, TokenizerGolden,
                         ::testing::Values("gpt2", "gpt2_prefix_space", "llama3", "qwen2", "clip", "llama2",
                                           "metaspace", "digits", "pattern", "unknowns"),
                         [](const auto& info) { return std::string(info.param); });

TEST(TokenizerGoldenFile, Llama3HasItsTemplate) {
  const Json golden = read_json_file(FATHOM_GOLDENS "/tokenizer/llama3.json");
  const Tokenizer tokenizer = Tokenizer::from_json(golden.at("tokenizer").dump(), "llama3");
  EXPECT_EQ(tokenizer.prefix(), std::vector<int32_t>{*tokenizer.token_id("<|begin_of_text|>")});
  EXPECT_EQ(tokenizer.suffix(), std::vector<int32_t>{*tokenizer.token_id("<|eot|>")});
}

TEST(TokenizerGoldenFile, ClipDecodesToWords) {
  const Json golden = read_json_file(FATHOM_GOLDENS "/tokenizer/clip.json");
  const Tokenizer tokenizer = Tokenizer::from_json(golden.at("tokenizer").dump(), "clip");
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("A  Café,\n\nDON'T")), "a café , don 't");
}

/// The folder of shared data, or an empty string after marking the test as skipped.
std::string shared_tokenizers() {
  const char* folder = std::getenv("FATHOM_DATA");
  return folder ? std::string(folder) + "/tokenizers/" : std::string();
}

std::string gunzip(const std::string& path) {
  const std::unique_ptr<gzFile_s, decltype(&gzclose)> file(gzopen(path.c_str(), "rb"), gzclose);
  std::string text;
  char block[65536];
  for (int count; file && (count = gzread(file.get(), block, sizeof block)) > 0;) text.append(block, count);
  return text;
}

void expect_samples(const Tokenizer& tokenizer, const std::string& path) {
  const std::string lines = read_file(path);
  int num_samples = 0;
  for (size_t at = 0; at < lines.size(); ++num_samples) {
    const size_t end = lines.find('\n', at);
    const Json sample = parse_json(lines.substr(at, end - at), path);
    EXPECT_EQ(tokenizer.encode(sample.at("text").as_string()), ids_of(sample.at("ids")));
    at = end == std::string::npos ? lines.size() : end + 1;
  }
  EXPECT_EQ(num_samples, 200);
}

TEST(TokenizerSharedSamples, Gpt2) {
  const std::string folder = shared_tokenizers();
  if (folder.empty()) GTEST_SKIP() << "FATHOM_DATA does not name the folder of data sets";
  const Tokenizer tokenizer(gpt2_spec(read_file(folder + "gpt2-vocab.bpe")));
  EXPECT_EQ(tokenizer.vocab_size(), 50257);
  EXPECT_EQ(tokenizer.end_of_text(), 50256);
  expect_samples(tokenizer, folder + "gpt2-bpe-sample.jsonl");
}

TEST(TokenizerSharedSamples, Clip) {
  const std::string folder = shared_tokenizers();
  if (folder.empty()) GTEST_SKIP() << "FATHOM_DATA does not name the folder of data sets";
  const Tokenizer tokenizer(clip_spec(gunzip(folder + "clip-bpe_simple_vocab_16e6.txt.gz")));
  EXPECT_EQ(tokenizer.vocab_size(), 49408);
  EXPECT_EQ(tokenizer.end_of_text(), 49407);
  expect_samples(tokenizer, folder + "clip-bpe-sample.jsonl");
}

}  // namespace
}  // namespace fathom::golden_test
