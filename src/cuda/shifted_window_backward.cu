// Gradients of attention inside shifted windows: a warp takes a window of a head, computes its scores again
// sixteen queries at a time, and keeps the gradients of keys and values in registers until all queries have
// passed. Keys and values wait in shared memory, beside the warp's sum of the bias's gradient.
#include <limits>

#include "cuda/awaited.cuh"
#include "cuda/shifted_window_attention.h"
#include "cuda/shifted_window_tiles.cuh"

namespace fathom::cuda {
namespace {

/// How much of a multiprocessor a block takes, and what of its shared memory.
template <int kTiles>
struct BackwardShape {
  static constexpr int kWarps = kTiles <= 4 ? 4 : kTiles <= 7 ? 8 : 6;
  static constexpr int kBlocks = kTiles <= 4 ? 3 : 1;  ///< at once
  static constexpr int kFragments = WindowTiles<kTiles>::kFragments;
  static constexpr int kHeld = 2 * kTiles * 32;  ///< pieces of 16 bytes of a warp's keys and values
  static constexpr int bytes(int copies) {
    return static_cast<int>(sizeof(float4)) * (copies * kFragments + kWarps * (kFragments + kHeld));
  }
};

static_assert(BackwardShape<7>::bytes(4) + kSeamBytes <= 227 << 10 &&
                  BackwardShape<8>::bytes(4) + kSeamBytes <= 227 << 10,
              "Hopper has room");

/// A row's address, computed where it is used: held for all rows, addresses would take the registers of sums.
template <typename T>
__device__ T* row_of(T* base, int offset, int stride) {
  asm volatile("" : "+r"(offset));
  return base + int64_t{offset} * stride;
}

/// e^scores and gradients of probabilities become probabilities and gradients of scores.
template <int kTiles, int kHalves>
__device__ void softmax_gradient(float (&p)[kTiles][4], float (&ds)[kTiles][4]) {
#pragma unroll
  for (int half = 0; half < kHalves; ++half) {
    float sum = 0, product = 0;
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
#pragma unroll
      for (int j = 2 * half; j < 2 * half + 2; ++j)
        sum += p[n][j], product = fmaf(p[n][j], ds[n][j], product);
    const float inverse = __fdividef(1.0f, sum_of_four(sum));
    product = sum_of_four(product) * inverse;
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
#pragma unroll
      for (int j = 2 * half; j < 2 * half + 2; ++j) {
        p[n][j] *= inverse;
        ds[n][j] = p[n][j] * (ds[n][j] - product);
      }
  }
}

/// Eight keys of a warp in shared memory, so that they can be read as pieces of 16 bytes and as these
/// transposed: matrix i of a row's four has of each piece the i-th pair, and rows take turns in the banks.
struct HeldKeys {
  unsigned char* own;        ///< where the lane writes pairs of its piece, in matrix 0
  const unsigned char* row;  ///< the row that the lane names to the warp
  int turn;

  __device__ HeldKeys(uint4* keys, int lane)
      : own(reinterpret_cast<unsigned char*>(keys) + lane / 4 * 64 + lane % 4 * 4),
        row(reinterpret_cast<const unsigned char*>(keys) + lane % 8 * 64 +
            ((lane / 8) ^ (lane % 8 / 2)) * 16),
        turn(lane / 8) {}
  __device__ void write(int n, const uint4& piece) const {
    const uint32_t pairs[4] = {piece.x, piece.y, piece.z, piece.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) *reinterpret_cast<uint32_t*>(own + 512 * n + (i ^ turn) * 16) = pairs[i];
  }
  __device__ uint4 pieces(int n) const {
    return load_matrices(shared_address(row + 512 * n));
  }
  __device__ uint4 transposed_pieces(int n) const {
    return load_transposed_matrices(shared_address(row + 512 * n));
  }
};

/// Adds to what the lane alone adds to.
template <int kTiles, int kHalves>
__device__ void add_to_bias_gradient(float4* sums, const float (&ds)[kTiles][4]) {
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
    float4 sum = sums[32 * n];
    sum.x += ds[n][0], sum.y += ds[n][1];
    if (kHalves == 2) sum.z += ds[n][2], sum.w += ds[n][3];
    sums[32 * n] = sum;
  }
}

/// c[key] += scoresᵀ · rows of queries, whose pieces `low` and `high` are transposed.
template <typename T, int kTiles, int kHalves>
__device__ void multiply_queries(float (&c)[WindowTiles<kTiles>::kStrips][4][4],
                                 const uint32_t (&scores)[kTiles][2], const uint4& low, const uint4& high) {
#pragma unroll
  for (int n = 0; n < kTiles; n += 2) {
    const bool has_next = n + 1 < kTiles;
    const uint32_t first = transposed(scores[n][0]),
                   next = has_next ? transposed(scores[has_next ? n + 1 : n][0]) : 0;
    if (kHalves == 1) {
      multiply_places8<T>(c[n / 2], first, next, low);
      continue;
    }
    const uint32_t a[4] = {first, next, transposed(scores[n][1]),
                           has_next ? transposed(scores[has_next ? n + 1 : n][1]) : 0};
    multiply_places<T>(c[n / 2], a, low, high);
  }
}

/// Grid: x over heads, y over windows (in strides).
template <typename T, int kTiles, bool kChosen>
__global__ void __launch_bounds__(BackwardShape<kTiles>::kWarps * 32, BackwardShape<kTiles>::kBlocks)
    shifted_window_backward_kernel(Awaited<ShiftedWindowBackwardArgs> awaited) {
  const ShiftedWindowBackwardArgs& backward = awaited.get();
  using Tiles = WindowTiles<kTiles>;
  using Shape = BackwardShape<kTiles>;
  extern __shared__ float4 window_shared[];  // copies of the bias, sums of its gradient, keys and values
  const ShiftedWindowArgs& args = backward.forward;
  write_bias<kTiles, Shape::kWarps>(args, blockIdx.x, window_shared);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, t = lane % 4;
  float4* all_sums = window_shared + bias_copies(args) * Tiles::kFragments;
  float4* sums = all_sums + warp * Tiles::kFragments + lane;
  uint4* held = reinterpret_cast<uint4*>(all_sums + Shape::kWarps * Tiles::kFragments) + warp * Shape::kHeld;
  const HeldKeys keys(held, lane);
  uint4* values = held + 32 * kTiles + lane;  // of the lane alone, as its sums
  for (int i = 0; i < Tiles::kFragments; i += 32) sums[i] = make_float4(0, 0, 0, 0);
  const LanePlaces<kTiles> places(args, lane / 4);
  const int width = kWindowHeadSize * args.heads, stride = 3 * width, column = blockIdx.x * kWindowHeadSize;
  const float scale_log2 = args.scale * kLog2OfE;
  const unsigned windows = windows_there<kChosen>(args);
  for (unsigned window = blockIdx.y * Shape::kWarps + warp; window < windows;
       window += gridDim.y * Shape::kWarps) {
    const WindowInMap where = WindowInMap::find<kChosen>(args, window);
    const int64_t begin = where.first * stride + column + 8 * t;
    const T* queries = static_cast<const T*>(args.qkv) + begin;
    const T* gradients = static_cast<const T*>(backward.grad) + where.first * width + column + 8 * t;
    T* grad_qkv = static_cast<T*>(backward.grad_qkv) + begin;
    const float4* bias = window_shared + where.seams * Tiles::kFragments + lane;
    int offset[kTiles];
    uint4 key_pieces[kTiles];
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      const bool is_real = places.is_real(n);
      offset[n] = is_real ? places.in(where, n) : 0;
      const T* row = row_of(queries, offset[n], stride);
      key_pieces[n] = is_real ? load16(row + width) : uint4{};
      copy_piece_alone(shared_address(values + 32 * n), row + 2 * width, is_real);
      // Queries and gradients are read a strip at a time; two lanes ask for the halves of each row.
      if (n >= 2)
        read_ahead(t < 2 ? row + 8 * t : row_of(gradients, offset[n], width) + 8 * t - kWindowHeadSize);
    }
    float dk[Tiles::kStrips][4][4] = {}, dv[Tiles::kStrips][4][4] = {};
    const auto strip = [&](auto index) {
      constexpr int kStrip = decltype(index)::value, kHalves = Tiles::halves(kStrip);
      uint4 q[2] = {}, d[2] = {};
#pragma unroll
      for (int half = 0; half < kHalves; ++half) {
        const int n = 2 * kStrip + half;
        if (!places.is_real(n)) continue;
        q[half] = load16(row_of(queries, offset[n], stride));
        d[half] = load16(row_of(gradients, offset[n], width));
      }
      if (kStrip == 0) {  // now that all has been asked for
        __syncwarp();     // the keys of the window before are read
#pragma unroll
        for (int n = 0; n < kTiles; ++n) keys.write(n, key_pieces[n]);
        await_all_copies();
        __syncwarp();
      }
      uint32_t weights[kTiles][2], rows[kTiles][2];
      {
        const RowOperand<T> query(q[0], q[1]), gradient(d[0], d[1]);
        float p[kTiles][4], ds[kTiles][4] = {};
#pragma unroll
        for (int n = 0; n < kTiles; ++n) {
          const float4 start = bias[(kStrip * kTiles + n) * 32];
          p[n][0] = start.x, p[n][1] = start.y, p[n][2] = start.z, p[n][3] = start.w;
          query.times(p[n], keys.pieces(n));
          gradient.times(ds[n], values[32 * n]);
        }
        exponentiate<kTiles, kHalves>(p, scale_log2);
        softmax_gradient<kTiles, kHalves>(p, ds);
        add_to_bias_gradient<kTiles, kHalves>(sums + kStrip * kTiles * 32, ds);
#pragma unroll
        for (int n = 0; n < kTiles; ++n) {
          pack_rows<T, kHalves>(p[n], weights[n][0], weights[n][1]);
          pack_rows<T, kHalves>(ds[n], rows[n][0], rows[n][1]);
        }
      }
      multiply_queries<T, kTiles, kHalves>(dv, weights, transposed(d[0]), transposed(d[1]));
      multiply_queries<T, kTiles, kHalves>(dk, rows, transposed(q[0]), transposed(q[1]));
      float dq[4][4] = {};
#pragma unroll
      for (int n = 0; n + 1 < kTiles; n += 2) {
        const uint32_t a[4] = {rows[n][0], rows[n][1], rows[n + 1][0], rows[n + 1][1]};
        multiply_places<T>(dq, a, keys.transposed_pieces(n), keys.transposed_pieces(n + 1));
      }
      if constexpr (kTiles % 2 == 1)
        multiply_places8<T>(dq, rows[kTiles - 1][0], rows[kTiles - 1][1], keys.transposed_pieces(kTiles - 1));
#pragma unroll
      for (int half = 0; half < kHalves; ++half) {
        const int n = 2 * kStrip + half;
        if (places.is_real(n)) store16(row_of(grad_qkv, offset[n], stride), dq, half, args.scale);
      }
    };
    strip(std::integral_constant<int, 0>());
    if constexpr (Tiles::kStrips > 1) strip(std::integral_constant<int, 1>());
    if constexpr (Tiles::kStrips > 2) strip(std::integral_constant<int, 2>());
    if constexpr (Tiles::kStrips > 3) strip(std::integral_constant<int, 3>());
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      if (!places.is_real(n)) continue;
      T* row = row_of(grad_qkv, offset[n], stride);
      store16(row + width, dk[n / 2], n % 2, args.scale);
      store16(row + 2 * width, dv[n / 2], n % 2, 1.0f);
    }
  }
  __syncthreads();
  const int count = args.side * args.side, area = count * count;
  float* partial = backward.partial + (int64_t{blockIdx.y} * args.heads + blockIdx.x) * area;
  const float* fragments = reinterpret_cast<const float*>(all_sums);
  for (int i = threadIdx.x; i < area; i += Shape::kWarps * 32) {
    const int query = i / count, key = i % count;
    const int fragment = (query / 16 * kTiles + key / 8) * 32 + query % 8 * 4 + key % 8 / 2;
    const float* own = fragments + 4 * fragment + query % 16 / 8 * 2 + key % 2;
    float sum = 0;
#pragma unroll
    for (int other = 0; other < Shape::kWarps; ++other) sum += own[4 * other * Tiles::kFragments];
    partial[i] = sum;
  }
}

template <typename T, int kTiles>
cudaError_t shifted_window_backward(const ShiftedWindowBackwardArgs& args, cudaStream_t stream) {
  using Shape = BackwardShape<kTiles>;
  const auto kernel = args.forward.chosen.place != nullptr ? shifted_window_backward_kernel<T, kTiles, true>
                                                           : shifted_window_backward_kernel<T, kTiles, false>;
  const int bytes = Shape::bytes(bias_copies(args.forward));
  if (const cudaError_t error =
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
      error != cudaSuccess)
    return error;
  const dim3 grid(static_cast<unsigned>(args.forward.heads), static_cast<unsigned>(args.blocks));
  launch_awaiting(kernel, grid, Shape::kWarps * 32, static_cast<size_t>(bytes), stream, args);
  return cudaGetLastError();
}

}  // namespace

int64_t shifted_window_backward_shared_bytes(const ShiftedWindowArgs& args) {
  int64_t bytes = std::numeric_limits<int64_t>::max();
  static_cast<void>(with_type_and_tiles(ElementType::kHalf, args.side, [&](auto, auto tiles) {
    bytes = BackwardShape<decltype(tiles)::value>::bytes(bias_copies(args)) + kSeamBytes;
    return cudaSuccess;
  }));
  return bytes;
}

int64_t shifted_window_blocks(const ShiftedWindowArgs& args) {
  int64_t blocks = 1;
  static_cast<void>(with_type_and_tiles(ElementType::kHalf, args.side, [&](auto, auto tiles) {
    using Shape = BackwardShape<decltype(tiles)::value>;
    blocks = blocks_a_head(args, Shape::kWarps, Shape::kBlocks);
    return cudaSuccess;
  }));
  return blocks;
}

cudaError_t launch_shifted_window_attention_backward(ElementType type, const ShiftedWindowBackwardArgs& args,
                                                     cudaStream_t stream) {
  return with_type_and_tiles(type, args.forward.side, [&](auto tag, auto tiles) {
    return shifted_window_backward<decltype(tag), decltype(tiles)::value>(args, stream);
  });
}

}  // namespace fathom::cuda
