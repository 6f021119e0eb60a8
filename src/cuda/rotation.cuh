// Rotary positions of counted rows: a vector of a head's first half and that of its second.
#pragma once

#include "cuda/vectors.cuh"

namespace fathom::cuda {

/// Turns one against the other, or back. `angle`: which vector of the tables is theirs.
template <bool kBack, typename T, int kWidth>
__device__ void turn(Elements<T, kWidth>& low, Elements<T, kWidth>& high, const float* cosines,
                     const float* sines, int64_t angle) {
  using Angles = Elements<float, kWidth>;
  const Angles cos = reinterpret_cast<const Angles*>(cosines)[angle],
               sin = reinterpret_cast<const Angles*>(sines)[angle];
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    const Computed<T> x = widened(low.values[i]), y = widened(high.values[i]);
    const Computed<T> c = cos.values[i], s = kBack ? -sin.values[i] : sin.values[i];
    low.values[i] = narrowed<T>(x * c - y * s);
    high.values[i] = narrowed<T>(y * c + x * s);
  }
}

}  // namespace fathom::cuda
