// SwiGLU: memory-bound. A thread takes a vector of gates and that of values which they let through: 16 bytes
// where rows and pointers allow it, else an element.
#include "cuda/swiglu.h"

#include "cuda/awaited.cuh"
#include "cuda/swiglu_formula.cuh"

namespace fathom::cuda {
namespace {

constexpr int kThreads = 256;

template <typename T, typename Out, int kWidth>
__global__ void __launch_bounds__(kThreads) forward_kernel(Awaited<SwigluArgs> awaited) {
  const SwigluArgs& args = awaited.get();
  using Vector = Elements<T, kWidth>;
  const auto vectors = static_cast<unsigned>(args.inner / kWidth);
  const RowItem item = row_item(vectors);
  if (item.row >= args.rows) return;
  const auto* x = static_cast<const Vector*>(args.gate_up) + 2 * item.row * vectors + item.column;
  HalfCast cast;
  static_cast<Elements<Out, kWidth>*>(args.y)[item.row * vectors + item.column] =
      gated_values_in<Out>(x[0], x[vectors], cast);
  cast.count(args.saturated);
}

template <typename T, typename Out, int kWidth>
__global__ void __launch_bounds__(kThreads) backward_kernel(Awaited<SwigluGradArgs> awaited) {
  const SwigluGradArgs& args = awaited.get();
  using Vector = Elements<T, kWidth>;
  const auto vectors = static_cast<unsigned>(args.inner / kWidth);
  const RowItem item = row_item(vectors);
  if (item.row >= args.rows) return;
  const int64_t first = 2 * item.row * vectors + item.column;
  const auto* x = static_cast<const Vector*>(args.gate_up) + first;
  const Vector above = static_cast<const Vector*>(args.grad)[item.row * vectors + item.column];
  const auto grad = gated_gradients_in<Out>(x[0], x[vectors], above);
  auto* out = static_cast<Elements<Out, kWidth>*>(args.grad_gate_up) + first;
  out[0] = grad.gate;
  out[vectors] = grad.up;
}

/// Calls `run` with values of the types that are read and written.
template <typename Run>
cudaError_t with_types(ElementType type, bool to_half, const Run& run) {
  if (to_half) return type == ElementType::kBFloat16 ? run(__nv_bfloat16{}, __half{}) : cudaErrorInvalidValue;
  return with_element(type, [&](auto element) { return run(element, element); });
}

}  // namespace

cudaError_t launch_swiglu(ElementType type, const SwigluArgs& args, cudaStream_t stream) {
  return with_types(type, args.to_half, [&](auto element, auto out) {
    using T = decltype(element);
    using Out = decltype(out);
    constexpr int kWidth = Vector16<T>::kWidth;
    if (args.inner % kWidth == 0 && are_aligned16({args.gate_up, args.y}))
      launch_awaiting(forward_kernel<T, Out, kWidth>, item_blocks(args.rows * args.inner / kWidth, kThreads),
                      kThreads, 0, stream, args);
    else
      launch_awaiting(forward_kernel<T, Out, 1>, item_blocks(args.rows * args.inner, kThreads), kThreads, 0,
                      stream, args);
    return cudaGetLastError();
  });
}

cudaError_t launch_swiglu_grad(ElementType type, const SwigluGradArgs& args, cudaStream_t stream) {
  return with_types(type, args.to_half, [&](auto element, auto out) {
    using T = decltype(element);
    using Out = decltype(out);
    constexpr int kWidth = Vector16<T>::kWidth;
    if (args.inner % kWidth == 0 && are_aligned16({args.grad, args.gate_up, args.grad_gate_up}))
      launch_awaiting(backward_kernel<T, Out, kWidth>, item_blocks(args.rows * args.inner / kWidth, kThreads),
                      kThreads, 0, stream, args);
    else
      launch_awaiting(backward_kernel<T, Out, 1>, item_blocks(args.rows * args.inner, kThreads), kThreads, 0,
                      stream, args);
    return cudaGetLastError();
  });
}

}  // namespace fathom::cuda
