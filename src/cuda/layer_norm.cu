// Layer norm: memory-bound, by rows in registers (norm_rows.cuh).
#include "cuda/layer_norm.h"

#include "cuda/norm_rows.cuh"

namespace fathom::cuda {
namespace {

template <typename T, int kLanes, int kVectors>
__global__ void __launch_bounds__(kNormRowThreads) forward_kernel(LayerNormForwardArgs args) {
  using Vector = Vector16<T>;
  constexpr int kWidth = Vector::kWidth;
  const int lane = threadIdx.x % kLanes, vectors = static_cast<int>(args.dim / kWidth);
  const int64_t row = (static_cast<int64_t>(blockIdx.x) * kNormRowThreads + threadIdx.x) / kLanes;
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
__global__ void __launch_bounds__(kNormRowThreads) backward_kernel(LayerNormBackwardArgs args) {
  using Vector = Vector16<T>;
  constexpr int kWidth = Vector::kWidth;
  extern __shared__ float shared[];  // [kNormRowWarps, dim]
  const int lane = threadIdx.x % kLanes, vectors = static_cast<int>(args.dim / kWidth);
  const int64_t group = (static_cast<int64_t>(blockIdx.x) * kNormRowThreads + threadIdx.x) / kLanes;
  const int64_t groups = static_cast<int64_t>(gridDim.x) * (kNormRowThreads / kLanes);
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
  float* partial = args.partial + blockIdx.x * int64_t{2} * args.dim;
  add_columns<kLanes>(weight_sum, args.dim, shared, partial);
  add_columns<kLanes>(bias_sum, args.dim, shared, partial + args.dim);
}

template <typename T>
cudaError_t forward(const LayerNormForwardArgs& args, cudaStream_t stream) {
  return with_norm_shape(args.dim / Vector16<T>::kWidth, [&](auto lanes, auto vectors) {
    constexpr int kLanes = decltype(lanes)::value, kVectors = decltype(vectors)::value;
    const int64_t blocks = (args.rows * kLanes + kNormRowThreads - 1) / kNormRowThreads;
    forward_kernel<T, kLanes, kVectors><<<static_cast<unsigned>(blocks), kNormRowThreads, 0, stream>>>(args);
    return cudaGetLastError();
  });
}

template <typename T>
cudaError_t backward(const LayerNormBackwardArgs& args, cudaStream_t stream) {
  return with_norm_shape(args.dim / Vector16<T>::kWidth, [&](auto lanes, auto vectors) {
    constexpr int kLanes = decltype(lanes)::value, kVectors = decltype(vectors)::value;
    const auto bytes = static_cast<size_t>(kNormRowWarps * args.dim) * sizeof(float);
    backward_kernel<T, kLanes, kVectors>
        <<<static_cast<unsigned>(args.blocks), kNormRowThreads, bytes, stream>>>(args);
    return cudaGetLastError();
  });
}

}  // namespace

bool layer_norm_fits(ElementType type, int64_t dim) {
  return norm_row_fits(type, dim);
}

int64_t layer_norm_blocks(ElementType type, int64_t rows, int64_t dim) {
  return norm_row_blocks(type, rows, dim);
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
