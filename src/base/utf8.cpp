#include "base/utf8.h"

#include <cstring>

namespace fathom {
namespace {

size_t ascii_prefix(const char* data, size_t size) {
  size_t i = 0;
  for (uint64_t word; i + 8 <= size; i += 8) {
    std::memcpy(&word, data + i, 8);
    if (word & 0x8080808080808080) break;
  }
  while (i < size && static_cast<unsigned char>(data[i]) < 0x80) ++i;
  return i;
}

}  // namespace

std::optional<size_t> find_invalid_utf8(std::string_view text) {
  for (size_t i = 0;;) {
    i += ascii_prefix(text.data() + i, text.size() - i);
    if (i == text.size()) return std::nullopt;
    const Utf8Sequence sequence = first_utf8_sequence(text.data() + i, text.data() + text.size());
    if (sequence.state != Utf8Sequence::kCharacter) return i;
    i += static_cast<size_t>(sequence.size);
  }
}

}  // namespace fathom
