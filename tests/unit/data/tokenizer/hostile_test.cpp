// Files that are broken or made to do harm: each is refused with a message that says what is wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "data/tokenizer/spec.h"
#include "data/tokenizer/tokenizer.h"

namespace fathom::hostile_test {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

/// A small tokenizer.json that is right: bytes, one merge, one special token.
Json small_file() {
  return parse_json(Tokenizer(gpt2_spec("#version: 0.2\nh e\nhe r\n")).to_json(), "small");
}

std::string message_of(const std::string& text) {
  try {
    Tokenizer::from_json(text, "FILE");
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kData);
    EXPECT_THAT(error.what(), StartsWith("FILE:"));
    return error.what();
  }
  return "";
}

/// The message after `edit` has damaged the small file.
std::string message_after(const std::function<void(Json&)>& edit) {
  Json file = small_file();
  edit(file);
  return message_of(file.dump());
}

Json step(const char* type) {
  Json value;
  value["type"] = type;
  return value;
}

TEST(TokenizerHostile, TheSmallFileIsRight) {
  EXPECT_EQ(message_of(small_file().dump()), "");
  EXPECT_EQ(Tokenizer::from_json(small_file().dump(), "FILE").encode("her").size(), 1u);
}

TEST(TokenizerHostile, OtherModelsAreNamed) {
  for (const char* type : {"Unigram", "WordPiece", "WordLevel"})
    EXPECT_THAT(message_after([&](Json& file) { file["model"]["type"] = type; }), HasSubstr(type));
  EXPECT_THAT(message_of(R"({"model": {"vocab": {"a": 0}}})"), HasSubstr("WordPiece"));
}

TEST(TokenizerHostile, OtherStepsAreNamed) {
  EXPECT_THAT(message_after([](Json& file) { file["normalizer"] = step("BertNormalizer"); }),
              HasSubstr("normalizer BertNormalizer"));
  EXPECT_THAT(message_after([](Json& file) { file["pre_tokenizer"] = step("BertPreTokenizer"); }),
              HasSubstr("pre-tokenizer BertPreTokenizer"));
  EXPECT_THAT(message_after([](Json& file) { file["decoder"] = step("CTC"); }), HasSubstr("decoder CTC"));
  EXPECT_THAT(message_after([](Json& file) { file["post_processor"] = step("Mystery"); }),
              HasSubstr("post-processor Mystery"));
  EXPECT_THAT(message_after([](Json& file) { file["model"]["dropout"] = 0.1; }), HasSubstr("dropout"));
  EXPECT_THAT(message_after([](Json& file) { file["model"]["continuing_subword_prefix"] = "##"; }),
              HasSubstr("continuing_subword_prefix"));
}

TEST(TokenizerHostile, MergesMustFitTheVocabulary) {
  EXPECT_THAT(message_after([](Json& file) { file["model"]["merges"].push_back("he zz"); }),
              HasSubstr("\"zz\""));
  EXPECT_THAT(message_after([](Json& file) { file["model"]["merges"].push_back("z z"); }),
              HasSubstr("\"zz\""));
  EXPECT_THAT(message_after([](Json& file) { file["model"]["merges"].push_back("a b c"); }),
              HasSubstr("\"a b c\""));
  EXPECT_THAT(message_after([](Json& file) { file["model"]["merges"].push_back(Json::array()); }),
              HasSubstr("0 parts"));
  EXPECT_THAT(message_after([](Json& file) { file["model"]["merges"].push_back(7); }),
              HasSubstr("expected a string"));
}

TEST(TokenizerHostile, IdsAreCheckedBeforeMemoryIsTaken) {
  EXPECT_THAT(message_after([](Json& file) { file["model"]["vocab"]["x y"] = INT64_MAX; }),
              HasSubstr("\"x y\" has id"));
  EXPECT_THAT(message_after([](Json& file) { file["model"]["vocab"]["x y"] = int64_t{2147483647}; }),
              HasSubstr("has id 2147483647"));
  EXPECT_THAT(message_after([](Json& file) { file["model"]["vocab"]["x y"] = -1; }), HasSubstr("has id -1"));
  EXPECT_THAT(message_after([](Json& file) { file["model"]["vocab"]["x y"] = 3; }), HasSubstr("share id 3"));
  EXPECT_THAT(message_after([](Json& file) { file["model"]["vocab"]["x y"] = "3"; }),
              HasSubstr("expected an integer"));
  EXPECT_THAT(message_of(R"({"model": {"merges": [], "vocab": {"a": 0, "a": 1}}})"),
              HasSubstr("appears twice"));
}

TEST(TokenizerHostile, AddedTokensAreChecked) {
  const auto added = [](const char* key, Json value) {
    return message_after([&](Json& file) { file["added_tokens"].as_array()[0][key] = value; });
  };
  EXPECT_THAT(added("content", ""), HasSubstr("without text"));
  EXPECT_THAT(added("id", int64_t{1} << 40), HasSubstr("has id"));
  EXPECT_THAT(added("special", "yes"), HasSubstr("expected a boolean"));
  EXPECT_THAT(message_after([](Json& file) { file["model"]["unk_token"] = "<none>"; }), HasSubstr("<none>"));
}

TEST(TokenizerHostile, PatternsAreChecked) {
  Json split = step("Split");
  split["pattern"]["Regex"] = "(unclosed";
  split["behavior"] = "Isolated";
  EXPECT_THAT(message_after([&](Json& file) { file["pre_tokenizer"] = split; }), HasSubstr("\"(unclosed\""));
  split["behavior"] = "Shuffled";
  EXPECT_THAT(message_after([&](Json& file) { file["pre_tokenizer"] = split; }), HasSubstr("Shuffled"));
  split["pattern"] = Json::object();
  split["behavior"] = "Isolated";
  EXPECT_THAT(message_after([&](Json& file) { file["pre_tokenizer"] = split; }), HasSubstr("String"));
}

TEST(TokenizerHostile, TemplatesAreChecked) {
  const Json post = parse_json(
      R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "s"}}],
          "special_tokens": {"s": {"ids": [99999]}}})",
      "post");
  EXPECT_THAT(message_after([&](Json& file) { file["post_processor"] = post; }), HasSubstr("99999"));
}

TEST(TokenizerHostile, EveryTruncationIsRefused) {
  const std::string whole = small_file().dump();
  for (size_t length = 0; length < whole.size(); length += 1 + length / 50)
    EXPECT_NE(message_of(whole.substr(0, length)), "") << length;
}

TEST(TokenizerHostile, DeepNestingIsRefused) {
  std::string text = "null";
  for (int i = 0; i < 100'000; ++i) text = "[" + text;
  EXPECT_NE(message_of(text), "");
  Json steps = step("NFC");
  for (int i = 0; i < 60; ++i) {
    Json outer = step("Sequence");
    outer["normalizers"].push_back(steps);
    steps = outer;
  }
  EXPECT_EQ(message_after([&](Json& file) { file["normalizer"] = steps; }), "");
}

TEST(TokenizerHostile, MissingFilesAreNamed) {
  try {
    Tokenizer::from_file("/nonexistent/tokenizer.json");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("/nonexistent/tokenizer.json"));
  }
}

}  // namespace
}  // namespace fathom::hostile_test
