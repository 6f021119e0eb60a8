// Norms of rows of which the device alone knows how many there are, forward and backward: memory-bound.
// Backward warps share a row (row_shares.cuh).
#include <type_traits>

#include "cuda/awaited.cuh"
#include "cuda/counted_gradients.h"
#include "cuda/counted_rows.h"
#include "cuda/row_shares.cuh"
#include "cuda/vectors.cuh"

namespace fathom::cuda {
namespace {

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
template <typename T, int kRowWarps, int kVectors>
__global__ void __launch_bounds__(kThreads, row_share_residents(kVectors))
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
  Columns weight_sum[kVectors] = {};
  int turn = 0;
  for (int64_t lead = blockIdx.x; lead < count; lead += row_step<kRowWarps>(), turn ^= 1) {
    const int64_t row = lead - blockIdx.x + share.first, at_row = row * share.vectors;
    const bool real = row < count;
    const int64_t place = real && args.place != nullptr ? args.place[row] : row;
    const int64_t at_place = place * share.vectors;
    Vector value[kVectors], above[kVectors], result[kVectors];
#pragma unroll
    for (int k = 0; k < kVectors; ++k) {
      value[k] = above[k] = result[k] = {};
      if (!real || !share.has(k)) continue;
      above[k] = static_cast<const Vector*>(args.grad)[at_row + share.vector(k)];
      result[k] = static_cast<const Vector*>(args.added)[at_row + share.vector(k)];
      value[k] = static_cast<const Vector*>(args.x)[at_place + share.vector(k)];
    }
    float sums[2] = {0, 0};  // of squares, and of products with the gradient
#pragma unroll
    for (int k = 0; k < kVectors; ++k) {
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
    for (int k = 0; k < kVectors; ++k) {
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
  write_row_columns(weight_sum, share, args.dim, columns, args.partial + blockIdx.x * args.dim);
}

/// Calls `run` with the number of warps that hold a row, and of a lane's vectors.
template <typename Run>
cudaError_t with_row_warps(int64_t vectors, const Run& run) {
  const RowWarps shared = row_warps(vectors);
  const auto one = std::integral_constant<int, 1>();
  switch (shared.warps) {
    case 1:
      return run(one, one);
    case 2:
      return run(std::integral_constant<int, 2>(), one);
    case 4:
      return run(std::integral_constant<int, 4>(), one);
    default:
      break;
  }
  const auto all = std::integral_constant<int, kWarps>();
  if (shared.vectors == 1) return run(all, one);
  if (shared.vectors == 2) return run(all, std::integral_constant<int, 2>());
  return shared.vectors == 4 ? run(all, std::integral_constant<int, 4>()) : cudaErrorInvalidValue;
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
  return with_row_warps(args.dim / Vector16<T>::kWidth, [&](auto warps, auto vectors) {
    constexpr int kRowWarps = decltype(warps)::value, kVectors = decltype(vectors)::value;
    const auto bytes = static_cast<size_t>(RowShare<kRowWarps>::kRows * args.dim) * sizeof(float);
    launch_awaiting(norm_grad_kernel<T, kRowWarps, kVectors>, static_cast<unsigned>(args.blocks), kThreads,
                    bytes, stream, args);
    return cudaGetLastError();
  });
}

}  // namespace

int64_t row_norm_grad_blocks(int64_t places, int64_t dim) {
  const RowWarps shared = row_warps(dim / 8);
  const int64_t at_once = kWarps / shared.warps;
  return std::clamp<int64_t>((places + at_once - 1) / at_once, 1,
                             int64_t{kMultiprocessors} * row_share_residents(shared.vectors));
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
