// SwiGLU of one vector, for kernels that write it and for those that go on with it.
#pragma once

#include "cuda/vectors.cuh"

namespace fathom::cuda {

/// In float32 the exact exponential; of 16 bits the fast one, whose error rounding hides.
template <typename T>
__device__ Computed<T> sigmoid(Computed<T> x) {
  if constexpr (sizeof(T) == 2)
    return 1 / (1 + __expf(-x));
  else
    return 1 / (1 + exp(-x));
}

template <typename T, int kWidth>
__device__ Elements<T, kWidth> gated_values(const Elements<T, kWidth>& gate, const Elements<T, kWidth>& up) {
  Elements<T, kWidth> y;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    const Computed<T> g = widened(gate.values[i]);
    y.values[i] = narrowed<T>(g * sigmoid<T>(g) * widened(up.values[i]));
  }
  return y;
}

/// Gradients by gate and value, of that by their result.
template <typename T, int kWidth>
struct GatedGradients {
  Elements<T, kWidth> gate, up;
};

template <typename T, int kWidth>
__device__ GatedGradients<T, kWidth> gated_gradients(const Elements<T, kWidth>& gate,
                                                     const Elements<T, kWidth>& up,
                                                     const Elements<T, kWidth>& above) {
  GatedGradients<T, kWidth> grad;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    const Computed<T> g = widened(gate.values[i]), d = widened(above.values[i]), s = sigmoid<T>(g);
    grad.gate.values[i] = narrowed<T>(d * widened(up.values[i]) * s * (1 + g * (1 - s)));
    grad.up.values[i] = narrowed<T>(d * g * s);
  }
  return grad;
}

}  // namespace fathom::cuda
