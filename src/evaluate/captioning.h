// How probable reference captions are to a model that generates.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "batch/question_source.h"
#include "models/fusion/model.h"

namespace fathom {

/// Captions under teacher forcing: each token foretold from the caption's own tokens before it.
struct CaptionFigures {
  double nats = 0;     ///< −ln p, summed over the tokens of all captions
  int64_t tokens = 0;  ///< end marks included
  int64_t captions = 0;
  double mean_nats() const;  ///< a token; NaN without captions
};

/// [B, T − 1]: the token behind each place where that is an answer's, −1 elsewhere.
at::Tensor answer_targets(const PromptedTokens& text);

/// Pictures with what is asked about them, on the model's device.
struct CaptionedBatch {
  Percept percept;
  PromptedTokens prompt;               ///< nothing behind it
  std::vector<const Record*> records;  ///< of each row
};

/// Adds every caption of those records that are captioning ones, cut as training cuts them. REQUIRES
/// AnswerKind::kGenerated and a model in evaluation mode. Errors (kCheckpoint): the encoding's tokens are not
/// the model's.
void add_captions(Fusion model, const CaptionedBatch& batch, const QuestionSource& source,
                  const ForwardContext& context, CaptionFigures& figures);

}  // namespace fathom
