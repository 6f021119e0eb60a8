// A tokenizer as plain data: what a tokenizer.json says, what a trainer produces, what a Tokenizer is
// compiled from.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"

namespace fathom {

/// A token recognised in the text itself, before splitting.
struct AddedToken {
  int32_t id = 0;
  std::string text;
  bool special = false;      ///< left out by decode(…, skip_special)
  bool normalized = false;   ///< searched for after the normalizer, not before
  bool single_word = false;  ///< only between characters that are not \w
  bool lstrip = false;       ///< takes the spaces before it along
  bool rstrip = false;       ///< takes the spaces after it along
  bool in_model = false;     ///< also stands in the model's own vocabulary
};

/// BPE vocabulary and options, with the steps around it as tokenizer.json writes them. Value type.
struct TokenizerSpec {
  using Merge = std::pair<int32_t, int32_t>;

  std::vector<std::string> tokens;  ///< text by id; empty where no token has the id
  std::vector<Merge> merges;        ///< ids of left and right, most important first
  std::vector<int32_t> merged;      ///< id that each merge produces
  std::vector<AddedToken> added;

  std::string unknown_token;       ///< stands for what no token covers; empty: that is dropped
  std::string end_of_word_suffix;  ///< written behind the last symbol of a word ("</w>" in CLIP)
  bool fuse_unknown = false;       ///< neighbouring unknowns become one
  bool byte_fallback = false;      ///< a missing character becomes <0x00>-like byte tokens
  bool ignore_merges = false;      ///< a word that is a token is that token, whatever the merges say

  Json normalizer, pre_tokenizer, post_processor, decoder;  ///< null: none
  Json truncation, padding;                                 ///< kept for whoever reads the file, not applied
};

/// Reads Hugging Face tokenizer.json text. Errors (kData) begin with `source` and name what is wrong: not
/// JSON, a model other than BPE, options that are not supported, ids out of range, merges that do not fit the
/// vocabulary.
TokenizerSpec parse_tokenizer_json(std::string_view text, const std::string& source);
/// The same as text that `tokenizers` reads.
std::string to_tokenizer_json(const TokenizerSpec& spec);

/// Splitters that training and conversion know by name.
enum class SplitterKind { kGpt2, kLlama3, kClip };
/// Sets normalizer, pre-tokenizer, decoder and suffix to those of GPT-2, Llama-3 or CLIP.
void apply_splitter(TokenizerSpec& spec, SplitterKind kind);

/// OpenAI's GPT-2: `merges` is the text of vocab.bpe. Ids: 256 bytes, the merges, <|endoftext|>.
TokenizerSpec gpt2_spec(std::string_view merges);
/// OpenAI's CLIP: `merges` is the unpacked text of bpe_simple_vocab_16e6.txt. Ids: 256 bytes, 256 bytes that
/// end a word, the first 48,894 merges, <|startoftext|>, <|endoftext|>.
TokenizerSpec clip_spec(std::string_view merges);

}  // namespace fathom
