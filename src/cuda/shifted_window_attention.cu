// Attention inside shifted windows, straight on the feature map: one warp a window and head, all of whose
// scores stay in registers. No copy into windows, no mask in memory, no score ever stored.
//
// The products are mma.m16n8k16 (rows g = lane / 4, column pairs t = lane % 4). The order of a sum's terms
// and of a result's columns is free, so operands are laid out for 16-byte accesses: in products over the head
// size lane t holds elements 8t … 8t+7; in products over places the columns of a result are 4g + tile.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "cuda/shifted_window_attention.h"
#include "kernels/window_seam.h"

namespace fathom::cuda {
namespace {

constexpr int kSize = kShiftedWindowHeadSize;
constexpr int kWarps = 4;
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

/// What every warp knows of its lanes and of its head.
template <typename T, int kTiles>
struct Warp {
  const ShiftedWindowArgs& args;
  const float* bias;  ///< shared, [T, T]
  int lane, g, t, places;
  uint32_t seams = 0;  ///< two bits for each of the lane's columns: 8 · tile + 2t + {0, 1}

  __device__ Warp(const ShiftedWindowArgs& args_in, const float* bias_in)
      : args(args_in),
        bias(bias_in),
        lane(threadIdx.x % 32),
        g(lane / 4),
        t(lane % 4),
        places(args_in.side * args_in.side) {
#pragma unroll
    for (int i = 0; i < kTiles * 4; ++i)
      seams |= static_cast<uint32_t>(seam_of(args, 8 * (i / 2) + 2 * t + i % 2)) << (2 * i);
  }

  /// Scores of sixteen queries become probabilities before division; `sum`: by what to divide rows g, g + 8.
  __device__ void softmax(float (&s)[2 * kTiles][4], int first, const Places<kTiles>& where,
                          float (&sum)[2]) const {
    const int active = (where.last_row ? 1 : 0) | (where.last_column ? 2 : 0);
    float top[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int query = first + g + 8 * half, seam = seam_of(args, query);
      const float* row = bias + min(query, places - 1) * places;
#pragma unroll
      for (int n = 0; n < 2 * kTiles; ++n)
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const int key = 8 * n + 2 * t + j, i = 2 * n + j;
          float& x = s[n][2 * half + j];
          if (key < places) {
            const int other = static_cast<int>(seams >> (2 * i)) & 3;
            x = x * args.scale + row[key] + (((seam ^ other) & active) != 0 ? kernels::kSeamScore : 0.0f);
          } else {
            x = -INFINITY;
          }
          top[half] = fmaxf(top[half], x);
        }
      top[half] = max_of_four(top[half]);
      sum[half] = 0;
#pragma unroll
      for (int n = 0; n < 2 * kTiles; ++n)
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          float& x = s[n][2 * half + j];
          x = __expf(x - top[half]);
          sum[half] += x;
        }
      sum[half] = sum_of_four(sum[half]);
    }
  }
};

__device__ inline void copy_bias(const ShiftedWindowArgs& args, int head, float* shared) {
  const int area = args.side * args.side * args.side * args.side;
  for (int i = threadIdx.x; i < area; i += blockDim.x) shared[i] = args.bias[head * area + i];
  __syncthreads();
}

/// Grid: x over heads, y over windows (in strides).
template <typename T, int kTiles>
__global__ void __launch_bounds__(kWarps * 32) forward_kernel(ShiftedWindowArgs args) {
  extern __shared__ float shared[];  // the head's bias
  const int head = blockIdx.x;
  copy_bias(args, head, shared);
  const Warp<T, kTiles> warp(args, shared);
  const int64_t windows = args.images * (args.height / args.side) * (args.width / args.side);
  const int64_t width = int64_t{kSize} * args.heads, stride = 3 * width;
  const T* q = static_cast<const T*>(args.qkv) + head * kSize;
  const T *k = q + width, *v = k + width;
  T* out = static_cast<T*>(args.out) + head * kSize;
  for (int64_t window = int64_t{blockIdx.y} * kWarps + threadIdx.x / 32; window < windows;
       window += int64_t{gridDim.y} * kWarps) {
    const Places<kTiles> where(args, window, warp.lane);
    uint4 keys[2 * kTiles];
#pragma unroll
    for (int n = 0; n < 2 * kTiles; ++n) keys[n] = load8(k, where.of(8 * n + warp.g), stride, warp.t);
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
      const int low = where.of(16 * m + warp.g), high = where.of(16 * m + warp.g + 8);
      const RowOperand<T> query(q, low, high, stride, warp.t);
      float s[2 * kTiles][4] = {};
#pragma unroll
      for (int n = 0; n < 2 * kTiles; ++n) query.times(s[n], keys[n]);
      float sum[2];
      warp.softmax(s, 16 * m, where, sum);
      float o[4][4] = {};
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        const int first = 16 * n + 2 * warp.t;
        const int position[4] = {where.of(first), where.of(first + 1), where.of(first + 8),
                                 where.of(first + 9)};
        const uint32_t p[4] = {pack<T>(s[2 * n][0], s[2 * n][1]), pack<T>(s[2 * n][2], s[2 * n][3]),
                               pack<T>(s[2 * n + 1][0], s[2 * n + 1][1]),
                               pack<T>(s[2 * n + 1][2], s[2 * n + 1][3])};
        multiply_places<T>(o, p, PlaceOperand(v, position, stride, warp.g));
      }
      store_rows(out, o, low, high, width, warp.t, 1.0f / sum[0], 1.0f / sum[1]);
    }
  }
}

template <typename T, int kTiles>
__global__ void __launch_bounds__(kWarps * 32) backward_kernel(ShiftedWindowBackwardArgs backward) {
  extern __shared__ float shared[];  // the head's bias, then each warp's gradient of it
  const ShiftedWindowArgs& args = backward.forward;
  const int head = blockIdx.x, area = args.side * args.side * args.side * args.side;
  float* bias_grad = shared + area * (1 + threadIdx.x / 32);
  for (int i = threadIdx.x; i < area * kWarps; i += kWarps * 32) shared[area + i] = 0;
  copy_bias(args, head, shared);
  const Warp<T, kTiles> warp(args, shared);
  const int64_t windows = args.images * (args.height / args.side) * (args.width / args.side);
  const int64_t width = int64_t{kSize} * args.heads, stride = 3 * width;
  const T* q = static_cast<const T*>(args.qkv) + head * kSize;
  const T *k = q + width, *v = k + width;
  const T* grad = static_cast<const T*>(backward.grad) + head * kSize;
  T* grad_q = static_cast<T*>(backward.grad_qkv) + head * kSize;
  T *grad_k = grad_q + width, *grad_v = grad_k + width;
  for (int64_t window = int64_t{blockIdx.y} * kWarps + threadIdx.x / 32; window < windows;
       window += int64_t{gridDim.y} * kWarps) {
    const Places<kTiles> where(args, window, warp.lane);
    float dk[kTiles][4][4] = {}, dv[kTiles][4][4] = {};
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {  // sixteen queries at a time
      const int low = where.of(16 * m + warp.g), high = where.of(16 * m + warp.g + 8);
      float p[2 * kTiles][4] = {}, ds[2 * kTiles][4] = {};
      {
        const RowOperand<T> query(q, low, high, stride, warp.t), gradient(grad, low, high, width, warp.t);
#pragma unroll
        for (int n = 0; n < 2 * kTiles; ++n) {
          const int position = where.of(8 * n + warp.g);
          query.times(p[n], load8(k, position, stride, warp.t));
          gradient.times(ds[n], load8(v, position, stride, warp.t));
        }
      }
      float sum[2];
      warp.softmax(p, 16 * m, where, sum);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float inverse = 1.0f / sum[half];
        float product = 0;
#pragma unroll
        for (int n = 0; n < 2 * kTiles; ++n)
#pragma unroll
          for (int j = 2 * half; j < 2 * half + 2; ++j) {
            p[n][j] *= inverse;
            product += p[n][j] * ds[n][j];
          }
        product = sum_of_four(product);
        const int place = 16 * m + warp.g + 8 * half;
#pragma unroll
        for (int n = 0; n < 2 * kTiles; ++n)
#pragma unroll
          for (int j = 0; j < 2; ++j) {
            float& x = ds[n][2 * half + j];
            x = p[n][2 * half + j] * (x - product);
            const int key = 8 * n + 2 * warp.t + j;
            if (place < warp.places && key < warp.places) bias_grad[place * warp.places + key] += x;
          }
      }
      const int first = 16 * m + 2 * warp.t;
      const int query_places[4] = {where.of(first), where.of(first + 1), where.of(first + 8),
                                   where.of(first + 9)};
      const PlaceOperand queries(q, query_places, stride, warp.g),
          gradients(grad, query_places, width, warp.g);
      float dq[4][4] = {};
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        const uint32_t rows[4] = {pack<T>(ds[2 * n][0], ds[2 * n][1]), pack<T>(ds[2 * n][2], ds[2 * n][3]),
                                  pack<T>(ds[2 * n + 1][0], ds[2 * n + 1][1]),
                                  pack<T>(ds[2 * n + 1][2], ds[2 * n + 1][3])};
        const int key = 16 * n + 2 * warp.t;
        const int key_places[4] = {where.of(key), where.of(key + 1), where.of(key + 8), where.of(key + 9)};
        multiply_places<T>(dq, rows, PlaceOperand(k, key_places, stride, warp.g));
        // Keys become rows: each 8 × 8 part transposed, the two off the diagonal exchanged.
        const uint32_t columns[4] = {transposed(rows[0]), transposed(rows[2]), transposed(rows[1]),
                                     transposed(rows[3])};
        multiply_places<T>(dk[n], columns, queries);
        const uint32_t weights[4] = {transposed(pack<T>(p[2 * n][0], p[2 * n][1])),
                                     transposed(pack<T>(p[2 * n + 1][0], p[2 * n + 1][1])),
                                     transposed(pack<T>(p[2 * n][2], p[2 * n][3])),
                                     transposed(pack<T>(p[2 * n + 1][2], p[2 * n + 1][3]))};
        multiply_places<T>(dv[n], weights, gradients);
      }
      store_rows(grad_q, dq, low, high, stride, warp.t, args.scale, args.scale);
    }
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      const int low = where.of(16 * n + warp.g), high = where.of(16 * n + warp.g + 8);
      store_rows(grad_k, dk[n], low, high, stride, warp.t, args.scale, args.scale);
      store_rows(grad_v, dv[n], low, high, stride, warp.t, 1.0f, 1.0f);
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < area; i += kWarps * 32) {
    float sum = 0;
#pragma unroll
    for (int other = 1; other <= kWarps; ++other) sum += shared[area * other + i];
    backward.partial[(int64_t{blockIdx.y} * args.heads + head) * area + i] = sum;
  }
}

int64_t windows_of(const ShiftedWindowArgs& args) {
  return args.images * (args.height / args.side) * (args.width / args.side);
}

template <typename T, int kTiles>
cudaError_t forward(const ShiftedWindowArgs& args, cudaStream_t stream) {
  const int area = args.side * args.side * args.side * args.side;
  const int64_t blocks = std::min<int64_t>((windows_of(args) + kWarps - 1) / kWarps, 4096);
  const dim3 grid(static_cast<unsigned>(args.heads), static_cast<unsigned>(blocks));
  forward_kernel<T, kTiles><<<grid, kWarps * 32, static_cast<size_t>(area) * sizeof(float), stream>>>(args);
  return cudaGetLastError();
}

template <typename T, int kTiles>
cudaError_t backward(const ShiftedWindowBackwardArgs& args, cudaStream_t stream) {
  const ShiftedWindowArgs& sizes = args.forward;
  const int area = sizes.side * sizes.side * sizes.side * sizes.side;
  const auto bytes = static_cast<int>(sizeof(float)) * area * (1 + kWarps);
  if (const cudaError_t error = cudaFuncSetAttribute(backward_kernel<T, kTiles>,
                                                     cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
      error != cudaSuccess)
    return error;
  const dim3 grid(static_cast<unsigned>(sizes.heads), static_cast<unsigned>(args.blocks));
  backward_kernel<T, kTiles><<<grid, kWarps * 32, static_cast<size_t>(bytes), stream>>>(args);
  return cudaGetLastError();
}

/// Calls `run` with the element type's tag and the tiles of sixteen places as compile-time numbers.
template <typename Run>
cudaError_t with_type_and_tiles(ElementType type, int side, const Run& run) {
  const auto with_tiles = [&](auto tag) {
    switch ((side * side + 15) / 16) {
      case 1:
        return run(tag, std::integral_constant<int, 1>());
      case 2:
        return run(tag, std::integral_constant<int, 2>());
      case 3:
        return run(tag, std::integral_constant<int, 3>());
      case 4:
        return run(tag, std::integral_constant<int, 4>());
      default:
        return cudaErrorInvalidValue;
    }
  };
  if (type == ElementType::kBFloat16) return with_tiles(__nv_bfloat16());
  if (type == ElementType::kHalf) return with_tiles(__half());
  return cudaErrorInvalidValue;
}

}  // namespace

int64_t shifted_window_blocks(const ShiftedWindowArgs& args) {
  const int64_t most = (windows_of(args) + kWarps - 1) / kWarps;
  return std::max<int64_t>(1, std::min<int64_t>(most, int64_t{kMultiprocessors} * 4 / args.heads));
}

cudaError_t launch_shifted_window_attention(ElementType type, const ShiftedWindowArgs& args,
                                            cudaStream_t stream) {
  return with_type_and_tiles(type, args.side, [&](auto tag, auto tiles) {
    return forward<decltype(tag), decltype(tiles)::value>(args, stream);
  });
}

cudaError_t launch_shifted_window_attention_backward(ElementType type, const ShiftedWindowBackwardArgs& args,
                                                     cudaStream_t stream) {
  return with_type_and_tiles(type, args.forward.side, [&](auto tag, auto tiles) {
    return backward<decltype(tag), decltype(tiles)::value>(args, stream);
  });
}

}  // namespace fathom::cuda
