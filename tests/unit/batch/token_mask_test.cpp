// Which tokens are hidden: how many, what they become, and what that may depend on.
#include "batch/token_mask.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "byte_tokenizer.h"
#include "tensor/random_keys.h"

namespace fathom::token_mask_test {
namespace {

constexpr int64_t kRows = 400, kTokens = 40, kVocab = 50, kMask = 49, kMark = 7;

MaskVocabulary vocabulary() {
  return {.size = kVocab, .mask = kMask, .marks = {kMask, kMark}};
}

/// Rows of ids below 40, of which some are marks.
at::Tensor rows() {
  return at::arange(kRows * kTokens).mul(31).remainder(1009).remainder(40).view({kRows, kTokens});
}

at::Tensor keys(int64_t step = 4) {
  return make_sample_keys(at::arange(kRows), 3, step);
}

at::Tensor lengths() {
  at::Tensor length_B = at::full({kRows}, kTokens, at::kLong);
  length_B[1] = 13;
  length_B[2] = 1;
  return length_B;
}

/// Bool [B, T], true at the chosen places; checks that a target is what stood there.
at::Tensor chosen_places(const MaskedTokens& masked, const at::Tensor& tokens_BT) {
  const at::Tensor chosen_BK = masked.target_BK.ge(0);
  EXPECT_TRUE(at::equal(masked.target_BK.clamp_min(0), tokens_BT.gather(1, masked.place_BK).mul(chosen_BK)));
  return at::zeros(tokens_BT.sizes(), at::kLong).scatter_add(1, masked.place_BK, chosen_BK.to(at::kLong));
}

TEST(TokenMask, ChoosesTheShareOfEachRowsOwnTokens) {
  const at::Tensor tokens_BT = rows(), length_B = lengths();
  const MaskedTokens masked = mask_tokens(keys(), tokens_BT, length_B, {}, vocabulary());
  ASSERT_EQ(masked.place_BK.sizes(), at::IntArrayRef({kRows, 6})) << "0.15 · 40";
  const at::Tensor chosen_BT = chosen_places(masked, tokens_BT);
  EXPECT_LE(chosen_BT.max().item<int64_t>(), 1) << "no place twice";
  EXPECT_EQ(chosen_BT.logical_and(tokens_BT.eq(kMark)).sum().item<int64_t>(), 0) << "marks stay";
  EXPECT_EQ(chosen_BT[1].slice(0, 13).sum().item<int64_t>(), 0) << "padding stays";
  for (int64_t row = 0; row < kRows; ++row) {
    const int64_t own =
        tokens_BT[row].slice(0, 0, length_B[row].item<int64_t>()).ne(kMark).sum().item<int64_t>();
    const int64_t expected =
        std::min<int64_t>(own, std::max<int64_t>(1, std::llrint(0.15 * static_cast<double>(own))));
    EXPECT_EQ(chosen_BT[row].sum().item<int64_t>(), expected) << row;
  }
  EXPECT_EQ(count_masked(tokens_BT, length_B, {}, vocabulary()).item<int64_t>(),
            chosen_BT.sum().item<int64_t>());
  const at::Tensor often_T = chosen_BT.slice(0, 3).to(at::kDouble).mean(0);
  EXPECT_GT(often_T.min().item<double>(), 0.05) << "every place";
  EXPECT_LT(often_T.max().item<double>(), 0.3);
}

TEST(TokenMask, HidesMostChangesSomeAndLeavesSome) {
  const at::Tensor tokens_BT = rows();
  const MaskedTokens masked = mask_tokens(keys(), tokens_BT, lengths(), {}, vocabulary());
  const at::Tensor chosen_BT = chosen_places(masked, tokens_BT).to(at::kBool);
  EXPECT_TRUE(at::equal(masked.input_BT.masked_fill(chosen_BT, 0), tokens_BT.masked_fill(chosen_BT, 0)))
      << "what is not chosen is shown";
  const at::Tensor shown_N = masked.input_BT.masked_select(chosen_BT),
                   own_N = tokens_BT.masked_select(chosen_BT);
  const auto share = [](const at::Tensor& is_N) { return is_N.to(at::kDouble).mean().item<double>(); };
  EXPECT_NEAR(share(shown_N.eq(kMask)), 0.802, 0.03);  // a random token may be the mask
  EXPECT_NEAR(share(shown_N.eq(own_N)), 0.102, 0.025);
  EXPECT_NEAR(share(shown_N.ne(kMask).logical_and(shown_N.ne(own_N))), 0.096, 0.025);
  EXPECT_GT(shown_N.ge(40).logical_and(shown_N.lt(kMask)).sum().item<int64_t>(), 0)
      << "any of the vocabulary";
  EXPECT_GE(shown_N.min().item<int64_t>(), 0);
  EXPECT_LT(shown_N.max().item<int64_t>(), kVocab);

  const MaskedTokens all =
      mask_tokens(keys(), tokens_BT, lengths(), {.mask_share = 1, .random_share = 0}, vocabulary());
  EXPECT_TRUE(all.input_BT.masked_select(chosen_BT).eq(kMask).all().item<bool>());
  const MaskedTokens none =
      mask_tokens(keys(), tokens_BT, lengths(), {.mask_share = 0, .random_share = 0}, vocabulary());
  EXPECT_TRUE(at::equal(none.input_BT, tokens_BT));
  EXPECT_TRUE(at::equal(none.target_BK, masked.target_BK));
}

TEST(TokenMask, DependsOnKeysAlone) {
  const at::Tensor tokens_BT = rows(), length_B = lengths();
  const MaskedTokens whole = mask_tokens(keys(), tokens_BT, length_B, {}, vocabulary());
  const MaskedTokens part = mask_tokens(keys().slice(0, 100, 160), tokens_BT.slice(0, 100, 160),
                                        length_B.slice(0, 100, 160), {}, vocabulary());
  EXPECT_TRUE(at::equal(part.input_BT, whole.input_BT.slice(0, 100, 160))) << "the split into batches";
  EXPECT_TRUE(at::equal(part.target_BK, whole.target_BK.slice(0, 100, 160)));

  const at::Tensor padded_BT = at::constant_pad_nd(tokens_BT, {0, 25}, kMark);
  const MaskedTokens padded = mask_tokens(keys(), padded_BT, length_B, {}, vocabulary());
  EXPECT_TRUE(at::equal(padded.input_BT.slice(1, 0, kTokens), whole.input_BT)) << "padding";
  EXPECT_TRUE(at::equal(padded.target_BK.slice(1, 0, 6), whole.target_BK));
  EXPECT_FALSE(padded.target_BK.slice(1, 6).ge(0).any().item<bool>());

  const MaskedTokens later = mask_tokens(keys(5), tokens_BT, length_B, {}, vocabulary());
  EXPECT_FALSE(at::equal(later.input_BT, whole.input_BT)) << "another step";
}

TEST(TokenMask, ARowOfMarksHasNothingToForetell) {
  const at::Tensor tokens_BT = at::full({2, 5}, kMark, at::kLong), length_B = at::full({2}, 5, at::kLong);
  const MaskedTokens masked = mask_tokens(keys().slice(0, 0, 2), tokens_BT, length_B, {}, vocabulary());
  EXPECT_TRUE(at::equal(masked.input_BT, tokens_BT));
  EXPECT_EQ(masked.target_BK.max().item<int64_t>(), -1);
  EXPECT_EQ(count_masked(tokens_BT, length_B, {}, vocabulary()).item<int64_t>(), 0);
}

TEST(TokenMask, TheVocabularyNamesTheMask) {
  const Tokenizer bytes = byte_tokenizer();  // has an end of text, and no mask
  EXPECT_THROW(mask_vocabulary(bytes, "<|mask|>"), Error);
  const MaskVocabulary stands_in = mask_vocabulary(bytes, "~", {"", "!"});
  EXPECT_EQ(stands_in.size, 257);
  EXPECT_EQ(stands_in.mask, '~');
  EXPECT_THAT(stands_in.marks, ::testing::UnorderedElementsAre('~', 256, '!'));
}

TEST(TokenMask, MarksAreKnownByTextAndByRole) {
  EXPECT_THAT(mark_ids(byte_tokenizer(), {"", "!", "<|unknown|>", "!"}),
              ::testing::UnorderedElementsAre('!', 256));
}

TEST(TokenMask, SharesAreNoMoreThanAll) {
  EXPECT_NO_THROW((TokenMaskConfig{.mask_share = 0.9, .random_share = 0.1}.validate()));
  EXPECT_THROW((TokenMaskConfig{.mask_share = 0.9, .random_share = 0.2}.validate()), Error);
}

}  // namespace
}  // namespace fathom::token_mask_test
