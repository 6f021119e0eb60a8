// Regular expressions for splitters and normalizers without a hand-written counterpart, over PCRE2.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

/// A compiled pattern. Immutable and safe to use from many threads; each search holds its own match data.
class Pattern {
 public:
  struct Match {
    size_t begin, end;  ///< byte offsets; never empty
  };

  /// Errors (kData): not a valid expression. `\s` means Unicode's White_Space, as in the `tokenizers`
  /// package.
  static Pattern regex(const std::string& expression);
  /// The text itself, no expression.
  static Pattern literal(const std::string& text);

  Pattern(Pattern&&) noexcept;
  Pattern& operator=(Pattern&&) noexcept;
  ~Pattern();

  /// Matches that do not overlap, left to right; broken UTF-8 is matched by nothing. Work is bounded: errors
  /// (kData) when one match needs more than ten million steps or too much memory.
  std::vector<Match> find_all(std::string_view text) const;
  std::string replace_all(std::string_view text, std::string_view replacement) const;

 private:
  struct Code;
  explicit Pattern(std::unique_ptr<const Code> code);
  std::unique_ptr<const Code> code_;
};

}  // namespace fathom
