// Cross-entropy of rows: memory-bound. A block takes a row and reads it twice, the second time from the L2
// cache, which holds the rows of all blocks that run at once.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <type_traits>

#include "cuda/awaited.cuh"
#include "cuda/softmax_cross_entropy.h"
#include "cuda/vectors.cuh"

namespace fathom::cuda {
namespace {

constexpr int kMostRowThreads = 1024;

__device__ float exponential(float x) {
  return __expf(x);
}
__device__ double exponential(double x) {
  return exp(x);
}

/// Σ exp(x − largest) over some x.
template <typename C>
struct Normaliser {
  C largest;
  C sum;
};

/// Of no x. Finite, so that differences are numbers.
template <typename C>
__device__ Normaliser<C> empty_normaliser() {
  if constexpr (std::is_same<C, double>::value)
    return {-DBL_MAX, 0};
  else
    return {-FLT_MAX, 0};
}

template <typename C>
__device__ Normaliser<C> joined(const Normaliser<C>& a, const Normaliser<C>& b) {
  const C largest = max(a.largest, b.largest);
  return {largest, a.sum * exponential(a.largest - largest) + b.sum * exponential(b.largest - largest)};
}

/// In every lane.
template <typename C>
__device__ Normaliser<C> warp_normaliser(Normaliser<C> own) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2)
    own = joined(own, Normaliser<C>{__shfl_xor_sync(0xffffffff, own.largest, lanes),
                                    __shfl_xor_sync(0xffffffff, own.sum, lanes)});
  return own;
}

/// In every thread, in the same order in every run. Once a kernel.
template <typename C>
__device__ Normaliser<C> block_normaliser(Normaliser<C> own) {
  __shared__ Normaliser<C> warps[kMostRowThreads / 32];
  own = warp_normaliser(own);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = own;
  __syncthreads();
  const unsigned lane = threadIdx.x % 32;
  return warp_normaliser(lane < blockDim.x / 32 ? warps[lane] : empty_normaliser<C>());
}

template <typename T, int kWidth>
__device__ Normaliser<Computed<T>> thread_normaliser(const Elements<T, kWidth>* row, int pieces) {
  using C = Computed<T>;
  Normaliser<C> all = empty_normaliser<C>();
#pragma unroll 4
  for (int i = threadIdx.x; i < pieces; i += blockDim.x) {
    const Elements<T, kWidth> x = row[i];
    Normaliser<C> some = empty_normaliser<C>();
#pragma unroll
    for (int j = 0; j < kWidth; ++j) some.largest = max(some.largest, widened(x.values[j]));
#pragma unroll
    for (int j = 0; j < kWidth; ++j) some.sum += exponential(widened(x.values[j]) - some.largest);
    all = joined(all, some);
  }
  return all;
}

/// What a gradient needs of its row.
template <typename C>
struct RowSoftmax {
  C largest;
  C factor;  ///< scale ÷ Σ exp(x − largest)
  C scale;
  int64_t target;
};

/// `to` may be `row`: each thread writes what it alone has read.
template <typename T, typename G, int kWidth>
__device__ void write_gradient(const Elements<T, kWidth>* row, Elements<G, kWidth>* to, int pieces,
                               const RowSoftmax<Computed<T>>& by) {
#pragma unroll 4
  for (int i = threadIdx.x; i < pieces; i += blockDim.x) {
    const Elements<T, kWidth> x = row[i];
    Elements<G, kWidth> gradient;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      Computed<T> g = exponential(widened(x.values[j]) - by.largest) * by.factor;
      if (int64_t{i} * kWidth + j == by.target) g -= by.scale;
      gradient.values[j] = narrowed<G>(g);
    }
    to[i] = gradient;
  }
}

template <typename G, int kWidth>
__device__ void write_zeros(Elements<G, kWidth>* to, int pieces) {
  Elements<G, kWidth> zeros;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) zeros.values[j] = narrowed<G>(0);
  for (int i = threadIdx.x; i < pieces; i += blockDim.x) to[i] = zeros;
}

template <typename T, typename G, int kWidth>
__global__ void __launch_bounds__(kMostRowThreads)
    cross_entropy_kernel(Awaited<SoftmaxCrossEntropyArgs> awaited) {
  const SoftmaxCrossEntropyArgs& args = awaited.get();
  using C = Computed<T>;
  const int64_t begin = int64_t{blockIdx.x} * args.vocabulary, target = args.target[blockIdx.x];
  const int pieces = static_cast<int>(args.vocabulary / kWidth);
  const T* logits = static_cast<const T*>(args.logits) + begin;
  const auto* row = reinterpret_cast<const Elements<T, kWidth>*>(logits);
  auto* to = reinterpret_cast<Elements<G, kWidth>*>(static_cast<G*>(args.gradient) + begin);
  C* loss = static_cast<C*>(args.loss) + blockIdx.x;
  if (target < 0) {
    if (threadIdx.x == 0) *loss = 0;
    if (args.gradient) write_zeros(to, pieces);
    return;
  }
  // Read before any thread may write there.
  const C own = target < args.vocabulary ? widened(logits[target]) : C(0);
  Normaliser<C> all = block_normaliser(thread_normaliser(row, pieces));
  if (target >= args.vocabulary) all.sum = static_cast<C>(NAN);
  if (threadIdx.x == 0) *loss = all.largest + log(all.sum) - own;
  if (!args.gradient) return;
  const C divisor = args.divisor ? *static_cast<const C*>(args.divisor) : C(1);
  const C scale = static_cast<C>(args.gradient_scale) / divisor;
  write_gradient(row, to, pieces, RowSoftmax<C>{all.largest, scale / all.sum, scale, target});
}

template <typename T, typename G, int kWidth>
cudaError_t launch_pieces(const SoftmaxCrossEntropyArgs& args, cudaStream_t stream) {
  // Four pieces a thread, where there are so many.
  const int64_t warps = std::clamp<int64_t>((args.vocabulary / kWidth + 127) / 128, 1, kMostRowThreads / 32);
  launch_awaiting(cross_entropy_kernel<T, G, kWidth>, static_cast<unsigned>(args.rows),
                  static_cast<unsigned>(32 * warps), 0, stream, args);
  return cudaGetLastError();
}

template <typename T, typename G>
cudaError_t launch_rows(const SoftmaxCrossEntropyArgs& args, cudaStream_t stream) {
  constexpr int kWidth = 16 / sizeof(T);
  return args.is_aligned && args.vocabulary % kWidth == 0 ? launch_pieces<T, G, kWidth>(args, stream)
                                                          : launch_pieces<T, G, 1>(args, stream);
}

}  // namespace

cudaError_t launch_softmax_cross_entropy(ElementType logits, ElementType gradient,
                                         const SoftmaxCrossEntropyArgs& args, cudaStream_t stream) {
  if (logits == ElementType::kFloat && gradient == ElementType::kHalf)
    return launch_rows<float, __half>(args, stream);
  if (logits != gradient) return cudaErrorInvalidValue;
  switch (logits) {
    case ElementType::kFloat:
      return launch_rows<float, float>(args, stream);
    case ElementType::kDouble:
      return launch_rows<double, double>(args, stream);
    case ElementType::kHalf:
      return launch_rows<__half, __half>(args, stream);
    case ElementType::kBFloat16:
      return launch_rows<__nv_bfloat16, __nv_bfloat16>(args, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace fathom::cuda
