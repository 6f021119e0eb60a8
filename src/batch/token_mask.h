// Which tokens of a text are hidden, to be foretold from the others. B batch, T tokens, K chosen places a
// row.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/config.h"
#include "data/tokenizer/tokenizer.h"

namespace fathom {

struct TokenMaskConfig {
  double ratio = 0.15;
  double mask_share = 0.8;
  double random_share = 0.1;

  void fields(Fields& f);
  /// Errors (kConfig): shares of more than 1 together.
  void validate() const;
  /// Chosen places of a row of `tokens` tokens of which all may be chosen; no row has more.
  int64_t most_chosen(int64_t tokens) const;
};

/// Ids that are no words, each once: those of `tokens`, texts of tokens of which any may be empty or unknown,
/// and those that the tokenizer knows by a role (padding, end of text, mask, what stands around a text).
std::vector<int64_t> mark_ids(const Tokenizer& tokenizer, const std::vector<std::string>& tokens);

/// What masking has to know of a vocabulary.
struct MaskVocabulary {
  int64_t size = 0;
  int64_t mask = 0;            ///< what hidden tokens become
  std::vector<int64_t> marks;  ///< ids that are never chosen: they mark where texts begin and end
};

/// `mask_token`: the text of the token that hidden ones become; a vocabulary without it may have one by
/// another name (`Tokenizer::mask`). `further_marks` join those of `mark_ids`.
/// Errors (kConfig): no such token.
MaskVocabulary mask_vocabulary(const Tokenizer& tokenizer, const std::string& mask_token,
                               const std::vector<std::string>& further_marks = {});

struct MaskedTokens {
  at::Tensor input_BT;   ///< int64: the tokens as they are shown
  at::Tensor place_BK;   ///< int64: places of the chosen ones, K = `most_chosen(T)`
  at::Tensor target_BK;  ///< int64: the tokens that stood there, −1 behind the last chosen one of a row
};

/// Of each row's n tokens that are neither padding nor a mark, ratio · n (to the nearest, at least one) are
/// chosen. Of the chosen, `mask_share` become the mask, `random_share` any token of the vocabulary, the rest
/// stay as they are. All is drawn by each row's key (int64 [B]); how far rows are padded changes nothing.
/// Shapes depend on those of the input alone. Source: Devlin et al., "BERT: pre-training of deep
/// bidirectional transformers for language understanding", NAACL 2019, section 3.1.
MaskedTokens mask_tokens(const at::Tensor& key_B, const at::Tensor& tokens_BT, const at::Tensor& length_B,
                         const TokenMaskConfig& config, const MaskVocabulary& vocabulary);

/// How many tokens `mask_tokens` chooses in all rows: an int64 scalar, without drawing.
at::Tensor count_masked(const at::Tensor& tokens_BT, const at::Tensor& length_B,
                        const TokenMaskConfig& config, const MaskVocabulary& vocabulary);

}  // namespace fathom
