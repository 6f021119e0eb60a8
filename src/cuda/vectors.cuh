// Vectors of elements, their conversion to the type in which they are computed with, items of rows, and sums
// over a warp.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "cuda/element_type.h"

namespace fathom::cuda {

/// Read and written at once where the pointer allows it.
template <typename T, int kCount>
struct alignas(kCount * sizeof(T) < 16 ? kCount * sizeof(T) : 16) Elements {
  static constexpr int kWidth = kCount;
  T values[kCount];
};

template <typename T>
using Vector16 = Elements<T, 16 / sizeof(T)>;

/// The type in which elements of type T are computed with.
template <typename T>
using Computed = std::conditional_t<std::is_same_v<T, double>, double, float>;

__device__ inline float to_float(float x) {
  return x;
}
__device__ inline float to_float(__half x) {
  return __half2float(x);
}
__device__ inline float to_float(__nv_bfloat16 x) {
  return __bfloat162float(x);
}

template <typename T>
__device__ T from_float(float x);
template <>
__device__ inline float from_float<float>(float x) {
  return x;
}
template <>
__device__ inline __half from_float<__half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ inline __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

template <typename T>
__device__ Computed<T> widened(T x) {
  if constexpr (std::is_same_v<T, double>)
    return x;
  else
    return to_float(x);
}
template <typename T>
__device__ T narrowed(Computed<T> x) {
  if constexpr (std::is_same_v<T, double>)
    return x;
  else
    return from_float<T>(x);
}

/// The item of this thread, where rows of `width` items each stand behind one another and a grid has a thread
/// an item. One division in 64 bits a thread; the others are short.
struct RowItem {
  int64_t row;
  unsigned column;
};
__device__ inline RowItem row_item(unsigned width) {
  const int64_t first = int64_t{blockIdx.x} * blockDim.x, row = first / width;
  const unsigned item = static_cast<unsigned>(first - row * width) + threadIdx.x;
  return {row + item / width, item % width};
}

/// Blocks of such a grid.
inline unsigned item_blocks(int64_t items, int threads) {
  return static_cast<unsigned>((items + threads - 1) / threads);
}

/// Calls `run` with a value of the C++ type of `type`.
template <typename Run>
cudaError_t with_element(ElementType type, const Run& run) {
  switch (type) {
    case ElementType::kFloat:
      return run(float{});
    case ElementType::kDouble:
      return run(double{});
    case ElementType::kHalf:
      return run(__half{});
    case ElementType::kBFloat16:
      return run(__nv_bfloat16{});
  }
  return cudaErrorInvalidValue;
}

/// The same, of kernels that compute in float32.
template <typename Run>
cudaError_t with_element_but_double(ElementType type, const Run& run) {
  return with_element(type, [&](auto element) {
    if constexpr (std::is_same_v<decltype(element), double>)
      return cudaErrorInvalidValue;
    else
      return run(element);
  });
}

/// In every lane.
__device__ inline float warp_sum(float x) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) x += __shfl_xor_sync(0xffffffff, x, lanes);
  return x;
}

}  // namespace fathom::cuda
