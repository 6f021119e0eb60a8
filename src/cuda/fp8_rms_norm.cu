// RMS norms that are operands of products, and gradients of the sums that they are taken of: written in FP8
// at once. A block has a tile; those of a row are a cluster, and exchange what they have of its sums.
#include "cuda/fp8_rms_norm.h"

#include <cooperative_groups.h>

#include "cuda/fp8_tile.cuh"
#include "cuda/norm_rows.cuh"

namespace fathom::cuda {
namespace {

using State = __nv_bfloat16;
using StateVector = Elements<State, kFp8Width>;
static_assert(kFp8NormBlocks <= kFp8Lanes);

/// Of a tile's rows, what each block of the cluster has.
struct RowParts {
  float of_blocks[kFp8Side][kFp8NormBlocks];
};

/// The thread's own part of its rows becomes the sum over whole rows. By all threads of the cluster, each of
/// which has arrived at its barrier before: then all blocks are there to be written to.
__device__ inline void sum_over_rows(float (&sums)[kFp8Turns], const Fp8Place& place, RowParts& parts) {
  const auto cluster = cooperative_groups::this_cluster();
  const int blocks = static_cast<int>(cluster.num_blocks()), rank = static_cast<int>(cluster.block_rank());
#pragma unroll
  for (int i = 0; i < kFp8Turns; ++i) sums[i] = sum_over_lanes<kFp8Lanes>(sums[i]);
  cluster.barrier_wait();
  if (place.lane < blocks) {
    RowParts* const there = cluster.map_shared_rank(&parts, place.lane);
#pragma unroll
    for (int i = 0; i < kFp8Turns; ++i) there->of_blocks[place.tile_row(i)][rank] = sums[i];
  }
  cluster.sync();
#pragma unroll
  for (int i = 0; i < kFp8Turns; ++i) {
    float sum = 0;
    for (int block = 0; block < blocks; ++block) sum += parts.of_blocks[place.tile_row(i)][block];
    sums[i] = sum;
  }
}

/// Weights of a thread's columns of a tile.
__device__ inline Elements<float, kFp8Width> own_weights(const float* weight, const Fp8Place& place,
                                                         int64_t columns) {
  if (place.own_column() >= columns) return {};
  return rounded_weights<State, kFp8Width>(weight, static_cast<int>(place.own_column() / kFp8Width));
}

__device__ inline StateVector* vector_at(void* x, int64_t row, int64_t columns, int64_t column) {
  return reinterpret_cast<StateVector*>(static_cast<State*>(x) + row * columns + column);
}

/// The sum of a tile's rows, which is written where there is a branch.
__device__ inline void read_sum(const Fp8NormArgs& args, const Fp8Place& place, Fp8Held<State>& held) {
  const Fp8Result& result = args.result;
#pragma unroll
  for (int i = 0; i < kFp8Turns; ++i)
    if (place.is_inside(i, result.rows, result.columns))
      held.rows[i] =
          fp8_vector<State>(args.x, place.row + place.tile_row(i), result.columns, place.own_column());
  if (args.branch == nullptr) return;
  Fp8Held<State> added;
#pragma unroll
  for (int i = 0; i < kFp8Turns; ++i)
    if (place.is_inside(i, result.rows, result.columns))
      added.rows[i] =
          fp8_vector<State>(args.branch, place.row + place.tile_row(i), result.columns, place.own_column());
#pragma unroll
  for (int i = 0; i < kFp8Turns; ++i) {
    if (!place.is_inside(i, result.rows, result.columns)) continue;
#pragma unroll
    for (int j = 0; j < kFp8Width; ++j)
      held.rows[i].values[j] =
          from_float<State>(to_float(held.rows[i].values[j]) + to_float(added.rows[i].values[j]));
    *vector_at(args.sum, place.row + place.tile_row(i), result.columns, place.own_column()) = held.rows[i];
  }
}

template <int kTiles>
__global__ void __launch_bounds__(kFp8Threads, kTiles == 1 ? 3 : 2) norm_kernel(Fp8NormArgs args) {
  __shared__ alignas(16) uint32_t tile[kFp8Side * kFp8Words];
  __shared__ RowParts parts;
  cooperative_groups::this_cluster().barrier_arrive();
  const Fp8Result& result = args.result;
  const auto place_of = [](int t) {
    Fp8Place place = fp8_place();
    place.column = place.column * kTiles + t * kFp8Side;
    return place;
  };
  Fp8Held<State> held[kTiles] = {};
  float scale[kFp8Turns] = {};
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    read_sum(args, place_of(t), held[t]);
#pragma unroll
    for (int i = 0; i < kFp8Turns; ++i)
#pragma unroll
      for (int j = 0; j < kFp8Width; ++j)
        scale[i] += to_float(held[t].rows[i].values[j]) * to_float(held[t].rows[i].values[j]);
  }
  const Fp8Place first = place_of(0);
  sum_over_rows(scale, first, parts);
#pragma unroll
  for (int i = 0; i < kFp8Turns; ++i) {
    const int64_t row = first.row + first.tile_row(i);
    scale[i] = rsqrtf(scale[i] / static_cast<float>(result.columns) + args.eps);
    if (blockIdx.x == 0 && first.lane == 0 && row < result.rows) args.scale[row] = scale[i];
  }
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    const Fp8Place place = place_of(t);
    if (place.column >= result.columns) break;
    const auto weight = own_weights(args.weight, place, result.columns);
#pragma unroll
    for (int i = 0; i < kFp8Turns; ++i)
      if (place.is_inside(i, result.rows, result.columns))
#pragma unroll
        for (int j = 0; j < kFp8Width; ++j)
          held[t].rows[i].values[j] =
              from_float<State>(to_float(held[t].rows[i].values[j]) * scale[i] * weight.values[j]);
    if (t > 0) __syncthreads();
    write_fp8_tile<__NV_E4M3>(held[t], place, result, tile);
  }
}

/// Adds up what threads have of their columns, in a fixed order. `shared`: a row of the tile for each warp.
__device__ inline void write_column_sums(const float (&sums)[kFp8Width], const Fp8Place& place, float* shared,
                                         const Fp8NormGradArgs& args) {
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int j = 0; j < kFp8Width; ++j) {
    const float sum = sums[j] + __shfl_xor_sync(0xffffffff, sums[j], kFp8Lanes);
    if (thread % 32 < kFp8Lanes) shared[thread / 32 * kFp8Side + place.lane * kFp8Width + j] = sum;
  }
  __syncthreads();
  if (thread >= kFp8Side || place.column + thread >= args.result.columns) return;
  float sum = 0;
#pragma unroll
  for (int warp = 0; warp < kFp8Threads / 32; ++warp) sum += shared[warp * kFp8Side + thread];
  args.partial[blockIdx.y * args.result.columns + place.column + thread] = sum;
}

template <__nv_fp8_interpretation_t kFormat>
__global__ void __launch_bounds__(kFp8Threads, 2) norm_grad_kernel(Fp8NormGradArgs args) {
  __shared__ alignas(16) uint32_t tile[kFp8Side * kFp8Words];
  __shared__ RowParts parts;
  cooperative_groups::this_cluster().barrier_arrive();
  const Fp8Result& result = args.result;
  const Fp8Place place = fp8_place();
  const auto* grad_sum = static_cast<const State*>(args.grad_sum);
  Fp8Held<State> value = {}, above = {};
  float scale[kFp8Turns] = {};
#pragma unroll
  for (int i = 0; i < kFp8Turns; ++i) {
    if (!place.is_inside(i, result.rows, result.columns)) continue;
    const int64_t row = place.row + place.tile_row(i);
    value.rows[i] = fp8_vector<State>(args.sum, row, result.columns, place.own_column());
    above.rows[i] = fp8_vector<State>(args.grad, row, result.columns, place.own_column());
    scale[i] = args.scale[row];
    // Read last, when registers are free; on its way while the cluster meets.
    if (grad_sum != nullptr)
      asm volatile("prefetch.global.L2 [%0];" ::"l"(grad_sum + row * result.columns + place.own_column()));
  }
  const auto weight = own_weights(args.weight, place, result.columns);
  float product[kFp8Turns] = {}, learned_sum[kFp8Width] = {};
#pragma unroll
  for (int i = 0; i < kFp8Turns; ++i)
#pragma unroll
    for (int j = 0; j < kFp8Width; ++j) {
      const float learned = to_float(above.rows[i].values[j]) * to_float(value.rows[i].values[j]) * scale[i];
      learned_sum[j] += learned;
      product[i] += learned * weight.values[j];
    }
  write_column_sums(learned_sum, place, reinterpret_cast<float*>(tile), args);
  sum_over_rows(product, place, parts);
  const float inverse = 1.0f / static_cast<float>(result.columns);
#pragma unroll
  for (int i = 0; i < kFp8Turns; ++i) {
    if (!place.is_inside(i, result.rows, result.columns)) continue;
    const int64_t row = place.row + place.tile_row(i);
    StateVector beside = {};
    if (grad_sum != nullptr) beside = fp8_vector<State>(grad_sum, row, result.columns, place.own_column());
#pragma unroll
    for (int j = 0; j < kFp8Width; ++j) {
      const float inner = to_float(above.rows[i].values[j]) * weight.values[j],
                  normed = to_float(value.rows[i].values[j]) * scale[i];
      above.rows[i].values[j] = from_float<State>(to_float(beside.values[j]) +
                                                  scale[i] * (inner - normed * (product[i] * inverse)));
    }
    *vector_at(args.grad_x, row, result.columns, place.own_column()) = above.rows[i];
  }
  write_fp8_tile<kFormat>(above, place, result, tile);
}

/// A row's blocks are a cluster.
template <typename Args>
cudaError_t launch_by_rows(void (*kernel)(Args), const Args& args, int tiles, cudaStream_t stream) {
  cudaLaunchConfig_t config = {};
  config.gridDim = fp8_grid(args.result.rows, args.result.columns);
  config.gridDim.x = (config.gridDim.x + tiles - 1) / tiles;
  config.blockDim = dim3(kFp8Threads);
  config.stream = stream;
  cudaLaunchAttribute cluster = {};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = config.gridDim.x;
  cluster.val.clusterDim.y = 1;
  cluster.val.clusterDim.z = 1;
  config.attrs = &cluster;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, args);
}

}  // namespace

cudaError_t launch_fp8_norm(const Fp8NormArgs& args, cudaStream_t stream) {
  if (args.result.columns > kMostFp8NormColumns) return cudaErrorInvalidValue;
  return args.result.columns <= int64_t{kFp8NormBlocks} * kFp8Side
             ? launch_by_rows(norm_kernel<1>, args, 1, stream)
             : launch_by_rows(norm_kernel<kFp8NormTiles>, args, kFp8NormTiles, stream);
}

cudaError_t launch_fp8_norm_grad(Fp8Format format, const Fp8NormGradArgs& args, cudaStream_t stream) {
  if (args.result.columns > kMostFp8NormGradColumns) return cudaErrorInvalidValue;
  return launch_by_rows(
      format == Fp8Format::kE4M3 ? norm_grad_kernel<__NV_E4M3> : norm_grad_kernel<__NV_E5M2>, args, 1,
      stream);
}

}  // namespace fathom::cuda
