// Normal forms. utf8proc decomposes single code points and composes; the ordering of marks is ours, since
// utf8proc orders by exchanging neighbours, which takes quadratic time on a long run of marks.
#include <utf8proc.h>

#include <algorithm>
#include <iterator>
#include <vector>

#include "base/error.h"
#include "data/tokenizer/unicode.h"

namespace fathom::unicode {
namespace {

using Buffer = std::vector<utf8proc_int32_t>;

struct CodePointRange {
  char32_t first, last;
};

#include "data/tokenizer/unicode_normal_tables.inc"

/// Code points that came into Unicode after the tables of the `tokenizers` package: they neither change nor
/// combine.
bool is_newer(char32_t value) {
  const auto* range = std::upper_bound(std::begin(kNewerRanges), std::end(kNewerRanges), value,
                                       [](char32_t v, const CodePointRange& r) { return v < r.first; });
  return range != std::begin(kNewerRanges) && value <= (range - 1)->last;
}

void append_decomposed(Buffer& out, char32_t value, int options) {
  constexpr int kLongest = 32;  // the longest compatibility decomposition has 18 code points
  utf8proc_int32_t parts[kLongest];
  int last_bound_class = 0;
  const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(value), parts, kLongest,
                                             static_cast<utf8proc_option_t>(options), &last_bound_class);
  FATHOM_CHECK(count >= 0 && count <= kLongest, "[normalize] U+{:04X} has no decomposition", uint32_t(value));
  out.insert(out.end(), parts, parts + count);
}

int combining_class(utf8proc_int32_t value) {
  return utf8proc_get_property(value)->combining_class;
}

void order_marks(Buffer& points) {
  auto run = points.begin();
  while (run != points.end()) {
    run = std::find_if(run, points.end(), [](auto point) { return combining_class(point) != 0; });
    const auto stop = std::find_if(run, points.end(), [](auto point) { return combining_class(point) == 0; });
    std::stable_sort(run, stop, [](auto a, auto b) { return combining_class(a) < combining_class(b); });
    run = stop;
  }
}

/// Appends the normal form of code points that may change, and empties the buffer.
void flush(Buffer& points, int options, std::string& out) {
  order_marks(points);
  auto count = static_cast<utf8proc_ssize_t>(points.size());
  if (options & UTF8PROC_COMPOSE)
    count = utf8proc_normalize_utf32(points.data(), count, static_cast<utf8proc_option_t>(options));
  for (utf8proc_ssize_t i = 0; i < count; ++i) append_utf8(out, static_cast<char32_t>(points[i]));
  points.clear();
}

int options_of(Form form) {
  const bool compose = form == Form::kNfc || form == Form::kNfkc;
  const bool compatible = form == Form::kNfkc || form == Form::kNfkd;
  return UTF8PROC_STABLE | (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
         (compatible ? UTF8PROC_COMPAT : 0);
}

}  // namespace

std::string normalize(std::string_view text, Form form) {
  if (is_ascii(text)) return std::string(text);
  const int options = options_of(form);
  std::string out;
  out.reserve(text.size());
  Buffer points;
  const char* const end = text.data() + text.size();
  for (const char* p = text.data(); p < end;) {
    const CodePoint point = decode_utf8(p, end);
    if (point.value == kBrokenByte || is_newer(point.value)) {
      flush(points, options, out);
      out.append(p, static_cast<size_t>(point.length));
    } else {
      append_decomposed(points, point.value, options);
    }
    p += point.length;
  }
  flush(points, options, out);
  return out;
}

}  // namespace fathom::unicode
