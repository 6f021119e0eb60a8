// A tile of 128 × 128 in the registers of a block of 256 threads: its largest number, and how it is written
// in FP8 as it is and, by way of shared memory, turned.
#pragma once

#include <cuda_fp8.h>

#include "cuda/fp8_tiles.h"
#include "cuda/vectors.cuh"

namespace fathom::cuda {

constexpr int kFp8Side = 128, kFp8Threads = 256;
/// A thread has every 16th row's vector of eight columns: 16 threads share a row.
constexpr int kFp8Width = 8, kFp8Lanes = kFp8Side / kFp8Width, kFp8RowsATurn = kFp8Threads / kFp8Lanes,
              kFp8Turns = kFp8Side / kFp8RowsATurn;
/// Of a row in shared memory; and the rows that a thread turns at once, a vector of 16 bytes.
constexpr int kFp8Words = kFp8Side / 4, kFp8Group = 16, kFp8Groups = kFp8Side / kFp8Group;
static_assert(kFp8RowsATurn == kFp8Group && kFp8Groups * kFp8Words == kFp8Threads);

constexpr uint32_t kSignless = 0x7fffffff, kInfinityBits = 0x7f800000;
constexpr int kLeastFp8Exponent = -100;

/// E4M3 and E5M2 both end at 1.75 · 2^this.
template <__nv_fp8_interpretation_t kFormat>
constexpr int kFp8Top = kFormat == __NV_E4M3 ? 8 : 15;

__device__ inline float power_of_two(int exponent) {
  return __uint_as_float(static_cast<uint32_t>(exponent + 127) << 23);
}

/// Of the scale for a tile whose largest number, without its sign, has these bits.
template <__nv_fp8_interpretation_t kFormat>
__device__ int scale_exponent(uint32_t largest) {
  const int own = static_cast<int>(largest >> 23) - 127 - kFp8Top<kFormat>;
  return max(own + ((largest & 0x7fffff) > 0x600000 ? 1 : 0), kLeastFp8Exponent);
}

/// The bits, as a float32's, of the largest number without its sign. NaN is larger than all.
__device__ inline uint32_t largest_of(const Elements<float, kFp8Width>& x) {
  uint32_t largest = 0;
#pragma unroll
  for (int i = 0; i < kFp8Width; ++i) largest = max(largest, __float_as_uint(x.values[i]) & kSignless);
  return largest;
}
__device__ inline uint32_t largest_of(const Elements<__nv_bfloat16, kFp8Width>& x) {
  const auto* pairs = reinterpret_cast<const uint32_t*>(x.values);
  uint32_t largest = 0;
#pragma unroll
  for (int i = 0; i < kFp8Width / 2; ++i) largest = __vmaxu2(largest, pairs[i] & 0x7fff7fff);
  return max(largest << 16, largest & 0xffff0000);
}

/// The largest of the block's values, in every thread. As integers, since NaN is larger than all there.
__device__ inline uint32_t block_max(uint32_t value) {
  __shared__ uint32_t warps[kFp8Threads / 32];
  value = __reduce_max_sync(0xffffffff, value);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  uint32_t largest = warps[0];
#pragma unroll
  for (int i = 1; i < kFp8Threads / 32; ++i) largest = max(largest, warps[i]);
  return largest;
}

template <__nv_fp8_interpretation_t kFormat>
__device__ uint32_t four_in_fp8(float a, float b, float c, float d) {
  const uint32_t low = __nv_cvt_float2_to_fp8x2(make_float2(a, b), __NV_SATFINITE, kFormat),
                 high = __nv_cvt_float2_to_fp8x2(make_float2(c, d), __NV_SATFINITE, kFormat);
  return low | (high << 16);
}

/// Scales of a form whose rows begin at `row` and whose columns, which products sum over, at `column`.
__device__ inline void write_scales(const Fp8Room& room, float scale, int64_t row, int64_t column,
                                    int64_t rows, int64_t columns) {
  const int64_t tile_row = row / kFp8Side, tile_column = column / kFp8Side;
  const int thread = static_cast<int>(threadIdx.x);
  if (room.is_by_row) {
    if (thread < kFp8Side && row + thread < rows) room.scales[tile_column * rows + row + thread] = scale;
    return;
  }
  const int64_t tiles = (columns + kFp8Side - 1) / kFp8Side, stride = (tiles + 3) / 4 * 4;
  float* const here = room.scales + tile_row * stride + tile_column;
  if (thread == 0) *here = scale;
  const bool is_last = tile_column + 1 == tiles;
  if (is_last && thread > 0 && thread < stride - tile_column) here[thread] = 0;
}

/// Four rows of four bytes each become four columns.
__device__ inline void turn(const uint32_t (&row)[4], uint32_t (&column)[4]) {
  const uint32_t a = __byte_perm(row[0], row[1], 0x5140), b = __byte_perm(row[2], row[3], 0x5140),
                 c = __byte_perm(row[0], row[1], 0x7362), d = __byte_perm(row[2], row[3], 0x7362);
  column[0] = __byte_perm(a, b, 0x5410);
  column[1] = __byte_perm(a, b, 0x7632);
  column[2] = __byte_perm(c, d, 0x5410);
  column[3] = __byte_perm(c, d, 0x7632);
}

/// Words of a tile in shared memory, so placed that neither rows nor groups of rows meet in a bank.
__device__ inline int word_at(int row, int word) {
  return row * kFp8Words + (word ^ (row / kFp8Group * 4));
}

__device__ inline void write_turned(const uint32_t* tile, const Fp8Result& result, int64_t row,
                                    int64_t column) {
  const int group = static_cast<int>(threadIdx.x) % kFp8Groups,
            word = static_cast<int>(threadIdx.x) / kFp8Groups;
  const int64_t first_row = row + group * kFp8Group, first_column = column + word * 4;
  if (first_row >= result.rows || first_column >= result.columns) return;
  uint32_t columns[4][4];  // [column][rows by four]
#pragma unroll
  for (int quarter = 0; quarter < 4; ++quarter) {
    uint32_t rows[4], turned[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) rows[i] = tile[word_at(group * kFp8Group + quarter * 4 + i, word)];
    turn(rows, turned);
#pragma unroll
    for (int i = 0; i < 4; ++i) columns[i][quarter] = turned[i];
  }
#pragma unroll
  for (int i = 0; i < 4; ++i)
    *reinterpret_cast<uint4*>(result.turned.values + (first_column + i) * result.rows + first_row) =
        make_uint4(columns[i][0], columns[i][1], columns[i][2], columns[i][3]);
}

/// What a thread holds of a tile: vectors of its own columns, in every 16th row.
template <typename T>
struct Fp8Held {
  Elements<T, kFp8Width> rows[kFp8Turns];
};

/// A block's tile, and this thread's place in it.
struct Fp8Place {
  int64_t row, column;  ///< of the tile's first element
  int own_row = static_cast<int>(threadIdx.x) / kFp8Lanes, lane = static_cast<int>(threadIdx.x) % kFp8Lanes;

  __device__ int tile_row(int turn) const { return turn * kFp8RowsATurn + own_row; }
  __device__ int64_t own_column() const { return column + lane * kFp8Width; }
  __device__ bool is_inside(int turn, int64_t rows, int64_t columns) const {
    return row + tile_row(turn) < rows && own_column() < columns;
  }
};

__device__ inline Fp8Place fp8_place() {
  return {int64_t{blockIdx.y} * kFp8Side, int64_t{blockIdx.x} * kFp8Side};
}

/// Of what lies dense in rows of `stride`.
template <typename T>
__device__ Elements<T, kFp8Width> fp8_vector(const void* x, int64_t row, int64_t stride, int64_t column) {
  return *reinterpret_cast<const Elements<T, kFp8Width>*>(static_cast<const T*>(x) + row * stride + column);
}

/// By all threads of the block. `tile`: its shared memory, kFp8Side · kFp8Words words. Synchronise before the
/// next call.
template <__nv_fp8_interpretation_t kFormat, typename T>
__device__ void write_fp8_tile(const Fp8Held<T>& held, const Fp8Place& place, const Fp8Result& result,
                               uint32_t* tile) {
  uint32_t largest = 0;
#pragma unroll
  for (int i = 0; i < kFp8Turns; ++i) largest = max(largest, largest_of(held.rows[i]));
  largest = block_max(largest);
  const bool is_finite = largest < kInfinityBits;
  const int exponent = is_finite ? scale_exponent<kFormat>(largest) : 0;
  const float scale = is_finite ? power_of_two(exponent) : __uint_as_float(0x7fc00000),
              inverse = power_of_two(-exponent);
#pragma unroll
  for (int i = 0; i < kFp8Turns; ++i) {
    const int tile_row = place.tile_row(i);
    float x[kFp8Width];
#pragma unroll
    for (int j = 0; j < kFp8Width; ++j) x[j] = to_float(held.rows[i].values[j]) * inverse;
    const uint2 words = make_uint2(four_in_fp8<kFormat>(x[0], x[1], x[2], x[3]),
                                   four_in_fp8<kFormat>(x[4], x[5], x[6], x[7]));
    if (result.plain.values != nullptr && place.is_inside(i, result.rows, result.columns))
      *reinterpret_cast<uint2*>(result.plain.values + (place.row + tile_row) * result.columns +
                                place.own_column()) = words;
    if (result.turned.values != nullptr)
      *reinterpret_cast<uint2*>(tile + word_at(tile_row, 2 * place.lane)) = words;
  }
  if (result.plain.values != nullptr)
    write_scales(result.plain, scale, place.row, place.column, result.rows, result.columns);
  if (result.turned.values != nullptr) {
    write_scales(result.turned, scale, place.column, place.row, result.columns, result.rows);
    __syncthreads();
    write_turned(tile, result, place.row, place.column);
  }
  if (is_finite || result.beyond == nullptr) return;
  unsigned long long beyond = 0;
#pragma unroll
  for (int i = 0; i < kFp8Turns; ++i)
#pragma unroll
    for (int j = 0; j < kFp8Width; ++j)
      beyond += (__float_as_uint(to_float(held.rows[i].values[j])) & kSignless) >= kInfinityBits ? 1 : 0;
  if (beyond > 0) atomicAdd(result.beyond, beyond);
}

inline dim3 fp8_grid(int64_t rows, int64_t columns) {
  return dim3(static_cast<unsigned>((columns + kFp8Side - 1) / kFp8Side),
              static_cast<unsigned>((rows + kFp8Side - 1) / kFp8Side));
}

}  // namespace fathom::cuda
