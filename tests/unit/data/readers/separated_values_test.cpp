#include "data/readers/separated_values.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

namespace fathom::separated_values_test {
namespace {

std::vector<std::vector<std::string>> parse(const std::string& text, char separator = ',') {
  SeparatedReader reader(text, separator);
  std::vector<std::vector<std::string>> rows;
  while (auto row = reader.next()) rows.push_back(row->error.empty() ? row->fields : std::vector{row->error});
  return rows;
}

std::string quote(const std::string& field) {
  std::string out = "\"";
  for (const char c : field) out += c == '"' ? "\"\"" : std::string(1, c);
  return out + "\"";
}

RC_GTEST_PROP(SeparatedReader, QuotedFieldsComeBackWhateverTheyHold, ()) {
  const auto field =
      rc::gen::container<std::string>(rc::gen::element('a', ',', '"', '\n', '\r', '\t', ' ', '\xC3'));
  const auto rows = *rc::gen::container<std::vector<std::vector<std::string>>>(
      rc::gen::container<std::vector<std::string>>(3, field));
  const std::string line_end = *rc::gen::element<std::string>("\n", "\r\n");
  std::string text;
  for (const auto& row : rows) text += quote(row[0]) + "," + quote(row[1]) + "," + quote(row[2]) + line_end;
  RC_ASSERT(parse(text) == rows);
}

RC_GTEST_PROP(SeparatedReader, AnyBytesEndWithoutError, (const std::string& text)) {
  SeparatedReader reader(text, ',');
  int64_t line = 0;
  while (const auto row = reader.next()) {
    RC_ASSERT(row->line > line);
    line = row->line;
  }
}

TEST(SeparatedReader, PlainFieldsEmptyFieldsAndMissingLastLineEnd) {
  EXPECT_EQ(parse("a,b,c\n1,,3\n,,"),
            (std::vector<std::vector<std::string>>{{"a", "b", "c"}, {"1", "", "3"}, {"", "", ""}}));
}

TEST(SeparatedReader, ByteOrderMarkCarriageReturnsAndEmptyLines) {
  EXPECT_EQ(parse("\xEF\xBB\xBF"
                  "a,b\r\n\r\n1,2\r\n\n"),
            (std::vector<std::vector<std::string>>{{"a", "b"}, {"1", "2"}}));
}

TEST(SeparatedReader, TabsSeparateAndCommasDoNot) {
  EXPECT_EQ(parse("a,b\tc\n", '\t'), (std::vector<std::vector<std::string>>{{"a,b", "c"}}));
}

TEST(SeparatedReader, LineNumbersCountLineEndsInsideQuotes) {
  SeparatedReader reader("a\n\"x\ny\nz\"\nlast\n", ',');
  EXPECT_EQ(reader.next()->line, 1);
  EXPECT_EQ(reader.next()->line, 2);
  EXPECT_EQ(reader.next()->line, 5);
  EXPECT_FALSE(reader.next());
}

TEST(SeparatedReader, TextBehindAQuoteBreaksOneRowOnly) {
  EXPECT_EQ(parse("\"a\"b,c\n1,2\n"),
            (std::vector<std::vector<std::string>>{{"text after a closing quote"}, {"1", "2"}}));
}

TEST(SeparatedReader, QuoteThatNeverClosesEndsTheFile) {
  EXPECT_EQ(parse("1,2\n\"a,b\n3,4\n"),
            (std::vector<std::vector<std::string>>{
                {"1", "2"}, {"a quote that is never closed: the rest of the file was not read"}}));
}

}  // namespace
}  // namespace fathom::separated_values_test
