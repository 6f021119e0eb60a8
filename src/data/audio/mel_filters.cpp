#include "data/audio/mel_filters.h"

#include <algorithm>
#include <cmath>

namespace fathom {
namespace {

// Slaney's scale: 3 mels are 200 Hz up to 1 kHz (15 mels); from there 27 mels are a factor of 6.4.
constexpr double kHzPerMel = 200.0 / 3.0;
constexpr double kLogHz = 1000.0;
constexpr double kLogMel = kLogHz / kHzPerMel;
const double kLogStep = std::log(6.4) / 27.0;

double mel_of(double hz) {
  return hz < kLogHz ? hz / kHzPerMel : kLogMel + std::log(hz / kLogHz) / kLogStep;
}

double hz_of(double mel) {
  return mel < kLogMel ? mel * kHzPerMel : kLogHz * std::exp(kLogStep * (mel - kLogMel));
}

}  // namespace

MelFilters slaney_filters(const MelScale& scale) {
  const double highest = static_cast<double>(scale.sample_rate) / 2;
  const double hz_per_bin = static_cast<double>(scale.sample_rate) / static_cast<double>(scale.fft_size);
  const auto edge = [&](int64_t i) {
    return hz_of(mel_of(highest) * static_cast<double>(i) / static_cast<double>(scale.num_bands + 1));
  };
  MelFilters filters;
  for (int64_t band = 0; band < scale.num_bands; ++band) {
    const double left = edge(band), centre = edge(band + 1), right = edge(band + 2);
    const auto start = static_cast<int32_t>(filters.weights.size());
    int32_t first = 0;
    for (int64_t bin = 0; bin <= scale.fft_size / 2; ++bin) {
      const double hz = static_cast<double>(bin) * hz_per_bin;
      const double height = std::min((hz - left) / (centre - left), (right - hz) / (right - centre));
      if (height <= 0) continue;
      if (static_cast<int32_t>(filters.weights.size()) == start) first = static_cast<int32_t>(bin);
      filters.weights.push_back(static_cast<float>(height * 2.0 / (right - left)));
    }
    filters.first.push_back(first);
    filters.count.push_back(static_cast<int32_t>(filters.weights.size()) - start);
    filters.start.push_back(start);
  }
  return filters;
}

}  // namespace fathom
