#include "data/tokenizer/trainer.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"

namespace fathom::trainer_test {
namespace {

/// Words of a few letters with a skewed distribution, and separators.
std::string random_corpus(size_t num_words) {
  std::string text;
  uint64_t state = 1;
  for (size_t i = 0; i < num_words; ++i) {
    state = state * 6364136223846793005 + 1442695040888963407;
    const uint64_t word = (state >> 33) % 997 * ((state >> 45) % 31);
    text += ' ';
    for (uint64_t rest = word; rest > 0; rest /= 11) text += "etaoinshrdl"[rest % 11];
    if (i % 5000 == 4999) text += "\n<|endoftext|>\n";
  }
  return text;
}

Tokenizer train(std::string_view text, TokenizerTrainerConfig config) {
  const std::string_view texts[] = {text};
  return train_tokenizer(texts, config);
}

TEST(TokenizerTrainer, FollowsTheDefinitionOnASmallText) {
  // Words: abc, Ġabc, Ġab, Ġab. Pairs: ab 4, Ġa 3, bc 2; after ab: Ġab 3, abc 2; after Ġab nothing occurs
  // twice.
  const Tokenizer tokenizer = train("abc abc ab ab", {.vocab_size = 261, .special_tokens = {"<s>"}});
  EXPECT_EQ(tokenizer.token_id("<s>"), 0);
  EXPECT_EQ(tokenizer.token_id("!"), 1);
  EXPECT_EQ(tokenizer.token_id("ab"), 257);
  EXPECT_EQ(tokenizer.token_id("Ġab"), 258);
  EXPECT_EQ(tokenizer.vocab_size(), 259);
  EXPECT_EQ(tokenizer.encode("abc abc ab ab").size(), 6u);
}

TEST(TokenizerTrainer, SpecialTokensSeparateTheText) {
  const Tokenizer tokenizer = train("ab<|endoftext|>ab<|endoftext|>ab<|endoftext|>ab", {.vocab_size = 300});
  EXPECT_TRUE(tokenizer.token_id("ab"));
  EXPECT_FALSE(tokenizer.token_id("<|"));
  EXPECT_EQ(tokenizer.vocab_size(), 259);
}

TEST(TokenizerTrainer, DependsOnNeitherThreadsNorCuts) {
  const std::string corpus = random_corpus(400'000);  // more than one chunk
  ASSERT_GT(corpus.size(), size_t{1} << 20);
  for (const SplitterKind splitter : {SplitterKind::kGpt2, SplitterKind::kLlama3, SplitterKind::kClip}) {
    const std::string one =
        train(corpus, {.vocab_size = 900, .splitter = splitter, .num_threads = 1}).to_json();
    const std::string three =
        train(corpus, {.vocab_size = 900, .splitter = splitter, .num_threads = 3}).to_json();
    EXPECT_EQ(one, three);
    const size_t middle = corpus.find("<|endoftext|>", corpus.size() / 2);
    const std::string_view halves[] = {std::string_view(corpus).substr(0, middle),
                                       std::string_view(corpus).substr(middle)};
    EXPECT_EQ(train_tokenizer(halves, {.vocab_size = 900, .splitter = splitter}).to_json(), one);
  }
}

TEST(TokenizerTrainer, MergesEqualTheReference) {
  const Json golden = read_json_file(FATHOM_GOLDENS "/tokenizer_trained.json");
  std::vector<std::string> texts;
  for (const Json& text : golden.at("texts").as_array()) texts.push_back(text.as_string());
  const std::vector<std::string_view> views(texts.begin(), texts.end());
  for (const char* name : {"gpt2", "llama3"}) {
    const Json& expected = golden.at(name);
    const Tokenizer tokenizer = train_tokenizer(
        views, {.vocab_size = static_cast<int64_t>(expected.at("vocab").size()),
                .splitter = std::string_view(name) == "gpt2" ? SplitterKind::kGpt2 : SplitterKind::kLlama3});
    const Json ours = parse_json(tokenizer.to_json(), name);
    EXPECT_EQ(ours.at("model").at("merges"), expected.at("merges"));
    EXPECT_EQ(ours.at("model").at("vocab"), expected.at("vocab"));
  }
}

TEST(TokenizerTrainer, ReportsProgress) {
  const std::string corpus = random_corpus(1000);
  const std::string_view texts[] = {corpus};
  int64_t counted = 0, merged = 0;
  train_tokenizer(texts, {.vocab_size = 400}, [&](const TokenizerTrainingProgress& progress) {
    const bool counting = progress.phase == TokenizerTrainingProgress::Phase::kCounting;
    (counting ? counted : merged) = progress.done;
    EXPECT_EQ(progress.total, counting ? static_cast<int64_t>(corpus.size()) : 400);
  });
  EXPECT_GT(counted, 0);
  EXPECT_GT(merged, 300);
}

TEST(TokenizerTrainer, RefusesWhatCannotBe) {
  const auto message = [](std::string_view text, TokenizerTrainerConfig config) -> std::string {
    try {
      train(text, config);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(message("a", {.vocab_size = 257}).find("vocab_size 257"), std::string::npos);
  EXPECT_NE(message("a", {.vocab_size = 400, .splitter = SplitterKind::kClip}).find("514"),
            std::string::npos);
  EXPECT_NE(message("a", {.special_tokens = {"x", "x"}}).find("twice"), std::string::npos);
  EXPECT_NE(message("a", {.special_tokens = {""}}).find("empty"), std::string::npos);
  EXPECT_NE(message("", {}).find("no word"), std::string::npos);
}

}  // namespace
}  // namespace fathom::trainer_test
