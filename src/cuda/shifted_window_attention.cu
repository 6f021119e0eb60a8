// Attention inside shifted windows, straight on the feature map: one warp a window and head, all of whose
// scores stay in registers. No copy into windows, no mask in memory, no score ever stored.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "cuda/shifted_window_attention.h"
#include "cuda/shifted_window_tiles.cuh"
#include "kernels/window_seam.h"

namespace fathom::cuda {
namespace {

constexpr int kSize = kShiftedWindowHeadSize;
constexpr int kWarps = 4;

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
