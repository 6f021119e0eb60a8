#include "data/tokenizer/scan.h"

namespace fathom::scan {
namespace {

/// A run of spaces: where it ends, where its last space starts, and where its last line end stops.
struct SpaceRun {
  const char* end;
  const char* last;
  const char* after_line_end;  ///< nullptr: the run has no \r and no \n
};

SpaceRun space_run(const char* p, const char* end) {
  SpaceRun run{p, p, nullptr};
  while (run.end < end) {
    const Classified next = classify(run.end, end);
    if (next.char_class != CharClass::kSpace) break;
    run.last = run.end;
    run.end += next.length;
    if (*run.last == '\r' || *run.last == '\n') run.after_line_end = run.end;
  }
  return run;
}

const char* trailing_space_end(const SpaceRun& run, const char* p, const char* end) {
  return run.end == end || run.last == p ? run.end : run.last;
}

int contraction(char first, char second, bool has_second) {
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  if (!has_second) return 0;
  const bool two =
      (first == 'r' && second == 'e') || (first == 'v' && second == 'e') || (first == 'l' && second == 'l');
  return two ? 3 : 0;
}

char fold(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
}

}  // namespace

int contraction_length(const char* p, const char* end) {
  if (end - p < 2) return 0;
  const bool has_second = end - p > 2;
  return contraction(p[1], has_second ? p[2] : 0, has_second);
}

int folded_contraction_length(const char* p, const char* end) {
  if (end - p < 2) return 0;
  const bool has_second = end - p > 2;
  if (has_second && p[1] == '\xC5' && p[2] == '\xBF') return 3;
  return contraction(fold(p[1]), has_second ? fold(p[2]) : 0, has_second);
}

const char* space_piece_end(const char* p, const char* end) {
  return trailing_space_end(space_run(p, end), p, end);
}

const char* line_piece_end(const char* p, const char* end) {
  const SpaceRun run = space_run(p, end);
  return run.after_line_end ? run.after_line_end : trailing_space_end(run, p, end);
}

}  // namespace fathom::scan
