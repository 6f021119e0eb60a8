// UTF-8 (RFC 3629), the one place that knows its rules.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace fathom {

/// What some bytes begin with: a character, bytes that are none, or one that is cut off.
struct Utf8Sequence {
  enum State { kCharacter, kBroken, kUnfinished } state;
  int size;  ///< bytes that belong together; of broken ones, the longest part that could begin a character
  char32_t value;  ///< of a character, otherwise 0
};

/// First sequence of [p, end). REQUIRES: p < end. Overlong forms, surrogates and values past U+10FFFF are
/// broken.
inline Utf8Sequence first_utf8_sequence(const char* p, const char* end) {
  const auto lead = static_cast<uint8_t>(*p);
  if (lead < 0x80) return {Utf8Sequence::kCharacter, 1, lead};
  if (lead < 0xC2 || lead > 0xF4) return {Utf8Sequence::kBroken, 1, 0};
  const int size = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;  // of the second byte
  uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  char32_t value = lead & (0x7F >> size);
  for (int i = 1; i < size; ++i) {
    if (p + i == end) return {Utf8Sequence::kUnfinished, i, 0};
    const auto byte = static_cast<uint8_t>(p[i]);
    if (byte < low || byte > high) return {Utf8Sequence::kBroken, i, 0};
    value = value << 6 | (byte & 0x3F);
    low = 0x80;
    high = 0xBF;
  }
  return {Utf8Sequence::kCharacter, size, value};
}

/// Offset of the first byte that is not part of a whole character.
std::optional<size_t> find_invalid_utf8(std::string_view text);

}  // namespace fathom
