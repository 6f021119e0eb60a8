// Hand-written splitters: each finds the end of the piece that its pattern matches at a place, in linear
// time. They are in a header because encoder and trainer are compiled once per splitter, with the splitter
// inlined.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <type_traits>

#include "data/tokenizer/scan_blocks.h"
#include "data/tokenizer/unicode.h"

namespace fathom::scan {

using unicode::CharClass;

inline constexpr auto kAsciiClass = [] {
  struct Table {
    CharClass of[128] = {};
  } table;
  for (int c = '0'; c <= '9'; ++c) table.of[c] = CharClass::kNumber;
  for (int c = 'a'; c <= 'z'; ++c) table.of[c] = table.of[c - 'a' + 'A'] = CharClass::kLetter;
  for (int c = '\t'; c <= '\r'; ++c) table.of[c] = CharClass::kSpace;
  table.of[static_cast<size_t>(' ')] = CharClass::kSpace;
  return table;
}();

struct Classified {
  CharClass char_class;
  int length;  ///< bytes
};

/// Class of the code point at p. REQUIRES: p < end.
inline Classified classify(const char* p, const char* end) {
  const auto byte = static_cast<uint8_t>(*p);
  if (byte < 0x80) [[likely]]
    return {kAsciiClass.of[byte], 1};
  const unicode::CodePoint point = unicode::decode_utf8(p, end);
  return {unicode::char_class(point.value), point.length};
}

/// End of the run of `wanted` that starts at p, which may be empty.
inline const char* skip_class(const char* p, const char* end, CharClass wanted) {
  while (p < end) {
    const Classified next = classify(p, end);
    if (next.char_class != wanted) break;
    p += next.length;
  }
  return p;
}

/// High bit set in every byte of `word` that is an ASCII letter.
inline uint64_t ascii_letter_bits(uint64_t word) {
  constexpr uint64_t kOnes = 0x0101010101010101;
  const uint64_t folded = (word | 0x20 * kOnes) & 0x7F * kOnes;
  const uint64_t from_a = folded + (0x80 - 'a') * kOnes;
  const uint64_t past_z = folded + (0x80 - 'z' - 1) * kOnes;
  return from_a & ~past_z & ~word & 0x80 * kOnes;
}

/// End of the run of letters that starts at p: eight ASCII letters at a time, other scripts one by one.
inline const char* skip_letters(const char* p, const char* end) {
  while (end - p >= 8) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    const uint64_t others = ~ascii_letter_bits(word) & 0x8080808080808080;
    if (others == 0) {
      p += 8;
      continue;
    }
    p += std::countr_zero(others) / 8;
    if (static_cast<uint8_t>(*p) < 0x80) [[likely]]
      return p;
    const Classified next = classify(p, end);
    if (next.char_class != CharClass::kLetter) return p;
    p += next.length;
  }
  return skip_class(p, end, CharClass::kLetter);
}

/// End of the run of `wanted` whose first code point, of that class, ends at p.
inline const char* skip_run(const char* p, const char* end, CharClass wanted) {
  return wanted == CharClass::kLetter ? skip_letters(p, end) : skip_class(p, end, wanted);
}

/// End of the run of ASCII letters at p if nothing else can belong to its piece; p if the run is empty, is
/// followed by a byte outside ASCII, or comes close to the end of the text. Most words of English end here.
inline const char* plain_word_end(const char* p, const char* end) {
  constexpr uint64_t kHighBits = 0x8080808080808080;
  if (end - p < 17) return p;
  uint64_t words[2];
  std::memcpy(words, p, 16);
  uint64_t others = ~ascii_letter_bits(words[0]) & kHighBits;
  const char* stop = p;
  if (others == 0) [[unlikely]] {
    others = ~ascii_letter_bits(words[1]) & kHighBits;
    stop += 8;
    if (others == 0) return p;
  }
  stop += std::countr_zero(others) / 8;
  return static_cast<uint8_t>(*stop) < 0x80 ? stop : p;
}

/// Length of an English contraction ('s 't 're 've 'm 'll 'd) at p, or 0. REQUIRES: *p == '\''.
int contraction_length(const char* p, const char* end);
/// The same in either case; the long s (U+017F) folds to s.
int folded_contraction_length(const char* p, const char* end);

/// `\s+(?!\S)|\s+` at p: the run of spaces without its last one, unless the run ends the text or is one long.
const char* space_piece_end(const char* p, const char* end);
/// `\s*[\r\n]+|\s+(?!\S)|\s+` at p: up to the last line end of the run, if it has one.
const char* line_piece_end(const char* p, const char* end);

/// GPT-2: 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
struct Gpt2 {
  /// REQUIRES: p < end.
  const char* piece_end(const char* p, const char* end) const {
    const char* body = p + (*p == ' ');
    const char* plain = plain_word_end(body, end);
    return plain != body ? plain : other_piece_end(p, body, end);
  }
  static bool keeps(std::string_view) { return true; }

 private:
  static const char* other_piece_end(const char* p, const char* body, const char* end) {
    if (body == end) return end;
    if (*p == '\'')
      if (const int length = contraction_length(p, end)) return p + length;
    const Classified first = classify(body, end);
    if (first.char_class == CharClass::kSpace) return space_piece_end(p, end);
    return skip_run(body + first.length, end, first.char_class);
  }
};

/// Llama-3: (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|
/// ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+
/// |\s+(?!\S)|\s+ ; Qwen2's differs in max_digits = 1.
struct Llama3 {
  int max_digits = 3;

  const char* piece_end(const char* p, const char* end) const {
    const char* body = p + (*p == ' ');
    const char* plain = plain_word_end(body, end);
    return plain != body ? plain : other_piece_end(p, end);
  }
  static bool keeps(std::string_view) { return true; }

 private:
  const char* other_piece_end(const char* p, const char* end) const {
    const Classified first = classify(p, end);
    if (first.char_class == CharClass::kLetter) return skip_letters(p + first.length, end);
    if (first.char_class == CharClass::kNumber) return digits_end(p, end);
    if (*p == '\'')
      if (const int length = folded_contraction_length(p, end)) return p + length;
    const char* body = p + first.length;
    if (body == end) return end;
    const Classified second = classify(body, end);
    if (second.char_class == CharClass::kLetter && *p != '\r' && *p != '\n')
      return skip_letters(body + second.length, end);
    if (first.char_class == CharClass::kOther) return symbols_end(body, end);
    if (*p == ' ' && second.char_class == CharClass::kOther) return symbols_end(body, end);
    return line_piece_end(p, end);
  }
  const char* digits_end(const char* p, const char* end) const {
    for (int i = 0; i < max_digits && p < end; ++i) {
      const Classified next = classify(p, end);
      if (next.char_class != CharClass::kNumber) break;
      p += next.length;
    }
    return p;
  }
  static const char* symbols_end(const char* p, const char* end) {
    p = skip_class(p, end, CharClass::kOther);
    while (p < end && (*p == '\r' || *p == '\n')) ++p;
    return p;
  }
};

/// CLIP: 's|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+ ; spaces are dropped.
struct Clip {
  const char* piece_end(const char* p, const char* end) const {
    const char* plain = plain_word_end(p, end);
    if (plain != p) return plain;
    if (*p == '\'')
      if (const int length = contraction_length(p, end)) return p + length;
    const Classified first = classify(p, end);
    const char* rest = p + first.length;
    return first.char_class == CharClass::kNumber ? rest : skip_run(rest, end, first.char_class);
  }
  /// Whether a piece, never empty, is kept.
  static bool keeps(std::string_view piece) {
    return classify(piece.data(), piece.data() + piece.size()).char_class != CharClass::kSpace;
  }
};

/// No splitter: the whole text is one piece.
struct Whole {
  const char* piece_end(const char*, const char* end) const { return end; }
  static bool keeps(std::string_view) { return true; }
};

/// Calls take(std::string_view piece) for every piece of `text`, in order.
template <typename Scanner, typename Take>
inline void for_each_piece(const Scanner& scanner, std::string_view text, const Take& take) {
  const char* p = text.data();
  const char* const end = p + text.size();
  const auto take_until = [&](const char* next) {
    const std::string_view piece(p, static_cast<size_t>(next - p));
    if (Scanner::keeps(piece)) take(piece);
    p = next;
  };
  while (p < end) {
    if constexpr (std::is_same_v<Scanner, Gpt2>) {
      const char* const block = p;
      const uint64_t starts = end - p >= kBlockBytes ? gpt2_block_starts(p) : 1;
      for (uint64_t later = starts & (starts - 1); later != 0; later &= later - 1)
        take_until(block + std::countr_zero(later));
      if (p != block) continue;
    }
    take_until(scanner.piece_end(p, end));
  }
}

}  // namespace fathom::scan
