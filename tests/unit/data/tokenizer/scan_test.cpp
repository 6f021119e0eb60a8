// Hand-written splitters against the regular expressions they stand for, run by PCRE2.
#include "data/tokenizer/scan.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/random.h"
#include "data/tokenizer/pattern.h"
#include "data/tokenizer/pattern_text.h"

namespace fathom {
namespace {

using Pieces = std::vector<std::string>;

template <typename Scanner>
Pieces scanned(const Scanner& scanner, std::string_view text) {
  Pieces pieces;
  scan::for_each_piece(scanner, text, [&](std::string_view piece) { pieces.emplace_back(piece); });
  return pieces;
}

Pieces matched(const Pattern& pattern, std::string_view text) {
  Pieces pieces;
  for (const Pattern::Match& match : pattern.find_all(text))
    pieces.emplace_back(text.substr(match.begin, match.end - match.begin));
  return pieces;
}

/// Short strings over what the patterns tell apart, with runs long enough for the eight-byte steps.
std::string random_text(Random& random) {
  static const std::vector<std::string> kAtoms = {"a",
                                                  "s",
                                                  "t",
                                                  "re",
                                                  "ve",
                                                  "LL",
                                                  "S",
                                                  "D",
                                                  "zebra",
                                                  "ordinary",
                                                  "incomprehensibilities",
                                                  "1",
                                                  "23",
                                                  "'",
                                                  "'",
                                                  "'",
                                                  " ",
                                                  " ",
                                                  " ",
                                                  "\n",
                                                  "\r\n",
                                                  "\t",
                                                  "\u00a0",
                                                  "\u3000",
                                                  "\u2028",
                                                  "\u0085",
                                                  ".",
                                                  "!?",
                                                  "-",
                                                  "é",
                                                  "Я",
                                                  "漢",
                                                  "\u0301",
                                                  "\u017f",
                                                  "٣",
                                                  "½",
                                                  "🙂",
                                                  "_",
                                                  "\u200d",
                                                  "\u180e",
                                                  "z",
                                                  "{",
                                                  "`",
                                                  "@",
                                                  "[",
                                                  "Z",
                                                  "A",
                                                  "\x1c",
                                                  "\x7f"};
  std::string text;
  for (int64_t left = random.below(24); left > 0; --left)
    for (int64_t repeat = random.below(6) > 0 ? 1 : 1 + random.below(20),
                 atom = random.below(std::ssize(kAtoms));
         repeat > 0; --repeat)
      text += kAtoms[static_cast<size_t>(atom)];
  return text;
}

template <typename Scanner>
void expect_equal(const Scanner& scanner, std::string_view expression, uint64_t seed) {
  const Pattern pattern = Pattern::regex(std::string(expression));
  Random random(seed);
  for (int i = 0; i < 20'000; ++i) {
    const std::string text = random_text(random);
    ASSERT_EQ(scanned(scanner, text), matched(pattern, text)) << "text: " << text;
  }
}

TEST(TokenizerScan, Gpt2) {
  expect_equal(scan::Gpt2{}, kGpt2Pattern, 1);
}
TEST(TokenizerScan, Llama3) {
  expect_equal(scan::Llama3{3}, kLlama3Pattern, 2);
}
TEST(TokenizerScan, Qwen2) {
  expect_equal(scan::Llama3{1}, kQwen2Pattern, 3);
}
TEST(TokenizerScan, Clip) {
  expect_equal(scan::Clip{}, kClipPattern, 4);
}

TEST(TokenizerScan, Gpt2KeepsTheLastSpaceForTheNextWord) {
  EXPECT_EQ(scanned(scan::Gpt2{}, "I'll  go\n\n x"), (Pieces{"I", "'ll", " ", " go", "\n\n", " x"}));
}

TEST(TokenizerScan, BrokenBytesAreSymbols) {
  EXPECT_EQ(scanned(scan::Gpt2{}, "a\xff\xfe b\xc3"), (Pieces{"a", "\xff\xfe", " b", "\xc3"}));
  EXPECT_EQ(scanned(scan::Gpt2{}, "a\xed\xa0\x80z"), (Pieces{"a", "\xed\xa0\x80", "z"}));
}

TEST(TokenizerPattern, WorkIsBounded) {
  const Pattern slow = Pattern::regex("(a+)+(?=[bc])");
  EXPECT_THROW(slow.find_all(std::string(60, 'a')), std::runtime_error);
  EXPECT_EQ(matched(slow, "aab"), Pieces{"aa"});
}

TEST(TokenizerPattern, SkipsBrokenBytes) {
  EXPECT_EQ(matched(Pattern::regex("\\p{L}+|\\s"),
                    "ab\xff"
                    "c \xc3"),
            (Pieces{"ab", "c", " "}));
}

}  // namespace
}  // namespace fathom
