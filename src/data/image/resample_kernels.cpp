#include "data/image/resample_kernels.h"

#include <algorithm>

namespace fathom {

namespace {

constexpr int32_t kHalf = 1 << (kWeightBits - 1);

int32_t weight_at(const ResampleWeights& weights, int64_t place) {
  return weights.high[place] * (1 << kLowBits) + weights.low[place];
}

uint8_t to_byte(int32_t sum) {
  return static_cast<uint8_t>(std::clamp(sum >> kWeightBits, 0, 255));
}

void horizontal_row(const uint8_t* in, const ResampleWeights& weights, uint8_t* out) {
  for (int64_t x = 0; x < weights.size(); ++x) {
    std::array<int32_t, 3> sum = {kHalf, kHalf, kHalf};
    for (int64_t k = 0; k < weights.num_taps; ++k) {
      const int32_t weight = weight_at(weights, x * weights.num_taps + k);
      const uint8_t* pixel = in + (weights.first[x] + k) * 3;
      for (int channel = 0; channel < 3; ++channel) sum[channel] += pixel[channel] * weight;
    }
    for (int channel = 0; channel < 3; ++channel) out[channel * weights.size() + x] = to_byte(sum[channel]);
  }
}

void horizontal(const HorizontalRows& rows, const ResampleWeights& weights) {
  for (int64_t r = 0; r < kRowGroup; ++r) horizontal_row(rows.in[r], weights, rows.out[r]);
}

void vertical(const VerticalRow& row, const ResampleWeights& weights, int64_t y) {
  const int64_t num_taps = std::min(weights.num_taps, row.num_rows - weights.first[y]);
  for (int64_t x = 0; x < row.row_bytes; ++x) {
    int32_t sum = kHalf;
    for (int64_t k = 0; k < num_taps; ++k) {
      sum += row.in[(weights.first[y] + k) * row.stride + x] * weight_at(weights, y * weights.num_taps + k);
    }
    row.out[x] = to_byte(sum);
  }
}

}  // namespace

const ResampleKernels kPortableResample = {horizontal, vertical};

const ResampleKernels& resample_kernels() {
  static const bool has_avx2 = __builtin_cpu_supports("avx2");
  return has_avx2 ? kAvx2Resample : kPortableResample;
}

}  // namespace fathom
