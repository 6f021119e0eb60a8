// What attention's passes on Hopper share: tiles of heads in shared memory, a warp group's sums of them, and
// which rows a block has.
#pragma once

#include <algorithm>

#include "cuda/flash_attention.h"
#include "cuda/hopper_lines.cuh"
#include "cuda/vectors.cuh"
#include "cuda/warp_products.cuh"

namespace fathom::cuda {

constexpr int kGroupWarps = 4, kGroupThreads = 32 * kGroupWarps;
constexpr int kGroupRows = 64;  ///< of a warp group's products
constexpr float kLog2E = 1.4426950408889634f;

/// Lines of one head, 64 elements of each after the other.
template <int kSize, int kLines>
struct HeadTile {
  static constexpr int kParts = kSize / kLineElements, kPieces = kSize * 2 / 16;
  unsigned char parts[kParts][kLines * kLineBytes];

  __device__ uint4& piece(int line, int piece) {
    return *reinterpret_cast<uint4*>(parts[piece / 8] + place_of(line, piece % 8));
  }
};

/// Asks TMA for lines of one head, from row `row` on, `kBox` lines at a time. Of one thread.
template <int kBox, int kSize, int kLines>
__device__ void ask_for(HeadTile<kSize, kLines>& tile, const CUtensorMap& map, uint64_t& full, int head,
                        int row) {
  constexpr auto kHint = static_cast<uint64_t>(cute::TMA::CacheHintSm90::EVICT_NORMAL);
#pragma unroll
  for (int part = 0; part < tile.kParts; ++part)
#pragma unroll
    for (int line = 0; line < kLines; line += kBox)
      cute::SM90_TMA_LOAD_2D::copy(&map, &full, kHint, tile.parts[part] + line * kLineBytes,
                                   head * kSize + part * kLineElements, row + line);
}

/// The threads of one warp group.
__device__ inline void meet_group(int group) {
  asm volatile("bar.sync %0, %1;" ::"r"(group + 1), "n"(kGroupThreads) : "memory");
}

/// Lines from `there` on may hold no numbers, which a weight of zero would not take away. Of a warp group,
/// after `publish_cleared` seen by its products.
template <int kSize, int kLines>
__device__ void clear_from(HeadTile<kSize, kLines>& tile, int there) {
  for (int i = there * tile.kPieces + static_cast<int>(threadIdx.x) % kGroupThreads;
       i < kLines * tile.kPieces; i += kGroupThreads)
    tile.piece(i / tile.kPieces, i % tile.kPieces) = make_uint4(0, 0, 0, 0);
}
__device__ inline void publish_cleared(int group) {
  cutlass::arch::fence_view_async_shared();
  meet_group(group);
}

/// A score times this is a power of two's exponent.
template <int kSize>
__device__ float scale_log2() {
  return rsqrtf(static_cast<float>(kSize)) * kLog2E;
}

/// A warp group's sums times `scale`, by way of its 64 lines of `tile`, to rows of memory, of which the first
/// `count` are there.
template <typename T, int kSize, int kLines, typename Scale>
__device__ void write_lines(HeadTile<kSize, kLines>& tile, int group, const float (&sum)[kSize / 2],
                            const Scale& scale, T* to, int64_t stride, int count) {
  const int lane = static_cast<int>(threadIdx.x) % 32,
            warp = static_cast<int>(threadIdx.x) / 32 % kGroupWarps;
  const int line = group * kGroupRows + warp * 16 + lane / 4;
#pragma unroll
  for (int half = 0; half < 2; ++half)
#pragma unroll
    for (int i = 0; i < kSize / 8; ++i)
      *reinterpret_cast<uint32_t*>(tile.parts[i / 8] + place_of(line + 8 * half, i % 8) + lane % 4 * 4) =
          pack<T>(sum[4 * i + 2 * half] * scale(half), sum[4 * i + 2 * half + 1] * scale(half));
  meet_group(group);
  for (int i = static_cast<int>(threadIdx.x) % kGroupThreads; i < min(count, kGroupRows) * tile.kPieces;
       i += kGroupThreads)
    *reinterpret_cast<uint4*>(to + i / tile.kPieces * stride + i % tile.kPieces * 8) =
        tile.piece(group * kGroupRows + i / tile.kPieces, i % tile.kPieces);
}

/// Blocks' turn: tile after tile of some heads of sequences, then of others, so that what they read of the
/// same rows stays in the second cache.
struct Turn {
  int pair, tile;

  __device__ Turn(int pairs, int together, int tiles) {
    const int begin = static_cast<int>(blockIdx.x) / (together * tiles) * together,
              each = min(together, pairs - begin), place = static_cast<int>(blockIdx.x) - begin * tiles;
    pair = begin + place % each;
    tile = place / each;
  }
};

/// A head of a sequence, and where its rows are; `tile`: of a block's turn.
struct Sequence {
  int tile, head, index, start, length;

  /// Of `heads` heads of each sequence, whose blocks have `kRows` rows each.
  template <int kRows>
  __device__ static Sequence of_block(const FlashAttentionArgs& args, int64_t heads) {
    return Sequence(args, static_cast<int>(heads),
                    Turn(static_cast<int>(heads * args.sequences), static_cast<int>(args.together),
                         static_cast<int>((args.tokens + kRows - 1) / kRows)));
  }
  /// Where the sum of one of its rows is.
  __device__ int64_t sum_place(const FlashAttentionArgs& args, int row) const {
    const int64_t first = args.start != nullptr ? start * args.heads + head
                                                : (index * args.heads + head) * args.tokens,
                  stride = args.start != nullptr ? args.heads : 1;
    return first + row * stride;
  }

 private:
  __device__ Sequence(const FlashAttentionArgs& args, int heads, const Turn& turn)
      : tile(turn.tile), head(turn.pair % heads), index(turn.pair / heads) {
    const int tokens = static_cast<int>(args.tokens);
    start = args.start != nullptr ? args.start[index] : index * tokens;
    length = args.start != nullptr ? args.start[index + 1] - start : tokens;
  }
};

/// Heads of sequences whose blocks come together: all, if their keys and values fit into the second cache, so
/// that those with most to do come first of all; else as many as take a small part of it.
inline int64_t heads_together(const FlashAttentionArgs& args) {
  constexpr int64_t kMostBytes = int64_t{40} << 20, kPartBytes = int64_t{8} << 20;
  const int64_t bytes = 4 * args.tokens * args.head_size, pairs = args.heads * args.sequences;
  return pairs * bytes <= kMostBytes ? pairs : std::max<int64_t>(1, kPartBytes / bytes);
}

/// What TMA is told of rows of heads.
inline cudaError_t describe_rows(ElementType type, const RowsOfHeads& rows, int64_t elements, int64_t lines,
                                 int box_lines, CUtensorMap& map) {
  return describe({.type = type,
                   .begin = rows.begin,
                   .elements = elements,
                   .stride = rows.stride,
                   .lines = lines,
                   .box_lines = box_lines},
                  map);
}

}  // namespace fathom::cuda
