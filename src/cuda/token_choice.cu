// Scores of a causal gate, and the rows of the tokens that are chosen: small work, so latency is what counts.
#include "cuda/token_choice.h"
#include "cuda/vectors.cuh"

namespace fathom::cuda {
namespace {

constexpr int kMaxInner = 1024;
constexpr int kChooseThreads = 1024;

__device__ float gelu(float x) {
  return 0.5f * x * (1 + erff(x * 0.70710678f));
}

/// Sums of each chunk's second halves. A thread a column.
template <typename T>
__global__ void chunk_sum_kernel(CausalScoreArgs args) {
  const int column = static_cast<int>(threadIdx.x), inner = static_cast<int>(args.inner);
  const int64_t sequence = blockIdx.y, first = int64_t{blockIdx.x} * kScoreChunk;
  const float* other = args.both + ((sequence * args.tokens + first) * 2 + 1) * inner + column;
  const int count = static_cast<int>(min(int64_t{kScoreChunk}, args.tokens - first));
  const float shift = to_float(static_cast<const T*>(args.shift)[inner + column]);
  float sum = 0;
#pragma unroll 8
  for (int t = 0; t < count; ++t) sum += other[int64_t{t} * 2 * inner] + shift;
  args.partial[(sequence * gridDim.x + blockIdx.x) * inner + column] = sum;
}

template <typename T>
__global__ void score_kernel(CausalScoreArgs args) {
  __shared__ float shared[kScoreChunk][kMaxInner / 32];
  const int column = static_cast<int>(threadIdx.x), inner = static_cast<int>(args.inner);
  const int warps = inner / 32;
  const int64_t sequence = blockIdx.y, first = int64_t{blockIdx.x} * kScoreChunk;
  const int count = static_cast<int>(min(int64_t{kScoreChunk}, args.tokens - first));
  float sum = 0;
  const float* partial = args.partial + sequence * gridDim.x * inner + column;
  for (unsigned chunk = 0; chunk < blockIdx.x; ++chunk) sum += partial[int64_t{chunk} * inner];
  const float* both = args.both + (sequence * args.tokens + first) * 2 * inner + column;
  const auto* shift = static_cast<const T*>(args.shift) + column;
  const float own_shift = to_float(shift[0]), other_shift = to_float(shift[inner]);
  const float out = to_float(static_cast<const T*>(args.out)[column]);
#pragma unroll 4
  for (int t = 0; t < count; ++t) {
    const float own = both[int64_t{t} * 2 * inner] + own_shift;
    sum += both[(int64_t{t} * 2 + 1) * inner] + other_shift;
    float part = gelu(own + sum / static_cast<float>(first + t + 1)) * out;
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) part += __shfl_xor_sync(0xffffffff, part, lanes);
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

/// One block; its threads take neighbouring tokens, a turn after the other.
__global__ void __launch_bounds__(kChooseThreads) choose_kernel(ChooseRowsArgs args) {
  __shared__ int warp_sums[32];
  const int64_t places = args.sequences * args.tokens;
  int begun = 0;
  float entropy = 0;
  for (int64_t base = 0; base < places; base += kChooseThreads) {
    const int64_t place = base + threadIdx.x;
    bool active = false;
    if (place < places) {
      if (args.score != nullptr) {
        const float p = 1 / (1 + expf(-args.score[place]));
        active = p > 0.5f;
        args.active[place] = active;
        entropy += bits(p) + bits(1 - p);
      } else {
        active = args.active[place];
      }
    }
    int total = 0;
    const int row = begun + scan(active, warp_sums, &total);
    if (place < places) {
      if (place % args.tokens == 0) args.start[place / args.tokens] = row;
      args.slot[place] = active ? row : -1;
      if (active) args.place[row] = static_cast<int32_t>(place);
    }
    begun += total;
  }
  if (threadIdx.x == 0) {
    args.start[args.sequences] = begun;
    if (args.counts != nullptr) {
      args.counts[0] += begun;
      args.counts[1] += static_cast<double>(places);
    }
  }
  if (args.counts == nullptr) return;
  __shared__ float entropies[32];
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) entropy += __shfl_xor_sync(0xffffffff, entropy, lanes);
  if (threadIdx.x % 32 == 0) entropies[threadIdx.x / 32] = entropy;
  __syncthreads();
  if (threadIdx.x != 0) return;
  double sum = 0;
  for (const float part : entropies) sum += part;
  args.counts[2] += sum;
}

}  // namespace

bool causal_scores_fit(int64_t inner) {
  return inner >= 32 && inner <= kMaxInner && inner % 32 == 0;
}

namespace {

template <typename T>
cudaError_t causal_scores(const CausalScoreArgs& args, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((args.tokens + kScoreChunk - 1) / kScoreChunk),
                  static_cast<unsigned>(args.sequences));
  const auto threads = static_cast<unsigned>(args.inner);
  chunk_sum_kernel<T><<<grid, threads, 0, stream>>>(args);
  score_kernel<T><<<grid, threads, 0, stream>>>(args);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_causal_scores(ElementType type, const CausalScoreArgs& args, cudaStream_t stream) {
  if (!causal_scores_fit(args.inner)) return cudaErrorInvalidValue;
  switch (type) {
    case ElementType::kFloat:
      return causal_scores<float>(args, stream);
    case ElementType::kHalf:
      return causal_scores<__half>(args, stream);
    case ElementType::kBFloat16:
      return causal_scores<__nv_bfloat16>(args, stream);
    case ElementType::kDouble:
      break;
  }
  return cudaErrorInvalidValue;
}

cudaError_t launch_choose_rows(const ChooseRowsArgs& args, cudaStream_t stream) {
  choose_kernel<<<1, kChooseThreads, 0, stream>>>(args);
  return cudaGetLastError();
}

}  // namespace fathom::cuda
