#include "data/tokenizer/normalizer.h"

#include "base/error.h"
#include "data/tokenizer/pattern_text.h"
#include "data/tokenizer/scan.h"
#include "data/tokenizer/step_options.h"

namespace fathom {
namespace {

/// Calls take(piece, code point) for every code point; broken bytes come as kBrokenByte.
template <typename Take>
void for_each_point(std::string_view text, const Take& take) {
  const char* const end = text.data() + text.size();
  for (const char* p = text.data(); p < end;) {
    const unicode::CodePoint point = unicode::decode_utf8(p, end);
    take(std::string_view(p, static_cast<size_t>(point.length)), point.value);
    p += point.length;
  }
}

bool is_space(char32_t value) {
  return unicode::char_class(value) == unicode::CharClass::kSpace;
}

}  // namespace

Normalizer::Normalizer(const Json& config) {
  if (!config.is_null()) add_step(config);
}

void Normalizer::add_step(const Json& config) {
  const std::string& type = config.at("type").as_string();
  if (type == "Sequence") {
    for (const Json& step : config.at("normalizers").as_array()) add_step(step);
  } else if (type == "NFC") {
    steps_.emplace_back(unicode::Form::kNfc);
  } else if (type == "NFD") {
    steps_.emplace_back(unicode::Form::kNfd);
  } else if (type == "NFKC") {
    steps_.emplace_back(unicode::Form::kNfkc);
  } else if (type == "NFKD") {
    steps_.emplace_back(unicode::Form::kNfkd);
  } else if (type == "Lowercase") {
    steps_.emplace_back(Lowercase{});
  } else if (type == "Prepend") {
    steps_.emplace_back(Prepend{config.at("prepend").as_string()});
  } else if (type == "Strip") {
    steps_.emplace_back(
        Strip{option_flag(config, "strip_left", true), option_flag(config, "strip_right", true)});
  } else if (type == "Replace") {
    const std::string& content = config.at("content").as_string();
    const Json* regex = config.at("pattern").find("Regex");
    if (regex && regex->as_string() == kSpacesPattern && content == " ")
      steps_.emplace_back(CollapseSpaces{});
    else
      steps_.emplace_back(Replace{option_pattern(config), content});
  } else {
    fail(ErrorKind::kData, "normalizer {} is not supported", type);
  }
}

std::string Normalizer::apply(std::string_view text) const {
  std::string current(text);
  for (const Step& step : steps_)
    current = std::visit([&](const auto& s) { return apply(s, std::move(current)); }, step);
  return current;
}

std::string Normalizer::apply(unicode::Form form, std::string text) {
  return unicode::is_ascii(text) ? text : unicode::normalize(text, form);
}

std::string Normalizer::apply(Lowercase, std::string text) {
  if (unicode::is_ascii(text)) {
    for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
    return text;
  }
  std::string out;
  out.reserve(text.size());
  for_each_point(text, [&](std::string_view bytes, char32_t value) {
    if (value == unicode::kBrokenByte)
      out += bytes;
    else
      unicode::append_lower(out, value);
  });
  return out;
}

std::string Normalizer::apply(CollapseSpaces, std::string text) {
  std::string out;
  out.reserve(text.size());
  const char* const end = text.data() + text.size();
  for (const char* p = text.data(); p < end;) {
    const scan::Classified first = scan::classify(p, end);
    if (first.char_class == unicode::CharClass::kSpace) {
      out += ' ';
      p = scan::skip_class(p, end, unicode::CharClass::kSpace);
    } else {
      out.append(p, static_cast<size_t>(first.length));
      p += first.length;
    }
  }
  return out;
}

std::string Normalizer::apply(const Replace& step, std::string text) {
  return step.pattern.replace_all(text, step.content);
}

std::string Normalizer::apply(const Prepend& step, std::string text) {
  return text.empty() ? text : step.text + text;
}

std::string Normalizer::apply(Strip step, std::string text) {
  size_t first = std::string::npos, last = 0, at = 0;
  for_each_point(text, [&](std::string_view bytes, char32_t value) {
    if (!is_space(value)) {
      if (first == std::string::npos) first = at;
      last = at + bytes.size();
    }
    at += bytes.size();
  });
  if (first == std::string::npos) return step.left || step.right ? std::string() : text;
  const size_t begin = step.left ? first : 0;
  const size_t end = step.right ? last : text.size();
  return text.substr(begin, end - begin);
}

}  // namespace fathom
