// Attention of explored rows: a few rows, each with a view of its own, so a block takes a row's head, its
// warps share the keys, and their sums meet at the end. Loops ask for several keys and values at a time.
#include <algorithm>

#include "cuda/counted_rows.h"
#include "cuda/vectors.cuh"

namespace fathom::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr int kMostSize = 256;
constexpr int kPieces = kMostSize / 32;  ///< of a head in a lane

__device__ float warp_max(float x) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, lanes));
  return x;
}

/// How many of a sequence's active rows stand before `place`.
__device__ int rows_before(const RowsArgs& rows, int sequence, int place) {
  int low = rows.start[sequence], high = rows.start[sequence + 1];
  while (low < high) {
    const int middle = (low + high) / 2;
    if (rows.place[middle] < place)
      low = middle + 1;
    else
      high = middle;
  }
  return low - rows.start[sequence];
}

template <typename T>
__device__ float dot(const float* query, const T* key, int size) {
  using Vector = Vector16<T>;
  float sum = 0;
#pragma unroll 4
  for (int v = 0; v < size / Vector::kWidth; ++v) {
    const Vector vector = reinterpret_cast<const Vector*>(key)[v];
#pragma unroll
    for (int i = 0; i < Vector::kWidth; ++i)
      sum += query[v * Vector::kWidth + i] * to_float(vector.values[i]);
  }
  return sum;
}

template <typename T>
__global__ void __launch_bounds__(kThreads) explored_kernel(ExploredAttentionArgs args) {
  __shared__ float query[kMostSize], sums[kWarps][kMostSize], highest[kWarps], totals[kWarps];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int active = args.rows.start[args.rows.sequences], all = *args.used;
  const int heads = static_cast<int>(args.heads), size = static_cast<int>(args.head_size);
  const int64_t stride = (args.heads + 2 * args.kv_heads) * args.head_size;
  const auto* qkv = static_cast<const T*>(args.qkv);
  const float scale = rsqrtf(static_cast<float>(size));
  const int64_t items = int64_t{all - active} * heads;
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const int row = active + static_cast<int>(item / heads), head = static_cast<int>(item % heads);
    const int place = args.rows.place[row], sequence = place / static_cast<int>(args.rows.tokens);
    const int first = args.rows.start[sequence], before = rows_before(args.rows, sequence, place);
    const T* keys = qkv + (heads + head / (args.heads / args.kv_heads)) * size;
    const T* values = keys + args.kv_heads * size;
    __syncthreads();
    for (int e = threadIdx.x; e < size; e += kThreads)
      query[e] = to_float(qkv[row * stride + head * size + e]) * scale;
    __syncthreads();
    float most = -INFINITY, total = 0, sum[kPieces] = {};
    // The row itself is the last of its keys.
    for (int base = warp * 32; base <= before; base += kThreads) {
      const int key = base + lane, key_row = key < before ? first + key : row;
      const float logit = key <= before ? dot(query, keys + key_row * stride, size) : -INFINITY;
      const float higher = fmaxf(most, warp_max(logit)), p = __expf(logit - higher);
      const float kept = __expf(most - higher);
      total = total * kept + warp_sum(p);
      most = higher;
#pragma unroll
      for (int i = 0; i < kPieces; ++i) sum[i] *= kept;
      const int count = min(32, before + 1 - base);
#pragma unroll 4
      for (int other = 0; other < count; ++other) {
        const float weight = __shfl_sync(0xffffffff, p, other);
        const T* value = values + __shfl_sync(0xffffffff, key_row, other) * stride;
#pragma unroll
        for (int i = 0; i < kPieces; ++i)
          if (lane + i * 32 < size) sum[i] += weight * to_float(value[lane + i * 32]);
      }
    }
#pragma unroll
    for (int i = 0; i < kPieces; ++i)
      if (lane + i * 32 < size) sums[warp][lane + i * 32] = sum[i];
    if (lane == 0) {
      highest[warp] = most;
      totals[warp] = total;
    }
    __syncthreads();
    float top = highest[0];
    for (int other = 1; other < kWarps; ++other) top = fmaxf(top, highest[other]);
    for (int e = threadIdx.x; e < size; e += kThreads) {
      float above = 0, below = 0;
      for (int other = 0; other < kWarps; ++other) {
        const float weight = __expf(highest[other] - top);
        above += weight * sums[other][e];
        below += weight * totals[other];
      }
      static_cast<T*>(args.y)[(int64_t{row} * heads + head) * size + e] = from_float<T>(above / below);
    }
  }
}

template <typename T>
cudaError_t explored(const ExploredAttentionArgs& args, cudaStream_t stream) {
  const int64_t most = args.rows.sequences * args.rows.tokens * args.heads;
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(most, int64_t{kMultiprocessors} * 16));
  explored_kernel<T><<<blocks, kThreads, 0, stream>>>(args);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_explored_attention(ElementType type, const ExploredAttentionArgs& args,
                                      cudaStream_t stream) {
  if (args.head_size > kMostSize || args.head_size % 8 != 0) return cudaErrorInvalidValue;
  if (type == ElementType::kBFloat16) return explored<__nv_bfloat16>(args, stream);
  return type == ElementType::kHalf ? explored<__half>(args, stream) : cudaErrorInvalidValue;
}

}  // namespace fathom::cuda
