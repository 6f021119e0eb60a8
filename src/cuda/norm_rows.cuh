// What norms share: a row lies in the registers of a few neighbouring lanes of one warp, in vectors of 16
// bytes, so each element is read once and written once.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "cuda/vectors.cuh"

namespace fathom::cuda {

constexpr int kNormRowThreads = 128;
constexpr int kNormRowWarps = kNormRowThreads / 32;
constexpr int kMaxNormVectors = 8;  ///< of a lane

/// Lanes that share a row: the fewest that hold it in three or four vectors each.
inline int norm_lanes(int64_t vectors) {
  int lanes = 1;
  while (lanes < 32 && vectors > int64_t{lanes} * 4) lanes *= 2;
  return lanes;
}

/// Of a row; 0 where they do not fill it.
inline int64_t norm_vectors(ElementType type, int64_t dim) {
  const int64_t width = type == ElementType::kFloat ? 4 : 8;
  return dim % width == 0 ? dim / width : 0;
}

/// Whether a row's vectors fit the registers of a warp.
inline bool norm_row_fits(ElementType type, int64_t dim) {
  const int64_t vectors = norm_vectors(type, dim);
  return type != ElementType::kDouble && vectors > 0 && vectors <= 32 * kMaxNormVectors;
}

/// Blocks of a backward pass: the same for the same sizes, so that sums do not change from run to run.
inline int64_t norm_row_blocks(ElementType type, int64_t rows, int64_t dim) {
  const int64_t groups = kNormRowThreads / norm_lanes(norm_vectors(type, dim));
  return std::max<int64_t>(1, std::min<int64_t>((rows + groups - 1) / groups, int64_t{kMultiprocessors} * 4));
}

/// Calls `run` with lanes and vectors as compile-time numbers.
template <typename Run>
cudaError_t with_norm_shape(int64_t vectors, const Run& run) {
  switch (norm_lanes(vectors)) {
    case 1:
      return run(std::integral_constant<int, 1>(), std::integral_constant<int, 4>());
    case 2:
      return run(std::integral_constant<int, 2>(), std::integral_constant<int, 4>());
    case 4:
      return run(std::integral_constant<int, 4>(), std::integral_constant<int, 4>());
    case 8:
      return run(std::integral_constant<int, 8>(), std::integral_constant<int, 4>());
    case 16:
      return run(std::integral_constant<int, 16>(), std::integral_constant<int, 4>());
    default:
      return vectors <= 128
                 ? run(std::integral_constant<int, 32>(), std::integral_constant<int, 4>())
                 : run(std::integral_constant<int, 32>(), std::integral_constant<int, kMaxNormVectors>());
  }
}

template <int kLanes>
__device__ float sum_over_lanes(float x) {
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffff, x, step);
  return x;
}

/// Adds up what the threads of a block have of each column, in a fixed order: `sums` of a lane's vectors,
/// into `partial` [dim]. `shared`: [kNormRowWarps, dim].
template <int kLanes, int kVectors, int kWidth>
__device__ void add_columns(const float (&sums)[kVectors][kWidth], int64_t dim, float* shared,
                            float* partial) {
  const int lane = threadIdx.x % kLanes, vectors = static_cast<int>(dim / kWidth);
  __syncthreads();
#pragma unroll
  for (int v = 0; v < kVectors; ++v)
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      float sum = sums[v][i];
#pragma unroll
      for (int step = kLanes; step < 32; step *= 2) sum += __shfl_xor_sync(0xffffffff, sum, step);
      const int place = lane + v * kLanes;
      if (threadIdx.x % 32 < kLanes && place < vectors)
        shared[(threadIdx.x / 32) * dim + place * kWidth + i] = sum;
    }
  __syncthreads();
  for (int64_t column = threadIdx.x; column < dim; column += kNormRowThreads) {
    float sum = 0;
#pragma unroll
    for (int warp = 0; warp < kNormRowWarps; ++warp) sum += shared[warp * dim + column];
    partial[column] = sum;
  }
}

}  // namespace fathom::cuda
