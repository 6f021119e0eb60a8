// SwiGLU of one vector, for kernels that write it and for those that go on with it.
#pragma once

#include "cuda/half_cast.cuh"
#include "cuda/vectors.cuh"

namespace fathom::cuda {

/// In float32 the exact exponential and quotient; of 16 bits the fast ones, whose errors rounding hides.
template <typename T>
__device__ Computed<T> sigmoid(Computed<T> x) {
  if constexpr (sizeof(T) == 2)
    return __fdividef(1.0f, 1 + __expf(-x));
  else
    return 1 / (1 + exp(-x));
}

/// `Out`: T, or half for an operand of bfloat16's products.
template <typename Out, typename T, int kWidth>
__device__ Elements<Out, kWidth> gated_values_in(const Elements<T, kWidth>& gate,
                                                 const Elements<T, kWidth>& up, HalfCast& cast) {
  Elements<Out, kWidth> y;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    const Computed<T> g = widened(gate.values[i]);
    y.values[i] = written<Out, T>(g * sigmoid<T>(g) * widened(up.values[i]), cast);
  }
  return y;
}

template <typename T, int kWidth>
__device__ Elements<T, kWidth> gated_values(const Elements<T, kWidth>& gate, const Elements<T, kWidth>& up) {
  HalfCast unused;
  return gated_values_in<T>(gate, up, unused);
}

/// Gradients by gate and value, of that by their result.
template <typename T, int kWidth>
struct GatedGradients {
  Elements<T, kWidth> gate, up;
};

/// `Out`: T, or half, which may be infinite, of bfloat16.
template <typename Out, typename T, int kWidth>
__device__ GatedGradients<Out, kWidth> gated_gradients_in(const Elements<T, kWidth>& gate,
                                                          const Elements<T, kWidth>& up,
                                                          const Elements<T, kWidth>& above) {
  GatedGradients<Out, kWidth> grad;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    const Computed<T> g = widened(gate.values[i]), d = widened(above.values[i]), s = sigmoid<T>(g);
    grad.gate.values[i] = narrowed<Out>(d * widened(up.values[i]) * s * (1 + g * (1 - s)));
    grad.up.values[i] = narrowed<Out>(d * g * s);
  }
  return grad;
}

template <typename T, int kWidth>
__device__ GatedGradients<T, kWidth> gated_gradients(const Elements<T, kWidth>& gate,
                                                     const Elements<T, kWidth>& up,
                                                     const Elements<T, kWidth>& above) {
  return gated_gradients_in<T>(gate, up, above);
}

}  // namespace fathom::cuda
