// Typed options of the steps (normalizers, pre-tokenizers, decoders) that tokenizer.json lists.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "data/tokenizer/pattern.h"

namespace fathom {

inline bool option_flag(const Json& step, std::string_view name, bool otherwise) {
  const Json* value = step.find(name);
  return value && !value->is_null() ? value->as_bool() : otherwise;
}

/// The value that `choices` (pairs of name and value) gives for the option's text. Errors (kData): another
/// text.
template <typename Choices>
auto option_choice(const Json& step, std::string_view name, const Choices& choices) {
  const std::string& text = step.at(name).as_string();
  for (const auto& [choice, value] : choices)
    if (text == choice) return value;
  fail(ErrorKind::kData, "{} \"{}\" of step {} is not supported", name, text, step.at("type").as_string());
}

/// The option "pattern": {"String": …} or {"Regex": …}.
inline Pattern option_pattern(const Json& step) {
  const Json& pattern = step.at("pattern");
  if (const Json* regex = pattern.find("Regex")) return Pattern::regex(regex->as_string());
  return Pattern::literal(pattern.at("String").as_string());
}

}  // namespace fathom
