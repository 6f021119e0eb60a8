// AdamW over all parameters: memory-bound. A block takes a chunk of one tensor, each thread four elements a
// turn.
#include "cuda/adamw_step.h"
#include "cuda/awaited.cuh"
#include "cuda/half_cast.cuh"

namespace fathom::cuda {
namespace {

constexpr int kChunkThreads = 256;
constexpr int kSumThreads = 1024;

template <typename T, int kWidth>
using Piece = Elements<T, kWidth>;

template <typename T, int kWidth>
__device__ Piece<T, kWidth>& piece(void* tensor, int64_t place) {
  return *reinterpret_cast<Piece<T, kWidth>*>(static_cast<T*>(tensor) + place);
}

template <typename T, int kWidth>
__device__ Piece<T, kWidth> read_piece(const void* tensor, int64_t place, bool is_aligned) {
  const T* from = static_cast<const T*>(tensor) + place;
  if (is_aligned) return *reinterpret_cast<const Piece<T, kWidth>*>(from);
  Piece<T, kWidth> result;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) result.values[i] = from[i];
  return result;
}

/// In every thread, in the same order in every run.
template <int kThreads>
__device__ double block_sum(double x) {
  __shared__ double warps[kThreads / 32];
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) x += __shfl_xor_sync(0xffffffff, x, lanes);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = x;
  __syncthreads();
  double sum = 0;
  for (int warp = 0; warp < kThreads / 32; ++warp) sum += warps[warp];
  return sum;
}

template <typename G>
__device__ double chunk_squares(const AdamWTensor& tensor, const AdamWChunk& chunk) {
  constexpr int kWidth = 4;
  Computed<G> sums[kWidth] = {};
  const int64_t whole_end = chunk.begin + (chunk.end - chunk.begin) / kWidth * kWidth;
  for (int64_t i = chunk.begin + threadIdx.x * kWidth; i < whole_end; i += kChunkThreads * kWidth) {
    const auto gradient = read_piece<G, kWidth>(tensor.gradient, i, tensor.gradient_is_aligned);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      const Computed<G> g = widened(gradient.values[j]);
      sums[j] += g * g;
    }
  }
  if (const int64_t i = whole_end + threadIdx.x; i < chunk.end) {
    const Computed<G> g = widened(static_cast<const G*>(tensor.gradient)[i]);
    sums[0] += g * g;
  }
  return static_cast<double>(sums[0]) + sums[1] + sums[2] + sums[3];
}

__global__ void __launch_bounds__(kChunkThreads) chunk_squares_kernel(Awaited<GradientNormArgs> awaited) {
  const GradientNormArgs& args = awaited.get();
  const AdamWChunk chunk = args.table.chunks[blockIdx.x];
  const AdamWTensor tensor = args.table.tensors[chunk.tensor];
  double sum = 0;
  switch (tensor.gradient_type) {
    case ElementType::kFloat:
      sum = chunk_squares<float>(tensor, chunk);
      break;
    case ElementType::kDouble:
      sum = chunk_squares<double>(tensor, chunk);
      break;
    case ElementType::kHalf:
      sum = chunk_squares<__half>(tensor, chunk);
      break;
    case ElementType::kBFloat16:
      sum = chunk_squares<__nv_bfloat16>(tensor, chunk);
      break;
  }
  sum = block_sum<kChunkThreads>(sum);
  if (threadIdx.x == 0) args.partial[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kSumThreads) norm_kernel(Awaited<GradientNormArgs> awaited) {
  const GradientNormArgs& args = awaited.get();
  double sum = 0;
  for (int64_t i = threadIdx.x; i < args.table.num_chunks; i += kSumThreads) sum += args.partial[i];
  sum = block_sum<kSumThreads>(sum);
  if (threadIdx.x == 0) *args.norm = sqrt(sum) / (args.divisor ? static_cast<double>(*args.divisor) : 1.0);
}

__global__ void scalars_kernel(Awaited<AdamWStepArgs> awaited) {
  const AdamWStepArgs& args = awaited.get();
  *args.scalars = kernels::adamw_scalars(args.pointers, args.settings);
}

template <typename T, int kWidth>
__device__ void write_copy(const AdamWTensor& tensor, int64_t place, const Piece<T, kWidth>& parameter,
                           HalfCast& cast) {
  if (tensor.copy_type == ElementType::kHalf) {
    Piece<__half, kWidth> copy;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) copy.values[j] = cast(static_cast<float>(parameter.values[j]));
    piece<__half, kWidth>(tensor.copy, place) = copy;
  } else {
    Piece<__nv_bfloat16, kWidth> copy;
#pragma unroll
    for (int j = 0; j < kWidth; ++j)
      copy.values[j] = __float2bfloat16_rn(static_cast<float>(parameter.values[j]));
    piece<__nv_bfloat16, kWidth>(tensor.copy, place) = copy;
  }
}

/// What all elements of a tensor have in common.
template <typename T>
struct TensorStep {
  kernels::AdamWCoefficients<T> by;
  T average_weight;
};

/// Elements [begin, end), whose number is a multiple of kWidth.
template <typename T, typename G, int kWidth>
__device__ void step_range(const AdamWTensor& tensor, const TensorStep<T>& step, int64_t begin, int64_t end,
                           HalfCast& cast) {
  for (int64_t i = begin + threadIdx.x * kWidth; i < end; i += kChunkThreads * kWidth) {
    auto parameter = piece<T, kWidth>(tensor.parameter, i), first = piece<T, kWidth>(tensor.first, i),
         second = piece<T, kWidth>(tensor.second, i);
    const auto gradient =
        read_piece<G, kWidth>(tensor.gradient, i, kWidth == 1 || tensor.gradient_is_aligned);
#pragma unroll
    for (int j = 0; j < kWidth; ++j)
      kernels::adamw_update<T>(step.by, widened(gradient.values[j]), parameter.values[j], first.values[j],
                               second.values[j]);
    piece<T, kWidth>(tensor.parameter, i) = parameter;
    piece<T, kWidth>(tensor.first, i) = first;
    piece<T, kWidth>(tensor.second, i) = second;
    if (tensor.average) {
      auto average = piece<T, kWidth>(tensor.average, i);
#pragma unroll
      for (int j = 0; j < kWidth; ++j)
        average.values[j] += step.average_weight * (parameter.values[j] - average.values[j]);
      piece<T, kWidth>(tensor.average, i) = average;
    }
    if (tensor.copy) write_copy<T, kWidth>(tensor, i, parameter, cast);
  }
}

template <typename T, typename G>
__device__ void step_chunk(const AdamWTensor& tensor, const AdamWChunk& chunk, const AdamWStepArgs& args) {
  const TensorStep<T> step = {kernels::adamw_coefficients<T>(*args.scalars, args.settings,
                                                             tensor.learning_rate_scale, tensor.weight_decay),
                              static_cast<T>(args.scalars->average_weight)};
  const int64_t whole = tensor.is_aligned ? (chunk.end - chunk.begin) / 4 * 4 : 0;
  HalfCast cast;
  step_range<T, G, 4>(tensor, step, chunk.begin, chunk.begin + whole, cast);
  step_range<T, G, 1>(tensor, step, chunk.begin + whole, chunk.end, cast);
  cast.count(args.saturated);
}

__global__ void __launch_bounds__(kChunkThreads) adamw_step_kernel(Awaited<AdamWStepArgs> awaited) {
  const AdamWStepArgs& args = awaited.get();
  if (args.scalars->is_skipped) return;
  const AdamWChunk chunk = args.table.chunks[blockIdx.x];
  const AdamWTensor tensor = args.table.tensors[chunk.tensor];
  switch (tensor.gradient_type) {
    case ElementType::kFloat:
      return step_chunk<float, float>(tensor, chunk, args);
    case ElementType::kDouble:
      return step_chunk<double, double>(tensor, chunk, args);
    case ElementType::kHalf:
      return step_chunk<float, __half>(tensor, chunk, args);
    case ElementType::kBFloat16:
      return step_chunk<float, __nv_bfloat16>(tensor, chunk, args);
  }
}

}  // namespace

cudaError_t launch_gradient_norm(const GradientNormArgs& args, cudaStream_t stream) {
  if (args.table.num_chunks > 0)
    launch_awaiting(chunk_squares_kernel, static_cast<unsigned>(args.table.num_chunks), kChunkThreads, 0,
                    stream, args);
  launch_awaiting(norm_kernel, 1, kSumThreads, 0, stream, args);
  return cudaGetLastError();
}

cudaError_t launch_adamw_step(const AdamWStepArgs& args, cudaStream_t stream) {
  launch_awaiting(scalars_kernel, 1, 1, 0, stream, args);
  if (args.table.num_chunks > 0)
    launch_awaiting(adamw_step_kernel, static_cast<unsigned>(args.table.num_chunks), kChunkThreads, 0, stream,
                    args);
  return cudaGetLastError();
}

}  // namespace fathom::cuda
