// A cache as a prompt leaves it, without reading the prompt: for figures of decoding behind long contexts.
#pragma once

#include <cstdint>

#include "models/language/config.h"
#include "nn/kv_cache.h"

namespace fathom {

struct StandInPrompt {
  int64_t batch = 1;
  int64_t tokens = 0;  ///< that all layers have seen
  int64_t keys = 0;    ///< that each layer holds of each sequence
};

/// Random keys and values in all room that the cache has for a model of this shape.
void randomise(KeyValueCache& cache, const LanguageModelConfig& model);

/// Sets lengths and gates' sums (0) as after `prompt`. Keys and values stay what they are.
void stand_behind(KeyValueCache& cache, const LanguageModelConfig& model, const StandInPrompt& prompt);

}  // namespace fathom
