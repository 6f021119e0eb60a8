// How kernels that add up columns share them: a thread has one 16-byte vector of columns, and its rows in
// turn.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cuda/vectors.cuh"

namespace fathom::cuda {

constexpr int kColumnThreads = 256;

/// Neighbouring threads on one row's vectors, at most a warp; the others of the block take other rows. As
/// many as leave few idle in the last piece of a row.
inline int column_lanes(int64_t vectors) {
  int best = 1;
  int64_t fewest = 0;
  for (const int lanes : {32, 16, 8, 4, 2, 1}) {
    const int64_t taken = (vectors + lanes - 1) / lanes * lanes;
    if (10 * vectors >= 9 * taken) return lanes;
    if (fewest == 0 || taken < fewest) {
      best = lanes;
      fewest = taken;
    }
  }
  return best;
}

/// Rows of blocks: the same for the same sizes, so that sums do not change from run to run.
inline int64_t column_row_blocks(ElementType type, int64_t rows, int64_t dim) {
  const int64_t vectors = dim / (type == ElementType::kFloat ? 4 : 8), lanes = column_lanes(vectors);
  const int64_t columns = (vectors + lanes - 1) / lanes, rows_a_turn = kColumnThreads / lanes;
  return std::max<int64_t>(1, std::min<int64_t>((rows + 4 * rows_a_turn - 1) / (4 * rows_a_turn),
                                                int64_t{kMultiprocessors} * 8 / columns));
}

inline dim3 column_threads(int64_t vectors) {
  const auto lanes = static_cast<unsigned>(column_lanes(vectors));
  return dim3(lanes, kColumnThreads / lanes);
}
inline dim3 column_grid(int64_t vectors, int64_t row_blocks) {
  const int64_t lanes = column_lanes(vectors);
  return dim3(static_cast<unsigned>((vectors + lanes - 1) / lanes), static_cast<unsigned>(row_blocks));
}

/// As many of `rows` as are counted on the device, if anybody counts.
__device__ inline int64_t column_rows(int64_t rows, const int32_t* count) {
  return count == nullptr ? rows : min(max(int64_t{*count}, int64_t{0}), rows);
}

/// The sums of a block's threads, in a fixed order, into its row of `partial` [row blocks, dim].
template <int kWidth>
__device__ void write_column_sums(const float (&sum)[kWidth], float* partial, int64_t dim) {
  __shared__ float shared[kColumnThreads * kWidth];
  const int row_size = static_cast<int>(blockDim.x) * kWidth;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) shared[threadIdx.y * row_size + threadIdx.x * kWidth + i] = sum[i];
  __syncthreads();
  const int thread = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
  for (int i = thread; i < row_size; i += kColumnThreads) {
    const int64_t column = int64_t{blockIdx.x} * row_size + i;
    if (column >= dim) break;
    float total = 0;
    for (int row = 0; row < static_cast<int>(blockDim.y); ++row) total += shared[row * row_size + i];
    partial[blockIdx.y * dim + column] = total;
  }
}

}  // namespace fathom::cuda
