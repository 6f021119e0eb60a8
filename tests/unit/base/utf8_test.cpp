#include "base/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace fathom::utf8_test {
namespace {

TEST(FindInvalidUtf8, AcceptsEveryLengthOfCharacter) {
  EXPECT_FALSE(find_invalid_utf8("plain ascii, longer than eight bytes"));
  EXPECT_FALSE(find_invalid_utf8("é ß 漢字 😀 \xF4\x8F\xBF\xBF \xEF\xBF\xBF"));
  EXPECT_FALSE(find_invalid_utf8(""));
}

TEST(FindInvalidUtf8, NamesTheFirstBadByte) {
  EXPECT_EQ(find_invalid_utf8("abcdefgh\xFFz"), 8u);
  EXPECT_EQ(find_invalid_utf8("a\x80"), 1u);
  EXPECT_EQ(find_invalid_utf8("ab\xC0\xAF"), 2u) << "overlong";
  EXPECT_EQ(find_invalid_utf8("\xE0\x80\x80"), 0u) << "overlong";
  EXPECT_EQ(find_invalid_utf8("x\xED\xA0\x80"), 1u) << "surrogate";
  EXPECT_EQ(find_invalid_utf8("\xF4\x90\x80\x80"), 0u) << "beyond U+10FFFF";
  EXPECT_EQ(find_invalid_utf8("caf\xC3"), 3u) << "cut off";
  EXPECT_EQ(find_invalid_utf8("\xE6\xBC("), 0u);
}

TEST(FirstUtf8Sequence, TellsBrokenFromUnfinishedAndTakesTheLongestPart) {
  const auto first = [](std::string_view text) {
    const Utf8Sequence sequence = first_utf8_sequence(text.data(), text.data() + text.size());
    return std::pair(sequence.state, sequence.size);
  };
  EXPECT_EQ(first("\xF0\x9F\x98\x80z"), std::pair(Utf8Sequence::kCharacter, 4));
  EXPECT_EQ(first("\xF0\x9F\x98"), std::pair(Utf8Sequence::kUnfinished, 3));
  EXPECT_EQ(first("\xF0\x9Fz"), std::pair(Utf8Sequence::kBroken, 2));
  EXPECT_EQ(first("\xED\xA0\x80"), std::pair(Utf8Sequence::kBroken, 1)) << "surrogate";
  EXPECT_EQ(first("\xE9"), std::pair(Utf8Sequence::kUnfinished, 1));
  EXPECT_EQ(first("\x80"), std::pair(Utf8Sequence::kBroken, 1));
}

}  // namespace
}  // namespace fathom::utf8_test
