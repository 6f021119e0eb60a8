// A residual sum and its RMS norm: memory-bound, by rows in registers (norm_rows.cuh).
#include "cuda/residual_rms_norm.h"

#include "cuda/awaited.cuh"
#include "cuda/half_cast.cuh"
#include "cuda/norm_rows.cuh"

namespace fathom::cuda {
namespace {

/// `kWidth` weights as they are in type T.
template <typename T, int kWidth>
__device__ Elements<float, kWidth> rounded_weights(const float* weight, int place) {
  auto result = parameters_at<kWidth>(weight, place);
#pragma unroll
  for (int i = 0; i < kWidth; ++i) result.values[i] = to_float(from_float<T>(result.values[i]));
  return result;
}

/// `Out`: of y, T or half.
template <typename T, typename Out, int kLanes, int kVectors>
__global__ void __launch_bounds__(kNormRowThreads) forward_kernel(Awaited<ResidualNormArgs> awaited) {
  const ResidualNormArgs& args = awaited.get();
  using Vector = Vector16<T>;
  constexpr int kWidth = Vector::kWidth;
  const int lane = threadIdx.x % kLanes, vectors = static_cast<int>(args.dim / kWidth);
  const int64_t row = (int64_t{blockIdx.x} * kNormRowThreads + threadIdx.x) / kLanes, first = row * vectors;
  const bool real = row < args.rows;
  const auto *x = static_cast<const Vector*>(args.x) + first,
             *branch = static_cast<const Vector*>(args.branch) + first;
  Vector sums[kVectors], added[kVectors];
#pragma unroll
  for (int v = 0; v < kVectors; ++v)
    if (real && lane + v * kLanes < vectors) {
      sums[v] = x[lane + v * kLanes];
      added[v] = branch[lane + v * kLanes];
    }
  auto* to = static_cast<Vector*>(args.sum) + first;
  float square = 0;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    if (!real || lane + v * kLanes >= vectors) continue;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      sums[v].values[i] = from_float<T>(to_float(sums[v].values[i]) + to_float(added[v].values[i]));
      square += to_float(sums[v].values[i]) * to_float(sums[v].values[i]);
    }
    to[lane + v * kLanes] = sums[v];
  }
  const float scale = rsqrtf(sum_over_lanes<kLanes>(square) / static_cast<float>(args.dim) + args.eps);
  if (!real) return;
  if (lane == 0) args.scale[row] = scale;
  auto* y = static_cast<Elements<Out, kWidth>*>(args.y) + first;
  HalfCast cast;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int place = lane + v * kLanes;
    if (place >= vectors) continue;
    const auto weight = rounded_weights<T, kWidth>(args.weight, place);
    Elements<Out, kWidth> normed;
#pragma unroll
    for (int i = 0; i < kWidth; ++i)
      normed.values[i] = written<Out, T>(to_float(sums[v].values[i]) * scale * weight.values[i], cast);
    y[place] = normed;
  }
  cast.count(args.saturated);
}

/// Rows go to groups of lanes in turn; a lane keeps the sums of its columns over its rows.
template <typename T, int kLanes, int kVectors>
__global__ void __launch_bounds__(kNormRowThreads, norm_row_residents(kVectors))
    backward_kernel(Awaited<ResidualNormGradArgs> awaited) {
  const ResidualNormGradArgs& args = awaited.get();
  using Vector = Vector16<T>;
  constexpr int kWidth = Vector::kWidth;
  extern __shared__ float shared[];  // [kNormRowWarps, dim]
  const int lane = threadIdx.x % kLanes, vectors = static_cast<int>(args.dim / kWidth);
  const int64_t group = (int64_t{blockIdx.x} * kNormRowThreads + threadIdx.x) / kLanes;
  const int64_t groups = int64_t{gridDim.x} * (kNormRowThreads / kLanes);
  const float inverse = 1.0f / static_cast<float>(args.dim);
  float weight_sum[kVectors][kWidth] = {};
  // All groups of a warp take part in every turn, since they share its shuffles.
  const int64_t turns = (args.rows + groups - 1) / groups;
  for (int64_t turn = 0; turn < turns; ++turn) {
    const int64_t row = turn * groups + group, first = row * vectors;
    const bool real = row < args.rows;
    const auto *sum = static_cast<const Vector*>(args.sum) + first,
               *grad = static_cast<const Vector*>(args.grad) + first,
               *grad_sum = static_cast<const Vector*>(args.grad_sum) + first;
    const float scale = real ? args.scale[row] : 0.0f;
    Vector value[kVectors], above[kVectors], beside[kVectors] = {};
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int place = lane + v * kLanes;
      if (!real || place >= vectors) continue;
      value[v] = sum[place];
      above[v] = grad[place];
      if (args.grad_sum != nullptr) beside[v] = grad_sum[place];
    }
    float product = 0;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int place = lane + v * kLanes;
      if (!real || place >= vectors) continue;
      const auto weight = rounded_weights<T, kWidth>(args.weight, place);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const float learned = to_float(above[v].values[i]) * to_float(value[v].values[i]) * scale;
        weight_sum[v][i] += learned;
        product += learned * weight.values[i];
      }
    }
    product = sum_over_lanes<kLanes>(product) * inverse;
    if (!real) continue;
    auto* grad_x = static_cast<Vector*>(args.grad_x) + first;
    auto* grad_half = static_cast<Elements<__half, kWidth>*>(args.grad_half) + first;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int place = lane + v * kLanes;
      if (place >= vectors) continue;
      const auto weight = rounded_weights<T, kWidth>(args.weight, place);
      Vector result;
      Elements<__half, kWidth> narrow;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const float inner = to_float(above[v].values[i]) * weight.values[i],
                    normed = to_float(value[v].values[i]) * scale;
        const float grad_sum = to_float(beside[v].values[i]) + scale * (inner - normed * product);
        result.values[i] = from_float<T>(grad_sum);
        narrow.values[i] = from_float<__half>(grad_sum);
      }
      grad_x[place] = result;
      if constexpr (std::is_same_v<T, __nv_bfloat16>)
        if (args.grad_half != nullptr) grad_half[place] = narrow;
    }
  }
  add_columns<kLanes>(weight_sum, args.dim, shared, args.partial + blockIdx.x * args.dim);
}

}  // namespace

cudaError_t launch_residual_norm(ElementType type, const ResidualNormArgs& args, cudaStream_t stream) {
  return with_norm_row(type, args.dim, [&](auto element, auto lanes, auto vectors) {
    using T = decltype(element);
    constexpr int kLanes = decltype(lanes)::value, kVectors = decltype(vectors)::value;
    const unsigned blocks = item_blocks(args.rows * kLanes, kNormRowThreads);
    if constexpr (std::is_same_v<T, __nv_bfloat16>)
      if (args.to_half) {
        launch_awaiting(forward_kernel<T, __half, kLanes, kVectors>, blocks, kNormRowThreads, 0, stream,
                        args);
        return cudaGetLastError();
      }
    if (args.to_half) return cudaErrorInvalidValue;
    launch_awaiting(forward_kernel<T, T, kLanes, kVectors>, blocks, kNormRowThreads, 0, stream, args);
    return cudaGetLastError();
  });
}

cudaError_t launch_residual_norm_grad(ElementType type, const ResidualNormGradArgs& args,
                                      cudaStream_t stream) {
  return with_norm_row(type, args.dim, [&](auto element, auto lanes, auto vectors) {
    constexpr int kLanes = decltype(lanes)::value, kVectors = decltype(vectors)::value;
    const auto bytes = static_cast<size_t>(kNormRowWarps * args.dim) * sizeof(float);
    launch_awaiting(backward_kernel<decltype(element), kLanes, kVectors>, static_cast<unsigned>(args.blocks),
                    kNormRowThreads, bytes, stream, args);
    return cudaGetLastError();
  });
}

}  // namespace fathom::cuda
