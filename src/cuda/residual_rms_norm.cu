// A residual sum and its RMS norm: memory-bound, by rows in registers (norm_rows.cuh, row_shares.cuh).
#include "cuda/residual_rms_norm.h"

#include "cuda/awaited.cuh"
#include "cuda/half_cast.cuh"
#include "cuda/norm_rows.cuh"
#include "cuda/row_shares.cuh"

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

/// The same of rows that warps share, a vector a lane: with four, sums of columns leave a lane's registers no
/// room for what it reads.
template <typename T, int kRowWarps>
__global__ void __launch_bounds__(kThreads, row_share_residents(1))
    shared_backward_kernel(Awaited<ResidualNormGradArgs> awaited) {
  const ResidualNormGradArgs& args = awaited.get();
  using Vector = Vector16<T>;
  constexpr int kWidth = Vector::kWidth;
  using Columns = Elements<float, kWidth>;
  extern __shared__ float shared[];  // [kRows, dim]
  __shared__ float sums[2][kWarps][1];
  const RowShare<kRowWarps> share(args.dim / kWidth);
  const int place = share.vector(0);
  const bool has = share.has(0);
  const float inverse = 1.0f / static_cast<float>(args.dim);
  Columns weight = {}, weight_sum[1] = {};
  if (has) weight = rounded_weights<T, kWidth>(args.weight, place);
  int turn = 0;
  for (int64_t lead = blockIdx.x; lead < args.rows; lead += row_step<kRowWarps>(), turn ^= 1) {
    const int64_t row = lead - blockIdx.x + share.first, at = row * share.vectors + place;
    const bool real = has && row < args.rows;
    Vector value = {}, above = {}, beside = {};
    if (real) {
      value = static_cast<const Vector*>(args.sum)[at];
      above = static_cast<const Vector*>(args.grad)[at];
      if (args.grad_sum != nullptr) beside = static_cast<const Vector*>(args.grad_sum)[at];
    }
    const float scale = real ? args.scale[row] : 0.0f;
    float product[1] = {0};
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const float learned = to_float(above.values[i]) * to_float(value.values[i]) * scale;
      weight_sum[0].values[i] += learned;
      product[0] += learned * weight.values[i];
    }
    add_over_row<kRowWarps>(product, sums[turn]);
    if (!real) continue;
    product[0] *= inverse;
    Vector result;
    Elements<__half, kWidth> narrow;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const float inner = to_float(above.values[i]) * weight.values[i],
                  normed = to_float(value.values[i]) * scale;
      const float grad_sum = to_float(beside.values[i]) + scale * (inner - normed * product[0]);
      result.values[i] = from_float<T>(grad_sum);
      narrow.values[i] = from_float<__half>(grad_sum);
    }
    static_cast<Vector*>(args.grad_x)[at] = result;
    if constexpr (std::is_same_v<T, __nv_bfloat16>)
      if (args.grad_half != nullptr) static_cast<Elements<__half, kWidth>*>(args.grad_half)[at] = narrow;
  }
  write_row_columns(weight_sum, share, args.dim, shared, args.partial + blockIdx.x * args.dim);
}

/// Calls `run` with the number of warps that share a row; false: rows are not shared.
template <typename T, typename Run>
bool with_shared_rows(int64_t dim, const Run& run) {
  if constexpr (sizeof(T) > 2) return false;
  const RowWarps shared = row_warps(dim / Vector16<T>::kWidth);
  if (dim / Vector16<T>::kWidth <= 16 || shared.vectors > 1) return false;
  if (shared.warps == 1)
    run(std::integral_constant<int, 1>());
  else if (shared.warps == 2)
    run(std::integral_constant<int, 2>());
  else if (shared.warps == 4)
    run(std::integral_constant<int, 4>());
  else
    run(std::integral_constant<int, 8>());
  return true;
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
    using T = decltype(element);
    const bool shared = with_shared_rows<T>(args.dim, [&](auto warps) {
      constexpr int kRowWarps = decltype(warps)::value;
      const auto bytes = static_cast<size_t>(RowShare<kRowWarps>::kRows * args.dim) * sizeof(float);
      launch_awaiting(shared_backward_kernel<T, kRowWarps>, static_cast<unsigned>(args.blocks), kThreads,
                      bytes, stream, args);
    });
    if (shared) return cudaGetLastError();
    const auto bytes = static_cast<size_t>(kNormRowWarps * args.dim) * sizeof(float);
    launch_awaiting(backward_kernel<decltype(element), kLanes, kVectors>, static_cast<unsigned>(args.blocks),
                    kNormRowThreads, bytes, stream, args);
    return cudaGetLastError();
  });
}

}  // namespace fathom::cuda
