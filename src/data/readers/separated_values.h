// Comma- and tab-separated values: RFC 4180 with line numbers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

struct SeparatedRow {
  std::vector<std::string> fields;
  int64_t line = 0;   ///< where the row begins, from 1
  std::string error;  ///< why the row is broken, or empty
};

/// Walks over text in memory, which must outlive it. Fields may be quoted, with "" for a quote and line ends
/// inside; rows end with "\n" or "\r\n"; empty lines are passed over. A broken row carries its reason: after
/// text behind a closing quote reading goes on at the next line end, after a quote that never closes it is
/// over.
class SeparatedReader {
 public:
  SeparatedReader(std::string_view text, char separator);
  std::optional<SeparatedRow> next();

 private:
  void read_plain(std::string& field);
  void read_quoted(SeparatedRow& row, std::string& field);
  bool at_line_end() const;
  void skip_line_end();
  void skip_line();

  std::string_view text_;
  char separator_;
  size_t place_ = 0;
  int64_t line_ = 1;
};

}  // namespace fathom
