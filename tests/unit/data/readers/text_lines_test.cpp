#include "data/readers/text_lines.h"

#include <gtest/gtest.h>

#include <string>

namespace fathom::text_lines_test {
namespace {

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
}  // namespace fathom::text_lines_test
