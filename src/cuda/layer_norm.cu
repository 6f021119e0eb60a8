// Layer norm: memory-bound. A row is kept in the registers of a few neighbouring lanes of one warp, so each
// element is read once and written once.
#include <algorithm>
#include <type_traits>

#include "cuda/layer_norm.h"
#include "cuda/vectors.cuh"

namespace fathom::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr int kMaxVectors = 8;  ///< of a lane

/// Lanes that share a row: the fewest that hold it in three or four vectors each.
int lanes_of(int64_t vectors) {
  int lanes = 1;
  while (lanes < 32 && vectors > int64_t{lanes} * 4) lanes *= 2;
  return lanes;
}

template <int kLanes>
__device__ float sum_over_lanes(float x) {
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffff, x, step);
  return x;
}

template <typename T, int kLanes, int kVectors>
__global__ void __launch_bounds__(kThreads) forward_kernel(LayerNormForwardArgs args) {
  using Vector = Vector16<T>;
  constexpr int kWidth = Vector::kWidth;
  const int lane = threadIdx.x % kLanes, vectors = static_cast<int>(args.dim / kWidth);
  const int64_t row = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kLanes;
  const bool real = row < args.rows;
  const auto* x = reinterpret_cast<const Vector*>(static_cast<const T*>(args.x) + row * args.dim);
  float values[kVectors][kWidth];
  float sum = 0;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int place = lane + v * kLanes;
    const bool inside = real && place < vectors;
    Vector vector;
    if (inside) vector = x[place];
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      values[v][i] = inside ? to_float(vector.values[i]) : 0.0f;
      sum += values[v][i];
    }
  }
  const float mean = sum_over_lanes<kLanes>(sum) / static_cast<float>(args.dim);
  float square = 0;
#pragma unroll
  for (int v = 0; v < kVectors; ++v)
    if (lane + v * kLanes < vectors)
#pragma unroll
      for (int i = 0; i < kWidth; ++i) square += (values[v][i] - mean) * (values[v][i] - mean);
  const float scale = rsqrtf(sum_over_lanes<kLanes>(square) / static_cast<float>(args.dim) + args.eps);
  if (!real) return;
  if (lane == 0) {
    args.mean[row] = mean;
    args.scale[row] = scale;
  }
  auto* y = reinterpret_cast<Vector*>(static_cast<T*>(args.y) + row * args.dim);
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int place = lane + v * kLanes;
    if (place >= vectors) continue;
    Vector vector;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const int column = place * kWidth + i;
      vector.values[i] = from_float<T>((values[v][i] - mean) * scale * __ldg(args.weight + column) +
                                       __ldg(args.bias + column));
    }
    y[place] = vector;
  }
}

/// Rows go to groups of lanes in turn; a lane keeps the sums of its columns over its rows.
template <typename T, int kLanes, int kVectors>
__global__ void __launch_bounds__(kThreads) backward_kernel(LayerNormBackwardArgs args) {
  using Vector = Vector16<T>;
  constexpr int kWidth = Vector::kWidth;
  extern __shared__ float shared[];  // [kWarps, dim]
  const int lane = threadIdx.x % kLanes, vectors = static_cast<int>(args.dim / kWidth);
  const int64_t group = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kLanes;
  const int64_t groups = static_cast<int64_t>(gridDim.x) * (kThreads / kLanes);
  const float inverse = 1.0f / static_cast<float>(args.dim);
  float weight_sum[kVectors][kWidth] = {}, bias_sum[kVectors][kWidth] = {};
  // All groups of a warp take part in every turn, since they share its shuffles.
  const int64_t turns = (args.rows + groups - 1) / groups;
  for (int64_t turn = 0; turn < turns; ++turn) {
    const int64_t row = turn * groups + group;
    const bool real = row < args.rows;
    const auto* x = reinterpret_cast<const Vector*>(static_cast<const T*>(args.x) + row * args.dim);
    const auto* grad = reinterpret_cast<const Vector*>(static_cast<const T*>(args.grad) + row * args.dim);
    const float mean = real ? args.mean[row] : 0.0f, scale = real ? args.scale[row] : 0.0f;
    Vector x_vector[kVectors], grad_vector[kVectors];
#pragma unroll
    for (int v = 0; v < kVectors; ++v)
      if (real && lane + v * kLanes < vectors) {
        x_vector[v] = x[lane + v * kLanes];
        grad_vector[v] = grad[lane + v * kLanes];
      }
    float sum = 0, product = 0;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int place = lane + v * kLanes;
      if (!real || place >= vectors) continue;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const float normed = (to_float(x_vector[v].values[i]) - mean) * scale,
                    g = to_float(grad_vector[v].values[i]),
                    inner = g * __ldg(args.weight + place * kWidth + i);
        weight_sum[v][i] += g * normed;
        bias_sum[v][i] += g;
        sum += inner;
        product += inner * normed;
      }
    }
    sum = sum_over_lanes<kLanes>(sum) * inverse;
    product = sum_over_lanes<kLanes>(product) * inverse;
    if (!real) continue;
    auto* grad_x = reinterpret_cast<Vector*>(static_cast<T*>(args.grad_x) + row * args.dim);
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int place = lane + v * kLanes;
      if (place >= vectors) continue;
      Vector vector;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const float normed = (to_float(x_vector[v].values[i]) - mean) * scale,
                    inner = to_float(grad_vector[v].values[i]) * __ldg(args.weight + place * kWidth + i);
        vector.values[i] = from_float<T>(scale * (inner - sum - normed * product));
      }
      grad_x[place] = vector;
    }
  }
  for (int part = 0; part < 2; ++part) {
    __syncthreads();
#pragma unroll
    for (int v = 0; v < kVectors; ++v)
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        float sum = part == 0 ? weight_sum[v][i] : bias_sum[v][i];
#pragma unroll
        for (int step = kLanes; step < 32; step *= 2) sum += __shfl_xor_sync(0xffffffff, sum, step);
        const int place = lane + v * kLanes;
        if (threadIdx.x % 32 < kLanes && place < vectors)
          shared[(threadIdx.x / 32) * args.dim + place * kWidth + i] = sum;
      }
    __syncthreads();
    for (int64_t column = threadIdx.x; column < args.dim; column += kThreads) {
      float sum = 0;
#pragma unroll
      for (int warp = 0; warp < kWarps; ++warp) sum += shared[warp * args.dim + column];
      args.partial[(blockIdx.x * int64_t{2} + part) * args.dim + column] = sum;
    }
  }
}

/// Calls `run` with lanes and vectors as compile-time numbers.
template <typename Run>
cudaError_t with_shape(int64_t vectors, const Run& run) {
  switch (lanes_of(vectors)) {
    case 1:
      return run(std::integral_constant<int, 1>(), std::integral_constant<int, 4>());
    case 2:
      return run(std::integral_constant<int, 2>(), std::integral_constant<int, 4>());
    case 4:
      return run(std::integral_constant<int, 4>(), std::integral_constant<int, 4>());
    case 8:
      return run(std::integral_constant<int, 8>(), std::integral_constant<int, 4>());
    case 16:
      return run(std::integral_constant<int, 16>(), std::integral_constant<int, 4>());
    default:
      return vectors <= 128
                 ? run(std::integral_constant<int, 32>(), std::integral_constant<int, 4>())
                 : run(std::integral_constant<int, 32>(), std::integral_constant<int, kMaxVectors>());
  }
}

template <typename T>
cudaError_t forward(const LayerNormForwardArgs& args, cudaStream_t stream) {
  return with_shape(args.dim / Vector16<T>::kWidth, [&](auto lanes, auto vectors) {
    constexpr int kLanes = decltype(lanes)::value, kVectors = decltype(vectors)::value;
    const int64_t blocks = (args.rows * kLanes + kThreads - 1) / kThreads;
    forward_kernel<T, kLanes, kVectors><<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(args);
    return cudaGetLastError();
  });
}

template <typename T>
cudaError_t backward(const LayerNormBackwardArgs& args, cudaStream_t stream) {
  return with_shape(args.dim / Vector16<T>::kWidth, [&](auto lanes, auto vectors) {
    constexpr int kLanes = decltype(lanes)::value, kVectors = decltype(vectors)::value;
    const auto bytes = static_cast<size_t>(kWarps * args.dim) * sizeof(float);
    backward_kernel<T, kLanes, kVectors>
        <<<static_cast<unsigned>(args.blocks), kThreads, bytes, stream>>>(args);
    return cudaGetLastError();
  });
}

int64_t vectors_of(ElementType type, int64_t dim) {
  const int64_t width = type == ElementType::kFloat ? 4 : 8;
  return dim % width == 0 ? dim / width : 0;
}

}  // namespace

bool layer_norm_fits(ElementType type, int64_t dim) {
  const int64_t vectors = vectors_of(type, dim);
  return type != ElementType::kDouble && vectors > 0 && vectors <= 32 * kMaxVectors;
}

int64_t layer_norm_blocks(ElementType type, int64_t rows, int64_t dim) {
  const int64_t groups = kThreads / lanes_of(vectors_of(type, dim));
  return std::max<int64_t>(1, std::min<int64_t>((rows + groups - 1) / groups, int64_t{kMultiprocessors} * 4));
}

cudaError_t launch_layer_norm(ElementType type, const LayerNormForwardArgs& args, cudaStream_t stream) {
  switch (type) {
    case ElementType::kFloat:
      return forward<float>(args, stream);
    case ElementType::kHalf:
      return forward<__half>(args, stream);
    case ElementType::kBFloat16:
      return forward<__nv_bfloat16>(args, stream);
    case ElementType::kDouble:
      break;
  }
  return cudaErrorInvalidValue;
}

cudaError_t launch_layer_norm_backward(ElementType type, const LayerNormBackwardArgs& args,
                                       cudaStream_t stream) {
  switch (type) {
    case ElementType::kFloat:
      return backward<float>(args, stream);
    case ElementType::kHalf:
      return backward<__half>(args, stream);
    case ElementType::kBFloat16:
      return backward<__nv_bfloat16>(args, stream);
    case ElementType::kDouble:
      break;
  }
  return cudaErrorInvalidValue;
}

}  // namespace fathom::cuda
