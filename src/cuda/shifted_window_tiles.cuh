// What a warp of shifted window attention works with: matrix products on tensor cores, their operands
// straight from a feature map, and where a window's places lie in it.
//
// The products are mma.m16n8k16 (rows g = lane / 4, column pairs t = lane % 4). The order of a sum's terms
// and of a result's columns is free, so operands are laid out for 16-byte accesses: in products over the head
// size lane t holds elements 8t … 8t+7; in products over places the columns of a result are 4g + tile.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "cuda/shifted_window_attention.h"

namespace fathom::cuda {

constexpr unsigned kAll = 0xffffffffu;

template <typename T>
__device__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
template <>
__device__ inline void multiply_add<__nv_bfloat16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                                   uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ inline void multiply_add<__half>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// Two elements in one register, the first in the low half.
template <typename T>
__device__ uint32_t pack(float low, float high);
template <>
__device__ inline uint32_t pack<__nv_bfloat16>(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
template <>
__device__ inline uint32_t pack<__half>(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

/// Transposes a matrix of 8 × 8 elements that the warp holds, a pair of a row's columns a lane.
__device__ inline uint32_t transposed(uint32_t x) {
  uint32_t y;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}

__device__ inline float sum_of_four(float x) {  // over the lanes that share a row
  x += __shfl_xor_sync(kAll, x, 1);
  return x + __shfl_xor_sync(kAll, x, 2);
}
__device__ inline float max_of_four(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAll, x, 1));
  return fmaxf(x, __shfl_xor_sync(kAll, x, 2));
}

/// Where a window's places lie in the map, and which of them the shift brought together.
template <int kTiles>  // of 16 places
struct Places {
  int position[kTiles <= 2 ? 1 : 2];  ///< in pixels of the batch, of places `lane` and `lane` + 32; −1: none
  bool last_row, last_column;         ///< of windows, where the shift joined what was apart

  __device__ Places(const ShiftedWindowArgs& args, int64_t window, int lane) {
    const int rows = args.height / args.side, columns = args.width / args.side;
    const int64_t image = window / (rows * columns);
    const int inside = static_cast<int>(window - image * rows * columns);
    const int row = inside / columns, column = inside % columns;
#pragma unroll
    for (int i = 0; i < (kTiles <= 2 ? 1 : 2); ++i) {
      const int place = lane + 32 * i;
      int y = row * args.side + place / args.side + args.shift,
          x = column * args.side + place % args.side + args.shift;
      if (y >= args.height) y -= args.height;
      if (x >= args.width) x -= args.width;
      const bool real = place < args.side * args.side;
      position[i] = real ? static_cast<int>((image * args.height + y) * args.width + x) : -1;
    }
    last_row = args.shift > 0 && row == rows - 1;
    last_column = args.shift > 0 && column == columns - 1;
  }

  /// All lanes must call.
  __device__ int of(int place) const {
    if constexpr (kTiles <= 2) {
      return __shfl_sync(kAll, position[0], place);
    } else {
      const int low = __shfl_sync(kAll, position[0], place & 31),
                high = __shfl_sync(kAll, position[1], place & 31);
      return place < 32 ? low : high;
    }
  }
};

/// Bit 0: behind the seam of the last row of windows; bit 1: of the last column.
__device__ inline int seam_of(const ShiftedWindowArgs& args, int place) {
  return (place / args.side >= args.side - args.shift ? 1 : 0) |
         (place % args.side >= args.side - args.shift ? 2 : 0);
}

template <typename T>
__device__ uint4 load8(const T* row, int position, int64_t stride, int t) {
  if (position < 0) return make_uint4(0, 0, 0, 0);
  return *reinterpret_cast<const uint4*>(row + position * stride + 8 * t);
}
template <typename T>
__device__ uint2 load4(const T* row, int position, int64_t stride, int g) {
  if (position < 0) return make_uint2(0, 0);
  return *reinterpret_cast<const uint2*>(row + position * stride + 4 * g);
}

/// Rows of sixteen places as the left operand of a product over the head size.
template <typename T>
struct RowOperand {
  uint32_t a[2][4];

  __device__ RowOperand(const T* base, int low, int high, int64_t stride, int t) {
    const uint4 x = load8(base, low, stride, t), y = load8(base, high, stride, t);
    a[0][0] = x.x, a[0][1] = y.x, a[0][2] = x.y, a[0][3] = y.y;
    a[1][0] = x.z, a[1][1] = y.z, a[1][2] = x.w, a[1][3] = y.w;
  }
  /// c += rows · (row of eight places)ᵀ
  __device__ void times(float (&c)[4], const uint4& b) const {
    multiply_add<T>(c, a[0], b.x, b.y);
    multiply_add<T>(c, a[1], b.z, b.w);
  }
};

/// Sixteen places as the right operand of a product over places: four tiles of eight columns.
struct PlaceOperand {
  uint32_t b[4][2];

  template <typename T>
  __device__ PlaceOperand(const T* base, const int (&position)[4], int64_t stride, int g) {
    const uint2 r0 = load4(base, position[0], stride, g), r1 = load4(base, position[1], stride, g),
                r2 = load4(base, position[2], stride, g), r3 = load4(base, position[3], stride, g);
    b[0][0] = __byte_perm(r0.x, r1.x, 0x5410), b[0][1] = __byte_perm(r2.x, r3.x, 0x5410);
    b[1][0] = __byte_perm(r0.x, r1.x, 0x7632), b[1][1] = __byte_perm(r2.x, r3.x, 0x7632);
    b[2][0] = __byte_perm(r0.y, r1.y, 0x5410), b[2][1] = __byte_perm(r2.y, r3.y, 0x5410);
    b[3][0] = __byte_perm(r0.y, r1.y, 0x7632), b[3][1] = __byte_perm(r2.y, r3.y, 0x7632);
  }
};

/// c[tile] += a · operand
template <typename T>
__device__ void multiply_places(float (&c)[4][4], const uint32_t (&a)[4], const PlaceOperand& operand) {
#pragma unroll
  for (int tile = 0; tile < 4; ++tile) multiply_add<T>(c[tile], a, operand.b[tile][0], operand.b[tile][1]);
}

/// Rows g and g + 8 of a result, whose lane t holds columns 8t … 8t+7.
template <typename T>
__device__ void store_rows(T* base, const float (&c)[4][4], int low, int high, int64_t stride, int t,
                           float low_factor, float high_factor) {
  const auto row = [&](int first, float f) {
    return make_uint4(pack<T>(c[0][first] * f, c[1][first] * f), pack<T>(c[2][first] * f, c[3][first] * f),
                      pack<T>(c[0][first + 1] * f, c[1][first + 1] * f),
                      pack<T>(c[2][first + 1] * f, c[3][first + 1] * f));
  };
  if (low >= 0) *reinterpret_cast<uint4*>(base + low * stride + 8 * t) = row(0, low_factor);
  if (high >= 0) *reinterpret_cast<uint4*>(base + high * stride + 8 * t) = row(2, high_factor);
}

}  // namespace fathom::cuda
