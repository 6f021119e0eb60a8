// What happens to text before it is split: the steps that tokenizer.json lists under "normalizer".
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/json.h"
#include "data/tokenizer/pattern.h"
#include "data/tokenizer/unicode.h"

namespace fathom {

/// Compiled steps. Immutable, safe from many threads. Broken UTF-8 passes unchanged.
class Normalizer {
 public:
  /// Errors (kData): a step that is not supported, named.
  explicit Normalizer(const Json& config);

  bool empty() const { return steps_.empty(); }
  std::string apply(std::string_view text) const;

 private:
  struct Lowercase {};
  struct CollapseSpaces {};  ///< Replace of \s+ by one space
  struct Replace {
    Pattern pattern;
    std::string content;
  };
  struct Prepend {
    std::string text;
  };
  struct Strip {
    bool left, right;
  };
  using Step = std::variant<unicode::Form, Lowercase, CollapseSpaces, Replace, Prepend, Strip>;

  void add_step(const Json& config);
  static std::string apply(unicode::Form, std::string text);
  static std::string apply(Lowercase, std::string text);
  static std::string apply(CollapseSpaces, std::string text);
  static std::string apply(const Replace&, std::string text);
  static std::string apply(const Prepend&, std::string text);
  static std::string apply(Strip, std::string text);

  std::vector<Step> steps_;
};

}  // namespace fathom
