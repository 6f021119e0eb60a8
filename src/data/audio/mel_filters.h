// The mel filter bank: triangles over the bins of a spectrum.
#pragma once

#include <cstdint>
#include <vector>

namespace fathom {

/// What a filter bank is made for. `low_hz` is 0 and the highest frequency half the rate.
struct MelScale {
  int64_t num_bands = 80;
  int64_t sample_rate = 16000;
  int64_t fft_size = 400;
};

/// One filter after the other, without its zeros: filter f weighs the bins [first[f], first[f] + count[f])
/// with `weights` from start[f] on.
struct MelFilters {
  std::vector<int32_t> first;
  std::vector<int32_t> count;
  std::vector<int32_t> start;
  std::vector<float> weights;
  int64_t num_bands() const { return static_cast<int64_t>(first.size()); }
};

/// Slaney's filters, as librosa makes them by default: linear below 1 kHz, logarithmic above, each of area
/// one. Source: Slaney, "Auditory toolbox", technical report 1998-010. REQUIRES positive sizes.
MelFilters slaney_filters(const MelScale& scale);

}  // namespace fathom
