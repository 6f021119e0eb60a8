// What norms share: a row lies in the registers of a few neighbouring lanes of one warp, in vectors of 16
// bytes, so each element is read once and written once.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/norm_shape.h"
#include "cuda/vectors.cuh"

namespace fathom::cuda {

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

/// Of a kernel's blocks that are to share a multiprocessor: what registers are given out for.
constexpr int norm_row_residents(int vectors) {
  return vectors <= 4 ? 4 : 2;
}

/// The parameters of one vector of a row.
template <int kWidth>
__device__ Elements<float, kWidth> parameters_at(const float* parameters, int place) {
  return reinterpret_cast<const Elements<float, kWidth>*>(parameters)[place];
}

/// Calls `run` with an element, lanes and vectors.
template <typename Run>
cudaError_t with_norm_row(ElementType type, int64_t dim, const Run& run) {
  return with_element_but_double(type, [&](auto element) {
    return with_norm_shape(dim / Vector16<decltype(element)>::kWidth,
                           [&](auto lanes, auto vectors) { return run(element, lanes, vectors); });
  });
}

/// `with_norm_row`, but with three vectors a lane where they suffice, as in every width of a Swin.
template <typename Run>
cudaError_t with_short_norm_row(ElementType type, int64_t dim, const Run& run) {
  return with_norm_row(type, dim, [&](auto element, auto lanes, auto vectors) {
    if constexpr (decltype(vectors)::value == 4)
      if (dim / Vector16<decltype(element)>::kWidth <= 3 * decltype(lanes)::value)
        return run(element, lanes, std::integral_constant<int, 3>());
    return run(element, lanes, vectors);
  });
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
