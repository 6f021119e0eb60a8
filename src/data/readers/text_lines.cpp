#include "data/readers/text_lines.h"

namespace fathom {

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
