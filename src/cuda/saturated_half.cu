// Casts to FP16: memory-bound. A thread takes a vector a turn, the last few elements one by one.
#include "cuda/saturated_half.h"

#include "cuda/awaited.cuh"
#include "cuda/half_cast.cuh"
#include "cuda/row_grid.h"

namespace fathom::cuda {
namespace {

template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads) cast_kernel(Awaited<SaturatedHalfArgs> awaited) {
  const SaturatedHalfArgs& args = awaited.get();
  const int64_t thread = int64_t{blockIdx.x} * kThreads + threadIdx.x,
                threads = int64_t{gridDim.x} * kThreads;
  const int64_t vectors = args.size / kWidth;
  const auto* x = static_cast<const T*>(args.x);
  auto* y = static_cast<__half*>(args.y);
  HalfCast cast;
  for (int64_t i = thread; i < vectors; i += threads) {
    const auto from = reinterpret_cast<const Elements<T, kWidth>*>(x)[i];
    Elements<__half, kWidth> to;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) to.values[j] = cast(to_float(from.values[j]));
    reinterpret_cast<Elements<__half, kWidth>*>(y)[i] = to;
  }
  if (const int64_t i = vectors * kWidth + thread; i < args.size) y[i] = cast(to_float(x[i]));
  cast.count(args.saturated);
}

template <typename T, int kWidth>
void launch(const SaturatedHalfArgs& args, cudaStream_t stream) {
  const int64_t vectors = (args.size + kWidth - 1) / kWidth;
  launch_awaiting(cast_kernel<T, kWidth>, grid_of((vectors + kThreads - 1) / kThreads), kThreads, 0, stream,
                  args);
}

}  // namespace

cudaError_t launch_saturated_half(ElementType type, const SaturatedHalfArgs& args, cudaStream_t stream) {
  return with_element_but_double(type, [&](auto element) {
    using T = decltype(element);
    if (are_aligned16({args.x, args.y}))
      launch<T, 8>(args, stream);
    else
      launch<T, 1>(args, stream);
    return cudaGetLastError();
  });
}

}  // namespace fathom::cuda
