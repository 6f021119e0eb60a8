// Byte-level BPE: text to ids and back, lossless on any bytes, in linear time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

struct TokenizerSpec;

/// A vocabulary with its splitter, compiled. Immutable: `encode` and `decode` are safe from many threads;
/// each thread inside `encode` borrows a word cache of at most 5 MB that the tokenizer keeps. Source:
/// Sennrich et al., "Neural machine translation of rare words with subword units", ACL 2016.
///
/// Without a normalizer, and with all 256 bytes in a byte-level vocabulary, decode(encode(text)) == text for
/// any bytes; broken UTF-8 counts as symbols, byte by byte.
class Tokenizer {
 public:
  /// Reads a Hugging Face tokenizer.json. Errors (kData) begin with the file's name: not JSON, a model that
  /// is not BPE (named), an unknown normalizer, splitter or decoder (named), merges that do not fit the
  /// vocabulary.
  static Tokenizer from_file(const std::string& path);
  static Tokenizer from_json(std::string_view text, const std::string& source);
  /// Compiles a description (spec.h). Errors (kData): as from_file, without a name.
  explicit Tokenizer(TokenizerSpec spec);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  /// Appends the ids of `text` to `out`. Special tokens written in the text are recognised only if asked for;
  /// added tokens that are not special always are. Nothing is put before or after: see `prefix` and `suffix`.
  void encode(std::string_view text, std::vector<int32_t>& out, bool recognise_special = false) const;
  std::vector<int32_t> encode(std::string_view text, bool recognise_special = false) const;
  /// Bytes of the ids. Errors (kRequest): an id outside the vocabulary.
  std::string decode(std::span<const int32_t> ids, bool skip_special = false) const;

  int64_t vocab_size() const;  ///< largest id + 1, special tokens included
  std::optional<int32_t> token_id(
      std::string_view token) const;  ///< by its text in the vocabulary or as special
  /// Ids by role: the first of "<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", of "<|pad|>", "<pad>",
  /// "[PAD]" and of "<|mask|>", "<mask>", "[MASK]" that the vocabulary has.
  std::optional<int32_t> end_of_text() const;
  std::optional<int32_t> padding() const;
  std::optional<int32_t> mask() const;
  /// Ids that the file's post-processor puts before and after a single text, e.g. <|begin_of_text|>; often
  /// none.
  const std::vector<int32_t>& prefix() const;
  const std::vector<int32_t>& suffix() const;
  /// What a model reads before the first token of a text: the last id of `prefix`, or else end-of-text.
  std::optional<int32_t> start_of_text() const;

  /// tokenizer.json text that the `tokenizers` package reads back to the same ids.
  std::string to_json() const;
  void save(const std::string& path) const;

 private:
  struct State;
  std::unique_ptr<const State> state_;
};

}  // namespace fathom
