// What tokenizer.json's "post_processor" puts around a single text.
#pragma once

#include <cstdint>
#include <vector>

#include "base/json.h"

namespace fathom {

/// Ids before and after a single text: from TemplateProcessing, RobertaProcessing, BertProcessing; ByteLevel
/// adds none.
struct Affixes {
  std::vector<int32_t> prefix, suffix;
};

/// Errors (kData): a step that is not supported, named, or an id outside [0, vocab_size).
Affixes read_affixes(const Json& post_processor, int64_t vocab_size);

}  // namespace fathom
