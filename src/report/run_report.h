// A run as one self-contained HTML page.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "evaluate/answering.h"
#include "evaluate/language.h"
#include "evaluate/masked_token.h"
#include "evaluate/retrieval.h"
#include "report/answer_exhibit.h"
#include "report/exhibit.h"
#include "report/gate_exhibit.h"
#include "report/run_history.h"
#include "report/sound_exhibit.h"

namespace fathom {

/// Names and values of a card, in order.
using CardFacts = std::vector<std::pair<std::string, std::string>>;

struct TextSample {
  std::string prompt;
  std::string answer;
};

/// Everything on the page; what is empty is left out.
struct RunReportContent {
  std::string title;
  std::string subtitle;
  RunHistory history;
  std::optional<RetrievalReport> retrieval;
  std::optional<LanguageReports> language;
  std::optional<MaskedTokenReport> masked_tokens;
  std::optional<AnswerReport> answers;
  std::optional<ClassificationReport> classification;
  std::vector<Exhibit> text_to_image;
  std::vector<Exhibit> image_to_text;
  std::vector<SoundExhibit> sounds;
  std::vector<AnswerExhibit> asked;
  std::vector<GateExhibit> gates;
  std::vector<TextSample> samples;
  CardFacts model_card;
  CardFacts data_card;
  std::string recipe;  ///< TOML text
};

/// One HTML file that loads nothing: style, plots, pictures and the (optional) script lie within. All text
/// from outside is escaped.
std::string render_run_report(const RunReportContent& content);

/// Scalars of a JSON object as facts, with dotted names.
CardFacts flatten_facts(const Json& values, const std::string& prefix = "");

}  // namespace fathom
