// Scaling in place, memory-bound: every thread reads the factor first, and most find that there is nothing to
// do.
#include <algorithm>

#include "cuda/awaited.cuh"
#include "cuda/scale.h"
#include "cuda/vectors.cuh"

namespace fathom::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = 8 * kMultiprocessors;

template <typename T, int kWidth>
__global__ void scale_kernel(Awaited<ScaleArgs> awaited) {
  const ScaleArgs& args = awaited.get();
  using C = Computed<T>;
  const C factor = *static_cast<const C*>(args.factor);
  if (factor == C(1)) return;
  auto* x = static_cast<Elements<T, kWidth>*>(args.x);
  const int64_t pieces = args.size / kWidth, step = int64_t{gridDim.x} * kThreads;
#pragma unroll 4
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < pieces; i += step) {
    Elements<T, kWidth> piece = x[i];
#pragma unroll
    for (int j = 0; j < kWidth; ++j) piece.values[j] = narrowed<T>(widened(piece.values[j]) * factor);
    x[i] = piece;
  }
}

template <typename T, int kWidth>
cudaError_t launch_pieces(const ScaleArgs& args, cudaStream_t stream) {
  const int64_t blocks = (args.size / kWidth + kThreads - 1) / kThreads;
  launch_awaiting(scale_kernel<T, kWidth>, static_cast<unsigned>(std::min(blocks, kMostBlocks)), kThreads, 0,
                  stream, args);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_scale(ElementType type, const ScaleArgs& args, cudaStream_t stream) {
  return with_element(type, [&](auto element) {
    using T = decltype(element);
    constexpr int kWidth = Vector16<T>::kWidth;
    return args.size % kWidth == 0 && are_aligned16({args.x}) ? launch_pieces<T, kWidth>(args, stream)
                                                              : launch_pieces<T, 1>(args, stream);
  });
}

}  // namespace fathom::cuda
