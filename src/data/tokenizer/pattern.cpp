#include "data/tokenizer/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"

namespace fathom {
namespace {

constexpr uint32_t kMatchLimit = 10'000'000;
constexpr uint32_t kHeapLimitKib = 256 * 1024;

template <auto Free>
struct Deleter {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};
using MatchDataPtr = std::unique_ptr<pcre2_match_data, Deleter<pcre2_match_data_free>>;
using MatchContextPtr = std::unique_ptr<pcre2_match_context, Deleter<pcre2_match_context_free>>;

/// What Oniguruma, in Ruby's syntax, means by an escape that PCRE2 reads otherwise; empty: the same in both.
std::string_view members_of(char escape) {
  switch (escape) {
    case 's':
      return "\\p{White_Space}";  // PCRE2 adds U+180E
    case 'w':
      return "\\p{L}\\p{M}\\p{N}\\p{Pc}";  // PCRE2 leaves marks out
    case 'h':
      return "0-9A-Fa-f";  // horizontal space in PCRE2
    default:
      return {};
  }
}

/// Translates from Oniguruma's dialect, in which tokenizer.json is written.
std::string translated(const std::string& expression) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < expression.size(); ++i) {
    const char c = expression[i];
    const char next = i + 1 < expression.size() ? expression[i + 1] : '\0';
    if (c == '\\' && next != '\0') {
      ++i;
      const std::string_view members = members_of(next);
      const std::string_view others = members_of(static_cast<char>(next | 0x20));
      if (!members.empty()) {
        in_class ? out += members : out.append("[").append(members).append("]");
      } else if (!others.empty() && !in_class) {
        out.append("[^").append(others).append("]");
      } else if (next == 'S') {
        out += "\\P{White_Space}";
      } else if (!others.empty()) {
        fail(ErrorKind::kData, "pattern \"{}\": \\{} inside a class is not supported", expression, next);
      } else {
        out.append({c, next});
      }
      continue;
    }
    if (in_class && c == '&' && next == '&')
      fail(ErrorKind::kData, "pattern \"{}\": intersections of classes are not supported", expression);
    if (c == '[')
      in_class = true;
    else if (c == ']')
      in_class = false;
    out += c;
  }
  return out;
}

std::string pcre_message(int code) {
  PCRE2_UCHAR buffer[160];
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

PCRE2_SPTR units(std::string_view text) {
  return reinterpret_cast<PCRE2_SPTR>(text.data());
}

}  // namespace

struct Pattern::Code {
  struct Free {
    void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  };
  using Regex = std::unique_ptr<pcre2_code, Free>;

  std::string source;  ///< the literal text, or the expression for messages
  Regex regex;         ///< null: a literal
};

Pattern::Pattern(std::unique_ptr<const Code> code) : code_(std::move(code)) {}
Pattern::Pattern(Pattern&&) noexcept = default;
Pattern& Pattern::operator=(Pattern&&) noexcept = default;
Pattern::~Pattern() = default;

Pattern Pattern::literal(const std::string& text) {
  if (text.empty()) fail(ErrorKind::kData, "a pattern is empty");
  return Pattern(std::make_unique<Code>(Code{text, nullptr}));
}

Pattern Pattern::regex(const std::string& expression) {
  constexpr uint32_t kOptions = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
  const std::string text = translated(expression);
  int error = 0;
  PCRE2_SIZE offset = 0;
  Code::Regex code(pcre2_compile(units(text), text.size(), kOptions, &error, &offset, nullptr));
  if (!code) fail(ErrorKind::kData, "pattern \"{}\": {}", expression, pcre_message(error));
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);  // where there is no JIT, matching interprets
  return Pattern(std::make_unique<Code>(Code{expression, std::move(code)}));
}

namespace {

void find_literal(std::string_view text, std::string_view wanted, std::vector<Pattern::Match>& matches) {
  for (size_t at = text.find(wanted); at != std::string_view::npos;
       at = text.find(wanted, at + wanted.size()))
    matches.push_back({at, at + wanted.size()});
}

/// One search over valid UTF-8; offsets are shifted by `base`.
void find_in_valid(const pcre2_code* code, const std::string& source, std::string_view text, size_t base,
                   std::vector<Pattern::Match>& matches) {
  const MatchContextPtr context(pcre2_match_context_create(nullptr));
  const MatchDataPtr data(pcre2_match_data_create_from_pattern(code, nullptr));
  FATHOM_CHECK(context && data, "[pattern] out of memory");
  pcre2_set_match_limit(context.get(), kMatchLimit);
  pcre2_set_heap_limit(context.get(), kHeapLimitKib);
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(data.get());
  for (size_t at = 0; at < text.size();) {
    const int status = pcre2_match(code, units(text), text.size(), at, PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY,
                                   data.get(), context.get());
    if (status == PCRE2_ERROR_NOMATCH) return;
    if (status < 0)
      fail(ErrorKind::kData, "pattern \"{}\" at byte {}: {}", source, base + at, pcre_message(status));
    const size_t begin = bounds[0], end = bounds[1];
    if (begin < at || end <= begin) fail(ErrorKind::kData, "pattern \"{}\" moves its own start", source);
    matches.push_back({base + begin, base + end});
    at = end;
  }
}

}  // namespace

std::vector<Pattern::Match> Pattern::find_all(std::string_view text) const {
  std::vector<Match> matches;
  if (!code_->regex) {
    find_literal(text, code_->source, matches);
    return matches;
  }
  for (size_t base = 0; base < text.size();) {
    const std::string_view rest = text.substr(base);
    const std::string_view valid = rest.substr(0, find_invalid_utf8(rest).value_or(rest.size()));
    if (!valid.empty()) find_in_valid(code_->regex.get(), code_->source, valid, base, matches);
    base += valid.size() + 1;
  }
  return matches;
}

std::string Pattern::replace_all(std::string_view text, std::string_view replacement) const {
  std::string out;
  size_t done = 0;
  for (const Match& match : find_all(text)) {
    out.append(text.substr(done, match.begin - done)).append(replacement);
    done = match.end;
  }
  return out.append(text.substr(done));
}

}  // namespace fathom
