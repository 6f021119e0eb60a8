// Normal forms. utf8proc decomposes single code points and composes; the ordering of marks is ours, since
// utf8proc orders by exchanging neighbours, which takes quadratic time on a long run of marks.
#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "data/tokenizer/unicode.h"

namespace fathom::unicode {
namespace {

using Buffer = std::vector<utf8proc_int32_t>;

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

void append_normal(std::string& out, std::string_view valid, int options) {
  Buffer points;
  points.reserve(valid.size());
  const char* const end = valid.data() + valid.size();
  for (const char* p = valid.data(); p < end;) {
    const CodePoint point = decode_utf8(p, end);
    append_decomposed(points, point.value, options);
    p += point.length;
  }
  order_marks(points);
  auto count = static_cast<utf8proc_ssize_t>(points.size());
  if (options & UTF8PROC_COMPOSE)
    count = utf8proc_normalize_utf32(points.data(), count, static_cast<utf8proc_option_t>(options));
  for (utf8proc_ssize_t i = 0; i < count; ++i) append_utf8(out, static_cast<char32_t>(points[i]));
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
  while (!text.empty()) {
    const size_t valid = valid_prefix(text);
    append_normal(out, text.substr(0, valid), options);
    if (valid < text.size()) out += text[valid];
    text.remove_prefix(std::min(text.size(), valid + 1));
  }
  return out;
}

}  // namespace fathom::unicode
