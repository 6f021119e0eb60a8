// What a gate's score learns of its rows.
#pragma once

namespace fathom::cuda {

/// The gradient of a score before the sigmoid: `gain` is that of the sigmoid.
__device__ inline float score_gradient(float gain, float score) {
  const float p = 1 / (1 + expf(-score));
  return gain * p * (1 - p);
}

}  // namespace fathom::cuda
