// The steps around BPE that GPT-2, Llama-3 and CLIP use, and OpenAI's own vocabulary files.
#include <unordered_map>

#include "base/error.h"
#include "data/tokenizer/byte_alphabet.h"
#include "data/tokenizer/pattern_text.h"
#include "data/tokenizer/spec.h"

namespace fathom {
namespace {

Json byte_level(bool use_regex) {
  Json step;
  step["type"] = "ByteLevel";
  step["add_prefix_space"] = false;
  step["trim_offsets"] = true;
  step["use_regex"] = use_regex;
  return step;
}

Json split_step(std::string_view pattern, const char* behavior, bool invert) {
  Json step;
  step["type"] = "Split";
  step["pattern"]["Regex"] = pattern;
  step["behavior"] = behavior;
  step["invert"] = invert;
  return step;
}

Json sequence(const char* list_name, Json::Array steps) {
  Json step;
  step["type"] = "Sequence";
  step[list_name] = std::move(steps);
  return step;
}

Json clip_normalizer() {
  Json nfc, spaces, lower;
  nfc["type"] = "NFC";
  spaces["type"] = "Replace";
  spaces["pattern"]["Regex"] = kSpacesPattern;
  spaces["content"] = " ";
  lower["type"] = "Lowercase";
  return sequence("normalizers", {nfc, spaces, lower});
}

/// Adds tokens under the next free ids, and merges by the texts of their parts.
class SpecBuilder {
 public:
  void add_token(const std::string& text) {
    ids_.emplace(text, static_cast<int32_t>(spec.tokens.size()));
    spec.tokens.push_back(text);
  }
  void add_special(const std::string& text) {
    AddedToken token;
    token.id = static_cast<int32_t>(spec.tokens.size());
    token.text = text;
    token.special = token.in_model = true;
    spec.added.push_back(token);
    add_token(text);
  }
  void add_merge(const std::string& left, const std::string& right) {
    const auto a = ids_.find(left), b = ids_.find(right);
    if (a == ids_.end() || b == ids_.end())
      fail(ErrorKind::kData, "merge \"{} {}\" uses a token that no line before it makes", left, right);
    spec.merges.emplace_back(a->second, b->second);
    spec.merged.push_back(static_cast<int32_t>(spec.tokens.size()));
    add_token(left + right);
  }
  /// Reads lines "left right" below the version line, at most `limit` of them.
  void add_merge_lines(std::string_view text, size_t limit) {
    size_t line_start = text.find('\n');
    for (size_t count = 0; line_start != std::string_view::npos && count < limit; ++count) {
      const std::string_view line =
          text.substr(line_start + 1, text.find('\n', line_start + 1) - line_start - 1);
      line_start = text.find('\n', line_start + 1);
      if (line.empty()) continue;
      const size_t space = line.find(' ');
      if (space == std::string_view::npos) fail(ErrorKind::kData, "merge line \"{}\" has no space", line);
      add_merge(std::string(line.substr(0, space)), std::string(line.substr(space + 1)));
    }
  }

  TokenizerSpec spec;

 private:
  std::unordered_map<std::string, int32_t> ids_;
};

}  // namespace

void apply_splitter(TokenizerSpec& spec, SplitterKind kind) {
  spec.normalizer = Json();
  spec.end_of_word_suffix.clear();
  spec.decoder = byte_level(true);
  switch (kind) {
    case SplitterKind::kGpt2:
      spec.pre_tokenizer = byte_level(true);
      break;
    case SplitterKind::kLlama3:
      spec.pre_tokenizer =
          sequence("pretokenizers", {split_step(kLlama3Pattern, "Isolated", false), byte_level(false)});
      break;
    case SplitterKind::kClip:
      spec.normalizer = clip_normalizer();
      spec.pre_tokenizer =
          sequence("pretokenizers", {split_step(kClipPattern, "Removed", true), byte_level(false)});
      spec.end_of_word_suffix = "</w>";
      break;
  }
}

TokenizerSpec gpt2_spec(std::string_view merges) {
  SpecBuilder builder;
  for (int rank = 0; rank < 256; ++rank) builder.add_token(byte_symbol(byte_of_rank(rank)));
  builder.add_merge_lines(merges, SIZE_MAX);
  builder.add_special("<|endoftext|>");
  apply_splitter(builder.spec, SplitterKind::kGpt2);
  return std::move(builder.spec);
}

TokenizerSpec clip_spec(std::string_view merges) {
  constexpr size_t kNumMerges = 49152 - 256 - 2;
  SpecBuilder builder;
  for (int rank = 0; rank < 256; ++rank) builder.add_token(byte_symbol(byte_of_rank(rank)));
  for (int rank = 0; rank < 256; ++rank) builder.add_token(byte_symbol(byte_of_rank(rank)) + "</w>");
  builder.add_merge_lines(merges, kNumMerges);
  builder.add_special("<|startoftext|>");
  builder.add_special("<|endoftext|>");
  apply_splitter(builder.spec, SplitterKind::kClip);
  builder.spec.unknown_token = "<|endoftext|>";
  return std::move(builder.spec);
}

}  // namespace fathom
