// Attention within sequences of packed rows, on Hopper. A block has 128 queries of one head, 64 to a warp
// group, and goes through their keys from the last to the first. Keys and values come by TMA, two tiles
// ahead; the last warp that is through with a tile asks for the one that takes its place, so that no warp is
// there for loads alone and none waits for another. Two blocks share a multiprocessor: while one's groups
// take exponentials, the other's multiply.
#include "cuda/flash_attention.h"

#include <climits>

#include "cuda/awaited.cuh"
#include "cuda/flash_tiles.cuh"
#include "cuda/ragged_offsets.cuh"

namespace fathom::cuda {
namespace {

constexpr int kGroups = 2;
constexpr int kThreads = kGroups * kGroupThreads;
constexpr int kRows = kGroups * kGroupRows;  ///< queries of a block
constexpr int kStages = 2;                   ///< tiles of keys, and of values, on their way at once
constexpr int kBlocksAtOnce = 2;             ///< on a multiprocessor

constexpr int kBox = 64;  ///< lines that are asked for at once

/// Keys of a tile: so many that scores and sums lie in registers together.
constexpr int keys_of(int size) {
  return size == 64 ? 128 : 64;
}

template <int kSize>
struct alignas(kSwizzleBytes) Room {
  using Keys = HeadTile<kSize, keys_of(kSize)>;
  HeadTile<kSize, kRows> queries;
  Keys tiles[2][kStages];  ///< of keys and of values
};

enum Kind { kKeyTiles, kValueTiles, kKinds };

struct Meetings {
  uint64_t full[kKinds][kStages];
  unsigned left[kKinds][kStages];  ///< warps that were through with a tile, of all turns
};

/// One more warp is through with what `left` counts: so many are now.
__device__ int count_leaving(unsigned& left) {
  unsigned before;
  asm volatile("atom.acq_rel.cta.shared::cta.add.u32 %0, [%1], 1;"
               : "=r"(before)
               : "r"(shared_address(&left))
               : "memory");
  return static_cast<int>(before) + 1;
}

/// One block's part: queries from `first` on.
struct Part : Sequence {
  int kv_head, first;
  int blocks;  ///< of keys, that they look at
  int warps;   ///< that have queries

  __device__ Part(const FlashAttentionArgs& args, int keys)
      : Sequence(Sequence::of_block<kRows>(args, args.heads)) {
    kv_head = head / static_cast<int>(args.heads / args.kv_heads);
    first = ((length + kRows - 1) / kRows - 1 - tile) * kRows;  // those with most to do first
    const int end = args.causal ? min(first + kRows, length) : length;
    blocks = (end + keys - 1) / keys;
    warps = length - first > kGroupRows ? kGroups * kGroupWarps : kGroupWarps;
  }
};

struct Maps {
  CUtensorMap q, k, v;
};

/// What is asked for, and when.
template <int kSize>
class Loads {
 public:
  __device__ Loads(const Part& part, const Maps& maps, Room<kSize>& room, Meetings& meetings)
      : part_(part), maps_(maps), room_(room), meetings_(meetings) {}

  /// Of one thread: queries, and tiles of the first turns.
  __device__ void begin() const {
    Full::arrive_and_expect_tx(&meetings_.full[kKeyTiles][0],
                               sizeof room_.queries + sizeof room_.tiles[0][0]);
    ask_for<kBox>(room_.queries, maps_.q, meetings_.full[kKeyTiles][0], part_.head,
                  part_.start + part_.first);
    fill(kKeyTiles, 0);
    ask(kValueTiles, 0);
    for (int turn = 1; turn < min(kStages, part_.blocks); ++turn) {
      ask(kKeyTiles, turn);
      ask(kValueTiles, turn);
    }
  }

  /// Until a turn's tile is there.
  __device__ void await(Kind kind, int turn) const {
    Full::wait(&meetings_.full[kind][turn % kStages], turn / kStages & 1);
  }

  /// Of all lanes of a warp, which has read a turn's tile.
  __device__ void leave(Kind kind, int turn) const {
    if (turn + kStages >= part_.blocks || threadIdx.x % 32 != 0) return;
    if (count_leaving(meetings_.left[kind][turn % kStages]) == (turn / kStages + 1) * part_.warps)
      ask(kind, turn + kStages);
  }

 private:
  static constexpr int kKeys = keys_of(kSize);

  __device__ void ask(Kind kind, int turn) const {
    Full::arrive_and_expect_tx(&meetings_.full[kind][turn % kStages], sizeof room_.tiles[0][0]);
    fill(kind, turn);
  }
  __device__ void fill(Kind kind, int turn) const {
    const int stage = turn % kStages;
    ask_for<kBox>(room_.tiles[kind][stage], kind == kKeyTiles ? maps_.k : maps_.v,
                  meetings_.full[kind][stage], part_.kv_head,
                  part_.start + (part_.blocks - 1 - turn) * kKeys);
  }

  const Part& part_;
  const Maps& maps_;
  Room<kSize>& room_;
  Meetings& meetings_;
};

/// A warp group's queries. A thread has rows lane / 4 and 8 more of its warp's 16, and pairs of columns.
template <typename T, int kSize>
class Rows {
 public:
  __device__ Rows(const FlashAttentionArgs& args, const Part& part, Room<kSize>& room)
      : part_(part),
        room_(room),
        group_(static_cast<int>(threadIdx.x) / kGroupThreads),
        row_(part.first + static_cast<int>(threadIdx.x) / 32 * 16 + static_cast<int>(threadIdx.x) % 32 / 4),
        scale_log2_(scale_log2<kSize>()),
        causal_(args.causal) {}

  /// Turns whose keys lie behind all of the group's queries.
  __device__ int pass_unseen(const Loads<kSize>& loads) const {
    if (kKeys >= kRows || !causal_) return 0;
    const int unseen =
        max(0, part_.blocks - (part_.first + group_ * kGroupRows + kGroupRows + kKeys - 1) / kKeys);
    for (int turn = 0; turn < unseen; ++turn)
      for (const Kind kind : {kKeyTiles, kValueTiles}) {
        loads.await(kind, turn);
        loads.leave(kind, turn);
      }
    return unseen;
  }

  /// Scores of a tile of keys.
  __device__ void score(int stage) {
    const Operand queries(shared_address(&room_.queries) + group_ * kGroupRows * kLineBytes),
        keys(shared_address(&room_.tiles[kKeyTiles][stage]));
    wgmma::begin(score_);
#pragma unroll
    for (int i = 0; i < kSize / kTerms; ++i) {
      const int part = i * kTerms / kLineElements, bytes = i * kTerms % kLineElements * 2;
      wgmma::multiply_lines<T>(score_, queries.at(part * kRows * kLineBytes + bytes),
                               keys.at(part * kKeys * kLineBytes + bytes), i > 0);
    }
    cute::warpgroup_commit_batch();
    wgmma::finish(score_);
  }

  /// Scores become probabilities, beside which what was summed keeps its weight.
  __device__ void weigh(int block) {
    const int first_key = block * kKeys;
    if (first_key + kKeys > part_.length || (causal_ && first_key + kKeys - 1 > row_ - lane_row()))
      hide(first_key);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float top = most_[half];
#pragma unroll
      for (int i = 0; i < kKeys / 8; ++i)
        top = fmaxf(top, fmaxf(score_[4 * i + 2 * half], score_[4 * i + 2 * half + 1]));
      top = max_of_four(top);
      const float kept = power_of_two((most_[half] - top) * scale_log2_), shift = top * scale_log2_;
      most_[half] = top;
      float total = 0;
#pragma unroll
      for (int i = 0; i < kKeys / 8; ++i)
#pragma unroll
        for (int pair = 0; pair < 2; ++pair) {
          float& score = score_[4 * i + 2 * half + pair];
          score = power_of_two(fmaf(score, scale_log2_, -shift));
          total += score;
        }
      total_[half] = fmaf(total_[half], kept, total);
#pragma unroll
      for (int i = 0; i < kSize / 8; ++i)
#pragma unroll
        for (int pair = 0; pair < 2; ++pair) sum_[4 * i + 2 * half + pair] *= kept;
    }
#pragma unroll
    for (int i = 0; i < kKeys / kTerms; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) weight_[i][j] = pack<T>(score_[8 * i + 2 * j], score_[8 * i + 2 * j + 1]);
  }

  /// Values behind the sequence's end.
  __device__ void clear_behind_end(int stage, int block) {
    const int there = part_.length - block * kKeys;
    if (there >= kKeys) return;
    clear_from(room_.tiles[kValueTiles][stage], there);
    publish_cleared(group_);
  }

  /// Adds a tile of values by their weights.
  __device__ void add(int stage) {
    const Operand values(shared_address(&room_.tiles[kValueTiles][stage]), kKeys * kLineBytes);
    wgmma::begin(sum_);
#pragma unroll
    for (int i = 0; i < kKeys / kTerms; ++i)
      wgmma::multiply_held<T, wgmma::Major::MN>(sum_, weight_[i], values.at(i * kTerms * kLineBytes));
    cute::warpgroup_commit_batch();
    wgmma::finish(sum_);
  }

  /// Writes the queries' results, by way of their own place in shared memory.
  __device__ void write(const FlashAttentionArgs& args) {
    float scale[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float total = sum_of_four(total_[half]);
      scale[half] = 1 / total;
      const int row = row_ + 8 * half;
      if (threadIdx.x % 4 == 0 && row < part_.length)
        args.sums[part_.sum_place(args, row)] = (most_[half] * scale_log2_ + log2f(total)) / kLog2E;
    }
    const int first = part_.first + group_ * kGroupRows;
    const int64_t stride = args.heads * kSize;
    write_lines(
        room_.queries, group_, sum_, [&](int half) { return scale[half]; },
        static_cast<T*>(args.y) + (part_.start + first) * stride + part_.head * kSize, stride,
        part_.length - first);
  }

 private:
  static constexpr int kKeys = keys_of(kSize);

  __device__ static int lane_row() {
    return static_cast<int>(threadIdx.x) % 32 / 4;
  }

  /// Written out here, and in the backward pass: one function for all takes more registers than there are.
  __device__ void hide(int first_key) {
#pragma unroll
    for (int i = 0; i < kKeys / 8; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int key = first_key + 8 * i + static_cast<int>(threadIdx.x) % 4 * 2 + j % 2;
        if (key >= part_.length || (causal_ && key > row_ + j / 2 * 8)) score_[4 * i + j] = -INFINITY;
      }
  }

  const Part& part_;
  Room<kSize>& room_;
  int group_, row_;
  float scale_log2_;
  bool causal_;
  float score_[kKeys / 2];
  uint32_t weight_[kKeys / kTerms][4];
  float sum_[kSize / 2] = {};
  float most_[2] = {-INFINITY, -INFINITY};  ///< scores before they are scaled
  float total_[2] = {};                     ///< of the thread's own columns
};

template <typename T, int kSize>
__global__ void __launch_bounds__(kThreads, kBlocksAtOnce)
    attention_kernel(Awaited<FlashAttentionArgs> awaited, const __grid_constant__ Maps maps) {
  extern __shared__ unsigned char memory[];
  __shared__ Meetings meetings;
  const FlashAttentionArgs& args = awaited.get();
  if (args.offsets.length != nullptr && blockIdx.x + 1 == gridDim.x)
    for (int64_t i = threadIdx.x; i <= args.sequences; i += kThreads) write_ragged_offsets(args.offsets, i);
  const Part part(args, keys_of(kSize));
  if (part.first < 0) return;
  auto& room = room_in<Room<kSize>>(memory);
  const Loads<kSize> loads(part, maps, room, meetings);
  if (threadIdx.x == 0) {
    for (int kind = 0; kind < kKinds; ++kind)
      for (int stage = 0; stage < kStages; ++stage) {
        Full::init(&meetings.full[kind][stage], 1);
        meetings.left[kind][stage] = 0;
      }
    cutlass::arch::fence_barrier_init();
    loads.begin();
  }
  __syncthreads();
  if (static_cast<int>(threadIdx.x) / 32 >= part.warps) return;
  Rows<T, kSize> rows(args, part, room);
  for (int turn = rows.pass_unseen(loads); turn < part.blocks; ++turn) {
    const int stage = turn % kStages, block = part.blocks - 1 - turn;
    loads.await(kKeyTiles, turn);
    rows.score(stage);
    loads.leave(kKeyTiles, turn);
    rows.weigh(block);
    loads.await(kValueTiles, turn);
    rows.clear_behind_end(stage, block);
    rows.add(stage);
    loads.leave(kValueTiles, turn);
  }
  rows.write(args);
}

template <typename T, int kSize>
cudaError_t attend(ElementType type, FlashAttentionArgs args, cudaStream_t stream) {
  args.together = heads_together(args);
  Maps maps;
  const int64_t width = args.heads * kSize, kv_width = args.kv_heads * kSize;
  for (const cudaError_t error : {describe_rows(type, args.q, width, args.rows, kBox, maps.q),
                                  describe_rows(type, args.k, kv_width, args.rows, kBox, maps.k),
                                  describe_rows(type, args.v, kv_width, args.rows, kBox, maps.v)})
    if (error != cudaSuccess) return error;
  constexpr size_t kBytes = sizeof(Room<kSize>) + kSwizzleBytes;
  const auto kernel = attention_kernel<T, kSize>;
  if (const cudaError_t error =
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(kBytes)))
    return error;
  const int64_t blocks = (args.tokens + kRows - 1) / kRows * args.heads * args.sequences;
  launch_awaiting(kernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), kBytes, stream, args, maps);
  return cudaGetLastError();
}

template <typename T>
cudaError_t attend(ElementType type, const FlashAttentionArgs& args, cudaStream_t stream) {
  return args.head_size == 64 ? attend<T, 64>(type, args, stream) : attend<T, 128>(type, args, stream);
}

}  // namespace

bool flash_attention_fits(ElementType type, const FlashAttentionArgs& args) {
  for (const RowsOfHeads* rows : {&args.q, &args.k, &args.v})
    if (reinterpret_cast<uintptr_t>(rows->begin) % 16 != 0 || rows->stride % 8 != 0) return false;
  return (type == ElementType::kHalf || type == ElementType::kBFloat16) &&
         (args.head_size == 64 || args.head_size == 128) && args.rows > 0 && args.rows <= INT_MAX &&
         args.sequences > 0 && args.tokens > 0 && args.heads > 0 && args.kv_heads > 0 &&
         args.heads % args.kv_heads == 0 &&
         (args.tokens + kRows - 1) / kRows * args.heads * args.sequences <= INT_MAX;
}

cudaError_t launch_flash_attention(ElementType type, const FlashAttentionArgs& args, cudaStream_t stream) {
  if (!flash_attention_fits(type, args)) return cudaErrorInvalidValue;
  return type == ElementType::kHalf ? attend<__half>(type, args, stream)
                                    : attend<__nv_bfloat16>(type, args, stream);
}

}  // namespace fathom::cuda
