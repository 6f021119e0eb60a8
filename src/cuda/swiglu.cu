// SwiGLU: memory-bound. A thread takes a vector of gates and that of values which they let through: 16 bytes
// where rows and pointers allow it, else an element.
#include "cuda/swiglu.h"

#include "cuda/vectors.cuh"

namespace fathom::cuda {
namespace {

constexpr int kThreads = 256;

/// In float32 the exact exponential; of 16 bits the fast one, whose error rounding hides.
template <typename T>
__device__ Computed<T> sigmoid(Computed<T> x) {
  if constexpr (sizeof(T) == 2)
    return 1 / (1 + __expf(-x));
  else
    return 1 / (1 + exp(-x));
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads) forward_kernel(SwigluArgs args) {
  using Vector = Elements<T, kWidth>;
  const auto vectors = static_cast<unsigned>(args.inner / kWidth);
  const RowItem item = row_item(vectors);
  if (item.row >= args.rows) return;
  const auto* x = static_cast<const Vector*>(args.gate_up) + 2 * item.row * vectors + item.column;
  const Vector gate = x[0], up = x[vectors];
  Vector y;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    const Computed<T> g = widened(gate.values[i]);
    y.values[i] = narrowed<T>(g * sigmoid<T>(g) * widened(up.values[i]));
  }
  static_cast<Vector*>(args.y)[item.row * vectors + item.column] = y;
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads) backward_kernel(SwigluGradArgs args) {
  using Vector = Elements<T, kWidth>;
  const auto vectors = static_cast<unsigned>(args.inner / kWidth);
  const RowItem item = row_item(vectors);
  if (item.row >= args.rows) return;
  const int64_t first = 2 * item.row * vectors + item.column;
  const auto* x = static_cast<const Vector*>(args.gate_up) + first;
  const Vector gate = x[0], up = x[vectors],
               above = static_cast<const Vector*>(args.grad)[item.row * vectors + item.column];
  Vector grad_gate, grad_up;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    const Computed<T> g = widened(gate.values[i]), d = widened(above.values[i]), s = sigmoid<T>(g);
    grad_gate.values[i] = narrowed<T>(d * widened(up.values[i]) * s * (1 + g * (1 - s)));
    grad_up.values[i] = narrowed<T>(d * g * s);
  }
  auto* out = static_cast<Vector*>(args.grad_gate_up) + first;
  out[0] = grad_gate;
  out[vectors] = grad_up;
}

}  // namespace

cudaError_t launch_swiglu(ElementType type, const SwigluArgs& args, cudaStream_t stream) {
  return with_element(type, [&](auto element) {
    using T = decltype(element);
    constexpr int kWidth = Vector16<T>::kWidth;
    if (args.inner % kWidth == 0 && are_aligned16({args.gate_up, args.y}))
      forward_kernel<T, kWidth>
          <<<item_blocks(args.rows * args.inner / kWidth, kThreads), kThreads, 0, stream>>>(args);
    else
      forward_kernel<T, 1><<<item_blocks(args.rows * args.inner, kThreads), kThreads, 0, stream>>>(args);
    return cudaGetLastError();
  });
}

cudaError_t launch_swiglu_grad(ElementType type, const SwigluGradArgs& args, cudaStream_t stream) {
  return with_element(type, [&](auto element) {
    using T = decltype(element);
    constexpr int kWidth = Vector16<T>::kWidth;
    if (args.inner % kWidth == 0 && are_aligned16({args.grad, args.gate_up, args.grad_gate_up}))
      backward_kernel<T, kWidth>
          <<<item_blocks(args.rows * args.inner / kWidth, kThreads), kThreads, 0, stream>>>(args);
    else
      backward_kernel<T, 1><<<item_blocks(args.rows * args.inner, kThreads), kThreads, 0, stream>>>(args);
    return cudaGetLastError();
  });
}

}  // namespace fathom::cuda
