// Norms of rows of which the device alone knows how many there are, forward and backward: memory-bound.
// Backward a row lies in the registers of a warp, or of a few, so all that it takes is asked for at once and
// read once, and neighbouring rows go to different blocks, so that few rows too keep all multiprocessors
// busy.
#include <type_traits>

#include "cuda/awaited.cuh"
#include "cuda/counted_gradients.h"
#include "cuda/counted_rows.h"
#include "cuda/row_grid.h"
#include "cuda/vectors.cuh"

namespace fathom::cuda {
namespace {

constexpr int kNormGradResidents = 2;  ///< blocks of a multiprocessor: what registers are given out for

/// A thread's share of rows that `kRowWarps` neighbouring warps hold together.
template <int kRowWarps>
struct RowShare {
  static constexpr int kLanes = 32 * kRowWarps;
  static constexpr int kRows = kWarps / kRowWarps;  ///< of a block at once
  int lane = static_cast<int>(threadIdx.x) % kLanes;
  int64_t first = blockIdx.x + threadIdx.x / kLanes * int64_t{gridDim.x};  ///< its first row
  int vectors;                                                             ///< of a row

  __device__ explicit RowShare(int64_t row_vectors) : vectors(static_cast<int>(row_vectors)) {}

  __device__ int vector(int k) const { return lane + k * kLanes; }
  __device__ bool has(int k) const { return vector(k) < vectors; }
};

/// From one of a thread's rows to the next.
template <int kRowWarps>
__device__ int64_t row_step() {
  return int64_t{gridDim.x} * RowShare<kRowWarps>::kRows;
}

/// Sums over the threads of a row, in each of them. All of the block take part, and alternate between two of
/// `shared`: who is ahead writes what nobody still reads.
template <int kRowWarps, int kCount>
__device__ void add_over_row(float (&sums)[kCount], float (&shared)[kWarps][kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) sums[i] = warp_sum(sums[i]);
  if constexpr (kRowWarps > 1) {
    const int warp = static_cast<int>(threadIdx.x) / 32, first = warp / kRowWarps * kRowWarps;
    if (threadIdx.x % 32 == 0)
#pragma unroll
      for (int i = 0; i < kCount; ++i) shared[warp][i] = sums[i];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      sums[i] = 0;
#pragma unroll
      for (int other = 0; other < kRowWarps; ++other) sums[i] += shared[first + other][i];
    }
  }
}

/// A warp a row: many warps at once, which keep few registers, hide more of the memory's delay than rows kept
/// whole.
template <typename T, bool kAdds>
__global__ void __launch_bounds__(kThreads) norm_kernel(Awaited<RowNormArgs> awaited) {
  const RowNormArgs& args = awaited.get();
  using Vector = Vector16<T>;
  constexpr int kWidth = Vector::kWidth;
  const int lane = threadIdx.x % 32, vectors = static_cast<int>(args.dim / kWidth);
  const int count = args.rows.start[args.rows.sequences], step = static_cast<int>(gridDim.x) * kWarps;
  const auto* weight = static_cast<const Vector*>(args.weight);
  for (int row = static_cast<int>(blockIdx.x) * kWarps + threadIdx.x / 32; row < count; row += step) {
    const auto* x = static_cast<const Vector*>(args.x) + int64_t{args.rows.place[row]} * vectors;
    const auto* added = static_cast<const Vector*>(args.added) + int64_t{row} * vectors;
    auto* sums = static_cast<Vector*>(args.sums) + int64_t{row} * vectors;
    float square = 0;
    for (int v = lane; v < vectors; v += 32) {
      Vector value = x[v];
      if constexpr (kAdds) {
        const Vector other = added[v];
#pragma unroll
        for (int i = 0; i < kWidth; ++i)
          value.values[i] = from_float<T>(to_float(value.values[i]) + to_float(other.values[i]));
        sums[v] = value;
      }
#pragma unroll
      for (int i = 0; i < kWidth; ++i) square += to_float(value.values[i]) * to_float(value.values[i]);
    }
    const float scale = rsqrtf(warp_sum(square) / static_cast<float>(args.dim) + args.eps);
    auto* y = static_cast<Vector*>(args.y) + int64_t{row} * vectors;
    // Each lane reads again what it read or wrote itself.
    const Vector* normed = kAdds ? sums : x;
    for (int v = lane; v < vectors; v += 32) {
      Vector value = normed[v];
      const Vector w = weight[v];
#pragma unroll
      for (int i = 0; i < kWidth; ++i)
        value.values[i] = from_float<T>(to_float(value.values[i]) * scale * to_float(w.values[i]));
      y[v] = value;
    }
  }
}

/// A thread keeps the sums of its columns over its rows; a block adds up its threads', in a fixed order.
template <typename T, int kRowWarps>
__global__ void __launch_bounds__(kThreads, kNormGradResidents)
    norm_grad_kernel(Awaited<RowNormGradArgs> awaited) {
  const RowNormGradArgs& args = awaited.get();
  using Vector = Vector16<T>;
  constexpr int kWidth = Vector::kWidth;
  using Columns = Elements<float, kWidth>;
  extern __shared__ __align__(16) float columns[];  // [kRows, dim]
  __shared__ float shared[2][kWarps][2];
  const RowShare<kRowWarps> share(args.dim / kWidth);
  const int count = *args.count;
  const float inverse = 1.0f / static_cast<float>(args.dim);
  const auto* weight = static_cast<const Vector*>(args.weight);
  Columns weight_sum[kVectorsAtOnce] = {};
  int turn = 0;
  for (int64_t lead = blockIdx.x; lead < count; lead += row_step<kRowWarps>(), turn ^= 1) {
    const int64_t row = lead - blockIdx.x + share.first, at_row = row * share.vectors;
    const bool real = row < count;
    const int64_t place = real && args.place != nullptr ? args.place[row] : row;
    const int64_t at_place = place * share.vectors;
    Vector value[kVectorsAtOnce], above[kVectorsAtOnce], result[kVectorsAtOnce];
#pragma unroll
    for (int k = 0; k < kVectorsAtOnce; ++k) {
      value[k] = above[k] = result[k] = {};
      if (!real || !share.has(k)) continue;
      above[k] = static_cast<const Vector*>(args.grad)[at_row + share.vector(k)];
      result[k] = static_cast<const Vector*>(args.added)[at_row + share.vector(k)];
      value[k] = static_cast<const Vector*>(args.x)[at_place + share.vector(k)];
    }
    float sums[2] = {0, 0};  // of squares, and of products with the gradient
#pragma unroll
    for (int k = 0; k < kVectorsAtOnce; ++k) {
      if (!share.has(k)) continue;
      const Vector w = weight[share.vector(k)];
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const float element = to_float(value[k].values[i]);
        sums[0] += element * element;
        sums[1] += element * to_float(above[k].values[i]) * to_float(w.values[i]);
      }
    }
    add_over_row<kRowWarps>(sums, shared[turn]);
    if (!real) continue;
    const float scale = rsqrtf(sums[0] * inverse + args.eps);
    const float shared_part = sums[1] * inverse * scale * scale;
#pragma unroll
    for (int k = 0; k < kVectorsAtOnce; ++k) {
      if (!share.has(k)) continue;
      const Vector w = weight[share.vector(k)];
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const float element = to_float(value[k].values[i]), grad = to_float(above[k].values[i]);
        weight_sum[k].values[i] += grad * element * scale;
        result[k].values[i] = from_float<T>(to_float(result[k].values[i]) +
                                            scale * (grad * to_float(w.values[i]) - element * shared_part));
      }
      static_cast<Vector*>(args.grad_x)[at_place + share.vector(k)] = result[k];
    }
  }
  auto* own = reinterpret_cast<Columns*>(columns) + threadIdx.x / share.kLanes * share.vectors;
#pragma unroll
  for (int k = 0; k < kVectorsAtOnce; ++k)
    if (share.has(k)) own[share.vector(k)] = weight_sum[k];
  __syncthreads();
  const int dim = static_cast<int>(args.dim);
  for (int column = static_cast<int>(threadIdx.x); column < dim; column += kThreads) {
    float sum = 0;
#pragma unroll
    for (int row = 0; row < share.kRows; ++row) sum += columns[row * dim + column];
    args.partial[blockIdx.x * args.dim + column] = sum;
  }
}

/// Calls `run` with the number of warps that hold a row.
template <typename Run>
cudaError_t with_row_warps(int64_t vectors, const Run& run) {
  constexpr int64_t kOfWarp = 32 * kVectorsAtOnce;
  if (vectors <= kOfWarp) return run(std::integral_constant<int, 1>());
  if (vectors <= 2 * kOfWarp) return run(std::integral_constant<int, 2>());
  if (vectors <= 4 * kOfWarp) return run(std::integral_constant<int, 4>());
  return vectors <= 8 * kOfWarp ? run(std::integral_constant<int, 8>()) : cudaErrorInvalidValue;
}

template <typename T>
cudaError_t norm(const RowNormArgs& args, cudaStream_t stream) {
  const unsigned grid = grid_of((args.rows.sequences * args.rows.tokens + kWarps - 1) / kWarps);
  if (args.added != nullptr)
    launch_awaiting(norm_kernel<T, true>, grid, kThreads, 0, stream, args);
  else
    launch_awaiting(norm_kernel<T, false>, grid, kThreads, 0, stream, args);
  return cudaGetLastError();
}

template <typename T>
cudaError_t norm_grad(const RowNormGradArgs& args, cudaStream_t stream) {
  return with_row_warps(args.dim / Vector16<T>::kWidth, [&](auto row_warps) {
    constexpr int kRowWarps = decltype(row_warps)::value;
    const auto bytes = static_cast<size_t>(RowShare<kRowWarps>::kRows * args.dim) * sizeof(float);
    launch_awaiting(norm_grad_kernel<T, kRowWarps>, static_cast<unsigned>(args.blocks), kThreads, bytes,
                    stream, args);
    return cudaGetLastError();
  });
}

}  // namespace

int64_t row_norm_grad_blocks(int64_t places) {
  return std::clamp<int64_t>((places + kWarps - 1) / kWarps, 1,
                             int64_t{kMultiprocessors} * kNormGradResidents);
}

cudaError_t launch_row_norm(ElementType type, const RowNormArgs& args, cudaStream_t stream) {
  if (type == ElementType::kBFloat16) return norm<__nv_bfloat16>(args, stream);
  return type == ElementType::kHalf ? norm<__half>(args, stream) : cudaErrorInvalidValue;
}

cudaError_t launch_row_norm_grad(ElementType type, const RowNormGradArgs& args, cudaStream_t stream) {
  if (type == ElementType::kBFloat16) return norm_grad<__nv_bfloat16>(args, stream);
  return type == ElementType::kHalf ? norm_grad<__half>(args, stream) : cudaErrorInvalidValue;
}

}  // namespace fathom::cuda
