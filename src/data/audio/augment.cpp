#include "data/audio/augment.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "data/audio/resample.h"

namespace fathom {
namespace {

/// A run of 0 to `longest` out of `size` places.
struct Run {
  int64_t begin;
  int64_t end;
};

Run draw_run(int64_t size, int64_t longest, Random& random) {
  const int64_t length = random.below(std::min(longest, size) + 1);
  const int64_t begin = random.below(size - length + 1);
  return {begin, begin + length};
}

}  // namespace

void AudioAugmentConfig::fields(Fields& f) {
  f("gain_db", gain_db, "loudness changes by up to so many decibels", {.low = 0, .high = 60});
  f("shift_seconds", shift_seconds, "time shifts by up to so many seconds, around the ends",
    {.low = 0, .high = 3600});
  f("speed", speed, "speed changes by up to this share, pitch with it", {.low = 0, .high = 0.5});
  f("time_masks", time_masks, "runs of frames that are masked", {.low = 0, .high = 100});
  f("time_mask_frames", time_mask_frames, "their greatest length (10 ms each)", {.low = 0, .high = 1 << 20});
  f("time_mask_share", time_mask_share, "their greatest share of the clip", {.low = 0, .high = 1});
  f("band_masks", band_masks, "runs of mel bands that are masked", {.low = 0, .high = 100});
  f("band_mask_bands", band_mask_bands, "their greatest height", {.low = 0, .high = 1024});
}

void change_speed(std::vector<float>& samples, double speed, Random& random) {
  if (speed == 0) return;
  // In steps of one part in 64, so that ratios stay simple.
  const double factor = 1.0 + std::round(64.0 * random.uniform(-speed, speed)) / 64.0;
  if (factor != 1.0) samples = resample(samples, 64.0 * factor, 64.0);
}

void change_gain(std::vector<float>& samples, double gain_db, Random& random) {
  if (gain_db == 0) return;
  const auto gain = static_cast<float>(std::pow(10.0, random.uniform(-gain_db, gain_db) / 20.0));
  for (float& sample : samples) sample *= gain;
}

void shift_time(std::vector<float>& samples, int64_t max_shift, Random& random) {
  if (max_shift == 0 || samples.empty()) return;
  const auto size = static_cast<int64_t>(samples.size());
  const int64_t shift = random.below(2 * max_shift + 1) - max_shift;
  std::rotate(samples.begin(), samples.begin() + ((shift % size) + size) % size, samples.end());
}

void mask_spectrogram(Spectrogram& spectrogram, const AudioAugmentConfig& config, Random& random) {
  if (config.time_masks == 0 && config.band_masks == 0) return;
  std::vector<float>& values = spectrogram.values;
  const auto mean = static_cast<float>(std::accumulate(values.begin(), values.end(), 0.0) /
                                       static_cast<double>(values.size()));
  const auto fill = [&](const Run& bands, const Run& frames) {
    for (int64_t band = bands.begin; band < bands.end; ++band) {
      const auto row = values.begin() + band * spectrogram.num_frames;
      std::fill(row + frames.begin, row + frames.end, mean);
    }
  };
  const Run all_bands{0, spectrogram.num_bands}, all_frames{0, spectrogram.num_frames};
  const auto longest =
      std::min(config.time_mask_frames,
               static_cast<int64_t>(config.time_mask_share * static_cast<double>(spectrogram.num_frames)));
  for (int64_t i = 0; i < config.time_masks; ++i)
    fill(all_bands, draw_run(spectrogram.num_frames, longest, random));
  for (int64_t i = 0; i < config.band_masks; ++i)
    fill(draw_run(spectrogram.num_bands, config.band_mask_bands, random), all_frames);
}

}  // namespace fathom
