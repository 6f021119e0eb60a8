// A residual sum and its layer norm: memory-bound, by rows in registers (norm_rows.cuh). Rows may be four
// neighbours of a map each.
#include "cuda/residual_layer_norm.h"

#include "cuda/norm_rows.cuh"

namespace fathom::cuda {
namespace {

/// `kWidth` parameters in float32, whichever type they are kept in.
template <typename T, int kWidth>
__device__ Elements<float, kWidth> norm_parameters(const void* values, bool narrow, int place) {
  if (!narrow) return static_cast<const Elements<float, kWidth>*>(values)[place];
  const auto vector = static_cast<const Elements<T, kWidth>*>(values)[place];
  Elements<float, kWidth> result;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) result.values[i] = to_float(vector.values[i]);
  return result;
}

/// Of a row with so many vectors. Neighbours go by column, then row: one below another, then one beside
/// another.
__device__ inline int64_t place_of(const RowPlaces& places, int64_t row, int vectors, int place) {
  if (places.quarter == 0) return row * vectors + place;
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

template <typename T, int kLanes, int kVectors>
__global__ void __launch_bounds__(kNormRowThreads) forward_kernel(ResidualLayerNormArgs args) {
  using Vector = Vector16<T>;
  constexpr int kWidth = Vector::kWidth;
  const int lane = threadIdx.x % kLanes, vectors = static_cast<int>(args.dim / kWidth);
  const int64_t row = (int64_t{blockIdx.x} * kNormRowThreads + threadIdx.x) / kLanes, first = row * vectors;
  const bool real = row < args.rows;
  const auto *x = static_cast<const Vector*>(args.x), *branch = static_cast<const Vector*>(args.branch);
  Vector sums[kVectors], added[kVectors] = {};
#pragma unroll
  for (int v = 0; v < kVectors; ++v)
    if (real && lane + v * kLanes < vectors) {
      const int64_t place = place_of(args.places, row, vectors, lane + v * kLanes);
      sums[v] = x[place];
      if (branch != nullptr) added[v] = branch[place];
    }
  auto* to = static_cast<Vector*>(args.sum) + first;
  const float factor = real ? scale_of<T>(args.branch_scale, row) : 0.0f;
  float total = 0;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    if (!real || lane + v * kLanes >= vectors) continue;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      sums[v].values[i] = from_float<T>(to_float(sums[v].values[i]) + factor * to_float(added[v].values[i]));
      total += to_float(sums[v].values[i]);
    }
    if (args.sum != nullptr) to[lane + v * kLanes] = sums[v];
  }
  const float inverse = 1.0f / static_cast<float>(args.dim);
  const float mean = sum_over_lanes<kLanes>(total) * inverse;
  float square = 0;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    if (!real || lane + v * kLanes >= vectors) continue;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const float distance = to_float(sums[v].values[i]) - mean;
      square += distance * distance;
    }
  }
  const float scale = rsqrtf(sum_over_lanes<kLanes>(square) * inverse + args.eps);
  if (!real) return;
  if (lane == 0) {
    args.mean[row] = mean;
    args.scale[row] = scale;
  }
  auto* y = static_cast<Vector*>(args.y) + first;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int place = lane + v * kLanes;
    if (place >= vectors) continue;
    const auto weight = norm_parameters<T, kWidth>(args.weight, args.narrow, place),
               bias = norm_parameters<T, kWidth>(args.bias, args.narrow, place);
    Vector normed;
#pragma unroll
    for (int i = 0; i < kWidth; ++i)
      normed.values[i] =
          from_float<T>((to_float(sums[v].values[i]) - mean) * scale * weight.values[i] + bias.values[i]);
    y[place] = normed;
  }
}

/// Blocks of a multiprocessor that registers are given out for: sums of weight and bias, and a row's two
/// factors.
constexpr int backward_residents(int vectors) {
  return vectors <= 3 ? 4 : vectors == 4 ? 3 : 1;
}

/// Rows go to groups of lanes in turn; a lane keeps the sums of its columns over its rows.
template <typename T, int kLanes, int kVectors>
__global__ void __launch_bounds__(kNormRowThreads, backward_residents(kVectors))
    backward_kernel(ResidualLayerNormGradArgs args) {
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
      const auto weight = norm_parameters<T, kWidth>(args.weight, args.narrow, place);
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
    auto *grad_x = static_cast<Vector*>(args.grad_x), *grad_branch = static_cast<Vector*>(args.grad_branch);
    const float factor = scale_of<T>(args.branch_scale, row);
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int place = lane + v * kLanes;
      if (place >= vectors) continue;
      const auto weight = norm_parameters<T, kWidth>(args.weight, args.narrow, place);
      Vector result, beside = {};
      if (args.grad_sum != nullptr) beside = grad_sum[place];
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const float normed = (to_float(value[v].values[i]) - mean) * scale,
                    inner = to_float(above[v].values[i]) * weight.values[i];
        result.values[i] =
            from_float<T>(to_float(beside.values[i]) + scale * (inner - total - normed * product));
      }
      const int64_t to = place_of(args.places, row, vectors, place);
      grad_x[to] = result;
      if (grad_branch == nullptr) continue;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) result.values[i] = from_float<T>(factor * to_float(result.values[i]));
      grad_branch[to] = result;
    }
  }
  float* partial = args.partial + blockIdx.x * int64_t{2} * args.dim;
  add_columns<kLanes>(weight_sum, args.dim, shared, partial);
  add_columns<kLanes>(bias_sum, args.dim, shared, partial + args.dim);
}

/// `with_norm_row`, but with three vectors a lane where they suffice, as in every width of a Swin.
template <typename Run>
cudaError_t with_short_norm_row(ElementType type, int64_t dim, const Run& run) {
  return with_norm_row(type, dim, [&](auto element, auto lanes, auto vectors) {
    if constexpr (decltype(vectors)::value == 4)
      if (dim / Vector16<decltype(element)>::kWidth <= 3 * decltype(lanes)::value)
        return run(element, lanes, std::integral_constant<int, 3>());
    return run(element, lanes, vectors);
  });
}

}  // namespace

cudaError_t launch_residual_layer_norm(ElementType type, const ResidualLayerNormArgs& args,
                                       cudaStream_t stream) {
  return with_short_norm_row(type, args.dim, [&](auto element, auto lanes, auto vectors) {
    using T = decltype(element);
    constexpr int kLanes = decltype(lanes)::value, kVectors = decltype(vectors)::value;
    forward_kernel<T, kLanes, kVectors>
        <<<item_blocks(args.rows * kLanes, kNormRowThreads), kNormRowThreads, 0, stream>>>(args);
    return cudaGetLastError();
  });
}

cudaError_t launch_residual_layer_norm_grad(ElementType type, const ResidualLayerNormGradArgs& args,
                                            cudaStream_t stream) {
  return with_short_norm_row(type, args.dim, [&](auto element, auto lanes, auto vectors) {
    using T = decltype(element);
    constexpr int kLanes = decltype(lanes)::value, kVectors = decltype(vectors)::value;
    const auto bytes = static_cast<size_t>(kNormRowWarps * args.dim) * sizeof(float);
    backward_kernel<T, kLanes, kVectors>
        <<<static_cast<unsigned>(args.blocks), kNormRowThreads, bytes, stream>>>(args);
    return cudaGetLastError();
  });
}

}  // namespace fathom::cuda
