// The product of a causal gate's scorer on Hopper. A tile of tokens is multiplied while it is on its way
// past, and its norm is made of the same elements, W (x · r · g) = r · (W · g) x with r the inverse root mean
// square of a row and g the norm's weight, so nothing is read twice or written in between.
//
// One warp asks for tiles (TMA), two warp groups multiply (wgmma). The projection takes the place of the left
// operand, which lies in registers, where it is scaled: not the states, which may be as large as their type
// allows. Two blocks with other tokens share what they read of it.
#include <algorithm>
#include <cute/arch/cluster_sm90.hpp>

#include "cuda/awaited.cuh"
#include "cuda/hopper_lines.cuh"
#include "cuda/scorer_product.h"
#include "cuda/vectors.cuh"
#include "cuda/warp_products.cuh"

namespace fathom::cuda {
namespace {

constexpr int kGroups = 2, kGroupWarps = 4;  ///< that multiply
constexpr int kWarps = kGroups * kGroupWarps;
constexpr int kProductThreads = 32 * (kWarps + 1);
constexpr int kColumns = 64 * kGroups;  ///< of a block
constexpr int kDepth = kLineElements;   ///< of the reduction that a stage holds
constexpr int kSteps = kDepth / kTerms;
constexpr int kStages = 6;   ///< on their way at once
constexpr int kCluster = 2;  ///< blocks that share the projection
constexpr int kSharedLines = kColumns / kCluster;
constexpr int64_t kMaxDim = 8192;

/// A stage of a block: lines of so many tokens, and of the projection.
template <int kTokens>
struct alignas(kSwizzleBytes) Stage {
  unsigned char x[kTokens * kLineBytes];
  unsigned char project[kColumns * kLineBytes];
};

/// A thread's sums, and those that it reads beside.
template <typename T, int kTokens>
struct Sums {
  float product[kTokens / 2] = {};  ///< as wgmma lays them out: token pairs, rows 8 apart, tokens 8 apart
  float square = 0;                 ///< of its part of one token
};

struct Barriers {
  uint64_t full[kStages], empty[kStages];
};

/// The warps that multiply, and no other.
__device__ void meet() {
  asm volatile("bar.sync 1, %0;" ::"n"(32 * kWarps) : "memory");
}

/// Asks for all stages, one after the other. Of one thread.
template <int kTokens>
__device__ void ask(const ScorerProductArgs& args, const CUtensorMap& x, const CUtensorMap& project,
                    Stage<kTokens>* stages, Barriers& barriers, int steps) {
  const auto rank = static_cast<int>(cute::block_rank_in_cluster());
  const auto first = static_cast<int>(blockIdx.x) * kTokens;
  const int line = static_cast<int>(blockIdx.y) * kColumns + rank * kSharedLines;
  constexpr auto kHint = static_cast<uint64_t>(cute::TMA::CacheHintSm90::EVICT_NORMAL);
  for (int step = 0; step < steps; ++step) {
    const int stage = step % kStages, turn = step / kStages;
    if (turn > 0) Empty::wait(&barriers.empty[stage], (turn - 1) & 1);
    Full::arrive_and_expect_tx(&barriers.full[stage], sizeof(Stage<kTokens>));
    cute::SM90_TMA_LOAD_3D::copy(&x, &barriers.full[stage], kHint, stages[stage].x, step * kDepth, first,
                                 static_cast<int>(blockIdx.z));
    cute::SM90_TMA_LOAD_MULTICAST_2D::copy(&project, &barriers.full[stage], (1 << kCluster) - 1, kHint,
                                           stages[stage].project + rank * kSharedLines * kLineBytes,
                                           step * kDepth, line);
  }
}

/// What this thread adds up of all stages. `norm`: of all of them, zeros behind its end.
template <typename T, int kTokens>
__device__ void add_stages(const uint32_t* norm, Stage<kTokens>* stages, Barriers& barriers, int steps,
                           Sums<T, kTokens>& sums) {
  constexpr int kParts = 32 * kWarps / kTokens;  ///< threads that square one token's elements
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int token = static_cast<int>(threadIdx.x) % kTokens, part = static_cast<int>(threadIdx.x) / kTokens;
  for (int step = 0; step < steps; ++step) {
    const int stage = step % kStages;
    const uint32_t x = shared_address(stages[stage].x), project = shared_address(stages[stage].project);
    Full::wait(&barriers.full[stage], step / kStages & 1);
    uint32_t weight[kSteps][4];
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const uint4 loaded = load_matrices(project + place_of(warp * 16 + lane % 16, i * 2 + lane / 16));
      const uint32_t* pairs = norm + step * (kDepth / 2) + i * (kTerms / 2) + lane % 4;
      weight[i][0] = multiplied_pair<T>(loaded.x, pairs[0]);
      weight[i][1] = multiplied_pair<T>(loaded.y, pairs[0]);
      weight[i][2] = multiplied_pair<T>(loaded.z, pairs[4]);
      weight[i][3] = multiplied_pair<T>(loaded.w, pairs[4]);
    }
    const Operand x_operand(x);
    wgmma::begin(sums.product);
#pragma unroll
    for (int i = 0; i < kSteps; ++i)
      wgmma::multiply_held<T, wgmma::Major::K>(sums.product, weight[i], x_operand.at(i * kTerms * 2));
    cute::warpgroup_commit_batch();
#pragma unroll
    for (int i = 0; i < 8 / kParts; ++i) {
      const auto* piece = stages[stage].x + place_of(token, part * (8 / kParts) + i);
      const Vector16<T> elements = *reinterpret_cast<const Vector16<T>*>(piece);
#pragma unroll
      for (const T element : elements.values) sums.square += to_float(element) * to_float(element);
    }
    wgmma::finish(sums.product);
    // Both blocks wait for both before they write over it.
    __syncwarp();
    if (lane < kCluster) Empty::arrive(&barriers.empty[stage], static_cast<uint32_t>(lane), 1);
  }
}

/// 1 / root mean square of the block's tokens, to all of its warps.
template <typename T, int kTokens>
__device__ void find_scales(const ScorerProductArgs& args, const Sums<T, kTokens>& sums,
                            float (&scale)[kTokens]) {
  constexpr int kParts = 32 * kWarps / kTokens;
  __shared__ float squares[kParts][kTokens];
  const int thread = static_cast<int>(threadIdx.x);
  squares[thread / kTokens][thread % kTokens] = sums.square;
  meet();
  if (thread < kTokens) {
    float square = 0;
#pragma unroll
    for (int part = 0; part < kParts; ++part) square += squares[part][thread];
    scale[thread] = rsqrtf(square / static_cast<float>(args.dim) + args.eps);
    const int64_t token = int64_t{blockIdx.x} * kTokens + thread;
    if (token < args.tokens && blockIdx.y == 0) args.scale[blockIdx.z * args.tokens + token] = scale[thread];
  }
  meet();
}

/// Writes the scaled sums, and those of chunks of tokens.
template <typename T, int kTokens>
__device__ void write(const ScorerProductArgs& args, const Sums<T, kTokens>& sums,
                      const float (&scale)[kTokens]) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t first = int64_t{blockIdx.x} * kTokens, sequence = blockIdx.z, columns = 2 * args.inner;
  const int64_t chunks = (args.tokens + kScoreChunk - 1) / kScoreChunk;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t column = int64_t{blockIdx.y} * kColumns + warp * 16 + half * 8 + lane / 4;
    const bool is_there = column < columns;  // all of the warp's or none
#pragma unroll
    for (int chunk = 0; chunk < kTokens / kScoreChunk; ++chunk) {
      float total = 0;
#pragma unroll
      for (int i = 0; i < kScoreChunk / 8; ++i)
#pragma unroll
        for (int pair = 0; pair < 2; ++pair) {
          const int eighth = chunk * (kScoreChunk / 8) + i, token = eighth * 8 + lane % 4 * 2 + pair;
          const float made = sums.product[eighth * 4 + half * 2 + pair] * scale[token];
          if (!is_there || first + token >= args.tokens) continue;
          args.both[(sequence * args.tokens + first + token) * columns + column] = made;
          total += made;
        }
      total = sum_of_four(total);
      const int64_t place = first / kScoreChunk + chunk;
      if (is_there && lane % 4 == 0 && column >= args.inner && place < chunks)
        args.partial[(sequence * chunks + place) * args.inner + column - args.inner] = total;
    }
  }
}

template <typename T, int kTokens>
__global__ void __cluster_dims__(kCluster, 1, 1) __launch_bounds__(kProductThreads, 1)
    product_kernel(Awaited<ScorerProductArgs> awaited, const __grid_constant__ CUtensorMap x,
                   const __grid_constant__ CUtensorMap project) {
  extern __shared__ unsigned char memory[];
  __shared__ Barriers barriers;
  __shared__ float scale[kTokens];
  const uint32_t behind = shared_address(memory) % kSwizzleBytes;
  auto* stages = reinterpret_cast<Stage<kTokens>*>(memory + (kSwizzleBytes - behind) % kSwizzleBytes);
  T* norm = reinterpret_cast<T*>(stages + kStages);
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    for (int stage = 0; stage < kStages; ++stage) {
      Full::init(&barriers.full[stage], 1);
      Empty::init(&barriers.empty[stage], kWarps * kCluster);
    }
    cutlass::arch::fence_barrier_init();
  }
  cute::cluster_sync();
  const ScorerProductArgs& args = awaited.get();
  const int steps = static_cast<int>((args.dim + kDepth - 1) / kDepth);
  if (thread / 32 == kWarps) {
    if (thread % 32 == 0) ask<kTokens>(args, x, project, stages, barriers, steps);
    __syncwarp();
  } else {
    for (int i = thread; i < steps * kDepth; i += 32 * kWarps)
      norm[i] = i < args.dim ? static_cast<const T*>(args.norm)[i] : from_float<T>(0.0f);
    meet();
    Sums<T, kTokens> sums;
    add_stages<T, kTokens>(reinterpret_cast<const uint32_t*>(norm), stages, barriers, steps, sums);
    find_scales(args, sums, scale);
    write(args, sums, scale);
  }
  cute::cluster_sync();  // nobody writes to a block that is gone
}

template <typename T, int kTokens>
cudaError_t product(ElementType type, const ScorerProductArgs& args, cudaStream_t stream) {
  CUtensorMap x, project;
  for (const cudaError_t error : {describe({.type = type,
                                 .begin = args.x,
                                 .elements = args.dim,
                                 .stride = args.dim,
                                 .lines = args.tokens,
                                 .matrices = args.sequences,
                                 .box_lines = kTokens},
                                           x),
                                  describe({.type = type,
                                  .begin = args.project,
                                  .elements = args.dim,
                                  .stride = args.dim,
                                  .lines = 2 * args.inner,
                                  .box_lines = kSharedLines},
                                           project)})
    if (error != cudaSuccess) return error;
  const int64_t tiles = (args.tokens + kTokens - 1) / kTokens;
  const dim3 grid(static_cast<unsigned>((tiles + kCluster - 1) / kCluster * kCluster),
                  static_cast<unsigned>((2 * args.inner + kColumns - 1) / kColumns),
                  static_cast<unsigned>(args.sequences));
  const int64_t norm_bytes = (args.dim + kDepth - 1) / kDepth * kLineBytes;
  const auto bytes = kSwizzleBytes + kStages * sizeof(Stage<kTokens>) + static_cast<size_t>(norm_bytes);
  const auto kernel = product_kernel<T, kTokens>;
  if (const cudaError_t error =
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)))
    return error;
  launch_awaiting(kernel, grid, dim3(kProductThreads), bytes, stream, args, x, project);
  return cudaGetLastError();
}

/// Large tiles read less of the projection, where there are enough of them for nearly all multiprocessors.
template <typename T>
cudaError_t product(ElementType type, const ScorerProductArgs& args, cudaStream_t stream) {
  const int64_t tiles = (args.tokens + 127) / 128 * args.sequences * ((2 * args.inner + 127) / kColumns);
  return tiles >= kMultiprocessors * 3 / 4 ? product<T, 128>(type, args, stream)
                                           : product<T, 64>(type, args, stream);
}

}  // namespace

bool scorer_product_fits(ElementType type, int64_t sequences, int64_t dim, int64_t inner) {
  return (type == ElementType::kHalf || type == ElementType::kBFloat16) && sequences < 65536 && dim > 0 &&
         dim % 8 == 0 && dim <= kMaxDim && inner > 0 && inner % 32 == 0;
}

cudaError_t launch_scorer_product(ElementType type, const ScorerProductArgs& args, cudaStream_t stream) {
  if (!scorer_product_fits(type, args.sequences, args.dim, args.inner)) return cudaErrorInvalidValue;
  return type == ElementType::kHalf ? product<__half>(type, args, stream)
                                    : product<__nv_bfloat16>(type, args, stream);
}

}  // namespace fathom::cuda
