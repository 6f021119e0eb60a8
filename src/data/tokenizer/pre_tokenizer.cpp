#include "data/tokenizer/pre_tokenizer.h"

#include <array>
#include <utility>

#include "base/error.h"
#include "data/tokenizer/pattern_text.h"
#include "data/tokenizer/step_options.h"

namespace fathom {
namespace {

/// The hand-written scanner of an expression whose matches are kept and whose gaps are dropped.
const PreTokenizer::Scanner* scanner_of(std::string_view expression, bool keeps_gaps) {
  static const std::array<std::pair<std::string_view, PreTokenizer::Scanner>, 4> kKnown = {{
      {kGpt2Pattern, scan::Gpt2{}},
      {kLlama3Pattern, scan::Llama3{3}},
      {kQwen2Pattern, scan::Llama3{1}},
      {kClipPattern, scan::Clip{}},
  }};
  for (const auto& [text, scanner] : kKnown) {
    const bool has_gaps = std::holds_alternative<scan::Clip>(scanner);
    if (text == expression && !(keeps_gaps && has_gaps)) return &scanner;
  }
  return nullptr;
}

/// GPT-2's splitter leaves each piece of CLIP's as it is.
bool is_clip_then_gpt2(const PreTokenizer::Scanner& first, const PreTokenizer::Scanner& second) {
  return std::holds_alternative<scan::Clip>(first) && std::holds_alternative<scan::Gpt2>(second);
}

struct Span {
  size_t begin, end;
  bool is_match;
};

/// Matches and the gaps between them, in order.
std::vector<Span> cover(const Pattern& pattern, std::string_view text, bool invert) {
  std::vector<Span> spans;
  size_t done = 0;
  for (const Pattern::Match& match : pattern.find_all(text)) {
    if (match.begin > done) spans.push_back({done, match.begin, invert});
    spans.push_back({match.begin, match.end, !invert});
    done = match.end;
  }
  if (done < text.size()) spans.push_back({done, text.size(), invert});
  return spans;
}

}  // namespace

PreTokenizer::PreTokenizer(const Json& config) {
  if (!config.is_null()) add_step(config);
  fuse();
}

void PreTokenizer::add_step(const Json& config) {
  const std::string& type = config.at("type").as_string();
  if (type == "Sequence") {
    for (const Json& step : config.at("pretokenizers").as_array()) add_step(step);
    return;
  }
  if (byte_level_) fail(ErrorKind::kData, "pre-tokenizer {} after ByteLevel is not supported", type);
  if (type == "ByteLevel")
    add_byte_level(config);
  else if (type == "Split")
    add_split(config);
  else if (type == "Digits")
    add_digits(config);
  else if (type == "Metaspace")
    add_metaspace(config);
  else
    fail(ErrorKind::kData, "pre-tokenizer {} is not supported", type);
}

void PreTokenizer::add_byte_level(const Json& config) {
  byte_level_ = true;
  if (option_flag(config, "add_prefix_space", true)) steps_.emplace_back(Prefix{});
  if (option_flag(config, "use_regex", true)) steps_.emplace_back(Scan{scan::Gpt2{}});
}

void PreTokenizer::add_split(const Json& config) {
  constexpr std::array<std::pair<const char*, Behavior>, 5> kBehaviors = {{
      {"Removed", Behavior::kRemoved},
      {"Isolated", Behavior::kIsolated},
      {"MergedWithPrevious", Behavior::kMergedWithPrevious},
      {"MergedWithNext", Behavior::kMergedWithNext},
      {"Contiguous", Behavior::kContiguous},
  }};
  const Behavior behavior = option_choice(config, "behavior", kBehaviors);
  const bool invert = option_flag(config, "invert", false);
  const bool isolates = behavior == Behavior::kIsolated;
  if (const Json* regex = config.at("pattern").find("Regex"))
    if (isolates || (behavior == Behavior::kRemoved && invert))
      if (const Scanner* known = scanner_of(regex->as_string(), isolates)) {
        steps_.emplace_back(Scan{*known});
        return;
      }
  steps_.emplace_back(Split{option_pattern(config), behavior, invert});
}

void PreTokenizer::add_digits(const Json& config) {
  const bool individual = option_flag(config, "individual_digits", false);
  steps_.emplace_back(
      Split{Pattern::regex("\\p{N}"), individual ? Behavior::kIsolated : Behavior::kContiguous, false});
}

void PreTokenizer::add_metaspace(const Json& config) {
  using Prepend = Metaspace::Prepend;
  constexpr std::array<std::pair<const char*, Prepend>, 3> kSchemes = {
      {{"always", Prepend::kAlways}, {"never", Prepend::kNever}, {"first", Prepend::kFirst}}};
  const bool older_prefix = option_flag(config, "add_prefix_space", true);
  const Prepend prepend = config.find("prepend_scheme") ? option_choice(config, "prepend_scheme", kSchemes)
                          : older_prefix                ? Prepend::kAlways
                                                        : Prepend::kNever;
  steps_.emplace_back(
      Metaspace{config.at("replacement").as_string(), prepend, option_flag(config, "split", true)});
}

void PreTokenizer::fuse() {
  const bool prefix = !steps_.empty() && std::holds_alternative<Prefix>(steps_[0]);
  Scanner fused = scan::Whole{};
  for (size_t i = prefix; i < steps_.size(); ++i) {
    const auto* step = std::get_if<Scan>(&steps_[i]);
    if (!step) return;
    if (i == prefix)
      fused = step->scanner;
    else if (!is_clip_then_gpt2(fused, step->scanner))
      return;
  }
  scanner_ = fused;
  adds_prefix_space_ = prefix;
  steps_.clear();
}

std::vector<std::string> PreTokenizer::split(std::string_view segment, bool at_start) const {
  std::vector<std::string> pieces;
  if (!segment.empty()) pieces.emplace_back(segment);
  for (const Step& step : steps_) {
    std::vector<std::string> finer;
    for (size_t i = 0; i < pieces.size(); ++i)
      std::visit([&](const auto& s) { apply(s, std::move(pieces[i]), at_start && i == 0, finer); }, step);
    pieces = std::move(finer);
  }
  return pieces;
}

void PreTokenizer::apply(const Prefix&, std::string piece, bool, std::vector<std::string>& out) {
  out.push_back(piece.starts_with(' ') ? std::move(piece) : " " + piece);
}

void PreTokenizer::apply(const Scan& step, std::string piece, bool, std::vector<std::string>& out) {
  std::visit(
      [&](const auto& scanner) {
        scan::for_each_piece(scanner, piece, [&](std::string_view part) { out.emplace_back(part); });
      },
      step.scanner);
}

void PreTokenizer::apply(const Split& step, std::string piece, bool, std::vector<std::string>& out) {
  const std::vector<Span> spans = cover(step.pattern, piece, step.invert);
  const auto text = [&](size_t first, size_t last) {
    return piece.substr(spans[first].begin, spans[last].end - spans[first].begin);
  };
  for (size_t i = 0; i < spans.size(); ++i) {
    size_t last = i;
    const auto next_is = [&](bool match) {
      return last + 1 < spans.size() && spans[last + 1].is_match == match;
    };
    switch (step.behavior) {
      case Behavior::kIsolated:
        break;
      case Behavior::kRemoved:
        if (spans[i].is_match) continue;
        break;
      case Behavior::kContiguous:
        while (next_is(spans[i].is_match)) ++last;
        break;
      case Behavior::kMergedWithPrevious:
        if (!spans[i].is_match && next_is(true)) ++last;
        break;
      case Behavior::kMergedWithNext:
        if (spans[i].is_match && next_is(false)) ++last;
        break;
    }
    out.push_back(text(i, last));
    i = last;
  }
}

void PreTokenizer::apply(const Metaspace& step, std::string piece, bool at_start,
                         std::vector<std::string>& out) {
  std::string text;
  for (const char c : piece) c == ' ' ? text += step.replacement : text += c;
  const bool wanted =
      step.prepend == Metaspace::Prepend::kAlways || (step.prepend == Metaspace::Prepend::kFirst && at_start);
  if (wanted && !text.starts_with(step.replacement)) text.insert(0, step.replacement);
  if (!step.split) {
    out.push_back(std::move(text));
    return;
  }
  apply(Split{Pattern::literal(step.replacement), Behavior::kMergedWithNext, false}, std::move(text),
        at_start, out);
}

}  // namespace fathom
