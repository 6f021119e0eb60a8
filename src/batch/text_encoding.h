// A sentence as the ids a text tower sees.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/config.h"
#include "base/random.h"
#include "data/tokenizer/tokenizer.h"

namespace fathom {

struct TextEncodingConfig {
  int64_t max_tokens = 64;
  std::string begin_token;
  std::string end_token = "<|endoftext|>";
  std::string mask_token = "<|mask|>";
  double mask_probability = 0.0;
  void fields(Fields& f);
};

/// [begin] tokens… [end], cut to `max_tokens` so that the end mark stays. Immutable, safe from many threads.
class TextEncoding {
 public:
  /// Errors (kConfig): a begin, end or (when masking is on) mask token that the vocabulary lacks.
  TextEncoding(std::shared_ptr<const Tokenizer> tokenizer, const TextEncodingConfig& config);

  std::vector<int32_t> encode(std::string_view text) const;
  /// How many tokens of the text `encode` leaves out.
  int64_t num_cut(std::string_view text) const;
  /// tokens… [end], of at most `max_tokens`: what follows an encoded text, such as an answer.
  std::vector<int32_t> continuation(std::string_view text, int64_t max_tokens) const;
  /// Replaces each token between the marks by the mask with `mask_probability`, but never all of them.
  void mask(std::vector<int32_t>& tokens, Random& random) const;

  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const TextEncodingConfig& config() const { return config_; }
  /// The padding token, or else the end mark: what `collate` fills rows with.
  int32_t padding_id() const;
  /// What ends a text and an answer; none without an end mark.
  std::optional<int32_t> end_id() const { return end_; }

 private:
  /// Cuts `tokens` to `max_tokens`, the end mark included.
  void append(std::string_view text, int64_t max_tokens, std::vector<int32_t>& tokens) const;

  std::shared_ptr<const Tokenizer> tokenizer_;
  TextEncodingConfig config_;
  std::optional<int32_t> begin_;
  std::optional<int32_t> end_;
  std::optional<int32_t> mask_;
};

}  // namespace fathom
