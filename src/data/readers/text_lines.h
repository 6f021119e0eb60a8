// Lines of a text file with their numbers.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace fathom {

struct Line {
  std::string_view text;  ///< without the line end ("\n" or "\r\n")
  int64_t number;         ///< from 1
  bool ended;             ///< false for a last line without a line end
};

/// Walks over text in memory, which must outlive it. A byte order mark at the start is passed over.
class LineReader {
 public:
  explicit LineReader(std::string_view text);
  std::optional<Line> next();

 private:
  std::string_view rest_;
  int64_t number_ = 0;
};

/// `text` without a leading byte order mark.
std::string_view skip_byte_order_mark(std::string_view text);

}  // namespace fathom
