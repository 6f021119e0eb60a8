// Attention of explored rows. They are few and in order of their places, so neighbours see nearly the same
// keys: a block takes 16 of them, of one head. Its warps share the keys that the last of them sees, each
// loads its own straight into the operands of tensor cores and keeps a softmax of its own, and all are joined
// at the end. Nothing waits for another warp before that, since what takes time here is the way to the keys.
#include <algorithm>
#include <climits>

#include "cuda/awaited.cuh"
#include "cuda/counted_rows.h"
#include "cuda/row_pieces.cuh"

namespace fathom::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kTile = 16;               ///< rows of a block
constexpr int kKeys = 16;               ///< of a warp's turn
constexpr int kPiece = 32;              ///< elements of a head
constexpr int kPartWidth = kPiece + 4;  ///< so that 8 lanes, which write two rows, meet all banks
constexpr int kMostSize = 8 * kPiece;

/// Blocks at once on a multiprocessor, as registers allow.
constexpr int blocks_at_once(int pieces) {
  return pieces <= 2 ? 2 : 1;
}

/// Rows of queries, keys or values, at the lane's 8 elements of one head's first piece.
template <typename T>
struct HeadRows {
  const T* first;
  int64_t stride;
  int left;  ///< of the head, from there on

  __device__ HeadRows(const ExploredAttentionArgs& args, int64_t head)
      : first(static_cast<const T*>(args.qkv) + head * args.head_size + threadIdx.x % 4 * 8),
        stride((args.heads + 2 * args.kv_heads) * args.head_size),
        left(static_cast<int>(args.head_size) - static_cast<int>(threadIdx.x % 4) * 8) {}

  /// Zeros behind the head's end, and of a row that is not `real`, which is not read.
  __device__ uint4 piece(int row, int index, bool real = true) const {
    if (!real || index * kPiece >= left) return make_uint4(0, 0, 0, 0);
    return load16(first + row * stride + index * kPiece);
  }
};

/// Softmax over a warp's keys as it goes along; a lane has rows g and g + 8 of the tile.
template <int kPieces>
struct RowSums {
  float most[2] = {-INFINITY, -INFINITY};  ///< scores before they are scaled
  float total[2] = {};                     ///< of the lane's own columns
  float sum[kPieces][4][4] = {};

  /// Scores of 16 keys become probabilities, beside which what was summed keeps its weight.
  __device__ void weigh(float (&score)[2][4], float scale_log2) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int low = 2 * half, high = low + 1;
      const float top =
          max_of_four(fmaxf(fmaxf(score[0][low], score[0][high]), fmaxf(score[1][low], score[1][high])));
      const float higher = fmaxf(most[half], top);
      // A row that has seen no key yet: no difference of infinities.
      const float begin = higher == -INFINITY ? 0.0f : higher * scale_log2;
      const float kept = power_of_two(fmaf(most[half], scale_log2, -begin));
      most[half] = higher;
      total[half] *= kept;
#pragma unroll
      for (int n = 0; n < 2; ++n)
#pragma unroll
        for (int i = low; i <= high; ++i) {
          score[n][i] = power_of_two(fmaf(score[n][i], scale_log2, -begin));
          total[half] += score[n][i];
        }
#pragma unroll
      for (int j = 0; j < kPieces; ++j)
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          sum[j][n][low] *= kept;
          sum[j][n][high] *= kept;
        }
    }
  }
};

template <typename T>
__device__ float dot(const uint4& x, const uint4& y) {
  const auto of_pairs = [](uint32_t a, uint32_t b) {
    const float2 left = widened_pair<T>(a), right = widened_pair<T>(b);
    return left.x * right.x + left.y * right.y;
  };
  return of_pairs(x.x, y.x) + of_pairs(x.y, y.y) + of_pairs(x.z, y.z) + of_pairs(x.w, y.w);
}

/// The rows' own keys and values, which are not among the active: the sums begin with them.
template <typename T, int kPieces>
__device__ void see_themselves(const HeadRows<T>& keys, const HeadRows<T>& values, const int (&row)[2],
                               const uint4 (&query)[kPieces][2], RowSums<kPieces>& sums) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float score = 0;
#pragma unroll
    for (int j = 0; j < kPieces; ++j) {
      const uint4 value = values.piece(row[half], j);
      score += dot<T>(query[j][half], keys.piece(row[half], j));
      const uint32_t pair[4] = {value.x, value.y, value.z, value.w};
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        const float2 wide = widened_pair<T>(pair[n]);
        sums.sum[j][n][2 * half] = wide.x;
        sums.sum[j][n][2 * half + 1] = wide.y;
      }
    }
    sums.most[half] = sum_of_four(score);
    sums.total[half] = threadIdx.x % 4 == 0 ? 1.0f : 0.0f;
  }
}

/// The warp's share of what the tile of rows from `first` to `last` sees.
template <typename T, int kPieces>
__device__ void attend(const ExploredAttentionArgs& args, int first, int last, int active, int head,
                       float scale_log2, RowSums<kPieces>& sums) {
  // Pieces that are asked for before the turn in which they are multiplied: those that registers hold.
  constexpr bool kAhead = kPieces <= 4;
  constexpr int kHeld = kAhead ? kPieces : 1;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  const int tokens = static_cast<int>(args.rows.tokens);
  const int* place = args.rows.place;
  const int kv_head = head / static_cast<int>(args.heads / args.kv_heads);
  const HeadRows<T> queries(args, head), keys(args, args.heads + kv_head),
      values(args, args.heads + args.kv_heads + kv_head);

  const int first_place = place[first];
  // Behind what the tile's last row sees.
  const int end_place = args.causal ? place[last] : (place[last] / tokens + 1) * tokens;
  int row[2], begin[2], seen[2];  // places that a row sees: so many from there on
  uint4 query[kPieces][2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    row[half] = min(first + g + 8 * half, last);
    begin[half] = place[row[half]] / tokens * tokens;
    seen[half] = args.causal ? place[row[half]] - begin[half] : tokens;
#pragma unroll
    for (int j = 0; j < kPieces; ++j) query[j][half] = queries.piece(row[half], j);
  }

  // Of the keys of the tile's sequences the warp takes every eighth group.
  const int base = args.rows.start[first_place / tokens] + warp * kKeys;
  uint4 key[kHeld][2], value[kHeld][2];
  int key_place = 0;
  const auto load = [&](uint4(&to)[kHeld][2], const HeadRows<T>& from, int turn, bool there, int piece,
                        int index) {
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const int of = base + turn * kWarps * kKeys + 8 * n + g;
      to[index][n] = from.piece(of, piece, there && of < active);
    }
  };
  const auto load_places = [&](int turn, bool there) {
    const int of = base + turn * kWarps * kKeys + lane % kKeys;
    key_place = there && of < active ? place[of] : INT_MAX;
  };
  if constexpr (kAhead)
#pragma unroll
    for (int j = 0; j < kPieces; ++j) {
      load(key, keys, 0, true, j, j);
      load(value, values, 0, true, j, j);
    }
  load_places(0, true);

  // Until where the tile's last row sees.
  int turns = 0, more;
  do {
    const int of = base + (turns + lane) * kWarps * kKeys;
    more = __popc(__ballot_sync(kAllLanes, of < active && place[of] < end_place));
    turns += more;
  } while (more == 32);

  if (warp == kWarps - 1) see_themselves<T>(keys, values, row, query, sums);

  for (int turn = 0; turn < turns; ++turn) {
    float score[2][4] = {};
#pragma unroll
    for (int j = 0; j < kPieces; ++j) {
      if constexpr (!kAhead) load(key, keys, turn, true, j, 0);
      const RowOperand<T> rows(query[j][0], query[j][1]);
#pragma unroll
      for (int n = 0; n < 2; ++n) rows.times(score[n], key[kAhead ? j : 0][n]);
    }
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int at = __shfl_sync(kAllLanes, key_place, 8 * n + 2 * t + i);
#pragma unroll
        for (int half = 0; half < 2; ++half)
          if (at < begin[half] || at - begin[half] >= seen[half]) score[n][2 * half + i] = -INFINITY;
      }
    const bool goes_on = turn + 1 < turns;
    load_places(turn + 1, goes_on);
    if constexpr (kAhead)
#pragma unroll
      for (int j = 0; j < kPieces; ++j) load(key, keys, turn + 1, goes_on, j, j);
    sums.weigh(score, scale_log2);
    uint32_t weight[4];
    pack_rows<T, 2>(score[0], weight[0], weight[1]);
    pack_rows<T, 2>(score[1], weight[2], weight[3]);
#pragma unroll
    for (int j = 0; j < kPieces; ++j) {
      if constexpr (!kAhead) load(value, values, turn, true, j, 0);
      const uint4(&held)[2] = value[kAhead ? j : 0];
      multiply_places<T>(sums.sum[j], weight, transposed(held[0]), transposed(held[1]));
      if constexpr (kAhead) load(value, values, turn + 1, goes_on, j, j);
    }
  }
}

/// Shared memory of a block.
struct Parts {
  alignas(16) float sum[kWarps][kTile][kPartWidth];
  float most[kWarps][kTile], total[kWarps][kTile];
};

/// What all warps found, a piece after the other; a thread writes two neighbouring elements of each.
template <typename T, int kPieces>
__device__ void join(const ExploredAttentionArgs& args, int first, int last, int head, float scale_log2,
                     const RowSums<kPieces>& sums, Parts& parts) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float total = sum_of_four(sums.total[half]);
    if (t != 0) continue;
    parts.most[warp][g + 8 * half] = sums.most[half] * scale_log2;
    parts.total[warp][g + 8 * half] = total;
  }
  const int own = threadIdx.x / 16, column = threadIdx.x % 16 * 2, size = static_cast<int>(args.head_size);
  T* y = static_cast<T*>(args.y) + (int64_t{first + own} * args.heads + head) * size + column;
  float share[kWarps];
#pragma unroll
  for (int j = 0; j < kPieces; ++j) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const auto& sum = sums.sum[j];
      const int low = 2 * half, high = low + 1;
      auto* to = reinterpret_cast<float4*>(parts.sum[warp][g + 8 * half] + 8 * t);
      to[0] = make_float4(sum[0][low], sum[0][high], sum[1][low], sum[1][high]);
      to[1] = make_float4(sum[2][low], sum[2][high], sum[3][low], sum[3][high]);
    }
    __syncthreads();
    if (j == 0) {
      float top = parts.most[0][own], total = 0;
#pragma unroll
      for (int w = 1; w < kWarps; ++w) top = fmaxf(top, parts.most[w][own]);
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {
        share[w] = power_of_two(parts.most[w][own] - top);
        total += share[w] * parts.total[w][own];
      }
#pragma unroll
      for (int w = 0; w < kWarps; ++w) share[w] /= total;
    }
    float low = 0, high = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float2 sum = *reinterpret_cast<const float2*>(parts.sum[w][own] + column);
      low += share[w] * sum.x;
      high += share[w] * sum.y;
    }
    if (first + own <= last && j * kPiece + column < size)
      *reinterpret_cast<uint32_t*>(y + j * kPiece) = pack<T>(low, high);
    __syncthreads();
  }
}

template <typename T, int kPieces>
__global__ void __launch_bounds__(kThreads, blocks_at_once(kPieces))
    explored_kernel(Awaited<ExploredAttentionArgs> awaited) {
  const ExploredAttentionArgs& args = awaited.get();
  __shared__ Parts parts;
  const int active = args.rows.start[args.rows.sequences], all = *args.used;
  const int heads = static_cast<int>(args.heads);
  const float scale_log2 = rsqrtf(static_cast<float>(args.head_size)) * kLog2OfE;
  const int64_t items = int64_t{(all - active + kTile - 1) / kTile} * heads;
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const int first = active + static_cast<int>(item / heads) * kTile, last = min(first + kTile, all) - 1;
    const int head = static_cast<int>(item % heads);
    RowSums<kPieces> sums;
    attend<T>(args, first, last, active, head, scale_log2, sums);
    join<T>(args, first, last, head, scale_log2, sums, parts);
  }
}

template <typename T, int kPieces>
cudaError_t explored(const ExploredAttentionArgs& args, cudaStream_t stream) {
  const int64_t most = (args.rows.sequences * args.rows.tokens + kTile - 1) / kTile * args.heads;
  const int64_t at_once = int64_t{kMultiprocessors} * blocks_at_once(kPieces);
  const auto blocks = static_cast<unsigned>(std::clamp<int64_t>(most, 1, at_once));
  launch_awaiting(explored_kernel<T, kPieces>, blocks, kThreads, 0, stream, args);
  return cudaGetLastError();
}

template <typename T>
cudaError_t explored_of(const ExploredAttentionArgs& args, cudaStream_t stream) {
  if (args.head_size <= kPiece) return explored<T, 1>(args, stream);
  if (args.head_size <= 2 * kPiece) return explored<T, 2>(args, stream);
  if (args.head_size <= 4 * kPiece) return explored<T, 4>(args, stream);
  return explored<T, 8>(args, stream);
}

}  // namespace

cudaError_t launch_explored_attention(ElementType type, const ExploredAttentionArgs& args,
                                      cudaStream_t stream) {
  if (args.head_size > kMostSize || args.head_size % 8 != 0) return cudaErrorInvalidValue;
  if (type == ElementType::kBFloat16) return explored_of<__nv_bfloat16>(args, stream);
  return type == ElementType::kHalf ? explored_of<__half>(args, stream) : cudaErrorInvalidValue;
}

}  // namespace fathom::cuda
