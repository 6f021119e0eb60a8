// Layer norm, of rows as they are or of a residual sum that is made on the way: memory-bound, by rows in
// registers (norm_rows.cuh). Rows of a sum may be four neighbours of a map each.
#include "cuda/layer_norm.h"

#include "cuda/awaited.cuh"
#include "cuda/norm_rows.cuh"

namespace fathom::cuda {
namespace {

/// Rows that lanes take at once, whose parameters are read once. Those of a sum hold two operands each.
template <int kVectors, bool kResidual>
constexpr int kRowsAtOnce = kVectors <= 4 && !kResidual ? 2 : 1;

/// `kWidth` parameters in float32, whichever type they are kept in; without `kResidual` that is float32,
/// since to ask takes registers that the plain kernels do not have.
template <typename T, int kWidth, bool kResidual>
__device__ Elements<float, kWidth> norm_parameters(const void* values, bool narrow, int place) {
  if (!kResidual || !narrow) return static_cast<const Elements<float, kWidth>*>(values)[place];
  const auto vector = static_cast<const Elements<T, kWidth>*>(values)[place];
  Elements<float, kWidth> result;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) result.values[i] = to_float(vector.values[i]);
  return result;
}

/// Of a row with so many vectors. Neighbours go by column, then row: one below another, then one beside
/// another.
template <bool kResidual>
__device__ int64_t place_of(const RowPlaces& places, int64_t row, int vectors, int place) {
  if (!kResidual || places.quarter == 0) return row * vectors + place;
  const int quarter = places.quarter,
            neighbour = (place >= quarter) + (place >= 2 * quarter) + (place >= 3 * quarter);
  const auto half = static_cast<unsigned>(places.half_width), line = static_cast<unsigned>(row) / half,
             column = static_cast<unsigned>(row) - line * half;
  const int64_t above = int64_t{2} * line + neighbour % 2, beside = int64_t{2} * column + neighbour / 2;
  return (above * 2 * half + beside) * quarter + place - neighbour * quarter;
}

template <typename T>
__device__ float scale_of(const BranchScale& scale, int64_t row) {
  return scale.values == nullptr ? 1.0f : to_float(static_cast<const T*>(scale.values)[row / scale.rows]);
}

/// Rows of x, or with `kResidual` of x + scale · branch, which is rounded to their type and written where it
/// is wanted.
template <typename T, int kLanes, int kVectors, bool kResidual>
__global__ void __launch_bounds__(kNormRowThreads) forward_kernel(Awaited<LayerNormArgs> awaited) {
  const LayerNormArgs& args = awaited.get();
  using Vector = Vector16<T>;
  constexpr int kWidth = Vector::kWidth, kRows = kRowsAtOnce<kVectors, kResidual>;
  const int lane = threadIdx.x % kLanes, vectors = static_cast<int>(args.dim / kWidth);
  const int64_t first = (int64_t{blockIdx.x} * kNormRowThreads + threadIdx.x) / kLanes * kRows;
  const int rows = static_cast<int>(min(args.rows - first, int64_t{kRows}));
  const auto *x = static_cast<const Vector*>(args.x), *branch = static_cast<const Vector*>(args.branch);
  Vector values[kRows][kVectors], added[kRows][kVectors] = {};
#pragma unroll
  for (int r = 0; r < kRows; ++r)
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      if (r >= rows || lane + v * kLanes >= vectors) continue;
      const int64_t place = place_of<kResidual>(args.places, first + r, vectors, lane + v * kLanes);
      values[r][v] = x[place];
      if (kResidual && branch != nullptr) added[r][v] = branch[place];
    }
  const float inverse = 1.0f / static_cast<float>(args.dim);
  float mean[kRows], scale[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float factor = kResidual && r < rows ? scale_of<T>(args.branch_scale, first + r) : 0.0f;
    auto* sum = static_cast<Vector*>(args.sum) + (first + r) * vectors;
    float total = 0, square = 0;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      if (r >= rows || lane + v * kLanes >= vectors) continue;
      Vector& vector = values[r][v];
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        if (kResidual)
          vector.values[i] =
              from_float<T>(to_float(vector.values[i]) + factor * to_float(added[r][v].values[i]));
        total += to_float(vector.values[i]);
      }
      if (kResidual && args.sum != nullptr) sum[lane + v * kLanes] = vector;
    }
    mean[r] = sum_over_lanes<kLanes>(total) * inverse;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      if (r >= rows || lane + v * kLanes >= vectors) continue;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const float distance = to_float(values[r][v].values[i]) - mean[r];
        square += distance * distance;
      }
    }
    scale[r] = rsqrtf(sum_over_lanes<kLanes>(square) * inverse + args.eps);
    if (lane == 0 && r < rows) {
      args.mean[first + r] = mean[r];
      args.scale[first + r] = scale[r];
    }
  }
  auto* y = static_cast<Vector*>(args.y) + first * vectors;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int place = lane + v * kLanes;
    if (rows <= 0 || place >= vectors) continue;
    const auto weight = norm_parameters<T, kWidth, kResidual>(args.weight, args.narrow, place),
               bias = norm_parameters<T, kWidth, kResidual>(args.bias, args.narrow, place);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r >= rows) continue;
      Vector normed;
#pragma unroll
      for (int i = 0; i < kWidth; ++i)
        normed.values[i] = from_float<T>(
            (to_float(values[r][v].values[i]) - mean[r]) * scale[r] * weight.values[i] + bias.values[i]);
      y[r * vectors + place] = normed;
    }
  }
}

/// Blocks of a multiprocessor that registers are given out for: sums of weight and bias, and a row's two
/// factors, which beside a sum share them with its gradient and a branch's.
constexpr int backward_residents(int vectors, bool residual) {
  if (!residual) return norm_row_residents(vectors);
  return vectors <= 3 ? 4 : vectors == 4 ? 3 : 1;
}

/// Rows go to groups of lanes in turn; a lane keeps the sums of its columns over its rows.
template <typename T, int kLanes, int kVectors, bool kResidual>
__global__ void __launch_bounds__(kNormRowThreads, backward_residents(kVectors, kResidual))
    backward_kernel(Awaited<LayerNormGradArgs> awaited) {
  const LayerNormGradArgs& args = awaited.get();
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
    const auto *sum = static_cast<const Vector*>(args.sum) + first,
               *grad = static_cast<const Vector*>(args.grad) + first,
               *grad_sum = static_cast<const Vector*>(args.grad_sum) + first;
    const float mean = real ? args.mean[row] : 0.0f, scale = real ? args.scale[row] : 0.0f;
    Vector value[kVectors], above[kVectors];
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int place = lane + v * kLanes;
      if (!real || place >= vectors) continue;
      value[v] = sum[place];
      above[v] = grad[place];
    }
    float total = 0, product = 0;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int place = lane + v * kLanes;
      if (!real || place >= vectors) continue;
      const auto weight = norm_parameters<T, kWidth, kResidual>(args.weight, args.narrow, place);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const float normed = (to_float(value[v].values[i]) - mean) * scale, g = to_float(above[v].values[i]),
                    inner = g * weight.values[i];
        weight_sum[v][i] += g * normed;
        bias_sum[v][i] += g;
        total += inner;
        product += inner * normed;
      }
    }
    total = sum_over_lanes<kLanes>(total) * inverse;
    product = sum_over_lanes<kLanes>(product) * inverse;
    if (!real) continue;
    auto* grad_x = static_cast<Vector*>(args.grad_x);
    const float factor = kResidual ? scale_of<T>(args.branch_scale, row) : 0.0f;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int place = lane + v * kLanes;
      if (place >= vectors) continue;
      const auto weight = norm_parameters<T, kWidth, kResidual>(args.weight, args.narrow, place);
      Vector result, beside = {};
      if (kResidual && args.grad_sum != nullptr) beside = grad_sum[place];
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const float normed = (to_float(value[v].values[i]) - mean) * scale,
                    inner = to_float(above[v].values[i]) * weight.values[i],
                    slope = scale * (inner - total - normed * product);
        result.values[i] = from_float<T>(kResidual ? to_float(beside.values[i]) + slope : slope);
      }
      const int64_t to = place_of<kResidual>(args.places, row, vectors, place);
      grad_x[to] = result;
      if constexpr (kResidual) {
        if (args.grad_branch == nullptr) continue;
#pragma unroll
        for (int i = 0; i < kWidth; ++i)
          result.values[i] = from_float<T>(factor * to_float(result.values[i]));
        static_cast<Vector*>(args.grad_branch)[to] = result;
      }
    }
  }
  float* partial = args.partial + blockIdx.x * int64_t{2} * args.dim;
  add_columns<kLanes>(weight_sum, args.dim, shared, partial);
  add_columns<kLanes>(bias_sum, args.dim, shared, partial + args.dim);
}

template <bool kResidual>
cudaError_t forward(ElementType type, const LayerNormArgs& args, cudaStream_t stream) {
  return with_short_norm_row(type, args.dim, [&](auto element, auto lanes, auto vectors) {
    using T = decltype(element);
    constexpr int kLanes = decltype(lanes)::value, kVectors = decltype(vectors)::value;
    constexpr int kRows = kRowsAtOnce<kVectors, kResidual>;
    const unsigned blocks = item_blocks((args.rows + kRows - 1) / kRows * kLanes, kNormRowThreads);
    launch_awaiting(forward_kernel<T, kLanes, kVectors, kResidual>, blocks, kNormRowThreads, 0, stream, args);
    return cudaGetLastError();
  });
}

template <bool kResidual>
cudaError_t backward(ElementType type, const LayerNormGradArgs& args, cudaStream_t stream) {
  return with_short_norm_row(type, args.dim, [&](auto element, auto lanes, auto vectors) {
    using T = decltype(element);
    constexpr int kLanes = decltype(lanes)::value, kVectors = decltype(vectors)::value;
    const auto bytes = static_cast<size_t>(kNormRowWarps * args.dim) * sizeof(float);
    launch_awaiting(backward_kernel<T, kLanes, kVectors, kResidual>, static_cast<unsigned>(args.blocks),
                    kNormRowThreads, bytes, stream, args);
    return cudaGetLastError();
  });
}

}  // namespace

cudaError_t launch_layer_norm(ElementType type, const LayerNormArgs& args, cudaStream_t stream) {
  return args.is_plain() ? forward<false>(type, args, stream) : forward<true>(type, args, stream);
}

cudaError_t launch_layer_norm_grad(ElementType type, const LayerNormGradArgs& args, cudaStream_t stream) {
  return args.is_plain() ? backward<false>(type, args, stream) : backward<true>(type, args, stream);
}

}  // namespace fathom::cuda
