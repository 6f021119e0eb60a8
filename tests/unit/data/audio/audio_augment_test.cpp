// Changes of clips: each does what it says, by its draws alone, and nothing when it is off.
#include "data/audio/augment.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "test_sounds.h"

namespace fathom::audio_augment_test {
namespace {

std::vector<float> ramp(size_t size) {
  std::vector<float> values(size);
  std::iota(values.begin(), values.end(), 1.0F);
  return values;
}

TEST(AudioAugment, OffMeansUntouched) {
  const std::vector<float> before = ramp(100);
  std::vector<float> samples = before;
  Random random({1});
  change_speed(samples, 0, random);
  change_gain(samples, 0, random);
  shift_time(samples, 0, random);
  Spectrogram mel{10, 10, before};
  mask_spectrogram(mel, {}, random);
  EXPECT_EQ(samples, before);
  EXPECT_EQ(mel.values, before);
  EXPECT_EQ(random.next_u64(), Random({1}).next_u64()) << "and nothing is drawn";
}

TEST(AudioAugment, GainStaysWithinItsDecibels) {
  double least = 1e9, most = 0;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    std::vector<float> samples = {0.5F, -0.25F};
    Random random({seed});
    change_gain(samples, 6, random);
    EXPECT_FLOAT_EQ(samples[0], -2 * samples[1]);
    least = std::min<double>(least, samples[0]);
    most = std::max<double>(most, samples[0]);
  }
  EXPECT_GE(least, 0.5 * std::pow(10, -0.3) - 1e-6);
  EXPECT_LE(most, 0.5 * std::pow(10, 0.3) + 1e-6);
  EXPECT_LT(least, 0.28);
  EXPECT_GT(most, 0.9);
}

TEST(AudioAugment, ShiftTurnsTheClipRound) {
  std::set<float> firsts;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    std::vector<float> samples = ramp(50);
    Random random({seed});
    shift_time(samples, 3, random);
    firsts.insert(samples[0]);
    std::rotate(samples.begin(), std::min_element(samples.begin(), samples.end()), samples.end());
    ASSERT_EQ(samples, ramp(50));
  }
  EXPECT_EQ(firsts, (std::set<float>{48, 49, 50, 1, 2, 3, 4}));
}

TEST(AudioAugment, SpeedChangesLengthAndPitchAlike) {
  std::set<size_t> lengths;
  for (uint64_t seed = 0; seed < 30; ++seed) {
    std::vector<float> samples = tone(1000, 0.5, 16000);
    Random random({seed});
    change_speed(samples, 0.1, random);
    const double factor = 8000.0 / static_cast<double>(samples.size());
    EXPECT_NEAR(factor, 1, 0.101);
    EXPECT_GT(share_at(samples, 1000 * factor, 16000), 0.98) << factor;
    lengths.insert(samples.size());
  }
  EXPECT_GT(lengths.size(), 5U);
}

TEST(AudioAugment, MasksAreRunsOfFramesAndBandsAtTheMean) {
  constexpr int64_t kBands = 20, kFrames = 50;
  std::set<int64_t> heights, widths;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    Spectrogram mel{kBands, kFrames, ramp(static_cast<size_t>(kBands * kFrames))};
    const float mean = (1.0F + kBands * kFrames) / 2;
    Random random({seed});
    mask_spectrogram(mel,
                     {.time_masks = 1,
                      .time_mask_frames = 30,
                      .time_mask_share = 0.2,
                      .band_masks = 1,
                      .band_mask_bands = 5},
                     random);
    std::vector<int64_t> bands, frames;
    const auto masked = [&](int64_t band, int64_t frame) {
      return std::abs(mel.values[static_cast<size_t>(band * kFrames + frame)] - mean) < 1e-3F;
    };
    for (int64_t band = 0; band < kBands; ++band) {
      int64_t count = 0;
      for (int64_t frame = 0; frame < kFrames; ++frame) count += masked(band, frame);
      if (count == kFrames) bands.push_back(band);
    }
    for (int64_t frame = 0; frame < kFrames; ++frame) {
      int64_t count = 0;
      for (int64_t band = 0; band < kBands; ++band) count += masked(band, frame);
      if (count == kBands) frames.push_back(frame);
    }
    heights.insert(static_cast<int64_t>(bands.size()));
    widths.insert(static_cast<int64_t>(frames.size()));
    if (!bands.empty()) {
      EXPECT_EQ(bands.back() - bands.front() + 1, static_cast<int64_t>(bands.size()));
    }
    if (!frames.empty()) {
      EXPECT_EQ(frames.back() - frames.front() + 1, static_cast<int64_t>(frames.size()));
    }
    int64_t total = 0;
    for (int64_t band = 0; band < kBands; ++band)
      for (int64_t frame = 0; frame < kFrames; ++frame) total += masked(band, frame);
    const auto height = static_cast<int64_t>(bands.size()), width = static_cast<int64_t>(frames.size());
    EXPECT_EQ(total, height * kFrames + width * kBands - height * width) << "nothing else is touched";
  }
  EXPECT_EQ(heights, (std::set<int64_t>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(*widths.rbegin(), 10) << "a fifth of the clip";
  EXPECT_EQ(widths.size(), 11U);
}

}  // namespace
}  // namespace fathom::audio_augment_test
