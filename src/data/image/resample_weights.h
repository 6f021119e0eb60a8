// The weights of one axis of a resampling.
#pragma once

#include <cstdint>
#include <vector>

#include "data/image/resize.h"

namespace fathom {

/// Fractional bits of a weight; Pillow's 32 − 8 − 2.
inline constexpr int kWeightBits = 22;
/// A weight is kept as high · 2^11 + low, so that products with pixels fit 16-bit multiply-add instructions.
inline constexpr int kLowBits = 11;
/// Taps are padded with zeros to a multiple of this.
inline constexpr int64_t kTapGroup = 4;

/// For every output position, the first source position and the weights from there on.
struct ResampleWeights {
  int64_t num_taps = 0;        ///< a multiple of kTapGroup
  std::vector<int32_t> first;  ///< one an output position
  std::vector<int16_t> high;   ///< num_taps an output position
  std::vector<int16_t> low;
  int64_t size() const { return static_cast<int64_t>(first.size()); }
};

/// One axis: `source_size` pixels, of which [begin, end) becomes `target_size`.
struct Axis {
  int64_t source_size = 0;
  double begin = 0;
  double end = 0;
  int64_t target_size = 0;
};

/// Weights in double precision, normalised to one, then rounded. Positions beyond the source have none.
ResampleWeights make_weights(const Axis& axis, Filter filter);

/// The order of the output positions reversed.
void mirror(ResampleWeights& weights);

}  // namespace fathom
