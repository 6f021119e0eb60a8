// GELU, x Φ(x), of one number, for kernels that write it and for those that go back through it.
#pragma once

#include "cuda/warp_products.cuh"

namespace fathom::cuda {

/// Φ(x): how much of a normal distribution lies below x. In float32; of 16 bits with the logarithm of Φ(-|x|)
/// from a polynomial (of degree 7, with the least greatest error on [0, 6.5]: 7e-6 of Φ), which rounding
/// hides. It goes on falling, to 2^-63 of x at -9 and to 0 from -13 on.
template <typename T>
__device__ float normal_share(float x) {
  if constexpr (sizeof(T) != 2) return 0.5f * (1 + erff(x * 0.70710678f));
  constexpr float kTerms[] = {-1.757776886e-06f, 5.993658488e-05f,  -9.163629729e-04f, 8.447385393e-03f,
                              -5.382450297e-02f, -4.586157203e-01f, -1.151180148f,     -1.000003815f};
  float power = kTerms[0];
#pragma unroll
  for (int i = 1; i < 8; ++i) power = fmaf(power, fabsf(x), kTerms[i]);
  const float below = power_of_two(power);
  return x < 0 ? below : 1 - below;
}

/// φ(x), its derivative: in float32 with the exact exponential; of 16 bits with the fast one, whose error
/// rounding hides.
template <typename T>
__device__ float normal_density(float x) {
  const float exponent = -0.5f * x * x;
  return 0.39894228f * (sizeof(T) == 2 ? __expf(exponent) : expf(exponent));
}

/// `T`: of what it is written in.
template <typename T>
__device__ float gelu(float x) {
  return x * normal_share<T>(x);
}

}  // namespace fathom::cuda
