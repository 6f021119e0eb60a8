// Scores of a causal gate, and the rows of the tokens that are chosen: small work, so latency is what counts,
// and loops ask for many elements before they use the first.
#include "cuda/token_choice.h"

#include "cuda/gelu_formula.cuh"
#include "cuda/vectors.cuh"
#include "tensor/keyed_bits.h"

namespace fathom::cuda {
namespace {

constexpr int kMaxInner = 1024;
constexpr int kChooseThreads = 1024;
constexpr int kChoosePlaces = 4;  ///< neighbours of a thread: turns cost a meeting of the block each

/// Sums of each chunk's second halves. A thread a column.
__global__ void __launch_bounds__(kMaxInner) chunk_sum_kernel(CausalScoreArgs args) {
  const int column = static_cast<int>(threadIdx.x), inner = static_cast<int>(args.inner);
  const int64_t sequence = blockIdx.y, first = int64_t{blockIdx.x} * kScoreChunk;
  const float* other = args.both + ((sequence * args.tokens + first) * 2 + 1) * inner + column;
  const int count = static_cast<int>(min(int64_t{kScoreChunk}, args.tokens - first));
  float sum = 0;
#pragma unroll 8
  for (int t = 0; t < count; ++t) sum += other[int64_t{t} * 2 * inner];
  args.partial[(sequence * gridDim.x + blockIdx.x) * inner + column] = sum;
}

/// The sum of a column's second half, with its shift, over all tokens before this block's chunk.
__device__ float sum_before(const CausalScoreArgs& args, int column, float shift) {
  const int inner = static_cast<int>(args.inner);
  const float* partial = args.partial + int64_t{blockIdx.y} * gridDim.x * inner + column;
  float sum = 0;
#pragma unroll 16
  for (unsigned chunk = 0; chunk < blockIdx.x; ++chunk) sum += partial[int64_t{chunk} * inner];
  return sum + static_cast<float>(int64_t{blockIdx.x} * kScoreChunk) * shift;
}

template <typename T>
__global__ void __launch_bounds__(kMaxInner) score_kernel(CausalScoreArgs args) {
  __shared__ float shared[kScoreChunk][kMaxInner / 32];
  const int column = static_cast<int>(threadIdx.x), inner = static_cast<int>(args.inner);
  const int warps = inner / 32;
  const int64_t sequence = blockIdx.y, first = int64_t{blockIdx.x} * kScoreChunk;
  const int count = static_cast<int>(min(int64_t{kScoreChunk}, args.tokens - first));
  const float* both = args.both + (sequence * args.tokens + first) * 2 * inner + column;
  const auto* shift = static_cast<const T*>(args.shift) + column;
  const float own_shift = to_float(shift[0]), other_shift = to_float(shift[inner]);
  const float out = to_float(static_cast<const T*>(args.out)[column]);
  float sum = sum_before(args, column, other_shift);
#pragma unroll 8
  for (int t = 0; t < count; ++t) {
    const float own = both[int64_t{t} * 2 * inner] + own_shift;
    sum += both[(int64_t{t} * 2 + 1) * inner] + other_shift;
    float part = gelu(own + sum / static_cast<float>(first + t + 1)) * out;
    part = warp_sum(part);
    if (column % 32 == 0) shared[t][column / 32] = part;
  }
  __syncthreads();
  if (column < count) {
    float score = to_float(*static_cast<const T*>(args.bias));
    for (int warp = 0; warp < warps; ++warp) score += shared[column][warp];
    args.score[sequence * args.tokens + first + column] = score;
  }
  if (blockIdx.x + 1 == gridDim.x) args.sum[sequence * inner + column] = sum;
}

__device__ float bits(float p) {
  return p > 0 ? -p * log2f(p) : 0.0f;
}

/// The sum of `value` over the threads before this one, and `total` over all.
__device__ int scan(int value, int* warp_sums, int* total) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int sum = value;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const int other = __shfl_up_sync(0xffffffff, sum, step);
    if (lane >= step) sum += other;
  }
  if (lane == 31) warp_sums[warp] = sum;
  __syncthreads();
  if (warp == 0) {
    int inclusive = warp_sums[lane];
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(0xffffffff, inclusive, step);
      if (lane >= step) inclusive += other;
    }
    warp_sums[lane] = inclusive;
  }
  __syncthreads();
  *total = warp_sums[31];
  const int before = (warp > 0 ? warp_sums[warp - 1] : 0) + sum - value;
  __syncthreads();
  return before;
}

/// Rows for the places that `takes` says, from row `begun` on, in turns of neighbouring places; `begins`
/// hears of each place and the row that is next there. Returns the row after the last.
template <typename Takes, typename Begins>
__device__ int number_rows(const ChooseRowsArgs& args, int begun, const Takes& takes, const Begins& begins) {
  __shared__ int warp_sums[32];
  const int64_t places = args.sequences * args.tokens;
  for (int64_t base = 0; base < places; base += kChooseThreads * kChoosePlaces) {
    const int64_t first = base + int64_t{threadIdx.x} * kChoosePlaces;
    const int count = static_cast<int>(max(min(places - first, int64_t{kChoosePlaces}), int64_t{0}));
    unsigned taken = 0;  // a bit a place
#pragma unroll
    for (int i = 0; i < kChoosePlaces; ++i)
      if (i < count && takes(first + i)) taken |= 1u << i;
    int total = 0;
    int row = begun + scan(__popc(taken), warp_sums, &total);
#pragma unroll
    for (int i = 0; i < kChoosePlaces; ++i) {
      if (i >= count) continue;
      begins(first + i, row);
      if ((taken >> i & 1) == 0) continue;
      args.slot[first + i] = row;
      args.place[row++] = static_cast<int32_t>(first + i);
    }
    begun += total;
  }
  return begun;
}

/// One block.
__global__ void __launch_bounds__(kChooseThreads) choose_kernel(ChooseRowsArgs args) {
  float entropy = 0;
  const auto decides = [&](int64_t place) {
    const float p = args.score != nullptr ? 1 / (1 + expf(-args.score[place])) : 0;
    if (args.score != nullptr) entropy += bits(p) + bits(1 - p);
    if (args.decided != nullptr) return args.decided[place];
    args.active[place] = p > 0.5f;
    return p > 0.5f;
  };
  const int active = number_rows(args, 0, decides, [&](int64_t place, int row) {
    if (place % args.tokens == 0) args.border[place / args.tokens] = row;
    args.slot[place] = -1;
  });
  int all = active;
  if (args.key != nullptr) {
    // A thread meets the places that it numbered itself.
    const auto explored = [&](int64_t place) {
      if (args.slot[place] >= 0) return false;
      const auto key = sample_key(args.key[place / args.tokens], args.stream);
      const uint32_t drawn = keyed_bits(key, static_cast<uint32_t>(place % args.tokens)) >> 8;
      return static_cast<float>(drawn) * 0x1p-24f < args.explore;
    };
    all = number_rows(args, active, explored, [](int64_t, int) {});
  }
  if (threadIdx.x == 0) {
    args.border[args.sequences] = active;
    args.border[args.sequences + 1] = all;
    if (args.counts != nullptr) {
      args.counts[0] += active;
      args.counts[1] += static_cast<double>(args.sequences * args.tokens);
    }
  }
  if (args.counts == nullptr) return;
  __shared__ float entropies[32];
  entropy = warp_sum(entropy);
  if (threadIdx.x % 32 == 0) entropies[threadIdx.x / 32] = entropy;
  __syncthreads();
  if (threadIdx.x >= 32) return;
  const float sum = warp_sum(entropies[threadIdx.x]);
  if (threadIdx.x == 0) args.counts[2] += static_cast<double>(sum);
}

/// Gradients of what is behind the GELU, token by token, and each chunk's sums of what these pass back
/// through their means. A thread a column.
template <typename T>
__global__ void __launch_bounds__(kMaxInner) hidden_grad_kernel(CausalScoreGradArgs args) {
  const CausalScoreArgs& forward = args.forward;
  const int column = static_cast<int>(threadIdx.x), inner = static_cast<int>(forward.inner);
  const int64_t sequence = blockIdx.y, first = int64_t{blockIdx.x} * kScoreChunk;
  const int64_t chunk = sequence * gridDim.x + blockIdx.x;
  const int count = static_cast<int>(min(int64_t{kScoreChunk}, forward.tokens - first));
  const int64_t token = sequence * forward.tokens + first;
  const float* both = forward.both + token * 2 * inner + column;
  const auto* shift = static_cast<const T*>(forward.shift) + column;
  const float own_shift = to_float(shift[0]), other_shift = to_float(shift[inner]);
  const float out = to_float(static_cast<const T*>(forward.out)[column]);
  float sum = sum_before(forward, column, other_shift), tail = 0, out_sum = 0, grad_sum = 0;
#pragma unroll 8
  for (int t = 0; t < count; ++t) {
    sum += both[(int64_t{t} * 2 + 1) * inner] + other_shift;
    const float places = static_cast<float>(first + t + 1);
    const float hidden = both[int64_t{t} * 2 * inner] + own_shift + sum / places;
    const float share = normal_share(hidden), density = normal_density<float>(hidden);
    const float grad = args.grad[token + t], passed = grad * out * (share + hidden * density);
    out_sum += grad * hidden * share;
    grad_sum += grad;
    tail += passed / places;
    args.own[(token + t) * inner + column] = passed;
  }
  args.tail[chunk * inner + column] = tail;
  float* parameters = args.parameter_partial + chunk * (3 * inner + 1);
  parameters[2 * inner + column] = out_sum;
  if (column == 0) parameters[3 * inner] = grad_sum;
}

/// A token's part of the mean is in its own and all later ones.
template <typename T>
__global__ void __launch_bounds__(kMaxInner) other_grad_kernel(CausalScoreGradArgs args) {
  const CausalScoreArgs& forward = args.forward;
  const int column = static_cast<int>(threadIdx.x), inner = static_cast<int>(forward.inner);
  const int64_t sequence = blockIdx.y, first = int64_t{blockIdx.x} * kScoreChunk;
  const int64_t chunk = sequence * gridDim.x + blockIdx.x, token = sequence * forward.tokens + first;
  const int count = static_cast<int>(min(int64_t{kScoreChunk}, forward.tokens - first));
  float later = 0, own_sum = 0, other_sum = 0;
#pragma unroll 16
  for (int behind = static_cast<int>(gridDim.x) - 1; behind > static_cast<int>(blockIdx.x); --behind)
    later += args.tail[(sequence * gridDim.x + behind) * inner + column];
  auto* grad_both = static_cast<T*>(args.grad_both) + token * 2 * inner + column;
#pragma unroll 8
  for (int t = count - 1; t >= 0; --t) {
    const float own = args.own[(token + t) * inner + column];
    later += own / static_cast<float>(first + t + 1);
    own_sum += own;
    other_sum += later;
    const float scale = args.scale[token + t];
    grad_both[int64_t{t} * 2 * inner] = from_float<T>(own * scale);
    grad_both[(int64_t{t} * 2 + 1) * inner] = from_float<T>(later * scale);
  }
  float* parameters = args.parameter_partial + chunk * (3 * inner + 1);
  parameters[column] = own_sum;
  parameters[inner + column] = other_sum;
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

template <typename T>
cudaError_t causal_scores(const CausalScoreArgs& args, cudaStream_t stream) {
  score_kernel<T><<<chunks_of(args), static_cast<unsigned>(args.inner), 0, stream>>>(args);
  return cudaGetLastError();
}

template <typename T>
cudaError_t hidden_grad(const CausalScoreGradArgs& args, cudaStream_t stream) {
  hidden_grad_kernel<T>
      <<<chunks_of(args.forward), static_cast<unsigned>(args.forward.inner), 0, stream>>>(args);
  return cudaGetLastError();
}

template <typename T>
cudaError_t other_grad(const CausalScoreGradArgs& args, cudaStream_t stream) {
  other_grad_kernel<T>
      <<<chunks_of(args.forward), static_cast<unsigned>(args.forward.inner), 0, stream>>>(args);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_chunk_sums(const CausalScoreArgs& args, cudaStream_t stream) {
  if (!causal_scores_fit(args.inner)) return cudaErrorInvalidValue;
  chunk_sum_kernel<<<chunks_of(args), static_cast<unsigned>(args.inner), 0, stream>>>(args);
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

cudaError_t launch_choose_rows(const ChooseRowsArgs& args, cudaStream_t stream) {
  choose_kernel<<<1, kChooseThreads, 0, stream>>>(args);
  return cudaGetLastError();
}

}  // namespace fathom::cuda
