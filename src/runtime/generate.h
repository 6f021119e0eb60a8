// A language model continues a text, one token after the other, over a key-value cache.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "models/language/model.h"
#include "runtime/sampler.h"

namespace fathom {

struct GenerateOptions {
  SamplingConfig sampling;
  int64_t max_tokens = 200;
  int64_t seed = 0;
  std::optional<int32_t> stop_token;  ///< ends the text; not part of the result
  std::optional<c10::ScalarType> compute_dtype;
};

enum class GenerationEnd {
  kStopToken,
  kMaxTokens,
  kContextFull,  ///< prompt and answer fill the model's max_positions
};

struct Generation {
  std::vector<int32_t> tokens;
  GenerationEnd reason = GenerationEnd::kMaxTokens;
};

/// Calls `on_token` for each new token; it may return false to end (reason kMaxTokens). The model, on any
/// device, is put into evaluation mode. The result is a pure function of prompt, options and weights. Errors
/// (kRequest): an empty prompt, a prompt that leaves no room in `max_positions`, ids outside the vocabulary;
/// (kConfig) a model that is not causal.
Generation generate(LanguageModel model, std::span<const int32_t> prompt, const GenerateOptions& options,
                    const std::function<bool(int32_t)>& on_token = {});

}  // namespace fathom
