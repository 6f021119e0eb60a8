// The two inner loops of a resampling, portable and AVX2. Both give the same bits: integer arithmetic.
#pragma once

#include <array>
#include <cstdint>

#include "data/image/resample_weights.h"

namespace fathom {

/// Rows that one call of a horizontal kernel works on.
inline constexpr int64_t kRowGroup = 4;
/// Bytes that a kernel may read past the last pixel of a row (padded taps, whole vectors).
inline constexpr int64_t kRowSlack = 32;

/// Interleaved RGB rows → rows of three planes of `weights.size()` bytes each, one after the other.
struct HorizontalRows {
  std::array<const uint8_t*, kRowGroup> in;
  std::array<uint8_t*, kRowGroup> out;
  std::array<uint32_t*, kRowGroup> scratch;  ///< room for `weights.size()` pixels each
};

/// Rows of `row_bytes` bytes, `stride` apart, of which `num_rows` exist → one row.
struct VerticalRow {
  const uint8_t* in = nullptr;
  int64_t stride = 0;
  int64_t num_rows = 0;
  int64_t row_bytes = 0;
  uint8_t* out = nullptr;
};

struct ResampleKernels {
  void (*horizontal)(const HorizontalRows& rows, const ResampleWeights& weights);
  /// Output row `y` of the weights.
  void (*vertical)(const VerticalRow& row, const ResampleWeights& weights, int64_t y);
};

extern const ResampleKernels kPortableResample;
extern const ResampleKernels kAvx2Resample;

/// The fastest that this processor runs.
const ResampleKernels& resample_kernels();

}  // namespace fathom
