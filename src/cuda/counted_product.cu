// Products with a count of rows on the device: what is taken, and by which kernel. A few rows (decoding) are
// bound by the reading of the weight and have a kernel of their own; the rest goes to the tensor cores.
#include <algorithm>
#include <type_traits>
#include <utility>

#include "cuda/awaited.cuh"
#include "cuda/counted_gemm.h"
#include "cuda/vectors.cuh"

namespace fathom::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr int kColumns = 4;      ///< of a block
constexpr int kMostFewRows = 8;  ///< of the kernel below

/// A block makes kColumns columns of y: its threads share the reduction, and each element of the weight is
/// read once.
template <typename T, int kRows>
__global__ void __launch_bounds__(kThreads) few_rows_kernel(Awaited<CountedProductArgs> awaited) {
  const CountedProductArgs& args = awaited.get();
  using Vector = Vector16<T>;
  constexpr int kWidth = Vector::kWidth;
  const int rows = args.count == nullptr ? static_cast<int>(args.rows)
                                         : min(max(__ldg(args.count), 0), static_cast<int>(args.rows));
  if (rows == 0) return;
  const int vectors = static_cast<int>(args.in_dim / kWidth);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kColumns;
  const auto* weight = static_cast<const Vector*>(args.weight) + first * vectors;
  const auto* x = static_cast<const Vector*>(args.x);
  float sums[kColumns][kRows] = {};
  for (int v = threadIdx.x; v < vectors; v += kThreads) {
    Vector vector[kColumns];
#pragma unroll
    for (int c = 0; c < kColumns; ++c) vector[c] = weight[static_cast<int64_t>(c) * vectors + v];
    float w[kColumns][kWidth];
#pragma unroll
    for (int c = 0; c < kColumns; ++c)
#pragma unroll
      for (int i = 0; i < kWidth; ++i) w[c][i] = to_float(vector[c].values[i]);
#pragma unroll
    for (int m = 0; m < kRows; ++m) {
      if (m >= rows) continue;
      const Vector x_vector = x[m * vectors + v];
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const float value = to_float(x_vector.values[i]);
#pragma unroll
        for (int c = 0; c < kColumns; ++c) sums[c][m] += value * w[c][i];
      }
    }
  }
  __shared__ float partial[kWarps][kRows][kColumns];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int c = 0; c < kColumns; ++c)
#pragma unroll
    for (int m = 0; m < kRows; ++m) {
#pragma unroll
      for (int step = 16; step > 0; step /= 2) sums[c][m] += __shfl_xor_sync(0xffffffff, sums[c][m], step);
      if (lane == 0) partial[warp][m][c] = sums[c][m];
    }
  __syncthreads();
  const int m = threadIdx.x / kColumns, c = threadIdx.x % kColumns;
  if (m >= rows) return;
  float sum = 0;
#pragma unroll
  for (int part = 0; part < kWarps; ++part) sum += partial[part][m][c];
  static_cast<T*>(args.y)[m * args.out_dim + first + c] = from_float<T>(sum);
}

template <typename T>
cudaError_t few_rows(const CountedProductArgs& args, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(args.out_dim / kColumns);
  if (args.rows == 1)
    launch_awaiting(few_rows_kernel<T, 1>, blocks, kThreads, 0, stream, args);
  else if (args.rows == 2)
    launch_awaiting(few_rows_kernel<T, 2>, blocks, kThreads, 0, stream, args);
  else if (args.rows <= 4)
    launch_awaiting(few_rows_kernel<T, 4>, blocks, kThreads, 0, stream, args);
  else
    launch_awaiting(few_rows_kernel<T, kMostFewRows>, blocks, kThreads, 0, stream, args);
  return cudaGetLastError();
}

/// What takes the least time, measured in steps of a square tile's reduction (64 rows of 128 by 128, about
/// 0.4 us), and of those the fewest tiles.
WeightGradTiles tiles_of(int64_t rows, int64_t in_dim, int64_t out_dim) {
  constexpr int kMostSplits = 64;
  constexpr double kTileSteps = 6, kLaunchSteps = 8;  // what a tile costs beside its steps; the second kernel
  constexpr double kElementsAStep = 1e5;              // float32 sums written and read again
  const int64_t steps = std::max<int64_t>(1, (rows + 63) / 64);
  WeightGradTiles best;
  std::pair<double, int64_t> least = {-1, 0};
  const auto compare = [&](const WeightGradTiles& way) {
    const int64_t m = way.turned ? in_dim : out_dim, n = way.turned ? out_dim : in_dim;
    const int64_t tiles = (m + 255) / 256 * 2 * ((n + way.columns - 1) / way.columns) * way.splits;
    const auto turns = static_cast<double>((tiles + kMultiprocessors - 1) / kMultiprocessors);
    double time = turns * (static_cast<double>((steps + way.splits - 1) / way.splits) + kTileSteps) *
                  way.columns / kSquareColumns;
    if (way.splits > 1)
      time += kLaunchSteps + static_cast<double>(in_dim * out_dim * way.splits) / kElementsAStep;
    const std::pair<double, int64_t> taken = {time, tiles};
    if (least.first >= 0 && taken >= least) return;
    least = taken;
    best = way;
  };
  for (int splits = 1; splits <= kMostSplits && splits <= steps; ++splits) {
    compare({kSquareColumns, false, splits});
    for (const bool turned : {false, true}) compare({kWideColumns, turned, splits});
  }
  return best;
}

struct alignas(4 * sizeof(float)) Sums {
  float values[4];
};

/// Sums of `splits` parts, each of `vectors` times four.
template <typename Out>
struct SplitSums {
  const Sums* parts;
  Out* out;
  int64_t vectors;
  int splits;
};

/// Adds the sums of the splits in their order.
template <typename Out>
__global__ void __launch_bounds__(kThreads) add_splits_kernel(Awaited<SplitSums<Out>> awaited) {
  const SplitSums<Out>& args = awaited.get();
  const int64_t place = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (place >= args.vectors) return;
  Sums total = args.parts[place];
#pragma unroll 4
  for (int split = 1; split < args.splits; ++split) {
    const Sums more = args.parts[split * args.vectors + place];
    for (int i = 0; i < 4; ++i) total.values[i] += more.values[i];
  }
  for (int i = 0; i < 4; ++i) args.out[place * 4 + i] = from_float<Out>(total.values[i]);
}

template <typename Out>
cudaError_t add_splits(const CountedWeightGradArgs& args, int splits, cudaStream_t stream) {
  const int64_t vectors = args.in_dim * args.out_dim / 4;
  launch_awaiting(add_splits_kernel<Out>, static_cast<unsigned>((vectors + kThreads - 1) / kThreads),
                  kThreads, 0, stream,
                  SplitSums<Out>{static_cast<const Sums*>(args.workspace),
                                 static_cast<Out*>(args.grad_weight), vectors, splits});
  return cudaGetLastError();
}

/// Calls `run` with the element type as the type of a null pointer.
template <typename Args, typename Run>
cudaError_t with_type(ElementType type, const Args& args, const Run& run) {
  if (!counted_product_fits(type, args.rows, args.in_dim, args.out_dim)) return cudaErrorInvalidValue;
  return type == ElementType::kHalf ? run(static_cast<__half*>(nullptr))
                                    : run(static_cast<__nv_bfloat16*>(nullptr));
}

}  // namespace

bool counted_product_fits(ElementType type, int64_t rows, int64_t in_dim, int64_t out_dim) {
  constexpr int64_t kMost = int64_t{1} << 30;
  return (type == ElementType::kHalf || type == ElementType::kBFloat16) && rows >= 0 && in_dim > 0 &&
         out_dim > 0 && in_dim % 8 == 0 && out_dim % 8 == 0 && std::max({rows, in_dim, out_dim}) <= kMost;
}

cudaError_t launch_counted_product(ElementType type, const CountedProductArgs& args, cudaStream_t stream) {
  return with_type(type, args, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    if (args.rows == 0) return cudaSuccess;
    return args.rows <= kMostFewRows ? few_rows<T>(args, stream) : CountedGemm<T>::product(args, stream);
  });
}

cudaError_t launch_counted_input_grad(ElementType type, const CountedInputGradArgs& args,
                                      cudaStream_t stream) {
  return with_type(type, args, [&](auto* null) {
    if (args.rows == 0) return cudaSuccess;
    return CountedGemm<std::remove_pointer_t<decltype(null)>>::input_grad(args, stream);
  });
}

int64_t counted_weight_grad_workspace_bytes(int64_t expected, int64_t in_dim, int64_t out_dim) {
  const int splits = tiles_of(expected, in_dim, out_dim).splits;
  return splits == 1 ? 0 : in_dim * out_dim * splits * static_cast<int64_t>(sizeof(float));
}

cudaError_t launch_counted_weight_grad(ElementType type, const CountedWeightGradArgs& args,
                                       cudaStream_t stream) {
  const bool is_float = args.grad_weight_type == ElementType::kFloat;
  if (args.grad_weight_type != type && !is_float) return cudaErrorInvalidValue;
  return with_type(type, args, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    if (args.rows == 0)
      return cudaMemsetAsync(args.grad_weight, 0,
                             static_cast<size_t>(args.in_dim * args.out_dim) * (is_float ? 4 : 2), stream);
    const WeightGradTiles tiles = tiles_of(args.expected, args.in_dim, args.out_dim);
    const int splits = tiles.splits;
    if (splits > 1 && args.workspace == nullptr) return cudaErrorInvalidValue;
    const cudaError_t error = CountedGemm<T>::weight_grad(args, tiles, stream);
    if (error != cudaSuccess || splits == 1) return error;
    return is_float ? add_splits<float>(args, splits, stream) : add_splits<T>(args, splits, stream);
  });
}

}  // namespace fathom::cuda
