// Layer norm: memory-bound, by rows in registers (norm_rows.cuh).
#include "cuda/layer_norm.h"

#include "cuda/norm_rows.cuh"

namespace fathom::cuda {
namespace {

/// Rows that lanes take at once, whose parameters are read once.
template <int kVectors>
constexpr int kRowsAtOnce = kVectors <= 4 ? 2 : 1;

template <typename T, int kLanes, int kVectors>
__global__ void __launch_bounds__(kNormRowThreads) forward_kernel(LayerNormForwardArgs args) {
  using Vector = Vector16<T>;
  constexpr int kWidth = Vector::kWidth, kRows = kRowsAtOnce<kVectors>;
  const int lane = threadIdx.x % kLanes, vectors = static_cast<int>(args.dim / kWidth);
  const int64_t first = (int64_t{blockIdx.x} * kNormRowThreads + threadIdx.x) / kLanes * kRows;
  const int rows = static_cast<int>(min(args.rows - first, int64_t{kRows}));
  const auto* x = static_cast<const Vector*>(args.x) + first * vectors;
  Vector values[kRows][kVectors];
#pragma unroll
  for (int r = 0; r < kRows; ++r)
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int place = lane + v * kLanes;
      if (r < rows && place < vectors) values[r][v] = x[r * vectors + place];
    }
  float mean[kRows], scale[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    float sum = 0, square = 0;
#pragma unroll
    for (int v = 0; v < kVectors; ++v)
      if (r < rows && lane + v * kLanes < vectors)
#pragma unroll
        for (int i = 0; i < kWidth; ++i) sum += to_float(values[r][v].values[i]);
    mean[r] = sum_over_lanes<kLanes>(sum) / static_cast<float>(args.dim);
#pragma unroll
    for (int v = 0; v < kVectors; ++v)
      if (r < rows && lane + v * kLanes < vectors)
#pragma unroll
        for (int i = 0; i < kWidth; ++i) {
          const float centred = to_float(values[r][v].values[i]) - mean[r];
          square += centred * centred;
        }
    scale[r] = rsqrtf(sum_over_lanes<kLanes>(square) / static_cast<float>(args.dim) + args.eps);
    if (lane == 0 && r < rows) {
      args.mean[first + r] = mean[r];
      args.scale[first + r] = scale[r];
    }
  }
  auto* y = static_cast<Vector*>(args.y) + first * vectors;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int place = lane + v * kLanes;
    if (place >= vectors) continue;
    const auto weight = parameters_at<kWidth>(args.weight, place),
               bias = parameters_at<kWidth>(args.bias, place);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r >= rows) continue;
      Vector vector;
#pragma unroll
      for (int i = 0; i < kWidth; ++i)
        vector.values[i] = from_float<T>(
            (to_float(values[r][v].values[i]) - mean[r]) * scale[r] * weight.values[i] + bias.values[i]);
      y[r * vectors + place] = vector;
    }
  }
}

/// Rows go to groups of lanes in turn; a lane keeps the sums of its columns over its rows.
template <typename T, int kLanes, int kVectors>
__global__ void __launch_bounds__(kNormRowThreads, norm_row_residents(kVectors))
    backward_kernel(LayerNormBackwardArgs args) {
  using Vector = Vector16<T>;
  constexpr int kWidth = Vector::kWidth;
  extern __shared__ float shared[];  // [kNormRowWarps, dim]
  const int lane = threadIdx.x % kLanes, vectors = static_cast<int>(args.dim / kWidth);
  const int64_t group = (int64_t{blockIdx.x} * kNormRowThreads + threadIdx.x) / kLanes;
  const int64_t groups = int64_t{gridDim.x} * (kNormRowThreads / kLanes);
  const float inverse = 1.0f / static_cast<float>(args.dim);
  float weight_sum[kVectors][kWidth] = {}, bias_sum[kVectors][kWidth] = {};
  // All groups of a warp take part in every turn, since they share its shuffles.
  const int64_t turns = (args.rows + groups - 1) / groups;
  for (int64_t turn = 0; turn < turns; ++turn) {
    const int64_t row = turn * groups + group, first = row * vectors;
    const bool real = row < args.rows;
    const auto *x = static_cast<const Vector*>(args.x) + first,
               *grad = static_cast<const Vector*>(args.grad) + first;
    Vector x_vector[kVectors], grad_vector[kVectors];
#pragma unroll
    for (int v = 0; v < kVectors; ++v)
      if (real && lane + v * kLanes < vectors) {
        x_vector[v] = x[lane + v * kLanes];
        grad_vector[v] = grad[lane + v * kLanes];
      }
    const float mean = real ? args.mean[row] : 0.0f, scale = real ? args.scale[row] : 0.0f;
    float sum = 0, product = 0;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int place = lane + v * kLanes;
      if (!real || place >= vectors) continue;
      const auto weight = parameters_at<kWidth>(args.weight, place);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const float normed = (to_float(x_vector[v].values[i]) - mean) * scale,
                    g = to_float(grad_vector[v].values[i]), inner = g * weight.values[i];
        weight_sum[v][i] += g * normed;
        bias_sum[v][i] += g;
        sum += inner;
        product += inner * normed;
      }
    }
    sum = sum_over_lanes<kLanes>(sum) * inverse;
    product = sum_over_lanes<kLanes>(product) * inverse;
    if (!real) continue;
    auto* grad_x = static_cast<Vector*>(args.grad_x) + first;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int place = lane + v * kLanes;
      if (place >= vectors) continue;
      const auto weight = parameters_at<kWidth>(args.weight, place);
      Vector vector;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const float normed = (to_float(x_vector[v].values[i]) - mean) * scale,
                    inner = to_float(grad_vector[v].values[i]) * weight.values[i];
        vector.values[i] = from_float<T>(scale * (inner - sum - normed * product));
      }
      grad_x[place] = vector;
    }
  }
  float* partial = args.partial + blockIdx.x * int64_t{2} * args.dim;
  add_columns<kLanes>(weight_sum, args.dim, shared, partial);
  add_columns<kLanes>(bias_sum, args.dim, shared, partial + args.dim);
}

}  // namespace

cudaError_t launch_layer_norm(ElementType type, const LayerNormForwardArgs& args, cudaStream_t stream) {
  return with_norm_row(type, args.dim, [&](auto element, auto lanes, auto vectors) {
    constexpr int kLanes = decltype(lanes)::value, kVectors = decltype(vectors)::value;
    constexpr int kRows = kRowsAtOnce<kVectors>;
    const unsigned blocks = item_blocks((args.rows + kRows - 1) / kRows * kLanes, kNormRowThreads);
    forward_kernel<decltype(element), kLanes, kVectors><<<blocks, kNormRowThreads, 0, stream>>>(args);
    return cudaGetLastError();
  });
}

cudaError_t launch_layer_norm_backward(ElementType type, const LayerNormBackwardArgs& args,
                                       cudaStream_t stream) {
  return with_norm_row(type, args.dim, [&](auto element, auto lanes, auto vectors) {
    constexpr int kLanes = decltype(lanes)::value, kVectors = decltype(vectors)::value;
    const auto bytes = static_cast<size_t>(kNormRowWarps * args.dim) * sizeof(float);
    backward_kernel<decltype(element), kLanes, kVectors>
        <<<static_cast<unsigned>(args.blocks), kNormRowThreads, bytes, stream>>>(args);
    return cudaGetLastError();
  });
}

}  // namespace fathom::cuda
