#include "batch/text_encoding.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace fathom {
namespace {

std::optional<int32_t> require_token(const Tokenizer& tokenizer, const std::string& token,
                                     const char* field) {
  if (token.empty()) return std::nullopt;
  if (const auto id = tokenizer.token_id(token)) return id;
  fail(ErrorKind::kConfig, "{} = \"{}\": the tokenizer has no such token", field, token);
}

}  // namespace

void TextEncodingConfig::fields(Fields& f) {
  f("max_tokens", max_tokens, "longer sentences are cut, marks included", {.low = 2, .high = 1 << 20});
  f("begin_token", begin_token, "special token before each sentence; empty for none");
  f("end_token", end_token, "special token behind each sentence; empty for none");
  f("mask_token", mask_token, "special token that masked tokens become");
  f("mask_probability", mask_probability, "share of a sentence's tokens that training masks",
    {.low = 0, .high = 1});
}

TextEncoding::TextEncoding(std::shared_ptr<const Tokenizer> tokenizer, const TextEncodingConfig& config)
    : tokenizer_(std::move(tokenizer)),
      config_(config),
      begin_(require_token(*tokenizer_, config.begin_token, "begin_token")),
      end_(require_token(*tokenizer_, config.end_token, "end_token")) {
  if (config.mask_probability > 0) {
    mask_ = require_token(*tokenizer_, config.mask_token, "mask_token");
    if (!mask_)
      fail(ErrorKind::kConfig, "mask_probability is {} but mask_token is empty", config.mask_probability);
  }
}

std::vector<int32_t> TextEncoding::encode(std::string_view text) const {
  std::vector<int32_t> tokens;
  if (begin_) tokens.push_back(*begin_);
  append(text, config_.max_tokens, tokens);
  return tokens;
}

int64_t TextEncoding::num_cut(std::string_view text) const {
  std::vector<int32_t> tokens;
  tokenizer_->encode(text, tokens);
  const int64_t room = config_.max_tokens - (begin_ ? 1 : 0) - (end_ ? 1 : 0);
  return std::max<int64_t>(0, static_cast<int64_t>(tokens.size()) - room);
}

std::vector<int32_t> TextEncoding::continuation(std::string_view text, int64_t max_tokens) const {
  std::vector<int32_t> tokens;
  append(text, max_tokens, tokens);
  return tokens;
}

void TextEncoding::append(std::string_view text, int64_t max_tokens, std::vector<int32_t>& tokens) const {
  tokenizer_->encode(text, tokens);
  const auto room = static_cast<size_t>(max_tokens - (end_ ? 1 : 0));
  if (tokens.size() > room) tokens.resize(room);
  if (end_) tokens.push_back(*end_);
}

void TextEncoding::mask(std::vector<int32_t>& tokens, Random& random) const {
  if (!mask_) return;
  const size_t first = begin_ ? 1 : 0;
  const size_t last = tokens.size() - (end_ ? 1 : 0);
  if (last < first + 2) return;
  const auto kept = first + static_cast<size_t>(random.below(static_cast<int64_t>(last - first)));
  for (size_t i = first; i < last; ++i)
    if (random.chance(config_.mask_probability) && i != kept) tokens[i] = *mask_;
}

int32_t TextEncoding::padding_id() const {
  return tokenizer_->padding().value_or(end_.value_or(0));
}

}  // namespace fathom
