// Dropout by key: memory-bound, so each thread reads and writes 16 bytes and makes its mask from scratch.
#include "cuda/awaited.cuh"
#include "cuda/keyed_dropout.h"
#include "cuda/vectors.cuh"
#include "tensor/keyed_bits.h"

namespace fathom::cuda {
namespace {

constexpr int kThreads = 256;

/// `kWidth` elements a thread. Grid: x over a sample's elements, y over samples (in strides).
template <typename T, int kWidth>
__global__ void keyed_dropout_kernel(Awaited<DropoutArgs> awaited) {
  const DropoutArgs& args = awaited.get();
  using C = Computed<T>;
  using Vector = Elements<T, kWidth>;
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kWidth;
  if (first >= args.size) return;
  for (int64_t sample = blockIdx.y; sample < args.samples; sample += gridDim.y) {
    const SampleKey key = sample_key(args.key[sample], args.stream);
    const int64_t place = sample * args.size + first;
    Vector vector = *reinterpret_cast<const Vector*>(static_cast<const T*>(args.x) + place);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const bool kept = keyed_bits(key, static_cast<uint32_t>(first + i)) >= args.threshold;
      vector.values[i] = kept ? T(C(vector.values[i]) * C(args.scale)) : T(C(0));
    }
    *reinterpret_cast<Vector*>(static_cast<T*>(args.y) + place) = vector;
  }
}

template <typename T, int kWidth>
void launch_width(const DropoutArgs& args, cudaStream_t stream) {
  constexpr int64_t kPerBlock = int64_t{kThreads} * kWidth;
  const dim3 grid(static_cast<unsigned>((args.size + kPerBlock - 1) / kPerBlock),
                  static_cast<unsigned>(args.samples < 65535 ? args.samples : 65535));
  launch_awaiting(keyed_dropout_kernel<T, kWidth>, grid, kThreads, 0, stream, args);
}

template <typename T>
cudaError_t launch(const DropoutArgs& args, cudaStream_t stream) {
  constexpr int kWidth = Vector16<T>::kWidth;
  if (args.size % kWidth == 0 && are_aligned16({args.x, args.y}))
    launch_width<T, kWidth>(args, stream);
  else
    launch_width<T, 1>(args, stream);
  return cudaGetLastError();
}

}  // namespace

cudaError_t probe_kernel() {
  cudaFuncAttributes attributes;
  return cudaFuncGetAttributes(&attributes, keyed_dropout_kernel<float, 1>);
}

cudaError_t launch_keyed_dropout(ElementType type, const DropoutArgs& args, cudaStream_t stream) {
  return with_element(type, [&](auto element) { return launch<decltype(element)>(args, stream); });
}

}  // namespace fathom::cuda
