// Rows that neighbouring warps of a block hold together in registers: all that a row takes is asked for at
// once and read once, and neighbouring rows go to different blocks, so that few rows too keep all
// multiprocessors busy.
#pragma once

#include <cstdint>

#include "cuda/row_grid.h"
#include "cuda/vectors.cuh"

namespace fathom::cuda {

/// Blocks of a multiprocessor where a lane has so many vectors of a row: what registers are given out for.
/// One vector, so that many warps hide one another's way to memory: in rows of 1,024 with four, sums of
/// columns leave 128 registers no room, and half as many warps take twice as long.
constexpr int row_share_residents(int vectors) {
  return vectors == 1 ? 4 : vectors == 2 ? 2 : 1;
}

/// How a row is shared.
struct RowWarps {
  int warps, vectors;
};
constexpr RowWarps row_warps(int64_t vectors) {
  int warps = 1;
  while (warps < kWarps && vectors > 32 * warps) warps *= 2;
  int of_lane = 1;
  while (vectors > int64_t{32} * warps * of_lane) of_lane *= 2;
  return {warps, of_lane};
}

/// A thread's share of rows that `kRowWarps` neighbouring warps hold together.
template <int kRowWarps>
struct RowShare {
  static constexpr int kLanes = 32 * kRowWarps;
  static constexpr int kRows = kWarps / kRowWarps;  ///< of a block at once
  int lane = static_cast<int>(threadIdx.x) % kLanes;
  int64_t first = blockIdx.x + threadIdx.x / kLanes * int64_t{gridDim.x};  ///< its first row
  int vectors;                                                             ///< of a row

  __device__ explicit RowShare(int64_t row_vectors) : vectors(static_cast<int>(row_vectors)) {}

  __device__ int vector(int k) const { return lane + k * kLanes; }
  __device__ bool has(int k) const { return vector(k) < vectors; }
};

/// From one of a thread's rows to the next.
template <int kRowWarps>
__device__ int64_t row_step() {
  return int64_t{gridDim.x} * RowShare<kRowWarps>::kRows;
}

/// Sums over the threads of a row, in each of them. All of the block take part, and alternate between two of
/// `shared`: who is ahead writes what nobody still reads.
template <int kRowWarps, int kCount>
__device__ void add_over_row(float (&sums)[kCount], float (&shared)[kWarps][kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) sums[i] = warp_sum(sums[i]);
  if constexpr (kRowWarps > 1) {
    const int warp = static_cast<int>(threadIdx.x) / 32, first = warp / kRowWarps * kRowWarps;
    if (threadIdx.x % 32 == 0)
#pragma unroll
      for (int i = 0; i < kCount; ++i) shared[warp][i] = sums[i];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      sums[i] = 0;
#pragma unroll
      for (int other = 0; other < kRowWarps; ++other) sums[i] += shared[first + other][i];
    }
  }
}

/// Adds up what the threads of a block have of each column, in a fixed order, into `partial` [dim].
/// `columns`: shared, [RowShare::kRows, dim].
template <int kRowWarps, int kVectors, int kWidth>
__device__ void write_row_columns(const Elements<float, kWidth> (&sums)[kVectors],
                                  const RowShare<kRowWarps>& share, int64_t dim, float* columns,
                                  float* partial) {
  auto* own =
      reinterpret_cast<Elements<float, kWidth>*>(columns) + threadIdx.x / share.kLanes * share.vectors;
#pragma unroll
  for (int k = 0; k < kVectors; ++k)
    if (share.has(k)) own[share.vector(k)] = sums[k];
  __syncthreads();
  const int count = static_cast<int>(dim);
  for (int column = static_cast<int>(threadIdx.x); column < count; column += kThreads) {
    float sum = 0;
#pragma unroll
    for (int row = 0; row < share.kRows; ++row) sum += columns[row * count + column];
    partial[column] = sum;
  }
}

}  // namespace fathom::cuda
