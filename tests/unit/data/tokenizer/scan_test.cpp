// Hand-written splitters against the regular expressions they stand for, run by PCRE2.
#include "data/tokenizer/scan.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/random.h"
#include "data/tokenizer/pattern.h"
#include "data/tokenizer/pattern_text.h"

namespace fathom::scan_test {
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

/// Strings over what the patterns tell apart, half of them plain ASCII, with runs longer than the scanners'
/// steps.
std::string random_text(Random& random) {
  // clang-format off
  static const std::vector<std::string> kAscii = {
      "a", "s", "t", "re", "ve", "LL", "S", "D", "Z", "A", "z", "zebra", "ordinary", "incomprehensibilities", "1", "23",
      "'", "'", "'", "'s", "'ll", " ", " ", " ", "\n", "\r\n", "\t", ".", "!?", "-", "_", "{", "`", "@", "[", "/", ":",
      "\x1c", "\x7f", std::string(1, '\0')};
  static const std::vector<std::string> kOthers = {
      "\u00a0", "\u3000", "\u2028", "\u0085", "é", "Я", "漢", "\u0301", "\u017f", "٣", "½", "🙂", "\u200d", "\u180e"};
  // clang-format on
  const bool plain = random.below(2) == 0;
  std::string text;
  for (int64_t left = random.below(50); left > 0; --left) {
    const auto& atoms = plain || random.below(4) > 0 ? kAscii : kOthers;
    const std::string& atom = atoms[static_cast<size_t>(random.below(std::ssize(atoms)))];
    const int64_t repeats = random.below(8) > 0 ? 1 : 1 + random.below(random.below(4) > 0 ? 6 : 80);
    for (int64_t i = 0; i < repeats; ++i) text += atom;
  }
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

TEST(TokenizerPattern, SpeaksTheDialectOfTheReference) {
  EXPECT_EQ(matched(Pattern::regex("e\\w"), "e\u0301 e_ e\u180e"), (Pieces{"e\u0301", "e_"}));
  EXPECT_EQ(matched(Pattern::regex("[\\w-]+|\\W"), "a-e\u0301!"), (Pieces{"a-e\u0301", "!"}));
  EXPECT_EQ(matched(Pattern::regex("\\s|\\h+"), "\u180e \u2003fg"), (Pieces{" ", "\u2003", "f"}));
  EXPECT_EQ(matched(Pattern::regex("^a$"), "a\nb\na"), (Pieces{"a", "a"}));
  EXPECT_THROW(Pattern::regex("[a-z&&[^b]]"), std::runtime_error);
  EXPECT_THROW(Pattern::regex("[\\W]"), std::runtime_error);
}

TEST(TokenizerPattern, SkipsBrokenBytes) {
  EXPECT_EQ(matched(Pattern::regex("\\p{L}+|\\s"),
                    "ab\xff"
                    "c \xc3"),
            (Pieces{"ab", "c", " "}));
}

}  // namespace
}  // namespace fathom::scan_test
