// A text file as token ids on disk: encoded once, then memory-mapped.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/file.h"
#include "data/tokenizer/tokenizer.h"

namespace fathom {

/// Every byte of the text belongs to a token: documents are encoded as they stand (special tokens written
/// inside them are plain text), and each separator line "<|endoftext|>\n" becomes the one end-of-text id,
/// whose text it is. Read-only and safe from many threads.
class TokenFile {
 public:
  static constexpr const char* kSeparator = "<|endoftext|>";

  /// Maps the cache of `text_path` under `cache_folder` (empty: `default_cache_folder()`), first making it if
  /// it is absent or was made from other text or by another tokenizer. Written beside and renamed, so
  /// concurrent openers are safe; what a killed process left half-written is removed a day later. Errors
  /// (kData): unreadable text, text that is not UTF-8 (with its line), separators under a tokenizer without
  /// an end-of-text token, a full disk.
  static TokenFile open(const std::string& text_path, const Tokenizer& tokenizer,
                        const std::string& cache_folder = "");

  std::span<const int32_t> tokens() const { return tokens_; }
  int64_t size() const { return static_cast<int64_t>(tokens_.size()); }
  int64_t text_bytes() const { return text_bytes_; }  ///< of the whole file, separators included
  int64_t num_documents() const { return num_documents_; }
  const std::string& text_path() const { return text_path_; }
  const std::string& cache_path() const { return file_.path(); }

 private:
  TokenFile(std::string text_path, MappedFile file);

  std::string text_path_;
  MappedFile file_;
  std::span<const int32_t> tokens_;
  int64_t text_bytes_ = 0;
  int64_t num_documents_ = 0;
};

/// $FATHOM_CACHE, or $XDG_CACHE_HOME/fathom, or ~/.cache/fathom.
std::string default_cache_folder();

}  // namespace fathom
