#include "batch/audio_views.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace fathom {
namespace {

// One stream of draws for each change, so that switching one off leaves the others as they were.
constexpr uint64_t kSpeedStream = 1;
constexpr uint64_t kGainStream = 2;
constexpr uint64_t kPlaceStream = 3;
constexpr uint64_t kShiftStream = 4;
constexpr uint64_t kBandMaskStream = 5;

int64_t samples_in(double seconds) {
  return std::llround(seconds * static_cast<double>(LogMel::kSampleRate));
}

int64_t num_bytes(const Audio& audio) {
  return static_cast<int64_t>(audio.samples.size() * sizeof(float));
}

}  // namespace

void AudioViewConfig::fields(Fields& f) {
  f("bands", bands, "mel bands (0: the model's)", {.low = 0, .high = 1024});
  f("max_seconds", max_seconds, "longer clips are cropped: anywhere in training, to the middle otherwise",
    {.low = 0.05, .high = 3600});
  f("pad", pad, "extend shorter clips by silence to max_seconds");
  f("limit_seconds", limit_seconds, "files that last longer are refused", {.low = 0.05, .high = 86400});
  f.group("augment", augment, "random changes of training clips");
  f("cache_mb", cache_mb, "memory for decoded clips, kept so that they are decoded once; 0 for none",
    {.low = 0});
}

int64_t AudioViewConfig::max_frames() const {
  return LogMel::num_frames(samples_in(max_seconds));
}

AudioViews::AudioViews(const AudioViewConfig& config, Phase phase)
    : config_(config), phase_(phase), log_mel_(config.bands) {}

std::shared_ptr<const Audio> AudioViews::load(const std::string& path) const {
  {
    const std::lock_guard lock(mutex_);
    if (const auto place = cache_.find(path); place != cache_.end()) return place->second;
  }
  const auto audio = std::make_shared<const Audio>(
      load_audio(path, LogMel::kSampleRate, {.max_seconds = config_.limit_seconds}));
  const std::lock_guard lock(mutex_);
  if (cached_bytes_ + num_bytes(*audio) <= config_.cache_mb << 20 && cache_.emplace(path, audio).second)
    cached_bytes_ += num_bytes(*audio);
  return audio;
}

/// Crops to the longest view, or extends to it.
void AudioViews::fit(std::vector<float>& samples, uint64_t key) const {
  const auto size = static_cast<int64_t>(samples.size()), wanted = samples_in(config_.max_seconds);
  const int64_t spare = std::abs(size - wanted);
  if (spare == 0 || (size < wanted && !config_.pad)) return;
  const int64_t before = phase_ == Phase::kTrain ? Random(key, kPlaceStream).below(spare + 1) : spare / 2;
  if (size > wanted) {
    samples.erase(samples.begin(), samples.begin() + before);
    samples.resize(static_cast<size_t>(wanted));
  } else {
    samples.insert(samples.begin(), static_cast<size_t>(before), 0.0F);
    samples.resize(static_cast<size_t>(wanted), 0.0F);
  }
}

Spectrogram AudioViews::view(const std::string& path, uint64_t key) const {
  const auto audio = load(path);
  std::vector<float> samples = audio->samples;
  const AudioAugmentConfig& augment = config_.augment;
  if (phase_ == Phase::kEvaluate) {
    fit(samples, key);
    return log_mel_.compute(samples);
  }
  Random speed(key, kSpeedStream), gain(key, kGainStream), shift(key, kShiftStream),
      mask(key, kBandMaskStream);
  change_speed(samples, augment.speed, speed);
  change_gain(samples, augment.gain_db, gain);
  fit(samples, key);
  shift_time(samples, samples_in(augment.shift_seconds), shift);
  Spectrogram spectrogram = log_mel_.compute(samples);
  mask_spectrogram(spectrogram, augment, mask);
  return spectrogram;
}

}  // namespace fathom
