// The path from text to ids: added tokens out, normalize, split, look words up or merge them.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string_view>
#include <vector>

#include "data/tokenizer/added_tokens.h"
#include "data/tokenizer/bpe_model.h"
#include "data/tokenizer/merger.h"
#include "data/tokenizer/normalizer.h"
#include "data/tokenizer/pre_tokenizer.h"
#include "data/tokenizer/word_cache.h"

namespace fathom {

/// A spec compiled for encoding. Immutable but for the workspaces it lends to the threads inside `encode`.
/// Refers to the spec, which must outlive it and stay where it is.
class Encoder {
 public:
  explicit Encoder(const TokenizerSpec& spec);

  bool byte_level() const { return pre_tokenizer_.byte_level(); }
  void encode(std::string_view text, bool with_special, std::vector<int32_t>& out) const;

 private:
  /// What one thread needs while it encodes.
  struct Workspace {
    explicit Workspace(const MergeTable& merges) : merger(merges) {}
    Merger merger;
    WordCache cache;
  };
  struct Lease;
  class IdSink;

  std::unique_ptr<Workspace> borrow() const;
  void encode_raw(std::string_view text, bool with_special, Workspace& workspace, IdSink& sink) const;
  void encode_normalized(std::string_view text, bool with_special, bool at_start, Workspace& workspace,
                         IdSink& sink) const;
  void encode_segment(std::string_view segment, bool at_start, Workspace& workspace, IdSink& sink) const;
  template <typename Scanner>
  void encode_scanned(const Scanner& scanner, std::string_view segment, Workspace& workspace,
                      IdSink& sink) const;
  void encode_new_word(std::string_view word, const char* text_end, Workspace& workspace, IdSink& sink) const;

  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  AddedTokenMatcher raw_tokens_, normalized_tokens_;  ///< searched for before and after the normalizer
  BpeModel model_;
  mutable std::mutex idle_mutex_;
  mutable std::vector<std::unique_ptr<Workspace>> idle_;
};

}  // namespace fathom
