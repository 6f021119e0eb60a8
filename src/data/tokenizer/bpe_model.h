// Byte-pair encoding of one word: first symbols, merges, fallbacks.
#pragma once

#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/tokenizer/merge_table.h"
#include "data/tokenizer/merger.h"
#include "data/tokenizer/spec.h"

namespace fathom {

/// A vocabulary compiled for encoding words. Immutable, safe from many threads, each with a Merger of its
/// own. Refers to the spec's token texts, so the spec must outlive it and stay where it is.
class BpeModel {
 public:
  /// `byte_level`: words are bytes, written in byte symbols in the vocabulary; otherwise UTF-8 characters.
  BpeModel(const TokenizerSpec& spec, bool byte_level);

  const MergeTable& merges() const { return merges_; }
  /// Ids of a word, valid until the merger's next word. A byte or character without token becomes byte tokens
  /// (byte_fallback), the unknown token, or nothing.
  std::span<const int32_t> encode_word(std::string_view word, Merger& merger) const;

 private:
  static constexpr int32_t kNone = -1;

  int32_t find(std::string_view token) const {
    const auto found = ids_.find(token);
    return found == ids_.end() ? kNone : found->second;
  }
  void read_bytes(const TokenizerSpec& spec);
  void read_fallback();
  int32_t whole_word(std::string_view word) const;
  void append_bytes(std::string_view word, std::vector<int32_t>& symbols) const;
  void append_characters(std::string_view word, std::vector<int32_t>& symbols) const;
  bool append_fallback(std::string_view character, std::vector<int32_t>& symbols) const;
  void append_unknown(std::vector<int32_t>& symbols, bool follows_unknown) const;

  MergeTable merges_;
  std::unordered_map<std::string_view, int32_t> ids_;  ///< of the model's vocabulary
  std::string suffix_;
  bool byte_level_, ignore_merges_, byte_fallback_, fuse_unknown_;
  int32_t unknown_ = kNone;
  int32_t byte_ids_[256], last_byte_ids_[256];  ///< byte-level: symbol of a byte, and of a word's last byte
  int32_t fallback_ids_[256];                   ///< <0x00> …
};

}  // namespace fathom
