// What `fathom eval` and `fathom report` measure a text encoder on.
#pragma once

#include <memory>

#include "batch/token_mask.h"
#include "cli/data_argument.h"
#include "cli/opened_model.h"

namespace fathom::cli {

struct MaskedTokenData {
  std::shared_ptr<const SampleSource> source;
  TokenMaskConfig config;  ///< as the model was trained, or else the default
  MaskVocabulary vocabulary;
  EvaluateOptions options;
};

/// Text files as windows of `window` ≥ 2 tokens, anything else as the sentences of its rows. Errors: those of
/// `data_paths`, `open_data` and `mask_vocabulary`; kCheckpoint for a record that does not fit.
MaskedTokenData masked_token_data(const OpenedModel& model, const DataOptions& options, int64_t window);

}  // namespace fathom::cli
