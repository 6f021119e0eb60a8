// Properties: lossless on any bytes, pieces encode on their own, special tokens, threads, linear time.
#include "data/tokenizer/tokenizer.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <thread>

#include "base/error.h"
#include "base/json.h"
#include "base/random.h"
#include "data/tokenizer/merger.h"
#include "data/tokenizer/scan.h"
#include "data/tokenizer/spec.h"
#include "data/tokenizer/trainer.h"

namespace fathom::tokenizer_test {
namespace {

constexpr std::string_view kText =
    "the quick brown fox jumps over the lazy dog. The dog doesn't mind; the fox's quick, and the dog is "
    "lazy.\n"
    "Привет, мир! Привет, лиса. naïve café déjà vu naïve café 中文字 中文 日本語 日本語 1234 1234 12 "
    "12\n\n\n   the the";

const Tokenizer& small_tokenizer(SplitterKind kind) {
  const auto train = [](SplitterKind splitter) {
    const std::string_view texts[] = {kText};
    return train_tokenizer(texts,
                           {.vocab_size = 600, .splitter = splitter, .min_frequency = 1, .num_threads = 1});
  };
  static const Tokenizer gpt2 = train(SplitterKind::kGpt2), llama3 = train(SplitterKind::kLlama3),
                         clip = train(SplitterKind::kClip);
  return kind == SplitterKind::kGpt2 ? gpt2 : kind == SplitterKind::kLlama3 ? llama3 : clip;
}

/// Text of snippets from the training text, ASCII and raw bytes, so that merges and broken UTF-8 both occur.
rc::Gen<std::string> any_bytes() {
  const auto snippet = rc::gen::map(rc::gen::inRange<size_t>(0, kText.size()),
                                    [](size_t at) { return std::string(kText.substr(at, 1 + at % 7)); });
  const auto raw =
      rc::gen::map(rc::gen::arbitrary<uint8_t>(), [](uint8_t b) { return std::string(1, char(b)); });
  return rc::gen::map(rc::gen::container<std::vector<std::string>>(rc::gen::oneOf(snippet, raw)),
                      [](const std::vector<std::string>& parts) {
                        std::string text;
                        for (const std::string& part : parts) text += part;
                        return text;
                      });
}

RC_GTEST_PROP(TokenizerProperty, DecodeOfEncodeIsTheText, ()) {
  const std::string text = *any_bytes();
  for (const SplitterKind kind : {SplitterKind::kGpt2, SplitterKind::kLlama3}) {
    const Tokenizer& tokenizer = small_tokenizer(kind);
    RC_ASSERT(tokenizer.decode(tokenizer.encode(text)) == text);
    RC_ASSERT(tokenizer.decode(tokenizer.encode(text, true)) == text);
  }
}

RC_GTEST_PROP(TokenizerProperty, PiecesEncodeOnTheirOwn, ()) {
  const std::string text = *any_bytes();
  const Tokenizer& tokenizer = small_tokenizer(SplitterKind::kGpt2);
  std::vector<int32_t> ids;
  scan::for_each_piece(scan::Gpt2{}, text, [&](std::string_view piece) {
    const std::vector<int32_t> own = tokenizer.encode(piece);
    ids.insert(ids.end(), own.begin(), own.end());
  });
  RC_ASSERT(tokenizer.encode(text) == ids);
}

TEST(Tokenizer, MergesWhatItWasTrainedOn) {
  const Tokenizer& tokenizer = small_tokenizer(SplitterKind::kGpt2);
  EXPECT_EQ(tokenizer.encode(" quick").size(), 1u);
  EXPECT_EQ(tokenizer.encode(" the the the").size(), 3u);
  EXPECT_LT(tokenizer.encode(kText).size(), kText.size() / 3);
}

TEST(Tokenizer, SpecialTokensAreRecognisedOnlyIfAsked) {
  const Tokenizer& tokenizer = small_tokenizer(SplitterKind::kGpt2);
  const std::string text = "the<|endoftext|>the<|pad|>";
  const std::vector<int32_t> with = tokenizer.encode(text, true);
  EXPECT_EQ(tokenizer.end_of_text(), 0);
  EXPECT_EQ(tokenizer.padding(), 1);
  EXPECT_EQ(std::count(with.begin(), with.end(), 0), 1);
  EXPECT_EQ(with.back(), 1);
  EXPECT_EQ(tokenizer.decode(with), text);
  EXPECT_EQ(tokenizer.decode(with, true), "thethe");
  const std::vector<int32_t> without = tokenizer.encode(text);
  EXPECT_EQ(std::count(without.begin(), without.end(), 0), 0);
  EXPECT_EQ(tokenizer.decode(without), text);
}

TEST(Tokenizer, EncodeAppends) {
  const Tokenizer& tokenizer = small_tokenizer(SplitterKind::kGpt2);
  std::vector<int32_t> ids = {7};
  tokenizer.encode("the", ids);
  tokenizer.encode(" dog", ids);
  EXPECT_EQ(ids.front(), 7);
  EXPECT_EQ(tokenizer.decode(std::span(ids).subspan(1)), "the dog");
  EXPECT_TRUE(tokenizer.encode("").empty());
}

TEST(Tokenizer, UnknownIdsAreRefused) {
  const Tokenizer& tokenizer = small_tokenizer(SplitterKind::kGpt2);
  for (const int32_t id : {-1, static_cast<int32_t>(tokenizer.vocab_size()), INT32_MAX}) {
    try {
      tokenizer.decode({&id, 1});
      FAIL() << id;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kRequest);
      EXPECT_NE(std::string(error.what()).find(std::to_string(id)), std::string::npos);
    }
  }
}

TEST(Tokenizer, ThreadsGetTheSameIds) {
  const Tokenizer& tokenizer = small_tokenizer(SplitterKind::kLlama3);
  const std::vector<int32_t> expected = tokenizer.encode(kText);
  std::vector<std::jthread> threads;
  std::atomic<int> num_equal = 0;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (int repeat = 0; repeat < 200; ++repeat) num_equal += tokenizer.encode(kText) == expected;
    });
  threads.clear();
  EXPECT_EQ(num_equal, 800);
}

/// More different words than the cache has places: results do not depend on what it still knows.
TEST(Tokenizer, ManyWordsPushOldOnesOut) {
  const Tokenizer& tokenizer = small_tokenizer(SplitterKind::kGpt2);
  std::string text;
  for (int i = 0; i < 300'000; ++i)
    text += " w" + std::string(1, static_cast<char>('a' + i % 26)) + std::to_string(i);
  const std::vector<int32_t> once = tokenizer.encode(text);
  EXPECT_EQ(tokenizer.decode(once), text);
  EXPECT_EQ(tokenizer.encode(text), once);
}

/// Steps for a word of n symbols, counted by the merger itself.
int64_t steps(const MergeTable& table, const std::vector<int32_t>& word) {
  Merger merger(table);
  merger.symbols() = word;
  merger.merge();
  return merger.num_steps();
}

TEST(TokenizerTime, HugeWordsTakeStepsInProportion) {
  TokenizerSpec spec;  // 0 0 → 1, 1 1 → 2, …: a run of zeros merges all the way up
  for (int32_t id = 0; id < 20; ++id) {
    spec.tokens.emplace_back(1, static_cast<char>('a' + id));
    if (id > 0) spec.merges.emplace_back(id - 1, id - 1), spec.merged.push_back(id);
  }
  const MergeTable table(spec);
  Random random(7);
  for (const bool uniform : {true, false}) {
    std::vector<int32_t> word(1 << 18);
    for (int32_t& symbol : word) symbol = uniform ? 0 : static_cast<int32_t>(random.below(3));
    const int64_t whole = steps(table, word);
    word.resize(word.size() / 16);
    const int64_t part = steps(table, word);
    EXPECT_GT(part, static_cast<int64_t>(word.size()) / 2);
    EXPECT_LT(whole, 17 * part);
    EXPECT_LT(whole, 6 * (1 << 18));
  }
}

TEST(TokenizerTime, LongAndShortWordsMergeAlike) {
  TokenizerSpec spec;
  Random random(3);
  for (int32_t id = 0; id < 400; ++id) spec.tokens.push_back(std::to_string(id));
  for (int32_t id = 8; id < 400; ++id) {
    spec.merges.emplace_back(static_cast<int32_t>(random.below(id)), static_cast<int32_t>(random.below(id)));
    spec.merged.push_back(id);
  }
  const MergeTable table(spec);
  for (int repeat = 0; repeat < 300; ++repeat) {
    std::vector<int32_t> word(static_cast<size_t>(2 + random.below(90)));
    for (int32_t& symbol : word) symbol = static_cast<int32_t>(random.below(8));
    std::vector<int32_t> expected = word;
    while (true) {  // the definition: the most important merge, leftmost first
      size_t best = 0;
      MergeRank merge = kNoMerge;
      for (size_t i = 0; i + 1 < expected.size(); ++i)
        if (const MergeRank m = table.rank(expected[i], expected[i + 1]); m < merge) merge = m, best = i;
      if (merge == kNoMerge) break;
      expected[best] = table.merged(merge);
      expected.erase(expected.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    }
    Merger merger(table);
    merger.symbols() = word;
    const std::span<const int32_t> merged = merger.merge();
    EXPECT_EQ(std::vector<int32_t>(merged.begin(), merged.end()), expected);
  }
}

}  // namespace
}  // namespace fathom::tokenizer_test
