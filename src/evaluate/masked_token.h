// How well a text encoder foretells tokens that are hidden from it.
#pragma once

#include <cstdint>
#include <memory>

#include "base/json.h"
#include "batch/sample_source.h"
#include "batch/token_mask.h"
#include "evaluate/options.h"
#include "models/language/model.h"

namespace fathom {

struct MaskedTokenReport {
  double nats = 0;      ///< total −ln p of the chosen tokens
  int64_t correct = 0;  ///< those that were the most probable
  int64_t tokens = 0;   ///< how many were chosen

  double nats_per_token() const;
  double accuracy() const;  ///< percent
  /// {"task": "masked_token", "masked_nats", "masked_accuracy", "tokens"}
  Json to_json() const;
};

/// Over every row once, with masks that depend on the row's place in the source alone. REQUIRES rows of at
/// most max_positions tokens and a model on `options.device`, which is put into evaluation mode. Errors
/// (kCheckpoint): tokens that the vocabulary lacks.
MaskedTokenReport evaluate_masked_tokens(LanguageModel model, std::shared_ptr<const SampleSource> source,
                                         const TokenMaskConfig& config, const MaskVocabulary& vocabulary,
                                         const EvaluateOptions& options = {});

}  // namespace fathom
