// A sound file as the spectrogram a model hears, with decoded clips kept in memory as far as they fit.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "base/config.h"
#include "batch/phase.h"
#include "data/audio/augment.h"
#include "data/audio/decode.h"
#include "data/audio/log_mel.h"
#include "data/sample.h"

namespace fathom {

struct AudioViewConfig {
  int64_t bands = 80;          ///< 0: the model's, which is to be filled in before views are made
  double max_seconds = 30;     ///< of a view: longer clips are cropped
  bool pad = false;            ///< shorter clips are extended by silence to max_seconds
  double limit_seconds = 600;  ///< of a file: longer ones are refused
  AudioAugmentConfig augment;
  int64_t cache_mb = 1024;
  void fields(Fields& f);

  /// Frames of the longest view.
  int64_t max_frames() const;
};

/// Decodes to 16 kHz, changes, crops or extends, and makes the spectrogram. Safe from many threads; what is
/// cached changes no value.
class AudioViews {
 public:
  AudioViews(const AudioViewConfig& config, Phase phase);

  /// Training: augmented, cropped (or placed in silence) at random, all drawn from `key`, each kind of change
  /// from a stream of its own. Evaluation: the middle (or silence on both sides). Errors (kData) name the
  /// file.
  Spectrogram view(const std::string& path, uint64_t key) const;

  Phase phase() const { return phase_; }
  int64_t cached_bytes() const { return cached_bytes_; }

 private:
  std::shared_ptr<const Audio> load(const std::string& path) const;
  void fit(std::vector<float>& samples, uint64_t key) const;

  AudioViewConfig config_;
  Phase phase_;
  LogMel log_mel_;
  mutable std::mutex mutex_;
  mutable std::unordered_map<std::string, std::shared_ptr<const Audio>> cache_;
  mutable std::atomic<int64_t> cached_bytes_ = 0;
};

}  // namespace fathom
