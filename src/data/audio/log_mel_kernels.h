// The inner loops of the log-mel front end, once for each level of instructions. A vector holds the same
// sample of several frames side by side, so the whole transform is plain arithmetic on vectors.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "data/audio/mel_filters.h"

namespace fathom {

inline constexpr int64_t kMelWindow = 400;  ///< samples of a frame, and points of its transform
inline constexpr int64_t kMelHop = 160;     ///< samples from one frame to the next
inline constexpr int64_t kMelBins = kMelWindow / 2 + 1;
inline constexpr int64_t kHopsPerFrame = 3;  ///< hops that a frame reaches into
inline constexpr int64_t kMaxMelLanes = 16;

/// A complex number, twice a float.
struct Twiddle {
  float re = 0;
  float im = 0;
};

/// What all frames share. The transform of 400 real points is one of 200 = 5 · 5 · 8 complex ones.
struct MelTables {
  explicit MelTables(int64_t num_bands);

  std::array<float, kMelWindow> half_window;      ///< periodic Hann ÷ 2; the half saves a product later
  std::array<Twiddle, 40 * 4> outer;              ///< e^(−2πi·j·q/200), four q ≥ 1 a j < 40
  std::array<Twiddle, 8 * 4> inner;               ///< e^(−2πi·j·q/40), four q ≥ 1 a j < 8
  std::array<Twiddle, kMelWindow / 4 + 1> real;   ///< e^(−2πi·k/400)
  std::array<int32_t, kMelWindow / 2 + 1> place;  ///< where bin k (mod 200) of the complex transform lies
  MelFilters filters;
};

/// Consecutive frames: frame t is the first 400 samples of rows t, t + 1 and t + 2, one behind the other.
struct MelBlock {
  const float* const* rows = nullptr;  ///< `lanes` + 4 rows of kMelHop samples (the last two are not used)
  int64_t num_frames = 0;              ///< 1 to `lanes`
  float* out = nullptr;                ///< log10 of band f of frame t goes to out[f · stride + t]
  int64_t stride = 0;
};

struct MelKernels {
  int64_t lanes;
  /// Writes log10(max(energy, 1e-10)) of a block; returns the largest.
  float (*block)(const MelBlock& block, const MelTables& tables);
  /// x ← (max(x, floor) + 4) ÷ 4.
  void (*finish)(float* values, int64_t count, float floor);
};

extern const MelKernels kPortableMel;
extern const MelKernels kAvx2Mel;
extern const MelKernels kAvx512Mel;

/// The fastest that this processor runs.
const MelKernels& mel_kernels();

}  // namespace fathom
