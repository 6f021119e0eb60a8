// What a warp of shifted window attention works with: where its window lies in the map, rows of places as
// operands of products (row_pieces.cuh), and the bias with the mask of the seams as products take it.
#pragma once

#include <algorithm>
#include <type_traits>

#include "cuda/row_pieces.cuh"
#include "cuda/shifted_window_attention.h"
#include "kernels/window_seam.h"

namespace fathom::cuda {

constexpr int kWindowHeadSize = kShiftedWindowHeadSize;
constexpr float kNoPlaceScore = -1e30f;  // where a window has no such key

/// A window's places in eights (`kTiles`), as rows of results in sixteens, of whose last the upper half may
/// be missing.
template <int kTiles>
struct WindowTiles {
  static constexpr int kStrips = (kTiles + 1) / 2;
  static constexpr int kFragments = kStrips * kTiles * 32;  ///< of four scores each
  static constexpr __host__ __device__ int halves(int strip) { return 2 * strip + 1 < kTiles ? 2 : 1; }
};

/// The same for all lanes.
struct WindowInMap {
  int64_t first;  ///< pixel of the batch
  int wrap_rows, wrap_columns;
  int seams;  ///< which of its sides the shift joined: bit 0: rows, bit 1: columns

  /// Of a whole map, or the next of those that were chosen.
  template <bool kChosen>
  static __device__ WindowInMap find(const ShiftedWindowArgs& args, unsigned window) {
    if constexpr (kChosen)
      return chosen(args, window);
    else
      return WindowInMap(args, window);
  }

 private:
  __device__ WindowInMap(const ShiftedWindowArgs& args, unsigned window) {
    const unsigned columns = static_cast<unsigned>(args.width / args.side),
                   rows = static_cast<unsigned>(args.height / args.side);
    const unsigned band = window / columns, image = band / rows;
    const unsigned column = window - band * columns, row = band - image * rows;
    first = (int64_t{image} * args.height + row * args.side + args.shift) * args.width + column * args.side +
            args.shift;
    const bool last_row = args.shift > 0 && row == rows - 1,
               last_column = args.shift > 0 && column == columns - 1;
    wrap_rows = last_row ? args.height * args.width : 0;
    wrap_columns = last_column ? args.width : 0;
    seams = (last_row ? 1 : 0) | (last_column ? 2 : 0);
  }

  __device__ WindowInMap(int64_t first_place, int joined_sides)
      : first(first_place), wrap_rows(0), wrap_columns(0), seams(joined_sides) {}

  /// Its first place lies `shift` inside of the window's in a map that is not shifted.
  static __device__ WindowInMap chosen(const ShiftedWindowArgs& args, unsigned window) {
    const WindowPlaces& map = args.chosen;
    const int64_t first = int64_t{window} * args.side * args.side;
    const int pixel = map.place[first], line = pixel / map.width;
    const bool last_row = args.shift > 0 && line % map.height + args.side - args.shift == map.height,
               last_column = args.shift > 0 && pixel - line * map.width + args.side - args.shift == map.width;
    return WindowInMap(first, (last_row ? 1 : 0) | (last_column ? 2 : 0));
  }
};

/// Bit 0: behind the seam of the last row of windows; bit 1: of the last column.
__device__ inline int seam_of(const ShiftedWindowArgs& args, int place) {
  return (place / args.side >= args.side - args.shift ? 1 : 0) |
         (place % args.side >= args.side - args.shift ? 2 : 0);
}

/// Of one lane: places 8n + g.
template <int kTiles>
struct LanePlaces {
  int offset[kTiles];  ///< in pixels, from the window's first
  unsigned seams = 0;  ///< two bits each
  bool last_is_real;   ///< the others are

  __device__ LanePlaces(const ShiftedWindowArgs& args, int g) {
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      const int place = 8 * n + g;
      offset[n] = place / args.side * args.width + place % args.side;
      seams |= static_cast<unsigned>(seam_of(args, place)) << (2 * n);
    }
    last_is_real = 8 * (kTiles - 1) + g < args.side * args.side;
  }
  __device__ bool is_real(int n) const {
    return n < kTiles - 1 || last_is_real;
  }
  /// In this window, whose places may lie on both sides of the map.
  __device__ int in(const WindowInMap& window, int n) const {
    return offset[n] - ((seams >> (2 * n) & 1) != 0 ? window.wrap_rows : 0) -
           ((seams >> (2 * n) & 2) != 0 ? window.wrap_columns : 0);
  }
};

/// The four copies of a head's bias: with the mask of no seam, of rows, of columns, of both.
__host__ __device__ inline int bias_copies(const ShiftedWindowArgs& args) {
  return args.shift > 0 ? 4 : 1;
}

/// What `write_bias` holds beside what the launch asks for.
constexpr int64_t kSeamBytes = kShiftedWindowMaxPlaces * sizeof(int);

/// The bias as products of queries and keys begin their sums with it, divided by the scale that scores get
/// afterwards: [copies, strips, tiles, 32 lanes]. All threads of a block of so many warps call.
template <int kTiles, int kWarps>
__device__ void write_bias(const ShiftedWindowArgs& args, int head, float4* fragments) {
  constexpr int kFragments = WindowTiles<kTiles>::kStrips * kTiles,
                kTurns = (kFragments + kWarps - 1) / kWarps;
  __shared__ int seam[kShiftedWindowMaxPlaces];
  for (int place = static_cast<int>(threadIdx.x); place < kShiftedWindowMaxPlaces; place += 32 * kWarps)
    seam[place] = seam_of(args, place);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32,
            g = lane / 4, t = lane % 4, places = args.side * args.side;
  const auto query = [&](int i, int j) { return 16 * (i / kTiles) + g + j / 2 * 8; };
  const auto key = [&](int i, int j) { return 8 * (i % kTiles) + 2 * t + j % 2; };
  const float* bias = args.bias + int64_t{head} * places * places;
  float score[kTurns][4];  // all are asked for before the first is used
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int i = turn * kWarps + warp, q = query(i, j), k = key(i, j);
      score[turn][j] = q < places && k < places ? bias[q * places + k] : k < places ? 0.0f : kNoPlaceScore;
    }
  __syncthreads();
  const float unscaled = 1.0f / args.scale;
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn) {
    const int i = turn * kWarps + warp;
    if (i >= kFragments) break;
    int apart[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) apart[j] = seam[query(i, j)] ^ seam[key(i, j)];
    for (int copy = 0; copy < bias_copies(args); ++copy) {
      const auto masked = [&](int j) {
        return (score[turn][j] + ((apart[j] & copy) != 0 ? kernels::kSeamScore : 0.0f)) * unscaled;
      };
      fragments[copy * WindowTiles<kTiles>::kFragments + 32 * i + lane] =
          make_float4(masked(0), masked(1), masked(2), masked(3));
    }
  }
  __syncthreads();
}

/// Rows g and, with `kHalves` 2, g + 8 of scores, in units before `scale_log2` (which brings them to powers
/// of two): become probabilities before division.
template <int kTiles, int kHalves>
__device__ void exponentiate(float (&s)[kTiles][4], float scale_log2) {
#pragma unroll
  for (int half = 0; half < kHalves; ++half) {
    float top = s[0][2 * half];
#pragma unroll
    for (int n = 0; n < kTiles; ++n) top = fmaxf(top, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
    top = max_of_four(top) * scale_log2;
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
#pragma unroll
      for (int j = 2 * half; j < 2 * half + 2; ++j) s[n][j] = power_of_two(fmaf(s[n][j], scale_log2, -top));
  }
}

__host__ __device__ inline int64_t windows_of(const ShiftedWindowArgs& args) {
  return args.images * (args.height / args.side) * (args.width / args.side);
}

/// Of a whole map, or of those that were chosen.
template <bool kChosen>
__device__ unsigned windows_there(const ShiftedWindowArgs& args) {
  if constexpr (kChosen) return static_cast<unsigned>(*args.chosen.count / (args.side * args.side));
  return static_cast<unsigned>(windows_of(args));
}

/// Blocks a head, each of so many warps that take a window at a time: as many as the GPU holds at once.
inline int64_t blocks_a_head(const ShiftedWindowArgs& args, int warps, int blocks_at_once) {
  const int64_t most = (windows_of(args) + warps - 1) / warps;
  return std::clamp<int64_t>(int64_t{kMultiprocessors} * blocks_at_once / args.heads, 1,
                             std::max<int64_t>(1, most));
}

/// Calls `run` with the element type's tag and the places in eights as compile-time numbers.
template <typename Run>
cudaError_t with_type_and_tiles(ElementType type, int side, const Run& run) {
  const auto with_tiles = [&](auto tag) {
    switch (side) {
      case 1:
      case 2:
        return run(tag, std::integral_constant<int, 1>());
      case 3:
      case 4:
        return run(tag, std::integral_constant<int, 2>());
      case 5:
        return run(tag, std::integral_constant<int, 4>());
      case 6:
        return run(tag, std::integral_constant<int, 5>());
      case 7:
        return run(tag, std::integral_constant<int, 7>());
      case 8:
        return run(tag, std::integral_constant<int, 8>());
      default:
        return cudaErrorInvalidValue;
    }
  };
  if (type == ElementType::kBFloat16) return with_tiles(__nv_bfloat16());
  if (type == ElementType::kHalf) return with_tiles(__half());
  return cudaErrorInvalidValue;
}

}  // namespace fathom::cuda
