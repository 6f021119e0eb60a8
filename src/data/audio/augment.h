// How a clip becomes the spectrogram that a model hears: random changes for training, none for evaluation.
#pragma once

#include <cstdint>
#include <vector>

#include "base/config.h"
#include "base/random.h"
#include "data/sample.h"

namespace fathom {

/// Each part is off at 0. Masks as Park et al., "SpecAugment: a simple data augmentation method for automatic
/// speech recognition", Interspeech 2019, without time warping; a mask takes the spectrogram's mean.
struct AudioAugmentConfig {
  double gain_db = 0.0;
  double shift_seconds = 0.0;
  double speed = 0.0;
  int64_t time_masks = 0;
  int64_t time_mask_frames = 40;
  double time_mask_share = 0.2;
  int64_t band_masks = 0;
  int64_t band_mask_bands = 15;

  void fields(Fields& f);
  bool operator==(const AudioAugmentConfig&) const = default;
};

/// Faster or slower, pitch and all, by a factor drawn from [1 − speed, 1 + speed], by resampling.
void change_speed(std::vector<float>& samples, double speed, Random& random);
/// Louder or softer by a number of decibels drawn from [−gain_db, gain_db].
void change_gain(std::vector<float>& samples, double gain_db, Random& random);
/// Earlier or later by up to `max_shift` samples; what leaves at one end comes back at the other.
void shift_time(std::vector<float>& samples, int64_t max_shift, Random& random);
/// SpecAugment.
void mask_spectrogram(Spectrogram& spectrogram, const AudioAugmentConfig& config, Random& random);

}  // namespace fathom
