// UTF-8 and the Unicode properties that splitters and normalizers ask for. Broken UTF-8 is kept byte by byte.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace fathom::unicode {

/// What a splitter sees: \p{L}, \p{N}, \s, and all the rest (marks, punctuation, symbols, broken bytes).
enum class CharClass : uint8_t { kOther, kLetter, kNumber, kSpace };

/// No code point: stands for one byte that belongs to no valid UTF-8 sequence.
inline constexpr char32_t kBrokenByte = 0xFFFFFFFF;

struct CodePoint {
  char32_t value;
  int length;  ///< bytes; 1 for a broken byte
};

/// First code point of [p, end). REQUIRES: p < end. Overlong forms, surrogates and values past U+10FFFF are
/// broken.
CodePoint decode_utf8(const char* p, const char* end);
void append_utf8(std::string& out, char32_t value);

/// Class of a code point; kBrokenByte is kOther.
CharClass char_class(char32_t value);
/// \w of Unicode's regular expressions: letters, marks, decimal digits, letter numbers, connectors, joiners.
bool is_word_char(char32_t value);

bool is_ascii(std::string_view text);

/// Lower case, one code point at a time (no final sigma): what Rust's `char::to_lowercase` gives.
void append_lower(std::string& out, char32_t value);

enum class Form { kNfc, kNfd, kNfkc, kNfkd };
/// Normal form of `text` as the `tokenizers` package computes it: broken bytes and code points newer than its
/// tables stay as they are. Linear but for one stable sort per run of combining marks.
/// Source: Unicode Standard Annex #15.
std::string normalize(std::string_view text, Form form);

}  // namespace fathom::unicode
