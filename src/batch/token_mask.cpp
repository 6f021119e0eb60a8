// B batch, T tokens, K chosen places a row.
#include "batch/token_mask.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "tensor/random_keys.h"

namespace fathom {
namespace {

// Apart from those of the layers' dropout.
constexpr int64_t kPlaceStream = int64_t{4} << 40;
constexpr int64_t kKindStream = kPlaceStream + 1;
constexpr int64_t kRandomTokenStream = kPlaceStream + 2;

/// Bool [B, T].
at::Tensor candidates(const at::Tensor& tokens_BT, const at::Tensor& length_B,
                      const MaskVocabulary& vocabulary) {
  const at::Tensor place_T = at::arange(tokens_BT.size(1), tokens_BT.options());
  at::Tensor candidate_BT = place_T.unsqueeze(0).lt(length_B.unsqueeze(1));
  for (const int64_t mark : vocabulary.marks) candidate_BT = candidate_BT.logical_and(tokens_BT.ne(mark));
  return candidate_BT;
}

/// int64 [B].
at::Tensor num_chosen(const at::Tensor& candidate_BT, const TokenMaskConfig& config) {
  const at::Tensor all_B = candidate_BT.sum(1);
  const at::Tensor share_B = all_B.to(at::kDouble).mul(config.ratio).round().clamp_min(1).to(at::kLong);
  return at::minimum(all_B, share_B);
}

}  // namespace

void TokenMaskConfig::fields(Fields& f) {
  f("ratio", ratio, "share of each text's tokens that are to be foretold", {.low = 0.01, .high = 0.9});
  f("mask_share", mask_share, "share of these that become the mask token (data.text.mask_token)",
    {.low = 0, .high = 1});
  f("random_share", random_share, "share of these that become a token at random; the rest stay",
    {.low = 0, .high = 1});
}

void TokenMaskConfig::validate() const {
  if (mask_share + random_share > 1 + 1e-9)
    fail(ErrorKind::kConfig, "mask_share = {:g} and random_share = {:g} are more than 1 together", mask_share,
         random_share);
}

int64_t TokenMaskConfig::most_chosen(int64_t tokens) const {
  return std::max<int64_t>(1, std::llrint(static_cast<double>(tokens) * ratio));
}

std::vector<int64_t> mark_ids(const Tokenizer& tokenizer, const std::vector<std::string>& tokens) {
  std::vector<int64_t> ids;
  const auto add = [&](std::optional<int32_t> id) {
    if (id && std::find(ids.begin(), ids.end(), *id) == ids.end()) ids.push_back(*id);
  };
  for (const std::string& token : tokens)
    if (!token.empty()) add(tokenizer.token_id(token));
  for (const auto& id : {tokenizer.end_of_text(), tokenizer.padding(), tokenizer.mask()}) add(id);
  for (const int32_t id : tokenizer.prefix()) add(id);
  for (const int32_t id : tokenizer.suffix()) add(id);
  return ids;
}

MaskVocabulary mask_vocabulary(const Tokenizer& tokenizer, const std::string& mask_token,
                               const std::vector<std::string>& further_marks) {
  std::optional<int32_t> mask = tokenizer.token_id(mask_token);
  if (!mask) mask = tokenizer.mask();
  if (!mask)
    fail(ErrorKind::kConfig,
         "data.text.mask_token = \"{}\": the tokenizer has no such token; one that this task trains has it",
         mask_token);
  std::vector<std::string> tokens = further_marks;
  tokens.push_back(mask_token);
  return {.size = tokenizer.vocab_size(), .mask = *mask, .marks = mark_ids(tokenizer, tokens)};
}

MaskedTokens mask_tokens(const at::Tensor& key_B, const at::Tensor& tokens_BT, const at::Tensor& length_B,
                         const TokenMaskConfig& config, const MaskVocabulary& vocabulary) {
  FATHOM_CHECK(tokens_BT.dim() == 2 && key_B.dim() == 1 && key_B.size(0) == tokens_BT.size(0),
               "[mask_tokens] expected a key for each row of tokens");
  const int64_t tokens = tokens_BT.size(1), most = config.most_chosen(tokens);
  const at::Tensor candidate_BT = candidates(tokens_BT, length_B, vocabulary);
  const at::Tensor draw_BT =
      keyed_uniform(key_B, {tokens}, kPlaceStream).masked_fill(candidate_BT.logical_not(), 2);
  constexpr bool kStable = true, kDescending = false;
  const at::Tensor place_BK = draw_BT.argsort(kStable, int64_t{1}, kDescending).slice(1, 0, most);
  const at::Tensor rank_K = at::arange(most, tokens_BT.options());
  const at::Tensor chosen_BK = rank_K.unsqueeze(0).lt(num_chosen(candidate_BT, config).unsqueeze(1));

  const at::Tensor own_BK = tokens_BT.gather(1, place_BK);
  const at::Tensor kind_BK = keyed_uniform(key_B, {most}, kKindStream);
  const at::Tensor random_BK = keyed_bits(key_B, {most}, kRandomTokenStream).remainder(vocabulary.size);
  const at::Tensor becomes_mask_BK = kind_BK.lt(config.mask_share);
  const at::Tensor stays_BK = kind_BK.ge(config.mask_share + config.random_share);
  const at::Tensor hidden_BK = random_BK.masked_fill(becomes_mask_BK, vocabulary.mask);
  const at::Tensor shown_BK = at::where(stays_BK.logical_or(chosen_BK.logical_not()), own_BK, hidden_BK);
  return {.input_BT = tokens_BT.scatter(1, place_BK, shown_BK),
          .place_BK = place_BK,
          .target_BK = own_BK.masked_fill(chosen_BK.logical_not(), -1)};
}

at::Tensor count_masked(const at::Tensor& tokens_BT, const at::Tensor& length_B,
                        const TokenMaskConfig& config, const MaskVocabulary& vocabulary) {
  return num_chosen(candidates(tokens_BT, length_B, vocabulary), config).sum();
}

}  // namespace fathom
