#include "data/tokenizer/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstring>
#include <iterator>

#include "base/utf8.h"

namespace fathom::unicode {
namespace {

/// Code points first, first + stride, …, last become themselves + delta.
struct LowerRange {
  char32_t first, last;
  uint8_t stride;
  int32_t delta;
};

#include "data/tokenizer/unicode_tables.inc"

constexpr char32_t kCapitalIWithDot = 0x130;  // the one letter whose lower case is two code points

}  // namespace

CodePoint decode_utf8(const char* p, const char* end) {
  const Utf8Sequence sequence = first_utf8_sequence(p, end);
  if (sequence.state != Utf8Sequence::kCharacter) return {kBrokenByte, 1};
  return {sequence.value, sequence.size};
}

void append_utf8(std::string& out, char32_t value) {
  if (value < 0x80) {
    out += static_cast<char>(value);
    return;
  }
  const int trailing = value < 0x800 ? 1 : value < 0x10000 ? 2 : 3;
  constexpr uint8_t kLead[] = {0, 0xC0, 0xE0, 0xF0};
  out += static_cast<char>(kLead[trailing] | (value >> (6 * trailing)));
  for (int i = trailing - 1; i >= 0; --i) out += static_cast<char>(0x80 | ((value >> (6 * i)) & 0x3F));
}

CharClass char_class(char32_t value) {
  if (value > 0x10FFFF) return CharClass::kOther;
  const uint64_t word = kClassWords[size_t{kClassBlock[value >> 8]} * 8 + (value >> 5 & 7)];
  return static_cast<CharClass>(word >> (2 * (value & 31)) & 3);
}

bool is_word_char(char32_t value) {
  if (value > 0x10FFFF) return false;
  if (char_class(value) == CharClass::kLetter || value == 0x200C || value == 0x200D) return true;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(value))) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return false;
  }
}

bool is_ascii(std::string_view text) {
  const char* p = text.data();
  size_t left = text.size();
  for (; left >= 8; p += 8, left -= 8) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    if (word & 0x8080808080808080) return false;
  }
  return std::all_of(p, p + left, [](char c) { return static_cast<uint8_t>(c) < 0x80; });
}

void append_lower(std::string& out, char32_t value) {
  if (value == kCapitalIWithDot) {
    out += "i\xCC\x87";
    return;
  }
  const auto* range = std::upper_bound(std::begin(kLowerRanges), std::end(kLowerRanges), value,
                                       [](char32_t v, const LowerRange& r) { return v < r.first; });
  if (range != std::begin(kLowerRanges)) {
    --range;
    if (value <= range->last && (value - range->first) % range->stride == 0)
      value = static_cast<char32_t>(static_cast<int32_t>(value) + range->delta);
  }
  append_utf8(out, value);
}

}  // namespace fathom::unicode
