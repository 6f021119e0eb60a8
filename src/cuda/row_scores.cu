// Scores of a gate that sees all of its row, and their gradients: small work, so latency is what counts. A
// block takes a chunk of a row's tokens; what chunks share goes through sums of each.
#include "cuda/row_scores.h"

#include "cuda/awaited.cuh"
#include "cuda/gelu_formula.cuh"
#include "cuda/vectors.cuh"

namespace fathom::cuda {
namespace {

constexpr int kRowThreads = 256;

/// A block's threads: neighbours on a token's columns, as many as leave few idle, the others on other tokens.
struct Lanes {
  int columns, tokens;  ///< how many there are
  int column, token;    ///< of this thread

  __device__ explicit Lanes(int lanes)
      : columns(lanes),
        tokens(kRowThreads / lanes),
        column(static_cast<int>(threadIdx.x) % lanes),
        token(static_cast<int>(threadIdx.x) / lanes) {}
};

/// Of a bottleneck: a power of two, at most a block's.
int lanes_of(int64_t inner) {
  int lanes = 1;
  while (lanes < inner && lanes < kRowThreads) lanes *= 2;
  return lanes;
}

/// The tokens of this block.
struct Chunk {
  int64_t row, index, chunks, first;
  int count;

  __device__ explicit Chunk(const RowScoreArgs& args)
      : row(blockIdx.y),
        index(blockIdx.x),
        chunks(gridDim.x),
        first(row * args.tokens + index * kRowScoreChunk),
        count(static_cast<int>(min(int64_t{kRowScoreChunk}, args.tokens - index * kRowScoreChunk))) {}

  __device__ bool is_there(const RowScoreArgs& args, int token) const {
    return args.present == nullptr || args.present[first + token];
  }
};

template <typename P>
__device__ float parameter(const void* values, int64_t i) {
  return to_float(static_cast<const P*>(values)[i]);
}

/// The sum over a column's threads, in a fixed order, in those of the first token. All threads of the block
/// call; `shared` may be used again behind the next barrier.
__device__ float over_tokens(float value, const Lanes& lanes, float (&shared)[kRowThreads]) {
  shared[threadIdx.x] = value;
  __syncthreads();
  float sum = 0;
  if (lanes.token == 0)
    for (int token = 0; token < lanes.tokens; ++token) sum += shared[token * lanes.columns + lanes.column];
  __syncthreads();
  return sum;
}

__global__ void __launch_bounds__(kRowThreads) row_sum_kernel(Awaited<RowScoreArgs> awaited, int num_lanes) {
  const RowScoreArgs& args = awaited.get();
  __shared__ float shared[kRowThreads];
  const Chunk chunk(args);
  const Lanes lanes(num_lanes);
  const int inner = static_cast<int>(args.inner);
  float* partial = args.partial + (chunk.row * chunk.chunks + chunk.index) * (inner + 1);
  for (int base = 0; base < inner; base += lanes.columns) {
    const int column = base + lanes.column;
    const float* other = args.both + (chunk.first * 2 + 1) * inner + column;
    float sum = 0;
    if (column < inner)
#pragma unroll 4
      for (int t = lanes.token; t < chunk.count; t += lanes.tokens) {
        const float value = other[int64_t{t} * 2 * inner];
        sum += chunk.is_there(args, t) ? value : 0.0f;
      }
    sum = over_tokens(sum, lanes, shared);
    if (lanes.token == 0 && column < inner) partial[column] = sum;
  }
  float there = 0;
  for (int t = static_cast<int>(threadIdx.x); t < chunk.count; t += kRowThreads)
    there += chunk.is_there(args, t) ? 1.0f : 0.0f;
  const int count = __syncthreads_count(there > 0);  // a thread has one token at most
  if (threadIdx.x == 0) partial[inner] = static_cast<float>(count);
}
static_assert(kRowScoreChunk <= kRowThreads, "a thread has one token at most");

/// This thread's share of a sum over the row's chunks, of whose sums of `width` numbers it reads number
/// `place`.
__device__ float over_chunks(const float* sums, int64_t chunks, int64_t width, int64_t place,
                             const Lanes& lanes) {
  float sum = 0;
  for (int64_t chunk = lanes.token; chunk < chunks; chunk += lanes.tokens) sum += sums[chunk * width + place];
  return sum;
}

/// What a token's own half is added to: the shifts and the row's mean. All threads of the block call.
template <typename P>
__device__ void write_common(const RowScoreArgs& args, const Chunk& chunk, const Lanes& lanes, float* common,
                             float (&shared)[kRowThreads]) {
  const int inner = static_cast<int>(args.inner);
  const float* partial = args.partial + chunk.row * chunk.chunks * (inner + 1);
  for (int base = 0; base < inner; base += lanes.columns) {
    const int column = base + lanes.column;
    const bool real = column < inner;
    const float sum = over_tokens(real ? over_chunks(partial, chunk.chunks, inner + 1, column, lanes) : 0.0f,
                                  lanes, shared);
    const float count =
        over_tokens(over_chunks(partial, chunk.chunks, inner + 1, inner, lanes), lanes, shared);
    if (lanes.token != 0 || !real) continue;
    // A row of padding alone has no mean, of which the shift would be a part.
    const float mean = count > 0 ? sum / count + parameter<P>(args.shift, inner + column) : 0.0f;
    common[column] = mean + parameter<P>(args.shift, column);
  }
  __syncthreads();
}

/// At most a warp's lanes on a token.
template <typename P>
__global__ void __launch_bounds__(kRowThreads) score_kernel(Awaited<RowScoreArgs> awaited, int num_lanes) {
  const RowScoreArgs& args = awaited.get();
  extern __shared__ float common[];
  __shared__ float shared[kRowThreads];
  const Chunk chunk(args);
  write_common<P>(args, chunk, Lanes(num_lanes), common, shared);
  const Lanes lanes(min(num_lanes, 32));
  const int inner = static_cast<int>(args.inner);
  const float bias = parameter<P>(args.bias, 0);
  for (int base = 0; base < chunk.count; base += lanes.tokens) {
    const int token = base + lanes.token;
    const float* own = args.both + (chunk.first + token) * 2 * inner;
    float sum = 0;
    if (token < chunk.count)
      for (int i = lanes.column; i < inner; i += lanes.columns)
        sum += gelu<float>(own[i] + common[i]) * parameter<P>(args.out, i);
    for (int step = lanes.columns / 2; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffff, sum, step);
    if (lanes.column == 0 && token < chunk.count) args.score[chunk.first + token] = sum + bias;
  }
}

/// Gradients of own halves, and a chunk's sums: of these, for the shifts and the mean; for `out`; for `bias`.
template <typename P, typename T>
__global__ void __launch_bounds__(kRowThreads)
    own_grad_kernel(Awaited<RowScoreGradArgs> awaited, int num_lanes) {
  const RowScoreGradArgs& args = awaited.get();
  extern __shared__ float common[];
  __shared__ float shared[kRowThreads], grad[kRowScoreChunk], scale[kRowScoreChunk];
  const Chunk chunk(args.forward);
  const Lanes lanes(num_lanes);
  if (static_cast<int>(threadIdx.x) < chunk.count) {
    grad[threadIdx.x] = args.grad[chunk.first + threadIdx.x];
    scale[threadIdx.x] = args.scale[chunk.first + threadIdx.x];
  }
  write_common<P>(args.forward, chunk, lanes, common, shared);
  const int inner = static_cast<int>(args.forward.inner);
  float* sums = args.sums + (chunk.row * chunk.chunks + chunk.index) * (3 * inner + 1);
  for (int base = 0; base < inner; base += lanes.columns) {
    const int column = base + lanes.column;
    const bool real = column < inner;
    float own_sum = 0, out_sum = 0;
    if (real) {
      const float* own = args.forward.both + chunk.first * 2 * inner + column;
      T* to = static_cast<T*>(args.grad_both) + chunk.first * 2 * inner + column;
      const float added = common[column], out = parameter<P>(args.forward.out, column);
#pragma unroll 4
      for (int t = lanes.token; t < chunk.count; t += lanes.tokens) {
        const float h = own[int64_t{t} * 2 * inner] + added, share = normal_share<float>(h);
        const float slope = grad[t] * out * (share + h * normal_density<float>(h));
        to[int64_t{t} * 2 * inner] = from_float<T>(slope * scale[t]);
        own_sum += slope;
        out_sum += grad[t] * h * share;
      }
    }
    own_sum = over_tokens(own_sum, lanes, shared);
    out_sum = over_tokens(out_sum, lanes, shared);
    if (lanes.token != 0 || !real) continue;
    sums[column] = own_sum;
    sums[2 * inner + column] = out_sum;
  }
  if (threadIdx.x >= 32) return;
  float sum = 0;
  for (int t = static_cast<int>(threadIdx.x); t < chunk.count; t += 32) sum += grad[t];
  sum = warp_sum(sum);
  if (threadIdx.x == 0) sums[3 * inner] = sum;
}

/// Gradients of other halves: the row's sum of own halves' over its present tokens' number.
template <typename T>
__global__ void __launch_bounds__(kRowThreads)
    other_grad_kernel(Awaited<RowScoreGradArgs> awaited, int num_lanes) {
  const RowScoreGradArgs& args = awaited.get();
  __shared__ float shared[kRowThreads], means[kRowThreads], scale[kRowScoreChunk];
  const RowScoreArgs& forward = args.forward;
  const Chunk chunk(forward);
  const Lanes lanes(num_lanes);
  if (static_cast<int>(threadIdx.x) < chunk.count)
    scale[threadIdx.x] =
        chunk.is_there(forward, static_cast<int>(threadIdx.x)) ? args.scale[chunk.first + threadIdx.x] : 0.0f;
  const int inner = static_cast<int>(forward.inner), width = 3 * inner + 1;
  const int64_t row = chunk.row * chunk.chunks;
  float* sums = args.sums + row * width;
  for (int base = 0; base < inner; base += lanes.columns) {
    const int column = base + lanes.column;
    const bool real = column < inner;
    const float sum =
        over_tokens(real ? over_chunks(sums, chunk.chunks, width, column, lanes) : 0.0f, lanes, shared);
    const float count =
        over_tokens(over_chunks(forward.partial + row * (inner + 1), chunk.chunks, inner + 1, inner, lanes),
                    lanes, shared);
    if (lanes.token == 0) means[lanes.column] = sum / fmaxf(count, 1.0f);
    __syncthreads();
    if (real) {
      const float mean = means[lanes.column];
      T* to = static_cast<T*>(args.grad_both) + (chunk.first * 2 + 1) * inner + column;
      for (int t = lanes.token; t < chunk.count; t += lanes.tokens)
        to[int64_t{t} * 2 * inner] = from_float<T>(mean * scale[t]);
      // The second shift is added to a mean as the first to its tokens.
      if (lanes.token == 0)
        sums[chunk.index * width + inner + column] = count > 0 ? sums[chunk.index * width + column] : 0.0f;
    }
    __syncthreads();
  }
}

dim3 chunks_of(const RowScoreArgs& args) {
  return dim3(static_cast<unsigned>((args.tokens + kRowScoreChunk - 1) / kRowScoreChunk),
              static_cast<unsigned>(args.sequences));
}

size_t common_bytes(const RowScoreArgs& args) {
  return static_cast<size_t>(args.inner) * sizeof(float);
}

}  // namespace

cudaError_t launch_row_scores(ElementType type, const RowScoreArgs& args, cudaStream_t stream) {
  launch_awaiting(row_sum_kernel, chunks_of(args), kRowThreads, 0, stream, args, lanes_of(args.inner));
  return with_element_but_double(type, [&](auto parameter) {
    launch_awaiting(score_kernel<decltype(parameter)>, chunks_of(args), kRowThreads, common_bytes(args),
                    stream, args, lanes_of(args.inner));
    return cudaGetLastError();
  });
}

cudaError_t launch_row_scores_backward(ElementType type, ElementType grad_type, const RowScoreGradArgs& args,
                                       cudaStream_t stream) {
  return with_element_but_double(grad_type, [&](auto element) {
    using T = decltype(element);
    const dim3 chunks = chunks_of(args.forward);
    const cudaError_t error = with_element_but_double(type, [&](auto parameter) {
      launch_awaiting(own_grad_kernel<decltype(parameter), T>, chunks, kRowThreads,
                      common_bytes(args.forward), stream, args, lanes_of(args.forward.inner));
      return cudaGetLastError();
    });
    if (error != cudaSuccess) return error;
    launch_awaiting(other_grad_kernel<T>, chunks, kRowThreads, 0, stream, args, lanes_of(args.forward.inner));
    return cudaGetLastError();
  });
}

}  // namespace fathom::cuda
