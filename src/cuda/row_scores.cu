// Scores of a gate that sees all of its row, and their gradients: small work, so latency is what counts. A
// block takes a chunk of a row's tokens; what chunks share goes through sums of each.
#include "cuda/row_scores.h"

#include "cuda/awaited.cuh"
#include "cuda/gelu_formula.cuh"
#include "cuda/vectors.cuh"

namespace fathom::cuda {
namespace {

constexpr int kRowThreads = 256;
constexpr int kRowWarps = kRowThreads / 32;

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

/// Columns go to threads; each walks over the chunk's tokens.
__global__ void __launch_bounds__(kRowThreads) row_sum_kernel(Awaited<RowScoreArgs> awaited) {
  const RowScoreArgs& args = awaited.get();
  const Chunk chunk(args);
  const int inner = static_cast<int>(args.inner);
  float* partial = args.partial + (chunk.row * chunk.chunks + chunk.index) * (inner + 1);
  for (int column = static_cast<int>(threadIdx.x); column <= inner; column += kRowThreads) {
    const float* other = args.both + (chunk.first * 2 + 1) * inner + column;
    float sum = 0;
#pragma unroll 8
    for (int t = 0; t < chunk.count; ++t) {
      const float value = column == inner ? 1.0f : other[int64_t{t} * 2 * inner];
      sum += chunk.is_there(args, t) ? value : 0.0f;
    }
    partial[column] = sum;
  }
}

/// What a token's own half is added to: the shifts and the row's mean. All threads of the block call.
template <typename P>
__device__ void write_common(const RowScoreArgs& args, const Chunk& chunk, float* common) {
  const int inner = static_cast<int>(args.inner);
  const float* partial = args.partial + chunk.row * chunk.chunks * (inner + 1);
  for (int column = static_cast<int>(threadIdx.x); column < inner; column += kRowThreads) {
    float sum = 0, count = 0;
    for (int64_t other = 0; other < chunk.chunks; ++other) {
      sum += partial[other * (inner + 1) + column];
      count += partial[other * (inner + 1) + inner];
    }
    // A row of padding alone has no mean, of which the shift would be a part.
    const float mean = count > 0 ? sum / count + parameter<P>(args.shift, inner + column) : 0.0f;
    common[column] = mean + parameter<P>(args.shift, column);
  }
  __syncthreads();
}

/// A warp a token.
template <typename P>
__global__ void __launch_bounds__(kRowThreads) score_kernel(Awaited<RowScoreArgs> awaited) {
  const RowScoreArgs& args = awaited.get();
  extern __shared__ float common[];
  const Chunk chunk(args);
  write_common<P>(args, chunk, common);
  const int lane = threadIdx.x % 32, inner = static_cast<int>(args.inner);
  const float bias = parameter<P>(args.bias, 0);
  for (int token = static_cast<int>(threadIdx.x) / 32; token < chunk.count; token += kRowWarps) {
    const float* own = args.both + (chunk.first + token) * 2 * inner;
    float sum = 0;
    for (int i = lane; i < inner; i += 32) sum += gelu(own[i] + common[i]) * parameter<P>(args.out, i);
    sum = warp_sum(sum);
    if (lane == 0) args.score[chunk.first + token] = sum + bias;
  }
}

/// Gradients of own halves, and a chunk's sums: of these, for the shifts and the mean; for `out`; for `bias`.
/// Columns go to threads.
template <typename P, typename T>
__global__ void __launch_bounds__(kRowThreads) own_grad_kernel(Awaited<RowScoreGradArgs> awaited) {
  const RowScoreGradArgs& args = awaited.get();
  extern __shared__ float common[];
  __shared__ float grad[kRowScoreChunk], scale[kRowScoreChunk];
  const Chunk chunk(args.forward);
  if (static_cast<int>(threadIdx.x) < chunk.count) {
    grad[threadIdx.x] = args.grad[chunk.first + threadIdx.x];
    scale[threadIdx.x] = args.scale[chunk.first + threadIdx.x];
  }
  write_common<P>(args.forward, chunk, common);
  const int inner = static_cast<int>(args.forward.inner);
  float* sums = args.sums + (chunk.row * chunk.chunks + chunk.index) * (3 * inner + 1);
  for (int column = static_cast<int>(threadIdx.x); column < inner; column += kRowThreads) {
    const float* own = args.forward.both + chunk.first * 2 * inner + column;
    T* to = static_cast<T*>(args.grad_both) + chunk.first * 2 * inner + column;
    const float shared = common[column], out = parameter<P>(args.forward.out, column);
    float own_sum = 0, out_sum = 0;
#pragma unroll 4
    for (int t = 0; t < chunk.count; ++t) {
      const float h = own[int64_t{t} * 2 * inner] + shared, share = normal_share(h);
      const float slope = grad[t] * out * (share + h * normal_density<float>(h));
      to[int64_t{t} * 2 * inner] = from_float<T>(slope * scale[t]);
      own_sum += slope;
      out_sum += grad[t] * h * share;
    }
    sums[column] = own_sum;
    sums[2 * inner + column] = out_sum;
  }
  if (threadIdx.x == 0) {
    float sum = 0;
    for (int t = 0; t < chunk.count; ++t) sum += grad[t];
    sums[3 * inner] = sum;
  }
}

/// Gradients of other halves: the row's sum of own halves' over its present tokens' number.
template <typename T>
__global__ void __launch_bounds__(kRowThreads) other_grad_kernel(Awaited<RowScoreGradArgs> awaited) {
  const RowScoreGradArgs& args = awaited.get();
  __shared__ float scale[kRowScoreChunk];
  const RowScoreArgs& forward = args.forward;
  const Chunk chunk(forward);
  if (static_cast<int>(threadIdx.x) < chunk.count)
    scale[threadIdx.x] =
        chunk.is_there(forward, static_cast<int>(threadIdx.x)) ? args.scale[chunk.first + threadIdx.x] : 0.0f;
  __syncthreads();
  const int inner = static_cast<int>(forward.inner);
  const int64_t row = chunk.row * chunk.chunks;
  for (int column = static_cast<int>(threadIdx.x); column < inner; column += kRowThreads) {
    float sum = 0, count = 0, own = 0;
    for (int64_t other = row; other < row + chunk.chunks; ++other) {
      const float of_chunk = args.sums[other * (3 * inner + 1) + column];
      sum += of_chunk;
      if (other == row + chunk.index) own = of_chunk;
      count += forward.partial[other * (inner + 1) + inner];
    }
    const float mean = sum / fmaxf(count, 1.0f);
    T* to = static_cast<T*>(args.grad_both) + (chunk.first * 2 + 1) * inner + column;
    for (int t = 0; t < chunk.count; ++t) to[int64_t{t} * 2 * inner] = from_float<T>(mean * scale[t]);
    // The second shift is added to a mean as the first to its tokens.
    args.sums[(row + chunk.index) * (3 * inner + 1) + inner + column] = count > 0 ? own : 0.0f;
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
  launch_awaiting(row_sum_kernel, chunks_of(args), kRowThreads, 0, stream, args);
  return with_element_but_double(type, [&](auto parameter) {
    launch_awaiting(score_kernel<decltype(parameter)>, chunks_of(args), kRowThreads, common_bytes(args),
                    stream, args);
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
                      common_bytes(args.forward), stream, args);
      return cudaGetLastError();
    });
    if (error != cudaSuccess) return error;
    launch_awaiting(other_grad_kernel<T>, chunks, kRowThreads, 0, stream, args);
    return cudaGetLastError();
  });
}

}  // namespace fathom::cuda
