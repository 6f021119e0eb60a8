// Which tokens of a text each layer of a language model with gates computed, for a report.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/tokenizer/tokenizer.h"
#include "evaluate/options.h"
#include "models/language/model.h"
#include "report/html.h"

namespace fathom {

struct GateExhibit {
  std::vector<std::string> tokens;
  std::vector<std::vector<bool>> kept;  ///< by layer and token
};

/// The beginning of `text`, at most `most_tokens` of it. Nothing for a model without gates, or without text.
std::optional<GateExhibit> exhibit_gates(LanguageModel model, const Tokenizer& tokenizer,
                                         const std::string& text, const EvaluateOptions& evaluate,
                                         int64_t most_tokens = 120);

/// The section of the page: the text, darker where more layers computed a token, and a row a layer.
void write_gates(HtmlWriter& page, const GateExhibit& exhibit);

}  // namespace fathom
