// How well a language model predicts text: bits per byte, and perplexity per token.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "batch/sources.h"
#include "evaluate/options.h"
#include "models/language/model.h"

namespace fathom {

struct LanguageReport {
  double nats = 0;                ///< total −ln p over all tokens
  int64_t tokens = 0;             ///< tokens predicted: every one of the text, once
  int64_t bytes = 0;              ///< of the text files, separators included
  std::optional<double> density;  ///< share of the gated layers' work that was done; of a model with gates

  double bits_per_byte() const;  ///< nats ÷ ln 2 ÷ bytes: does not depend on the tokenizer
  double perplexity() const;     ///< exp(nats ÷ tokens)
  /// {"task": "language", "bits_per_byte", "perplexity", "tokens", "bytes"} and, with gates, "density".
  Json to_json() const;
};

/// Adds up the loss over non-overlapping windows, the last partial one included; a token sees only what
/// stands before it in its window. REQUIRES windows made for Phase::kEvaluate, of at most max_positions
/// tokens, and a model on `options.device`, which is put into evaluation mode.
LanguageReport evaluate_language(LanguageModel model, std::shared_ptr<const TokenWindowSource> windows,
                                 const EvaluateOptions& options = {});

/// Windows of several texts by the names that tell them apart.
using NamedWindows = std::map<std::string, std::shared_ptr<const TokenWindowSource>>;

/// A name for each text file: its own without the extension, or, where two share that, as many last parts of
/// its path as tell all of them apart. Errors (kConfig): one file given twice.
std::vector<std::string> text_names(const std::vector<std::string>& paths);

/// Each text in windows of `num_tokens` for Phase::kEvaluate. Errors: as of `text_names`, of
/// `TokenFile::open` and of `TokenWindowSource`.
NamedWindows open_texts(const std::vector<std::string>& paths, const Tokenizer& tokenizer,
                        int64_t num_tokens);

/// Figures of several texts by name.
struct LanguageReports {
  std::map<std::string, LanguageReport> files;

  LanguageReport all() const;  ///< of all texts as one
  /// That of `all`, and with several texts "files": {NAME: {"bits_per_byte", "perplexity", "tokens",
  /// "bytes"}}
  Json to_json() const;
};

/// The same for each text.
LanguageReports evaluate_language(const LanguageModel& model, const NamedWindows& texts,
                                  const EvaluateOptions& options = {});

/// What a model is to be told of rows of `tokens` tokens: `length_B` (int64, on the CPU), or nothing where
/// all are full. With lengths it looks for padding, and on a GPU layers with gates then wait for their
/// counts.
at::Tensor padded_lengths(const at::Tensor& length_B, int64_t tokens);

/// −ln p of `target_N` given hidden states [N, D], summed in float64 over the targets ≥ 0. Logits are float32
/// and made for `chunk` states at a time, so a large vocabulary needs no [N, V].
double total_nats(const LanguageModel& model, const at::Tensor& hidden_ND, const at::Tensor& target_N,
                  int64_t chunk = 4096);

}  // namespace fathom
