// Attention inside shifted windows, straight on the feature map: a warp takes a window of a head, whose rows
// are all asked for at once, and keeps its scores in registers. No copy into windows, no mask in memory, no
// score ever stored. Blocks stay, so that the head's bias is read once.
#include "cuda/shifted_window_attention.h"

#include <limits>

#include "cuda/awaited.cuh"
#include "cuda/shifted_window_tiles.cuh"

namespace fathom::cuda {
namespace {

constexpr int kForwardWarps = 4;
constexpr int kForwardBlocks = 3;  // at once on a multiprocessor: 168 registers a thread

/// Grid: x over heads, y over windows (in strides).
template <typename T, int kTiles, bool kChosen>
__global__ void __launch_bounds__(kForwardWarps * 32, kForwardBlocks)
    shifted_window_forward_kernel(Awaited<ShiftedWindowArgs> awaited) {
  const ShiftedWindowArgs& args = awaited.get();
  using Tiles = WindowTiles<kTiles>;
  extern __shared__ float4 window_shared[];  // the head's bias
  const int lane = threadIdx.x % 32, t = lane % 4;
  const LanePlaces<kTiles> places(args, lane / 4);
  const int width = kWindowHeadSize * args.heads, stride = 3 * width, column = blockIdx.x * kWindowHeadSize;
  const float scale_log2 = args.scale * kLog2OfE;
  const uint32_t ones = pack<T>(1.0f, 1.0f);
  const unsigned windows = windows_there<kChosen>(args);
  uint4 q[kTiles], k[kTiles], v[kTiles];
  const auto ask_for = [&](const WindowInMap& where) {
    const T* first = static_cast<const T*>(args.qkv) + where.first * stride + column + 8 * t;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      q[n] = k[n] = v[n] = make_uint4(0, 0, 0, 0);
      if (!places.is_real(n)) continue;
      const T* row = first + int64_t{places.in(where, n)} * stride;
      q[n] = load16(row), k[n] = load16(row + width), v[n] = load16(row + 2 * width);
    }
  };
  // The first window's rows are on their way while the bias is.
  const unsigned begin = blockIdx.y * kForwardWarps + threadIdx.x / 32;
  if (begin < windows) ask_for(WindowInMap::find<kChosen>(args, begin));
  write_bias<kTiles, kForwardWarps>(args, blockIdx.x, window_shared);
  for (unsigned window = begin; window < windows; window += gridDim.y * kForwardWarps) {
    const WindowInMap where = WindowInMap::find<kChosen>(args, window);
    if (window != begin) ask_for(where);
    T* out = static_cast<T*>(args.out) + where.first * width + column + 8 * t;
    const float4* bias = window_shared + where.seams * Tiles::kFragments + lane;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) v[n] = transposed(v[n]);
    const auto strip = [&](auto index) {
      constexpr int kStrip = decltype(index)::value, kHalves = Tiles::halves(kStrip);
      const RowOperand<T> query(q[2 * kStrip], kHalves == 2 ? q[2 * kStrip + kHalves - 1] : uint4{});
      float s[kTiles][4];
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        const float4 begin = bias[(kStrip * kTiles + n) * 32];
        s[n][0] = begin.x, s[n][1] = begin.y, s[n][2] = begin.z, s[n][3] = begin.w;
        query.times(s[n], k[n]);
      }
      exponentiate<kTiles, kHalves>(s, scale_log2);
      float o[4][4] = {}, sum[4] = {};
#pragma unroll
      for (int n = 0; n + 1 < kTiles; n += 2) {
        uint32_t p[4];
        pack_rows<T, kHalves>(s[n], p[0], p[1]);
        pack_rows<T, kHalves>(s[n + 1], p[2], p[3]);
        multiply_places<T>(o, p, v[n], v[n + 1]);
        multiply_add<T>(sum, p, ones, ones);
      }
      if constexpr (kTiles % 2 == 1) {
        uint32_t low, high;
        pack_rows<T, kHalves>(s[kTiles - 1], low, high);
        multiply_places8<T>(o, low, high, v[kTiles - 1]);
        multiply_add8<T>(sum, low, high, ones);
      }
#pragma unroll
      for (int half = 0; half < kHalves; ++half) {
        const int n = 2 * kStrip + half;
        if (places.is_real(n))
          store16(out + int64_t{places.in(where, n)} * width, o, half, __fdividef(1.0f, sum[2 * half]));
      }
    };
    strip(std::integral_constant<int, 0>());
    if constexpr (Tiles::kStrips > 1) strip(std::integral_constant<int, 1>());
    if constexpr (Tiles::kStrips > 2) strip(std::integral_constant<int, 2>());
    if constexpr (Tiles::kStrips > 3) strip(std::integral_constant<int, 3>());
  }
}

template <int kTiles>
int forward_bytes(const ShiftedWindowArgs& args) {
  return bias_copies(args) * WindowTiles<kTiles>::kFragments * static_cast<int>(sizeof(float4));
}

template <typename T, int kTiles>
cudaError_t shifted_window_forward(const ShiftedWindowArgs& args, cudaStream_t stream) {
  const auto kernel = args.chosen.place != nullptr ? shifted_window_forward_kernel<T, kTiles, true>
                                                   : shifted_window_forward_kernel<T, kTiles, false>;
  const int bytes = forward_bytes<kTiles>(args);
  if (const cudaError_t error =
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
      error != cudaSuccess)
    return error;
  const dim3 grid(static_cast<unsigned>(args.heads),
                  static_cast<unsigned>(blocks_a_head(args, kForwardWarps, kForwardBlocks)));
  launch_awaiting(kernel, grid, kForwardWarps * 32, static_cast<size_t>(bytes), stream, args);
  return cudaGetLastError();
}

}  // namespace

int64_t shifted_window_shared_bytes(const ShiftedWindowArgs& args) {
  int64_t bytes = std::numeric_limits<int64_t>::max();
  static_cast<void>(with_type_and_tiles(ElementType::kHalf, args.side, [&](auto, auto tiles) {
    bytes = forward_bytes<decltype(tiles)::value>(args) + kSeamBytes;
    return cudaSuccess;
  }));
  return bytes;
}

cudaError_t launch_shifted_window_attention(ElementType type, const ShiftedWindowArgs& args,
                                            cudaStream_t stream) {
  return with_type_and_tiles(type, args.side, [&](auto tag, auto tiles) {
    return shifted_window_forward<decltype(tag), decltype(tiles)::value>(args, stream);
  });
}

}  // namespace fathom::cuda
