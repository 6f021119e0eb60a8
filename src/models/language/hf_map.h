// Hugging Face's names for a language model: Llama, and Qwen2 where query, key and value have biases.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/json.h"
#include "models/language/config.h"
#include "models/weight_map.h"

namespace fathom {

/// Reads config.json's content; `source` names it in errors. Errors (kCheckpoint): an architecture,
/// activation, position scaling, bias or attention window that is not ours, each named; sizes out of range.
LanguageModelConfig language_config_from_hf(const Json& json, const std::string& source);

/// config.json, with what Hugging Face has no key for under "fathom". `end_of_text`: the tokenizer's id.
Json language_config_to_hf(const LanguageModelConfig& config, std::optional<int64_t> end_of_text = {});

/// `prefix`: "model." as saved from a model with a head, "" from one without.
WeightMap language_weight_map(const LanguageModelConfig& config, const std::string& prefix = "model.");

/// The prefix that these tensors use.
std::string language_prefix(const WeightFiles& files);
/// Rotary tables, and a separate head that repeats a tied embedding.
IgnoreRule language_ignores(const LanguageModelConfig& config);

}  // namespace fathom
