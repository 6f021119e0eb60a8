// From ids back to bytes.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer/spec.h"

namespace fathom {

/// The bytes that every id stands for, computed once. Immutable, safe from many threads.
class Detokenizer {
 public:
  /// `byte_level`: the vocabulary is written in byte symbols. Errors (kData): a decoder that is not
  /// supported, named.
  Detokenizer(const TokenizerSpec& spec, bool byte_level);

  /// Errors (kRequest): an id that no token has.
  std::string decode(std::span<const int32_t> ids, bool skip_special) const;

 private:
  void read_decoder(const Json& decoder);
  std::string bytes_of(const std::string& token) const;

  /// What the decoder's steps come to.
  bool byte_level_;
  bool byte_fallback_ = false;               ///< <0x41> is the byte 0x41
  std::string space_symbol_;                 ///< stands for a space inside a token; empty: none
  std::string word_end_;                     ///< becomes a space, and nothing at the end of the text
  size_t strip_left_ = 0, strip_right_ = 0;  ///< spaces taken from the ends of the whole text

  std::string bytes_;              ///< of all ids, one after another
  std::vector<uint32_t> offsets_;  ///< where an id's bytes begin; one more than ids
  std::vector<uint8_t> kinds_;
  enum Kind : uint8_t { kUnused, kOrdinary, kSpecial };
};

}  // namespace fathom
