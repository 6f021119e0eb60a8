// The rows of the tokens that are chosen: small work, so latency is what counts, and loops ask for many
// elements before they use the first.
#include "cuda/token_choice.h"

#include "cuda/awaited.cuh"
#include "cuda/vectors.cuh"
#include "kernels/counted_slots.h"
#include "tensor/keyed_bits.h"

namespace fathom::cuda {
namespace {

constexpr int kChooseThreads = 1024;
constexpr int kChooseBlocks = 64;  ///< that number rows, at most
constexpr int kNoRow = kernels::CountedSlots::kNoRow, kPadding = kernels::CountedSlots::kPadding;

__device__ float bits(float p) {
  return p > 0 ? -p * log2f(p) : 0.0f;
}

/// The places whose scores a thread looks at together: neighbours, which mostly share a sequence.
struct Neighbours {
  static constexpr unsigned kCount = 4;
  unsigned first, places;

  __device__ bool has(unsigned i) const { return first + i < places; }
  /// … and is no padding.
  __device__ bool is_there(const ChooseRowsArgs& args, unsigned i) const {
    return has(i) && (args.present == nullptr || args.present[first + i]);
  }

  /// Scores, +∞ and -∞ where it is decided, -∞ of places that are not there.
  __device__ void read(const ChooseRowsArgs& args, float (&score)[kCount]) const {
#pragma unroll
    for (unsigned i = 0; i < kCount; ++i) {
      const unsigned place = min(first + i, places - 1);
      if (args.decided != nullptr)
        score[i] = args.decided[place] ? INFINITY : -INFINITY;
      else
        score[i] = args.score[place];
    }
#pragma unroll
    for (unsigned i = 0; i < kCount; ++i) score[i] = is_there(args, i) ? score[i] : -INFINITY;
  }
};

/// Whether 1 / (1 + exp(-score)) is above a half: of the numbers below 2 also the largest has such an
/// inverse.
__device__ bool is_chosen(float score) {
  return 1 + expf(-score) < 2;
}

/// What is drawn for one place after another.
struct Draws {
  unsigned sequence, token;
  SampleKey key;

  __device__ Draws(const ChooseRowsArgs& args, unsigned place)
      : sequence(place / static_cast<unsigned>(args.tokens)),
        token(place % static_cast<unsigned>(args.tokens)),
        key(sample_key(args.key[sequence], args.stream)) {}

  /// Whether the place is explored if it is not active.
  __device__ bool next(const ChooseRowsArgs& args) {
    if (token == args.tokens) {
      token = 0;
      key = sample_key(args.key[++sequence], args.stream);
    }
    return static_cast<float>(keyed_bits(key, token++) >> 8) * 0x1p-24f < args.explore;
  }
};

/// The sum over the block, in every thread. `shared` is not to be used for anything else.
__device__ int block_sum(int value, int (&shared)[32]) {
  value = __reduce_add_sync(0xffffffff, value);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  return __reduce_add_sync(0xffffffff, shared[threadIdx.x % 32]);
}

/// Adds to the counts. Of one block, whose threads take turns at neighbours: so entropy is summed.
__device__ void add_counts(const ChooseRowsArgs& args, unsigned places) {
  __shared__ int shared[2][32];
  __shared__ float entropies[32];
  float entropy = 0;
  int active = 0, there = 0;
  for (unsigned base = 0; base < places; base += kChooseThreads * Neighbours::kCount) {
    const Neighbours near = {base + threadIdx.x * Neighbours::kCount, places};
    float score[Neighbours::kCount];
    near.read(args, score);
#pragma unroll
    for (unsigned i = 0; i < Neighbours::kCount; ++i) {
      active += is_chosen(score[i]) ? 1 : 0;
      if (!near.is_there(args, i)) continue;
      ++there;
      if (args.score == nullptr) continue;
      const float p = 1 / (1 + expf(-args.score[near.first + i]));
      entropy += bits(p) + bits(1 - p);
    }
  }
  entropy = warp_sum(entropy);
  if (threadIdx.x % 32 == 0) entropies[threadIdx.x / 32] = entropy;
  active = block_sum(active, shared[0]);
  there = block_sum(there, shared[1]);
  if (threadIdx.x >= 32) return;
  const float sum = warp_sum(entropies[threadIdx.x]);
  if (threadIdx.x > 0) return;
  args.counts[0] += active;
  args.counts[1] += there;
  args.counts[2] += static_cast<double>(sum);
}

/// What stands before the rows of a block's places.
struct RowsBefore {
  int active = 0, all_active = 0, explored = 0;
};

/// Every block counts for itself, so that none waits for another.
__device__ RowsBefore rows_before(const ChooseRowsArgs& args, unsigned begin, unsigned places) {
  __shared__ int shared[3][32];
  constexpr int kTurns = 2;  // whose scores are asked for at once
  RowsBefore rows;
  for (unsigned base = 0; base < places; base += kTurns * kChooseThreads * Neighbours::kCount) {
    float score[kTurns][Neighbours::kCount];
#pragma unroll
    for (int turn = 0; turn < kTurns; ++turn)
      Neighbours{base + (turn * kChooseThreads + threadIdx.x) * Neighbours::kCount, places}.read(args,
                                                                                                 score[turn]);
#pragma unroll
    for (int turn = 0; turn < kTurns; ++turn) {
      const unsigned first = base + (turn * kChooseThreads + threadIdx.x) * Neighbours::kCount;
      unsigned active = 0;  // a bit a place
#pragma unroll
      for (unsigned i = 0; i < Neighbours::kCount; ++i) active |= is_chosen(score[turn][i]) ? 1u << i : 0;
      rows.all_active += __popc(active);
      if (first >= begin) continue;  // then all neighbours are: blocks begin at multiples of them
      rows.active += __popc(active);
      if (args.key == nullptr) continue;
      Draws draws(args, first);
#pragma unroll
      for (unsigned i = 0; i < Neighbours::kCount; ++i)
        rows.explored +=
            draws.next(args) && (active >> i & 1) == 0 && Neighbours{first, places}.is_there(args, i) ? 1 : 0;
    }
  }
  rows.active = block_sum(rows.active, shared[0]);
  rows.all_active = block_sum(rows.all_active, shared[1]);
  rows.explored = block_sum(rows.explored, shared[2]);
  return rows;
}

/// A block numbers the rows of `turns` times as many places as it has threads; one behind them, where counts
/// are asked for, adds to these.
__global__ void __launch_bounds__(kChooseThreads)
    choose_kernel(Awaited<ChooseRowsArgs> awaited, unsigned turns) {
  const ChooseRowsArgs& args = awaited.get();
  const auto places = static_cast<unsigned>(args.sequences * args.tokens);
  const unsigned begin = blockIdx.x * turns * kChooseThreads;
  if (begin >= places) {
    add_counts(args, places);
    return;
  }
  RowsBefore rows = rows_before(args, begin, places);
  __shared__ unsigned taken[32];  // a warp's active places, and 2^16 times the explored ones
  const unsigned end = min(begin + turns * kChooseThreads, places);
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, lanes_before = (1u << lane) - 1;
  for (unsigned base = begin; base < end; base += kChooseThreads) {
    const unsigned place = base + threadIdx.x;
    bool active = false, explored = false;
    const bool there = Neighbours{place, places}.is_there(args, 0);
    if (there) {
      active = args.decided != nullptr ? args.decided[place] : is_chosen(args.score[place]);
      if (args.key != nullptr && !active) explored = Draws(args, place).next(args);
    }
    const unsigned active_lanes = __ballot_sync(0xffffffff, active),
                   explored_lanes = __ballot_sync(0xffffffff, explored);
    if (lane == 0) taken[warp] = __popc(active_lanes) | __popc(explored_lanes) << 16;
    __syncthreads();
    const unsigned before = __reduce_add_sync(0xffffffff, lane < warp ? taken[lane] : 0u),
                   all = __reduce_add_sync(0xffffffff, taken[lane]);
    if (place < places) {
      const int row = rows.active + static_cast<int>(before & 0xffff) + __popc(active_lanes & lanes_before);
      const int explored_row = rows.all_active + rows.explored + static_cast<int>(before >> 16) +
                               __popc(explored_lanes & lanes_before);
      const int slot = active ? row : explored ? explored_row : there ? kNoRow : kPadding;
      args.slot[place] = slot;
      if (slot >= 0) args.place[slot] = static_cast<int32_t>(place);
      if (args.active != nullptr) args.active[place] = active;
      const auto tokens = static_cast<unsigned>(args.tokens);
      if (place % tokens == 0) args.border[place / tokens] = row;
    }
    rows.active += static_cast<int>(all & 0xffff);
    rows.explored += static_cast<int>(all >> 16);
    __syncthreads();  // before the next turn writes what all have read
  }
  if (end < places || threadIdx.x > 0) return;
  args.border[args.sequences] = rows.all_active;
  args.border[args.sequences + 1] = rows.all_active + rows.explored;
}

}  // namespace

cudaError_t launch_choose_rows(const ChooseRowsArgs& args, cudaStream_t stream) {
  // Each block looks at all places, so with more of these there are larger blocks, not more.
  const int64_t places = args.sequences * args.tokens, most = int64_t{kChooseBlocks} * kChooseThreads;
  const int64_t share = (places + most - 1) / most * kChooseThreads;
  const auto blocks = static_cast<unsigned>((places + share - 1) / share + (args.counts != nullptr ? 1 : 0));
  launch_awaiting(choose_kernel, blocks, kChooseThreads, 0, stream, args,
                  static_cast<unsigned>(share / kChooseThreads));
  return cudaGetLastError();
}

}  // namespace fathom::cuda
