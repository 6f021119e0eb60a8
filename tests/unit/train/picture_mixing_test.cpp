// Pictures mixed with their neighbours', as wholes and by boxes.
#include "train/task/picture_mixing.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "tensor/random_keys.h"

namespace fathom::testing::picture_mixing_test {
namespace {

constexpr int64_t kPictureHeight = 16, kPictureWidth = 12;

at::Tensor picture_keys(int64_t samples) {
  return make_sample_keys(at::arange(samples), 3, 7);
}

/// Two views of each sample, every pixel its number.
at::Tensor numbered_pictures(int64_t samples) {
  return at::arange(samples, at::kDouble)
      .repeat_interleave(2)
      .view({-1, 1, 1, 1})
      .expand({-1, 3, kPictureHeight, kPictureWidth})
      .contiguous();
}

TEST(PictureMixing, NeighboursArePartners) {
  const auto partners = [](int64_t samples) { return mix_partners(samples, at::kLong); };
  EXPECT_TRUE(at::equal(partners(4), at::tensor({1, 0, 3, 2}, at::kLong)));
  EXPECT_TRUE(at::equal(partners(5), at::tensor({1, 0, 3, 2, 4}, at::kLong)));
  EXPECT_TRUE(at::equal(partners(1), at::zeros({1}, at::kLong)));
}

TEST(PictureMixing, BlendsAllViewsOfASampleInOneShare) {
  torch::manual_seed(1);
  const at::Tensor image = at::randn({10, 3, 4, 6}, at::kDouble);
  const MixedPictures mixed = PictureMixing({.alpha = 1}).mix(image, picture_keys(5));
  const int64_t partner[] = {1, 0, 3, 2, 4};
  for (int64_t b = 0; b < 5; ++b) {
    const double share = mixed.share_B[b].item<double>();
    EXPECT_GE(share, 0.5);
    EXPECT_EQ(share == 1, b == 4) << "the last of an odd number stays alone";
    EXPECT_EQ(mixed.partner_B[b].item<int64_t>(), partner[b]);
    for (int64_t v = 0; v < 2; ++v)
      EXPECT_TRUE(at::allclose(mixed.image_NCHW[2 * b + v],
                               share * image[2 * b + v] + (1 - share) * image[2 * partner[b] + v]));
  }
}

TEST(PictureMixing, CutsABoxOfThePartnerIntoEachView) {
  const int64_t samples = 40;
  const MixedPictures mixed =
      PictureMixing({.alpha = 1, .cutmix_share = 1}).mix(numbered_pictures(samples), picture_keys(samples));
  int elsewhere = 0, cut = 0;
  for (int64_t n = 0; n < 2 * samples; ++n) {
    const int64_t b = n / 2;
    const at::Tensor other_HW = mixed.image_NCHW[n][0].eq(static_cast<double>(b ^ 1));
    EXPECT_TRUE(at::equal(mixed.image_NCHW[n][0].eq(static_cast<double>(b)), ~other_HW))
        << "one or the other";
    EXPECT_TRUE(at::equal(mixed.image_NCHW[n][0], mixed.image_NCHW[n][2]));
    const int64_t area = other_HW.sum().item<int64_t>();
    EXPECT_NEAR(mixed.share_B[b].item<double>(),
                1 - static_cast<double>(area) / (kPictureHeight * kPictureWidth), 1e-6);
    EXPECT_EQ(area, (other_HW.any(1).sum() * other_HW.any(0).sum()).item<int64_t>()) << "a rectangle";
    cut += area > 0;
    if (n % 2 == 0) elsewhere += !at::equal(mixed.image_NCHW[n], mixed.image_NCHW[n + 1]);
  }
  EXPECT_GT(cut, samples);
  EXPECT_GT(elsewhere, samples / 2) << "the box of a second view lies elsewhere";
}

TEST(PictureMixing, MixesAndCutsTheSharesAskedFor) {
  const int64_t samples = 2000;
  const at::Tensor image = numbered_pictures(samples);
  const MixedPictures mixed =
      PictureMixing({.alpha = 1, .cutmix_share = 0.25, .mix_share = 0.6}).mix(image, picture_keys(samples));
  const auto first = [](const at::Tensor& of_NCHW) {  // view, channel
    return of_NCHW.slice(0, 0, of_NCHW.size(0), 2).select(1, 0).flatten(1);
  };
  const at::Tensor first_BP = first(mixed.image_NCHW);
  const at::Tensor alone_B = mixed.share_B.eq(1),
                   cut_B = (first_BP - first_BP.select(1, 0).unsqueeze(1)).abs().gt(0.5).any(1);
  EXPECT_TRUE(at::equal(first_BP.index({alone_B}), first(image).index({alone_B})));
  EXPECT_NEAR(alone_B.to(at::kDouble).mean().item<double>(), 0.4, 0.05);
  EXPECT_NEAR(cut_B.sum().item<double>() / (~alone_B).sum().item<double>(), 0.25, 0.05);
}

TEST(PictureMixing, IsTheSameInEvenMicroBatches) {
  torch::manual_seed(2);
  const at::Tensor image = at::randn({16, 3, kPictureHeight, kPictureWidth}), key = picture_keys(8);
  const PictureMixing mixing({.alpha = 0.4, .cutmix_share = 0.5});
  const MixedPictures whole = mixing.mix(image, key);
  EXPECT_FALSE(at::equal(whole.image_NCHW, image));
  for (int64_t start = 0; start < 8; start += 2) {
    const MixedPictures part =
        mixing.mix(image.slice(0, 2 * start, 2 * start + 4), key.slice(0, start, start + 2));
    EXPECT_TRUE(at::allclose(part.image_NCHW, whole.image_NCHW.slice(0, 2 * start, 2 * start + 4)));
    EXPECT_TRUE(at::allclose(part.share_B, whole.share_B.slice(0, start, start + 2)));
  }
}

}  // namespace
}  // namespace fathom::testing::picture_mixing_test
