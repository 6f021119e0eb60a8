// The backward pass of attention within sequences of packed rows, on Hopper, in two kernels. In each a warp
// group keeps 64 rows of gradients in registers and goes through tiles of 64 lines that come by TMA: a group
// of queries through keys and values, a group of keys through queries and gradients of results. Scores are
// made so that they lie in registers as the next product's left operand, turned where keys are the rows, so
// neither scores nor their gradients are ever written.
#include <climits>

#include "cuda/awaited.cuh"
#include "cuda/flash_tiles.cuh"

namespace fathom::cuda {
namespace {

constexpr int kLines = 64;  ///< of a tile on its way
constexpr int kSteps = kLines / kTerms;
constexpr int kSums = kLines / 2;  ///< a thread's, of 64 × 64

constexpr int kStages = 2;       ///< tiles on their way at once
constexpr int kQueryBlocks = 4;  ///< at once on a multiprocessor, as registers allow
constexpr int kKeyBlocks = 3;

/// Two matrices of a block's own rows, and two of each tile.
template <int kSize>
struct alignas(kSwizzleBytes) Room {
  using Tile = HeadTile<kSize, kLines>;
  Tile own, own_other;
  Tile tile[kStages], tile_other[kStages];
};

struct Meetings {
  uint64_t own, full[kStages];
};

struct Maps {
  CUtensorMap q, k, v, grad;
};

/// sum = a bᵀ of two tiles, both along the head.
template <typename T, int kSize>
__device__ void multiply_tiles(float (&sum)[kSums], const HeadTile<kSize, kLines>& of_rows,
                               const HeadTile<kSize, kLines>& of_columns) {
  const Operand a(shared_address(&of_rows)), b(shared_address(&of_columns));
#pragma unroll
  for (int i = 0; i < kSize / kTerms; ++i) {
    const int bytes = i * kTerms / kLineElements * kLines * kLineBytes + i * kTerms % kLineElements * 2;
    wgmma::multiply_lines<T>(sum, a.at(bytes), b.at(bytes), i > 0);
  }
  cute::warpgroup_commit_batch();
}

/// sum += weights · tile, of 64 rows in registers and the tile's lines.
template <typename T, int kSize>
__device__ void add_weighed(float (&sum)[kSize / 2], const uint32_t (&weight)[kSteps][4],
                            const HeadTile<kSize, kLines>& tile) {
  const Operand b(shared_address(&tile), kLines * kLineBytes);
#pragma unroll
  for (int i = 0; i < kSteps; ++i)
    wgmma::multiply_held<T, wgmma::Major::MN>(sum, weight[i], b.at(i * kTerms * kLineBytes));
  cute::warpgroup_commit_batch();
}

/// A thread's sums of 64 × 64 as the left operand of a product.
template <typename T>
__device__ void pack_operand(const float (&sum)[kSums], uint32_t (&weight)[kSteps][4]) {
#pragma unroll
  for (int i = 0; i < kSteps; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) weight[i][j] = pack<T>(sum[8 * i + 2 * j], sum[8 * i + 2 * j + 1]);
}

/// The sequence of a block's rows, and these: 64 from `first` on.
struct Rows : Sequence {
  int first;

  /// Those with most to do come first: the last, or the first.
  __device__ Rows(const FlashAttentionArgs& args, int64_t heads, bool from_last)
      : Sequence(Sequence::of_block<kLines>(args, heads)) {
    first = (from_last ? (length + kLines - 1) / kLines - 1 - tile : tile) * kLines;
  }
  __device__ bool are_there() const { return first >= 0 && first < length; }
  /// Where their head begins in the first of them, `stride` elements from one row to the next.
  __device__ int64_t place(int64_t stride, int size) const { return (start + first) * stride + head * size; }
};

/// Of one thread.
__device__ void initialize(Meetings& meetings, int arrivals) {
  Full::init(&meetings.own, 1);
  for (int stage = 0; stage < kStages; ++stage) Full::init(&meetings.full[stage], arrivals);
  cutlass::arch::fence_barrier_init();
}

/// Of one thread: a block's own rows of two tensors.
template <int kSize>
__device__ void ask_for_own(Room<kSize>& room, Meetings& meetings, const CUtensorMap& map,
                            const CUtensorMap& other, const Rows& rows) {
  Full::arrive_and_expect_tx(&meetings.own, 2 * sizeof room.own);
  ask_for<kLines>(room.own, map, meetings.own, rows.head, rows.start + rows.first);
  ask_for<kLines>(room.own_other, other, meetings.own, rows.head, rows.start + rows.first);
}

/// Of one thread: a turn's lines of two tensors.
template <int kSize>
__device__ void ask_for_tiles(Room<kSize>& room, Meetings& meetings, int stage, const CUtensorMap& map,
                              const CUtensorMap& other, int head, int row) {
  Full::arrive_and_expect_tx(&meetings.full[stage], 2 * sizeof room.own);
  ask_for<kLines>(room.tile[stage], map, meetings.full[stage], head, row);
  ask_for<kLines>(room.tile_other[stage], other, meetings.full[stage], head, row);
}

/// Asks for scores and their gradients; `await_scores` and `await_grads` say when they are there.
template <typename T, int kSize>
__device__ void multiply_both(float (&score)[kSums], float (&grad)[kSums], const Room<kSize>& room,
                              int stage) {
  wgmma::hold(score);
  wgmma::hold(grad);
  cute::warpgroup_arrive();
  multiply_tiles<T>(score, room.own, room.tile[stage]);
  multiply_tiles<T>(grad, room.own_other, room.tile_other[stage]);
}
__device__ void await_scores(float (&score)[kSums]) {
  cute::warpgroup_wait<1>();
  wgmma::hold(score);
}
__device__ void await_grads(float (&grad)[kSums]) {
  cute::warpgroup_wait<0>();
  wgmma::hold(grad);
}

/// The logarithm, to base 2, of a query's sum of exponentials, and ⟨gradient, result⟩.
struct Terms {
  float shift[2], product[2];  ///< of the thread's two rows
};

/// Of the block's queries, which are there; written for the keys too.
template <typename T, int kSize>
__device__ Terms find_terms(const FlashAttentionGradArgs& args, const Rows& rows, Room<kSize>& room) {
  const FlashAttentionArgs& pass = args.pass;
  const int lane = static_cast<int>(threadIdx.x) % 32,
            line = static_cast<int>(threadIdx.x) / 32 * 16 + lane / 4;
  const int64_t stride = pass.heads * kSize;
  Terms terms;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int at = line + 8 * half;
    const bool is_there = rows.first + at < rows.length;
    const T* y = static_cast<const T*>(pass.y) + rows.place(stride, kSize) + at * stride;
    float product = 0;
#pragma unroll
    for (int i = 0; i < kSize / 32; ++i) {
      const int piece = lane % 4 * (kSize / 32) + i;
      const uint4 made = is_there ? *reinterpret_cast<const uint4*>(y + piece * 8) : make_uint4(0, 0, 0, 0),
                  grad = room.own_other.piece(at, piece);
      const uint32_t of_made[] = {made.x, made.y, made.z, made.w},
                     of_grad[] = {grad.x, grad.y, grad.z, grad.w};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float2 a = widened_pair<T>(of_made[j]), b = widened_pair<T>(of_grad[j]);
        product += a.x * b.x + a.y * b.y;
      }
    }
    const int row = rows.first + at;
    terms.product[half] = sum_of_four(product);
    terms.shift[half] = is_there ? pass.sums[rows.sum_place(pass, row)] * kLog2E : 0.0f;
    if (lane % 4 == 0 && is_there)
      args.terms[rows.head * pass.rows + rows.start + row] =
          make_float2(terms.shift[half], terms.product[half]);
  }
  return terms;
}

/// Gradients by queries, and what they leave for keys.
template <typename T, int kSize>
__global__ void __launch_bounds__(kGroupThreads, kQueryBlocks)
    query_kernel(Awaited<FlashAttentionGradArgs> awaited, const __grid_constant__ Maps maps) {
  extern __shared__ unsigned char memory[];
  __shared__ Meetings meetings;
  const FlashAttentionGradArgs& args = awaited.get();
  const FlashAttentionArgs& pass = args.pass;
  const Rows rows(pass, pass.heads, /*from_last=*/true);
  if (!rows.are_there()) return;
  auto& room = room_in<Room<kSize>>(memory);
  const int tiles = (rows.length + kLines - 1) / kLines,
            turns = pass.causal ? rows.first / kLines + 1 : tiles;
  const int kv_head = rows.head / static_cast<int>(pass.heads / pass.kv_heads);
  const auto ask = [&](int turn) {
    ask_for_tiles(room, meetings, turn % kStages, maps.k, maps.v, kv_head,
                  rows.start + (turns - 1 - turn) * kLines);
  };
  if (threadIdx.x == 0) {
    initialize(meetings, 1);
    ask_for_own(room, meetings, maps.q, maps.grad, rows);
    for (int turn = 0; turn < min(kStages, turns); ++turn) ask(turn);
  }
  __syncthreads();
  Full::wait(&meetings.own, 0);
  const Terms terms = find_terms<T>(args, rows, room);

  // A thread has rows lane / 4 and 8 more of its warp's 16, and pairs of columns.
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = rows.first + static_cast<int>(threadIdx.x) / 32 * 16 + lane / 4;
  const float scale = scale_log2<kSize>();
  float sum[kSize / 2] = {}, score[kSums], grad[kSums];
  uint32_t weight[kSteps][4];
  for (int first_turn = 0; first_turn < turns; first_turn += kStages)
#pragma unroll  // so that the stage, and all that follows from it, is known where products are asked for
    for (int stage = 0; stage < kStages; ++stage) {
      const int turn = first_turn + stage, first_key = (turns - 1 - turn) * kLines;
      if (turn >= turns) break;
      Full::wait(&meetings.full[stage], turn / kStages & 1);
      const bool is_cut = first_key + kLines > rows.length;
      if (is_cut) {
        clear_from(room.tile[stage], rows.length - first_key);
        publish_cleared(0);
      }
      multiply_both<T>(score, grad, room, stage);
      await_scores(score);
#pragma unroll
      for (int i = 0; i < kSums; ++i) score[i] = power_of_two(fmaf(score[i], scale, -terms.shift[i / 2 % 2]));
      await_grads(grad);
#pragma unroll
      for (int i = 0; i < kSums; ++i) score[i] *= grad[i] - terms.product[i / 2 % 2];
      if (is_cut || (pass.causal && first_key == rows.first))
#pragma unroll
        for (int i = 0; i < kSums; ++i) {
          const int key = first_key + i / 4 * 8 + lane % 4 * 2 + i % 2;
          if (key >= rows.length || (pass.causal && key > row + i / 2 % 2 * 8)) score[i] = 0;
        }
      pack_operand<T>(score, weight);
      wgmma::begin(sum);
      add_weighed<T>(sum, weight, room.tile[stage]);
      wgmma::finish(sum);
      if (turn + kStages >= turns) continue;
      meet_group(0);  // all have read what is written over
      if (threadIdx.x == 0) ask(turn + kStages);
    }
  write_lines(
      room.own, 0, sum, [&](int /*half*/) { return scale / kLog2E; },
      static_cast<T*>(args.q.begin) + rows.place(args.q.stride, kSize), args.q.stride,
      rows.length - rows.first);
}

/// A tile's queries' terms beside it: `FlashAttentionGradArgs::terms`.
struct alignas(16) TileTerms {
  float2 of[kLines];
};
template <int kSize>
struct KeyRoom {
  Room<kSize> tiles;
  TileTerms terms[kStages];
};

/// Of a warp: `count` terms, and zeros behind them, which `full` counts as one arrival of each lane.
__device__ void ask_for_terms(TileTerms& terms, const float2* from, int count, uint64_t& full) {
#pragma unroll
  for (int i = 0; i < kLines; i += 32) {
    const int at = i + static_cast<int>(threadIdx.x) % 32;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(shared_address(&terms.of[at])),
                 "l"(from + (at < count ? at : 0)), "r"(at < count ? 8 : 0)
                 : "memory");
  }
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(shared_address(&full))
               : "memory");
}

/// Gradients by keys and values, which all heads of queries that share them add up.
template <typename T, int kSize>
__global__ void __launch_bounds__(kGroupThreads, kKeyBlocks)
    key_kernel(Awaited<FlashAttentionGradArgs> awaited, const __grid_constant__ Maps maps) {
  extern __shared__ unsigned char memory[];
  __shared__ Meetings meetings;
  const FlashAttentionGradArgs& args = awaited.get();
  const FlashAttentionArgs& pass = args.pass;
  const Rows rows(pass, pass.kv_heads, /*from_last=*/!pass.causal);
  if (!rows.are_there()) return;
  auto& all = room_in<KeyRoom<kSize>>(memory);
  auto& room = all.tiles;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  // Tiles of queries of one head after those of another.
  const int begin = pass.causal ? rows.first / kLines : 0, each = (rows.length + kLines - 1) / kLines - begin;
  const int shared = static_cast<int>(pass.heads / pass.kv_heads), turns = each * shared;
  const auto ask = [&](int turn) {  // of a warp
    const int stage = turn % kStages, head = rows.head * shared + turn / each,
              query = (begin + turn % each) * kLines, row = rows.start + query;
    if (lane == 0) ask_for_tiles(room, meetings, stage, maps.q, maps.grad, head, row);
    ask_for_terms(all.terms[stage], args.terms + head * pass.rows + row, rows.length - query,
                  meetings.full[stage]);
  };
  if (threadIdx.x == 0) {
    initialize(meetings, 1 + 32);
    ask_for_own(room, meetings, maps.k, maps.v, rows);
  }
  if (threadIdx.x < 32) {
    __syncwarp();
    for (int turn = 0; turn < min(kStages, turns); ++turn) ask(turn);
  }
  __syncthreads();
  Full::wait(&meetings.own, 0);

  const float scale = scale_log2<kSize>();
  const int row = rows.first + static_cast<int>(threadIdx.x) / 32 * 16 + lane / 4;
  float by_key[kSize / 2] = {}, by_value[kSize / 2] = {}, score[kSums], grad[kSums];
  uint32_t weight[kSteps][4], grad_weight[kSteps][4];
  for (int first_turn = 0; first_turn < turns; first_turn += kStages)
#pragma unroll
    for (int stage = 0; stage < kStages; ++stage) {
      const int turn = first_turn + stage, query = (begin + turn % each) * kLines;
      if (turn >= turns) break;
      Full::wait(&meetings.full[stage], turn / kStages & 1);
      const bool is_cut = query + kLines > rows.length;
      if (is_cut) {
        clear_from(room.tile[stage], rows.length - query);
        clear_from(room.tile_other[stage], rows.length - query);
        publish_cleared(0);
      }
      multiply_both<T>(score, grad, room, stage);
      await_scores(score);
      const auto* terms = reinterpret_cast<const float4*>(all.terms[stage].of) + lane % 4;
#pragma unroll
      for (int i = 0; i < kLines / 8; ++i) {
        const float4 pair = terms[4 * i];
#pragma unroll
        for (int j = 0; j < 4; ++j)
          score[4 * i + j] = power_of_two(fmaf(score[4 * i + j], scale, j % 2 == 0 ? -pair.x : -pair.z));
      }
      if (is_cut || (pass.causal && query == rows.first))
#pragma unroll
        for (int i = 0; i < kSums; ++i) {
          const int at = query + i / 4 * 8 + lane % 4 * 2 + i % 2;
          if (at >= rows.length || (pass.causal && at < row + i / 2 % 2 * 8)) score[i] = 0;
        }
      pack_operand<T>(score, weight);
      await_grads(grad);
#pragma unroll
      for (int i = 0; i < kLines / 8; ++i) {
        const float4 pair = terms[4 * i];
#pragma unroll
        for (int j = 0; j < 4; ++j)
          grad[4 * i + j] = score[4 * i + j] * (grad[4 * i + j] - (j % 2 == 0 ? pair.y : pair.w));
      }
      pack_operand<T>(grad, grad_weight);
      wgmma::hold(by_key);
      wgmma::begin(by_value);
      add_weighed<T>(by_value, weight, room.tile_other[stage]);
      add_weighed<T>(by_key, grad_weight, room.tile[stage]);
      wgmma::finish(by_value);
      wgmma::hold(by_key);
      if (turn + kStages >= turns) continue;
      meet_group(0);
      if (threadIdx.x < 32) ask(turn + kStages);
    }
  const int count = rows.length - rows.first;
  write_lines(
      room.own, 0, by_key, [&](int /*half*/) { return scale / kLog2E; },
      static_cast<T*>(args.k.begin) + rows.place(args.k.stride, kSize), args.k.stride, count);
  write_lines(
      room.own_other, 0, by_value, [](int /*half*/) { return 1.0f; },
      static_cast<T*>(args.v.begin) + rows.place(args.v.stride, kSize), args.v.stride, count);
}

template <typename Kernel>
cudaError_t launch(const Kernel& kernel, size_t room_bytes, int64_t heads, const FlashAttentionGradArgs& args,
                   const Maps& maps, cudaStream_t stream) {
  const auto bytes = room_bytes + kSwizzleBytes;
  if (const cudaError_t error =
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)))
    return error;
  const int64_t blocks = (args.pass.tokens + kLines - 1) / kLines * heads * args.pass.sequences;
  launch_awaiting<Launch::kInTurn>(kernel, dim3(static_cast<unsigned>(blocks)), dim3(kGroupThreads), bytes,
                                   stream, args, maps);
  return cudaGetLastError();
}

template <typename T, int kSize>
cudaError_t attend_backward(ElementType type, FlashAttentionGradArgs args, cudaStream_t stream) {
  FlashAttentionArgs& pass = args.pass;
  pass.together = heads_together(pass);
  Maps maps;
  const int64_t width = pass.heads * kSize, kv_width = pass.kv_heads * kSize;
  for (const cudaError_t error : {describe_rows(type, pass.q, width, pass.rows, kLines, maps.q),
                                  describe_rows(type, pass.k, kv_width, pass.rows, kLines, maps.k),
                                  describe_rows(type, pass.v, kv_width, pass.rows, kLines, maps.v),
                                  describe_rows(type, args.grad, width, pass.rows, kLines, maps.grad)})
    if (error != cudaSuccess) return error;
  if (const cudaError_t error =
          launch(query_kernel<T, kSize>, sizeof(Room<kSize>), pass.heads, args, maps, stream))
    return error;
  return launch(key_kernel<T, kSize>, sizeof(KeyRoom<kSize>), pass.kv_heads, args, maps, stream);
}

}  // namespace

bool flash_attention_grad_fits(ElementType type, const FlashAttentionGradArgs& args) {
  for (const auto* begin : {static_cast<const void*>(args.q.begin), static_cast<const void*>(args.k.begin),
                            static_cast<const void*>(args.v.begin), args.grad.begin})
    if (reinterpret_cast<uintptr_t>(begin) % 16 != 0) return false;
  for (const int64_t stride : {args.q.stride, args.k.stride, args.v.stride, args.grad.stride})
    if (stride % 8 != 0) return false;
  return args.pass.head_size == 64 && flash_attention_fits(type, args.pass) &&
         (args.pass.tokens + kLines - 1) / kLines * args.pass.heads * args.pass.sequences <= INT_MAX;
}

cudaError_t launch_flash_attention_grad(ElementType type, const FlashAttentionGradArgs& args,
                                        cudaStream_t stream) {
  if (!flash_attention_grad_fits(type, args)) return cudaErrorInvalidValue;
  return type == ElementType::kHalf ? attend_backward<__half, 64>(type, args, stream)
                                    : attend_backward<__nv_bfloat16, 64>(type, args, stream);
}

}  // namespace fathom::cuda
