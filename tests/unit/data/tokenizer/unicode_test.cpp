#include <gtest/gtest.h>

#include "data/tokenizer/byte_alphabet.h"
#include "data/tokenizer/unicode.h"

namespace fathom::unicode::unicode_test {
namespace {

TEST(TokenizerUnicode, DecodesExactlyTheValidSequences) {
  for (char32_t value = 0; value <= 0x10FFFF; ++value) {
    std::string text;
    append_utf8(text, value);
    const CodePoint point = decode_utf8(text.data(), text.data() + text.size());
    const bool surrogate = value >= 0xD800 && value < 0xE000;
    ASSERT_EQ(point.value, surrogate ? kBrokenByte : value);
    ASSERT_EQ(point.length, surrogate ? 1 : static_cast<int>(text.size()));
    if (text.size() > 1) {
      ASSERT_EQ(decode_utf8(text.data(), text.data() + text.size() - 1).value, kBrokenByte);
    }
  }
  for (const char* broken : {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xF0\x8F\xBF\xBF",
                             "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF",
                             "\xC3"
                             "a"}) {
    const std::string_view text(broken);
    EXPECT_EQ(decode_utf8(text.data(), text.data() + text.size()).value, kBrokenByte);
  }
}

TEST(TokenizerUnicode, Classes) {
  for (const char32_t letter : {U'a', U'Z', U'é', U'ß', U'ª', U'中', U'한', U'ა', U'𠀀', U'ſ'})
    EXPECT_EQ(char_class(letter), CharClass::kLetter) << uint32_t(letter);
  for (const char32_t number : {U'0', U'9', U'²', U'½', U'٣', U'Ⅷ', U'〇', U'𝟙'})
    EXPECT_EQ(char_class(number), CharClass::kNumber) << uint32_t(number);
  for (const char32_t space : {U' ', U'\t', U'\n', U'\v', U'\u0085', U'\u00a0', U'\u2028', U'\u3000'})
    EXPECT_EQ(char_class(space), CharClass::kSpace) << uint32_t(space);
  for (const char32_t other :
       {U'_', U'\'', U'\u0301', U'\u200b', U'\u200d', U'\u180e', U'\ufeff', U'🙂', U'\x1c', kBrokenByte})
    EXPECT_EQ(char_class(other), CharClass::kOther) << uint32_t(other);
}

TEST(TokenizerUnicode, LowerCase) {
  const auto lower = [](std::u32string_view text) {
    std::string out;
    for (const char32_t value : text) append_lower(out, value);
    return out;
  };
  EXPECT_EQ(lower(U"AZaz09ÀÞßŸΣЖḀẞ"), "azaz09àþßÿσжḁß");
  EXPECT_EQ(lower(U"İIı"), "i̇iı");
  EXPECT_EQ(lower(U"\U00010400Ꭰ"), "\U00010428ꭰ");
}

TEST(TokenizerUnicode, NormalForms) {
  EXPECT_EQ(normalize("e\u0301 \u212b \u1112\u1161\u11ab \u0958", Form::kNfc), "é Å 한 \u0915\u093c");
  EXPECT_EQ(normalize("q\u0307\u0323", Form::kNfc), "q\u0323\u0307");
  EXPECT_EQ(normalize("é한", Form::kNfd), "e\u0301\u1112\u1161\u11ab");
  EXPECT_EQ(normalize("ﬁ１²", Form::kNfkc), "fi12");
  EXPECT_EQ(normalize("e\u0301\xff"
                      "e\u0301\xc3",
                      Form::kNfc),
            "é\xff"
            "é\xc3");
}

TEST(TokenizerUnicode, NewerCodePointsStay) {
  // U+1AC5 is a mark of Unicode 14 (class 230): the reference's tables do not order it, so neither do ours.
  EXPECT_EQ(normalize("a\u1ac5\u0323", Form::kNfc), "a\u1ac5\u0323");
  EXPECT_EQ(normalize("\u1111\u1161\u11a7", Form::kNfc), "\ud30c\u11a7");
}

/// A long run of marks in falling order: exchanging neighbours would take 10^10 steps here.
TEST(TokenizerUnicode, OrderingOfMarksIsNotQuadratic) {
  std::string text = "a", ordered = "a";
  for (int i = 0; i < 200'000; ++i) text += i % 2 ? "\u0323" : "\u0305";
  for (int i = 0; i < 100'000; ++i) ordered += "\u0323";
  for (int i = 0; i < 100'000; ++i) ordered += "\u0305";
  EXPECT_EQ(normalize(text, Form::kNfd), ordered);
}

TEST(TokenizerUnicode, ByteSymbols) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  EXPECT_EQ(from_byte_symbols(to_byte_symbols(all)), all);
  EXPECT_EQ(to_byte_symbols(" a\n\xff"), "ĠaĊÿ");
  EXPECT_EQ(from_byte_symbols("a b"), std::nullopt);
  EXPECT_EQ(byte_of_rank(0), '!');
  EXPECT_EQ(byte_of_rank(188), 0);
  EXPECT_EQ(byte_of_rank(220), ' ');
}

}  // namespace
}  // namespace fathom::unicode::unicode_test
