// Trains a byte-level BPE vocabulary.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/config.h"
#include "data/tokenizer/spec.h"
#include "data/tokenizer/tokenizer.h"

namespace fathom {

struct TokenizerTrainerConfig {
  int64_t vocab_size = 8192;
  SplitterKind splitter = SplitterKind::kGpt2;
  std::vector<std::string> special_tokens = {"<|endoftext|>", "<|pad|>"};
  int64_t min_frequency = 2;
  int64_t num_threads = 0;

  void fields(Fields& f) {
    f("vocab_size", vocab_size, "number of ids: special tokens, bytes and merges together",
      {.low = 256, .high = 1 << 24});
    f.choice(
        "splitter", splitter, "how text is cut into words",
        {{"gpt2", SplitterKind::kGpt2}, {"llama3", SplitterKind::kLlama3}, {"clip", SplitterKind::kClip}});
    f("special_tokens", special_tokens, "tokens that get the first ids and separate the training text");
    f("min_frequency", min_frequency, "a pair that occurs less often is not merged", {.low = 1});
    f("num_threads", num_threads, "threads that count words; 0: all of the machine", {.low = 0});
  }
  /// Errors (kConfig): a vocabulary with no room for bytes and special tokens, an empty or repeated special
  /// token.
  void validate() const;
};

/// How far training is.
struct TokenizerTrainingProgress {
  enum class Phase { kCounting, kMerging } phase;
  int64_t done, total;  ///< bytes of text, then ids
};

/// Trains on `texts`, each a document or a whole file of them; only while the call runs they must stay valid.
/// Ids: special tokens in the order given, the 256 bytes in GPT-2's order (for CLIP twice, the second time as
/// the end of a word), then merges by frequency; the order `tokenizers` uses, and with equal merges on equal
/// texts. Depends on the texts and the configuration alone, not on threads. Fewer merges than asked for if
/// the text has no more. Errors (kConfig): `config.validate()`; (kData): the texts hold no word.
Tokenizer train_tokenizer(std::span<const std::string_view> texts, const TokenizerTrainerConfig& config,
                          const std::function<void(const TokenizerTrainingProgress&)>& progress = {});

}  // namespace fathom
