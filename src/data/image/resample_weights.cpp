#include "data/image/resample_weights.h"

#include <algorithm>
#include <cmath>

#include "data/image/resample.h"

namespace fathom {

namespace {

double bilinear(double x) {
  x = std::abs(x);
  return x < 1.0 ? 1.0 - x : 0.0;
}

// Keys, "Cubic convolution interpolation for digital image processing", 1981, with a = −0.5.
double bicubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
  return 0.0;
}

double evaluate(Filter filter, double x) {
  return filter == Filter::kBilinear ? bilinear(x) : bicubic(x);
}

void store(double weight, int16_t& high, int16_t& low) {
  const double scaled = weight * (1 << kWeightBits);
  const int32_t fixed = static_cast<int32_t>(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
  high = static_cast<int16_t>((fixed + (1 << (kLowBits - 1))) >> kLowBits);
  low = static_cast<int16_t>(fixed - high * (1 << kLowBits));
}

}  // namespace

double filter_reach(Filter filter, double scale) {
  return (filter == Filter::kBilinear ? 1.0 : 2.0) * std::max(scale, 1.0);
}

ResampleWeights make_weights(const Axis& axis, Filter filter) {
  const double scale = (axis.end - axis.begin) / static_cast<double>(axis.target_size);
  const double reach = filter_reach(filter, scale);
  const double inverse_stretch = 1.0 / std::max(scale, 1.0);
  const int64_t max_taps = static_cast<int64_t>(std::ceil(reach)) * 2 + 1;

  ResampleWeights weights;
  weights.num_taps = (max_taps + kTapGroup - 1) / kTapGroup * kTapGroup;
  weights.first.resize(static_cast<size_t>(axis.target_size));
  weights.high.resize(static_cast<size_t>(axis.target_size * weights.num_taps));
  weights.low.resize(weights.high.size());
  std::vector<double> taps(static_cast<size_t>(max_taps));
  for (int64_t i = 0; i < axis.target_size; ++i) {
    const double centre = axis.begin + (static_cast<double>(i) + 0.5) * scale;
    const int64_t first = std::max<int64_t>(static_cast<int64_t>(centre - reach + 0.5), 0);
    const int64_t last = std::min(static_cast<int64_t>(centre + reach + 0.5), axis.source_size);
    double sum = 0;
    for (int64_t k = 0; k < last - first; ++k) {
      taps[k] = evaluate(filter, (static_cast<double>(k + first) - centre + 0.5) * inverse_stretch);
      sum += taps[k];
    }
    weights.first[i] = static_cast<int32_t>(first);
    for (int64_t k = 0; k < last - first; ++k) {
      const int64_t place = i * weights.num_taps + k;
      store(sum != 0.0 ? taps[k] / sum : taps[k], weights.high[place], weights.low[place]);
    }
  }
  return weights;
}

void mirror(ResampleWeights& weights) {
  std::reverse(weights.first.begin(), weights.first.end());
  for (auto* parts : {&weights.high, &weights.low}) {
    for (int64_t i = 0; i < weights.size() / 2; ++i) {
      std::swap_ranges(parts->begin() + i * weights.num_taps, parts->begin() + (i + 1) * weights.num_taps,
                       parts->begin() + (weights.size() - 1 - i) * weights.num_taps);
    }
  }
}

}  // namespace fathom
