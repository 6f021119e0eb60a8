// GELU, x Φ(x), of one number, for kernels that write it and for those that go back through it.
#pragma once

namespace fathom::cuda {

/// Φ(x): how much of a normal distribution lies below x.
__device__ inline float normal_share(float x) {
  return 0.5f * (1 + erff(x * 0.70710678f));
}

/// φ(x), its derivative: in float32 with the exact exponential; of 16 bits with the fast one, whose error
/// rounding hides.
template <typename T>
__device__ float normal_density(float x) {
  const float exponent = -0.5f * x * x;
  return 0.39894228f * (sizeof(T) == 2 ? __expf(exponent) : expf(exponent));
}

__device__ inline float gelu(float x) {
  return x * normal_share(x);
}

}  // namespace fathom::cuda
