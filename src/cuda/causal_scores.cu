// Scores of a causal gate and their gradients: small work, so latency is what counts, and loops ask for many
// elements before they use the first.
#include "cuda/awaited.cuh"
#include "cuda/gelu_formula.cuh"
#include "cuda/token_choice.h"
#include "cuda/vectors.cuh"

namespace fathom::cuda {
namespace {

constexpr int kMaxInner = 1024;

/// Sums of each chunk's second halves. A thread a column.
__global__ void __launch_bounds__(kMaxInner) chunk_sum_kernel(Awaited<CausalScoreArgs> awaited) {
  const CausalScoreArgs& args = awaited.get();
  const int column = static_cast<int>(threadIdx.x), inner = static_cast<int>(args.inner);
  const int64_t sequence = blockIdx.y, first = int64_t{blockIdx.x} * kScoreChunk;
  const float* other = args.both + ((sequence * args.tokens + first) * 2 + 1) * inner + column;
  const int count = static_cast<int>(min(int64_t{kScoreChunk}, args.tokens - first));
  float sum = 0;
#pragma unroll 8
  for (int t = 0; t < count; ++t) sum += other[int64_t{t} * 2 * inner];
  args.partial[(sequence * gridDim.x + blockIdx.x) * inner + column] = sum;
}

// Beyond that a block's threads are kGroups groups, a thread for each of some columns, which share the
// chunk's tokens, and the chunks whose sums are to be added.

constexpr int kGroups = 4, kGroupTokens = kScoreChunk / kGroups;
constexpr int kGroupColumns = 128;  ///< at most
constexpr int kChunksAtOnce = 8;    ///< whose sums a thread asks for before it adds the first
static_assert(kScoreChunk == 32, "a warp has a lane for each token");

/// A number of each thread.
using GroupSums = float[kGroups][kGroupColumns];

__device__ float& mine(GroupSums& sums) {
  return sums[threadIdx.y][threadIdx.x];
}

/// This column's sum over the groups from `first` to before `end`.
__device__ float group_sum(const GroupSums& sums, int first = 0, int end = kGroups) {
  float sum = 0;
#pragma unroll
  for (int group = 0; group < kGroups; ++group)
    if (group >= first && group < end) sum += sums[group][threadIdx.x];
  return sum;
}

/// This group's share of a column's sum over the chunks from `first` to before `end`.
__device__ float chunk_share(const float* column, int64_t inner, int first, int end) {
  float sum = 0;
  for (int base = first + static_cast<int>(threadIdx.y); base < end; base += kGroups * kChunksAtOnce) {
    float found[kChunksAtOnce];
#pragma unroll
    for (int i = 0; i < kChunksAtOnce; ++i) found[i] = column[min(base + i * kGroups, end - 1) * inner];
#pragma unroll
    for (int i = 0; i < kChunksAtOnce; ++i) sum += base + i * kGroups < end ? found[i] : 0;
  }
  return sum;
}

/// A group's tokens. What is not there is read as if it were the sequence's last token, so that no read waits
/// for a condition, and then taken for 0.
struct GroupTokens {
  int64_t first;  ///< in its sequence
  int64_t place;  ///< the same in the batch
  int last;       ///< of the sequence's tokens, counted from `first`, but at most the group's

  __device__ explicit GroupTokens(int64_t tokens)
      : first(int64_t{blockIdx.x} * kScoreChunk + threadIdx.y * kGroupTokens),
        place(blockIdx.y * tokens + first),
        last(static_cast<int>(min(tokens - first, int64_t{kGroupTokens})) - 1) {}

  __device__ bool has(int i) const { return i <= last; }
  /// Which of `first` and those behind it is read for the i-th.
  __device__ int64_t read(int i) const { return min(i, last); }

  // What belongs to a token is found by one lane and told to the others: see `of_token`.

  /// 1 / the number of tokens up to this lane's.
  __device__ float inverse() const { return 1 / static_cast<float>(first + threadIdx.x % kGroupTokens + 1); }
  /// Its element of `values`.
  __device__ float element(const float* values) const {
    const int token = static_cast<int>(threadIdx.x) % kGroupTokens;
    const float value = values[place + read(token)];
    return has(token) ? value : 0;
  }
};

/// What the lane of a group's token holds.
__device__ float of_token(float held, int token) {
  return __shfl_sync(0xffffffff, held, token);
}

/// A column of a group's tokens, with its shifts; 0 where a token is not there.
template <typename T>
struct GroupColumn {
  float own[kGroupTokens];
  float other[kGroupTokens];  ///< and those before it in the group
  float begun;                ///< the sum of other over all tokens before the group

  /// All of the block have to make one at once. `before`, `passing`: what they tell one another.
  __device__ GroupColumn(const CausalScoreArgs& args, const GroupTokens& tokens, int column,
                         GroupSums& before, GroupSums& passing) {
    const int64_t inner = args.inner, width = 2 * inner;
    const float* both = args.both + tokens.place * width + column;
#pragma unroll
    for (int i = 0; i < kGroupTokens; ++i) {
      own[i] = both[tokens.read(i) * width];
      other[i] = both[tokens.read(i) * width + inner];
    }
    const auto* shift = static_cast<const T*>(args.shift) + column;
    const float own_shift = to_float(shift[0]), other_shift = to_float(shift[inner]);
    const float* chunks = args.partial + int64_t{blockIdx.y} * gridDim.x * inner + column;
    mine(before) = chunk_share(chunks, inner, 0, static_cast<int>(blockIdx.x));
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kGroupTokens; ++i) {
      own[i] = tokens.has(i) ? own[i] + own_shift : 0;
      sum += tokens.has(i) ? other[i] + other_shift : 0;
      other[i] = sum;
    }
    mine(passing) = sum;
    __syncthreads();
    begun = static_cast<float>(int64_t{blockIdx.x} * kScoreChunk) * other_shift + group_sum(before) +
            group_sum(passing, 0, static_cast<int>(threadIdx.y));
  }

  /// What GELU is taken of; `inverse`: 1 / the number of tokens up to the group's i-th.
  __device__ float hidden(int i, float inverse) const {
    return own[i] + (begun + other[i]) * inverse;
  }
};

/// Of kCount values of each lane the sum over the lanes of value lane / (32 / kCount).
template <int kCount>
__device__ float shared_warp_sums(float (&values)[kCount]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  int lanes = 16;
#pragma unroll
  for (int kept = kCount / 2; kept > 0; kept /= 2, lanes /= 2) {
    const bool upper = (lane & lanes) != 0;
#pragma unroll
    for (int i = 0; i < kept; ++i) {
      const float given = upper ? values[i] : values[i + kept];
      values[i] = (upper ? values[i + kept] : values[i]) + __shfl_xor_sync(0xffffffff, given, lanes);
    }
  }
  float sum = values[0];
#pragma unroll
  for (; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(0xffffffff, sum, lanes);
  return sum;
}

/// Turn by turn for as many columns as the block has threads in a group.
template <typename T>
__global__ void __launch_bounds__(kGroups* kGroupColumns, 2) score_kernel(Awaited<CausalScoreArgs> awaited) {
  const CausalScoreArgs& args = awaited.get();
  // Of two turns: who is ahead writes what nobody still reads.
  __shared__ GroupSums before[2], passing[2];
  __shared__ float parts[kScoreChunk][kGroupColumns / 32];
  const int inner = static_cast<int>(args.inner), width = static_cast<int>(blockDim.x);
  const GroupTokens tokens(args.tokens);
  const float inverse = tokens.inverse(), bias = to_float(*static_cast<const T*>(args.bias));
  float part[kGroupTokens] = {};
  for (int column = static_cast<int>(threadIdx.x), turn = 0; column < inner; column += width, turn ^= 1) {
    const float out = to_float(static_cast<const T*>(args.out)[column]);
    const GroupColumn<T> sums(args, tokens, column, before[turn], passing[turn]);
#pragma unroll
    for (int i = 0; i < kGroupTokens; ++i) part[i] += gelu<float>(sums.hidden(i, of_token(inverse, i))) * out;
    if (blockIdx.x + 1 == gridDim.x && threadIdx.y + 1 == kGroups)
      args.sum[int64_t{blockIdx.y} * inner + column] = sums.begun + sums.other[kGroupTokens - 1];
  }
  const float total = shared_warp_sums(part);
  constexpr int kTokenLanes = 32 / kGroupTokens;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (lane % kTokenLanes == 0)
    parts[threadIdx.y * kGroupTokens + lane / kTokenLanes][threadIdx.x / 32] = total;
  __syncthreads();
  const int64_t token = int64_t{blockIdx.x} * kScoreChunk + lane;
  if (threadIdx.x >= 32 || threadIdx.y > 0 || token >= args.tokens) return;
  float score = bias;
  for (int warp = 0; warp < width / 32; ++warp) score += parts[lane][warp];
  args.score[blockIdx.y * args.tokens + token] = score;
}

/// Gradients of what is behind the GELU, token by token, and each chunk's sums of what these pass back
/// through their means.
template <typename T>
__global__ void __launch_bounds__(kGroups* kGroupColumns, 2)
    hidden_grad_kernel(Awaited<CausalScoreGradArgs> awaited) {
  const CausalScoreGradArgs& args = awaited.get();
  __shared__ GroupSums before, passing, tails, outs;
  const CausalScoreArgs& forward = args.forward;
  const int inner = static_cast<int>(forward.inner);
  const int column = static_cast<int>(blockIdx.z * blockDim.x + threadIdx.x);
  const int64_t chunk = int64_t{blockIdx.y} * gridDim.x + blockIdx.x;
  const GroupTokens tokens(forward.tokens);
  const float inverses = tokens.inverse(), grads = tokens.element(args.grad);
  const float out = to_float(static_cast<const T*>(forward.out)[column]);
  const GroupColumn<T> sums(forward, tokens, column, before, passing);
  float* own = args.own + tokens.place * inner + column;
  float tail = 0, out_sum = 0;
#pragma unroll
  for (int i = 0; i < kGroupTokens; ++i) {
    const float inverse = of_token(inverses, i), grad = of_token(grads, i);
    const float hidden = sums.hidden(i, inverse);
    const float share = normal_share<float>(hidden), density = normal_density<float>(hidden);
    const float passed = grad * out * (share + hidden * density);
    out_sum += grad * hidden * share;
    tail += passed * inverse;
    if (tokens.has(i)) own[int64_t{i} * inner] = passed;
  }
  mine(tails) = tail;
  mine(outs) = out_sum;
  __syncthreads();
  float* parameters = args.parameter_partial + chunk * (3 * inner + 1);
  if (threadIdx.y == 0) {
    args.tail[chunk * inner + column] = group_sum(tails);
    parameters[2 * inner + column] = group_sum(outs);
  }
  if (blockIdx.z > 0 || threadIdx.y != 1 || threadIdx.x >= 32) return;
  const int64_t token = int64_t{blockIdx.x} * kScoreChunk + threadIdx.x;
  const float sum = warp_sum(token < forward.tokens ? args.grad[blockIdx.y * forward.tokens + token] : 0);
  if (threadIdx.x == 0) parameters[3 * inner] = sum;
}

/// A token's part of the mean is in its own and all later ones.
template <typename T>
__global__ void __launch_bounds__(kGroups* kGroupColumns, 2)
    other_grad_kernel(Awaited<CausalScoreGradArgs> awaited) {
  const CausalScoreGradArgs& args = awaited.get();
  __shared__ GroupSums behind, passing, owns, others;
  const int64_t inner = args.forward.inner;
  const int column = static_cast<int>(blockIdx.z * blockDim.x + threadIdx.x);
  const int64_t chunk = int64_t{blockIdx.y} * gridDim.x + blockIdx.x;
  const GroupTokens tokens(args.forward.tokens);
  const float inverses = tokens.inverse(), scales = tokens.element(args.scale);
  float own[kGroupTokens], later[kGroupTokens];
#pragma unroll
  for (int i = 0; i < kGroupTokens; ++i) own[i] = args.own[(tokens.place + tokens.read(i)) * inner + column];
  const float* tails = args.tail + int64_t{blockIdx.y} * gridDim.x * inner + column;
  mine(behind) = chunk_share(tails, inner, static_cast<int>(blockIdx.x) + 1, static_cast<int>(gridDim.x));
  float sum = 0, own_sum = 0, other_sum = 0;
#pragma unroll
  for (int i = kGroupTokens - 1; i >= 0; --i) {
    own[i] = tokens.has(i) ? own[i] : 0;
    sum += own[i] * of_token(inverses, i);
    later[i] = sum;
    own_sum += own[i];
  }
  mine(passing) = sum;
  mine(owns) = own_sum;
  __syncthreads();
  const float begun = group_sum(behind) + group_sum(passing, static_cast<int>(threadIdx.y) + 1);
  auto* grad_both = static_cast<T*>(args.grad_both) + tokens.place * 2 * inner + column;
#pragma unroll
  for (int i = 0; i < kGroupTokens; ++i) {
    const float scale = of_token(scales, i), other = begun + later[i];
    if (!tokens.has(i)) continue;
    other_sum += other;
    grad_both[i * 2 * inner] = from_float<T>(own[i] * scale);
    grad_both[(i * 2 + 1) * inner] = from_float<T>(other * scale);
  }
  mine(others) = other_sum;
  __syncthreads();
  if (threadIdx.y > 0) return;
  float* parameters = args.parameter_partial + chunk * (3 * inner + 1);
  parameters[column] = group_sum(owns);
  parameters[inner + column] = group_sum(others);
}

}  // namespace

bool causal_scores_fit(int64_t inner) {
  return inner >= 32 && inner <= kMaxInner && inner % 32 == 0;
}

namespace {

dim3 chunks_of(const CausalScoreArgs& args) {
  return dim3(static_cast<unsigned>((args.tokens + kScoreChunk - 1) / kScoreChunk),
              static_cast<unsigned>(args.sequences));
}

/// Of groups, each a thread for as many columns as go into all.
dim3 groups_of(const CausalScoreArgs& args) {
  auto columns = static_cast<unsigned>(kGroupColumns);
  while (args.inner % columns != 0) columns -= 32;
  return dim3(columns, kGroups);
}

template <typename T>
cudaError_t causal_scores(const CausalScoreArgs& args, cudaStream_t stream) {
  launch_awaiting(score_kernel<T>, chunks_of(args), groups_of(args), 0, stream, args);
  return cudaGetLastError();
}

/// With blocks for all columns.
dim3 column_chunks_of(const CausalScoreArgs& args) {
  dim3 grid = chunks_of(args);
  grid.z = static_cast<unsigned>(args.inner) / groups_of(args).x;
  return grid;
}

template <typename T>
cudaError_t hidden_grad(const CausalScoreGradArgs& args, cudaStream_t stream) {
  launch_awaiting(hidden_grad_kernel<T>, column_chunks_of(args.forward), groups_of(args.forward), 0, stream,
                  args);
  return cudaGetLastError();
}

template <typename T>
cudaError_t other_grad(const CausalScoreGradArgs& args, cudaStream_t stream) {
  launch_awaiting(other_grad_kernel<T>, column_chunks_of(args.forward), groups_of(args.forward), 0, stream,
                  args);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_chunk_sums(const CausalScoreArgs& args, cudaStream_t stream) {
  if (!causal_scores_fit(args.inner)) return cudaErrorInvalidValue;
  launch_awaiting(chunk_sum_kernel, chunks_of(args), static_cast<unsigned>(args.inner), 0, stream, args);
  return cudaGetLastError();
}

cudaError_t launch_causal_scores(ElementType type, const CausalScoreArgs& args, cudaStream_t stream) {
  if (!causal_scores_fit(args.inner)) return cudaErrorInvalidValue;
  return with_element_but_double(
      type, [&](auto element) { return causal_scores<decltype(element)>(args, stream); });
}

cudaError_t launch_causal_scores_backward(ElementType type, ElementType grad_type,
                                          const CausalScoreGradArgs& args, cudaStream_t stream) {
  if (!causal_scores_fit(args.forward.inner)) return cudaErrorInvalidValue;
  const cudaError_t error = with_element_but_double(
      type, [&](auto element) { return hidden_grad<decltype(element)>(args, stream); });
  if (error != cudaSuccess) return error;
  return with_element_but_double(grad_type,
                                 [&](auto element) { return other_grad<decltype(element)>(args, stream); });
}

}  // namespace fathom::cuda
