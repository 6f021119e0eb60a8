// From text to the pieces that BPE merges within: the steps that tokenizer.json lists under "pre_tokenizer".
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/json.h"
#include "data/tokenizer/pattern.h"
#include "data/tokenizer/scan.h"

namespace fathom {

/// Compiled steps. Immutable, safe from many threads. Known combinations run as one hand-written scanner; the
/// others go through their steps one after another.
class PreTokenizer {
 public:
  using Scanner = std::variant<scan::Whole, scan::Gpt2, scan::Llama3, scan::Clip>;

  /// Errors (kData): a step that is not supported, named.
  explicit PreTokenizer(const Json& config);

  /// Whether pieces are bytes (ByteLevel), not characters.
  bool byte_level() const { return byte_level_; }
  /// The scanner that does the whole work, or nullptr.
  const Scanner* scanner() const { return steps_.empty() ? &scanner_ : nullptr; }
  /// Whether a space goes before a segment that has none (`scanner()` does not see to that).
  bool adds_prefix_space() const { return adds_prefix_space_; }

  /// Pieces of a segment by the steps; `at_start` says that the segment begins the text.
  std::vector<std::string> split(std::string_view segment, bool at_start) const;

 private:
  enum class Behavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };
  struct Prefix {};  ///< ByteLevel's add_prefix_space
  struct Scan {
    Scanner scanner;
  };
  struct Split {
    Pattern pattern;
    Behavior behavior;
    bool invert;
  };
  struct Metaspace {
    std::string replacement;
    enum class Prepend { kAlways, kNever, kFirst } prepend;
    bool split;
  };
  using Step = std::variant<Prefix, Scan, Split, Metaspace>;

  void add_step(const Json& config);
  void add_byte_level(const Json& config);
  void add_split(const Json& config);
  void add_digits(const Json& config);
  void add_metaspace(const Json& config);
  void fuse();

  static void apply(const Prefix&, std::string piece, bool at_start, std::vector<std::string>& out);
  static void apply(const Scan&, std::string piece, bool at_start, std::vector<std::string>& out);
  static void apply(const Split&, std::string piece, bool at_start, std::vector<std::string>& out);
  static void apply(const Metaspace&, std::string piece, bool at_start, std::vector<std::string>& out);

  std::vector<Step> steps_;
  Scanner scanner_;
  bool byte_level_ = false;
  bool adds_prefix_space_ = false;
};

}  // namespace fathom
