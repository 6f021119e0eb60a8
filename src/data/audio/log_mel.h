// Log-mel spectrograms, equal to Whisper's. Source: Radford et al., "Robust speech recognition via
// large-scale weak supervision", ICML 2023, section 2.2.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "data/sample.h"

namespace fathom {

struct MelKernels;
struct MelTables;

/// 16 kHz mono → frames of 400 samples, 160 apart, under a periodic Hann window, mirrored at both ends; power
/// spectrum; mel bands; x = log10(max(energy, 1e-10)), x ← (max(x, largest − 8) + 4) ÷ 4. Immutable, safe
/// from many threads.
class LogMel {
 public:
  static constexpr int64_t kSampleRate = 16000;
  static constexpr int64_t kHop = 160;

  /// REQUIRES 1 ≤ `num_bands` ≤ 1024. `kernels` are for tests; by default the fastest that run here.
  explicit LogMel(int64_t num_bands, const MelKernels* kernels = nullptr);
  ~LogMel();
  LogMel(LogMel&&) noexcept;

  int64_t num_bands() const { return num_bands_; }
  /// Frames of a clip: one for every whole hop. A clip shorter than a window is extended by silence to one.
  static int64_t num_frames(int64_t num_samples);

  Spectrogram compute(std::span<const float> samples) const;

 private:
  int64_t num_bands_;
  std::unique_ptr<const MelTables> tables_;
  const MelKernels* kernels_;
};

}  // namespace fathom
