#include "data/readers/text_lines.h"

#include <cstring>

namespace fathom {
namespace {

struct Utf8Form {
  size_t length;            ///< 0 for a byte that starts no character
  unsigned char low, high;  ///< bounds of the second byte
};

Utf8Form utf8_form(unsigned char lead) {
  if (lead < 0xC2) return {0, 0, 0};
  if (lead < 0xE0) return {2, 0x80, 0xBF};
  if (lead == 0xE0) return {3, 0xA0, 0xBF};
  if (lead == 0xED) return {3, 0x80, 0x9F};
  if (lead < 0xF0) return {3, 0x80, 0xBF};
  if (lead == 0xF0) return {4, 0x90, 0xBF};
  if (lead < 0xF4) return {4, 0x80, 0xBF};
  if (lead == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

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
    const auto byte = [&](size_t k) { return static_cast<unsigned char>(text[i + k]); };
    const Utf8Form form = utf8_form(byte(0));
    if (form.length == 0 || text.size() - i < form.length) return i;
    if (byte(1) < form.low || byte(1) > form.high) return i;
    for (size_t k = 2; k < form.length; ++k)
      if ((byte(k) & 0xC0) != 0x80) return i;
    i += form.length;
  }
}

std::string_view skip_byte_order_mark(std::string_view text) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  return text;
}

LineReader::LineReader(std::string_view text) : rest_(skip_byte_order_mark(text)) {}

std::optional<Line> LineReader::next() {
  if (rest_.empty()) return std::nullopt;
  const size_t end = rest_.find('\n');
  const bool ended = end != std::string_view::npos;
  std::string_view text = rest_.substr(0, end);
  rest_.remove_prefix(ended ? end + 1 : rest_.size());
  if (text.ends_with('\r')) text.remove_suffix(1);
  return Line{text, ++number_, ended};
}

}  // namespace fathom
