// Layer norms of rows of which the device alone knows how many there are, the rows of windows, and what these
// brought: memory-bound.
#include "cuda/counted_layers.h"

#include "cuda/awaited.cuh"
#include "cuda/norm_rows.cuh"
#include "cuda/row_grid.h"
#include "cuda/score_formula.cuh"

namespace fathom::cuda {
namespace {

/// Blocks of a backward pass on a multiprocessor.
constexpr int residents(int vectors) {
  return vectors <= 4 ? 3 : 1;
}

__device__ int rows_there(const RowsArgs& rows) {
  return rows.start[rows.sequences];
}

/// Mean and 1 / deviation of a row that neighbouring lanes hold. All lanes of a warp take part.
template <int kLanes, int kVectors, typename Vector>
__device__ void row_moments(const Vector (&values)[kVectors], bool real, int lane, int vectors, float inverse,
                            float eps, float& mean, float& scale) {
  float total = 0, square = 0;
#pragma unroll
  for (int v = 0; v < kVectors; ++v)
    if (real && lane + v * kLanes < vectors)
#pragma unroll
      for (int i = 0; i < Vector::kWidth; ++i) total += to_float(values[v].values[i]);
  mean = sum_over_lanes<kLanes>(total) * inverse;
#pragma unroll
  for (int v = 0; v < kVectors; ++v)
    if (real && lane + v * kLanes < vectors)
#pragma unroll
      for (int i = 0; i < Vector::kWidth; ++i) {
        const float distance = to_float(values[v].values[i]) - mean;
        square += distance * distance;
      }
  scale = rsqrtf(sum_over_lanes<kLanes>(square) * inverse + eps);
}

/// Rows go to groups of lanes in turn. All groups of a warp take part in every turn, since they share its
/// shuffles.
template <typename T, int kLanes, int kVectors>
__global__ void __launch_bounds__(kNormRowThreads) norm_kernel(Awaited<GatheredNormArgs> awaited) {
  const GatheredNormArgs& args = awaited.get();
  using Vector = Vector16<T>;
  constexpr int kWidth = Vector::kWidth;
  const int lane = threadIdx.x % kLanes, vectors = static_cast<int>(args.dim / kWidth);
  const int group = static_cast<int>((blockIdx.x * kNormRowThreads + threadIdx.x) / kLanes),
            groups = static_cast<int>(gridDim.x) * (kNormRowThreads / kLanes);
  const int count = rows_there(args.rows), turns = (count + groups - 1) / groups;
  const float inverse = 1.0f / static_cast<float>(args.dim);
  for (int turn = 0; turn < turns; ++turn) {
    const int row = turn * groups + group;
    const bool real = row < count;
    const auto* x = static_cast<const Vector*>(args.x) + (real ? int64_t{args.rows.place[row]} * vectors : 0);
    Vector values[kVectors] = {};
#pragma unroll
    for (int v = 0; v < kVectors; ++v)
      if (real && lane + v * kLanes < vectors) values[v] = x[lane + v * kLanes];
    float mean, scale;
    row_moments<kLanes>(values, real, lane, vectors, inverse, args.eps, mean, scale);
    auto* y = static_cast<Vector*>(args.y) + int64_t{row} * vectors;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int place = lane + v * kLanes;
      if (!real || place >= vectors) continue;
      const auto weight = parameters_at<kWidth>(args.weight, place),
                 bias = parameters_at<kWidth>(args.bias, place);
      Vector normed;
#pragma unroll
      for (int i = 0; i < kWidth; ++i)
        normed.values[i] =
            from_float<T>((to_float(values[v].values[i]) - mean) * scale * weight.values[i] + bias.values[i]);
      y[place] = normed;
    }
  }
}

/// A lane keeps the sums of its columns over its rows.
template <typename T, int kLanes, int kVectors>
__global__ void __launch_bounds__(kNormRowThreads, residents(kVectors))
    norm_grad_kernel(Awaited<GatheredNormGradArgs> awaited) {
  const GatheredNormGradArgs& args = awaited.get();
  using Vector = Vector16<T>;
  constexpr int kWidth = Vector::kWidth;
  extern __shared__ float shared[];  // [kNormRowWarps, dim]
  const int lane = threadIdx.x % kLanes, vectors = static_cast<int>(args.dim / kWidth);
  const int group = static_cast<int>((blockIdx.x * kNormRowThreads + threadIdx.x) / kLanes),
            groups = static_cast<int>(gridDim.x) * (kNormRowThreads / kLanes);
  const int count = rows_there(args.rows), turns = (count + groups - 1) / groups;
  const float inverse = 1.0f / static_cast<float>(args.dim);
  float weight_sum[kVectors][kWidth] = {}, bias_sum[kVectors][kWidth] = {};
  for (int turn = 0; turn < turns; ++turn) {
    const int row = turn * groups + group;
    const bool real = row < count;
    const int64_t at = real ? int64_t{args.rows.place[row]} * vectors : 0;
    const auto *x = static_cast<const Vector*>(args.x) + at,
               *grad = static_cast<const Vector*>(args.grad) + int64_t{row} * vectors;
    auto* grad_x = static_cast<Vector*>(args.grad_x) + at;
    Vector values[kVectors] = {}, above[kVectors] = {}, result[kVectors] = {};
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int place = lane + v * kLanes;
      if (!real || place >= vectors) continue;
      values[v] = x[place];
      above[v] = grad[place];
      result[v] = grad_x[place];
    }
    float mean, scale;
    row_moments<kLanes>(values, real, lane, vectors, inverse, args.eps, mean, scale);
    float total = 0, product = 0;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int place = lane + v * kLanes;
      if (!real || place >= vectors) continue;
      const auto weight = parameters_at<kWidth>(args.weight, place);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const float normed = (to_float(values[v].values[i]) - mean) * scale, g = to_float(above[v].values[i]),
                    inner = g * weight.values[i];
        weight_sum[v][i] += g * normed;
        bias_sum[v][i] += g;
        total += inner;
        product += inner * normed;
      }
    }
    total = sum_over_lanes<kLanes>(total) * inverse;
    product = sum_over_lanes<kLanes>(product) * inverse;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int place = lane + v * kLanes;
      if (!real || place >= vectors) continue;
      const auto weight = parameters_at<kWidth>(args.weight, place);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const float normed = (to_float(values[v].values[i]) - mean) * scale,
                    inner = to_float(above[v].values[i]) * weight.values[i];
        result[v].values[i] =
            from_float<T>(to_float(result[v].values[i]) + scale * (inner - total - normed * product));
      }
      grad_x[place] = result[v];
    }
  }
  float* partial = args.partial + blockIdx.x * int64_t{2} * args.dim;
  add_columns<kLanes>(weight_sum, args.dim, shared, partial);
  add_columns<kLanes>(bias_sum, args.dim, shared, partial + args.dim);
}

/// A thread a place of the maps: which row it has is known from its window's.
__global__ void __launch_bounds__(kThreads) window_rows_kernel(Awaited<WindowRowsArgs> awaited) {
  const WindowRowsArgs& args = awaited.get();
  const int area = args.side * args.side;
  const auto first = static_cast<int>(blockIdx.x * kThreads + threadIdx.x),
             step = static_cast<int>(gridDim.x) * kThreads;
  for (int image = first; image <= args.images + 1; image += step)
    args.border[image] = area * (image <= args.images ? args.window_start[image] : *args.window_used);
  const int pixels = args.height * args.width, columns = args.width / args.side,
            windows = args.height / args.side * columns;
  const int places = static_cast<int>(args.images) * pixels;
  for (int place = first; place < places; place += step) {
    const int image = place / pixels, pixel = place - image * pixels;
    int y = pixel / args.width - args.shift, x = pixel % args.width - args.shift;
    if (y < 0) y += args.height;
    if (x < 0) x += args.width;
    const int row = y / args.side, column = x / args.side;
    const int slot = args.window_slot[image * windows + row * columns + column];
    const int own = slot * area + (y - row * args.side) * args.side + x - column * args.side;
    args.slot[place] = slot < 0 ? slot : own;
    if (slot >= 0) args.place[own] = place;
  }
}

/// A thread a vector of a window's mean.
template <typename T>
__global__ void __launch_bounds__(kThreads) window_mean_kernel(Awaited<WindowMeanArgs> awaited) {
  const WindowMeanArgs& args = awaited.get();
  using Vector = Vector16<T>;
  constexpr int kWidth = Vector::kWidth;
  const int64_t vectors = args.dim / kWidth;
  const int columns = args.width / args.side, windows = args.height / args.side * columns;
  const int64_t items = args.images * windows * vectors, step = int64_t{gridDim.x} * kThreads;
  const float inverse = 1.0f / static_cast<float>(args.side * args.side);
  for (int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x; item < items; item += step) {
    const int64_t of_all = item / vectors, image = of_all / windows;
    const int window = static_cast<int>(of_all - image * windows);
    const int top = window / columns * args.side + args.shift,
              left = window % columns * args.side + args.shift;
    const auto* x = static_cast<const Vector*>(args.x) + image * args.height * args.width * vectors +
                    (item - of_all * vectors);
    float sum[kWidth] = {};
    for (int row = 0; row < args.side; ++row) {
      const int y = top + row < args.height ? top + row : top + row - args.height;
#pragma unroll 4
      for (int column = 0; column < args.side; ++column) {
        const int at = left + column < args.width ? left + column : left + column - args.width;
        const Vector vector = x[(int64_t{y} * args.width + at) * vectors];
#pragma unroll
        for (int i = 0; i < kWidth; ++i) sum[i] += to_float(vector.values[i]);
      }
    }
    Vector mean;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) mean.values[i] = from_float<T>(sum[i] * inverse);
    static_cast<Vector*>(args.y)[item] = mean;
  }
}

/// A warp a window.
__global__ void __launch_bounds__(kThreads) window_score_kernel(Awaited<WindowScoreGradArgs> awaited) {
  const WindowScoreGradArgs& args = awaited.get();
  const int lane = threadIdx.x % 32, active = *args.active;
  const float price = args.multiplier != nullptr ? static_cast<float>(*args.multiplier) * args.share : 0.0f;
  const int64_t step = int64_t{gridDim.x} * kWarps;
  for (int64_t window = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32; window < args.windows;
       window += step) {
    const int slot = args.slot[window];
    float gain = 0;
    if (slot >= 0)
      for (int place = lane; place < args.places; place += 32)
        gain += args.brought[int64_t{slot} * args.places + place];
    gain = warp_sum(gain) * (slot < active ? 1.0f : args.explored_weight) + price;
    if (lane != 0) continue;
    args.grad_score[window] = score_gradient(gain, args.score[window]);
  }
}

/// `with_short_norm_row` for elements of 16 bits.
template <typename Run>
cudaError_t with_row(ElementType type, int64_t dim, const Run& run) {
  return with_short_norm_row(type, dim, [&](auto element, auto lanes, auto vectors) {
    if constexpr (sizeof(element) == 2)
      return run(element, lanes, vectors);
    else
      return cudaErrorInvalidValue;
  });
}

}  // namespace

bool gathered_norm_fits(ElementType type, int64_t dim) {
  return (type == ElementType::kHalf || type == ElementType::kBFloat16) && norm_row_fits(type, dim);
}

int64_t gathered_norm_blocks(ElementType type, int64_t rows, int64_t dim) {
  return norm_row_blocks(type, rows, dim);
}

cudaError_t launch_gathered_norm(ElementType type, const GatheredNormArgs& args, cudaStream_t stream) {
  return with_row(type, args.dim, [&](auto element, auto lanes, auto vectors) {
    constexpr int kLanes = decltype(lanes)::value;
    const int64_t room = args.rows.sequences * args.rows.tokens, groups = kNormRowThreads / kLanes;
    launch_awaiting(norm_kernel<decltype(element), kLanes, decltype(vectors)::value>,
                    grid_of((room + groups - 1) / groups), kNormRowThreads, 0, stream, args);
    return cudaGetLastError();
  });
}

cudaError_t launch_gathered_norm_grad(ElementType type, const GatheredNormGradArgs& args,
                                      cudaStream_t stream) {
  return with_row(type, args.dim, [&](auto element, auto lanes, auto vectors) {
    const auto bytes = static_cast<size_t>(kNormRowWarps * args.dim) * sizeof(float);
    launch_awaiting(norm_grad_kernel<decltype(element), decltype(lanes)::value, decltype(vectors)::value>,
                    static_cast<unsigned>(args.blocks), kNormRowThreads, bytes, stream, args);
    return cudaGetLastError();
  });
}

cudaError_t launch_window_rows(const WindowRowsArgs& args, cudaStream_t stream) {
  const int64_t places = args.images * args.height * args.width;
  launch_awaiting(window_rows_kernel, grid_of((places + kThreads - 1) / kThreads), kThreads, 0, stream, args);
  return cudaGetLastError();
}

cudaError_t launch_window_means(ElementType type, const WindowMeanArgs& args, cudaStream_t stream) {
  const int64_t windows = args.images * (args.height / args.side) * (args.width / args.side);
  const auto run = [&](auto element) {
    launch_awaiting(window_mean_kernel<decltype(element)>, vector_grid(windows * args.dim), kThreads, 0,
                    stream, args);
    return cudaGetLastError();
  };
  if (type == ElementType::kBFloat16) return run(__nv_bfloat16());
  return type == ElementType::kHalf ? run(__half()) : cudaErrorInvalidValue;
}

cudaError_t launch_window_score_grad(const WindowScoreGradArgs& args, cudaStream_t stream) {
  launch_awaiting(window_score_kernel, grid_of((args.windows + kWarps - 1) / kWarps), kThreads, 0, stream,
                  args);
  return cudaGetLastError();
}

}  // namespace fathom::cuda
