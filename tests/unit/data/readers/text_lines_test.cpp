#include "data/readers/text_lines.h"

#include <gtest/gtest.h>

#include <string>

namespace fathom {
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

TEST(LineReader, NumbersLinesAndStripsLineEnds) {
  LineReader lines(
      "\xEF\xBB\xBF"
      "one\r\n\ntwo");
  const auto first = lines.next();
  EXPECT_EQ(first->text, "one");
  EXPECT_EQ(first->number, 1);
  EXPECT_EQ(lines.next()->text, "");
  const auto last = lines.next();
  EXPECT_EQ(last->text, "two");
  EXPECT_EQ(last->number, 3);
  EXPECT_FALSE(last->ended);
  EXPECT_FALSE(lines.next());
}

}  // namespace
}  // namespace fathom
