// Products of matrices in FP8 with a scale for each tile, for Hopper. A block's tile is 256 × 128: one warp
// loads (TMA), two warp groups multiply 128 rows each, in two halves one after the other. The tensor cores'
// own sums go over 128 numbers of K; then they are added, in float32 and scaled, to those in registers, while
// the other warp group multiplies. So large a tile, and two blocks that share their rows of `a`, since the
// second cache could not feed smaller ones.
#include <cuda.h>
#include <cuda_bf16.h>

#include <cutlass/arch/barrier.h>
#include <cutlass/arch/reg_reconfig.h>
#include <cute/arch/cluster_sm90.hpp>
#include <cute/arch/copy_sm90.hpp>
#include <cute/arch/copy_sm90_tma.hpp>
#include <cute/arch/mma_sm90_gmma.hpp>
#include <type_traits>
#include <utility>

#include "cuda/fp8_gemm.h"

namespace fathom::cuda {
namespace {

using cutlass::arch::ClusterBarrier;
using cutlass::arch::ClusterTransactionBarrier;

constexpr int kTile = 128;  ///< side of a tile with a scale, and what a step of the loop takes of K
constexpr int kWarpGroup = 128, kMultiplyingGroups = 2, kGemmThreads = kWarpGroup * (1 + kMultiplyingGroups);
/// Registers of a thread: 512 for three of them, one in each group, is what a multiprocessor has.
constexpr int kLoadingRegisters = 40, kMultiplyingRegisters = 232;
/// A matrix [128, 128] in FP8 and, half of it, in bfloat16: rows of 128 bytes, swizzled.
constexpr int kSquareBytes = kTile * kTile, kStageBytes = 3 * kSquareBytes;
/// What an instruction of a warp group sums: [64, 128] over 32 of K, 64 sums a thread.
constexpr int kHalves = 2, kHalfRows = 64, kSums = 64, kInstructions = kTile / 32;
constexpr int kWarps = kMultiplyingGroups * kWarpGroup / 32;
static_assert(kFp8GemmRows == kMultiplyingGroups * kTile && kTile == kHalves * kHalfRows);

/// Results in bfloat16 leave by way of shared memory, 32 KB a warp group.
template <typename Out>
constexpr bool kIsStaged = std::is_same_v<Out, __nv_bfloat16>;
template <typename Out>
constexpr int kStages = kIsStaged<Out> ? 3 : 4;

struct NothingStaged {};
using StagedSquares = uint8_t[kMultiplyingGroups][2][kSquareBytes];  ///< [group][half of the columns]

template <typename Out>
struct alignas(1024) GemmMemory {
  uint8_t a[kStages<Out>][kMultiplyingGroups][kSquareBytes];
  uint8_t b[kStages<Out>][kSquareBytes];
  std::conditional_t<kIsStaged<Out>, StagedSquares, NothingStaged> out;
  ClusterTransactionBarrier full[kStages<Out>];
  ClusterBarrier empty[kStages<Out>];
};

struct GemmParams {
  CUtensorMap a, b, out;  ///< `out`: of what is staged
  Fp8Plan plan;
  const float* a_scales;
  const float* b_scales;
  const __nv_bfloat16* bias;
  void* result;
  float* sums;
  uint32_t* flags;
  int m, n, b_scale_stride;
};

/// Which stage is next, and how often all have been used.
template <int kCount>
struct Ring {
  int stage = 0;
  uint32_t phase = 0;
  __device__ void advance() {
    if (++stage < kCount) return;
    stage = 0;
    phase ^= 1;
  }
};

/// Of rows of 128 bytes in shared memory, swizzled as TMA writes them.
__device__ uint64_t operand(const void* rows) {
  constexpr uint64_t kSwizzled128 = uint64_t{1} << 62, kEightRows = uint64_t{1024 / 16} << 32,
                     kUnused = uint64_t{1} << 16;
  return kSwizzled128 | kEightRows | kUnused | ((cute::cast_smem_ptr_to_uint(rows) & 0x3ffff) >> 4);
}

template <typename Multiply, size_t... kIndex>
__device__ __forceinline__ void multiply(uint64_t a, uint64_t b, float (&sums)[kSums], bool adds,
                                         std::index_sequence<kIndex...>) {
  Multiply::fma(a, b, sums[kIndex]...,
                adds ? cute::SM90::GMMA::ScaleOut::One : cute::SM90::GMMA::ScaleOut::Zero);
}

/// sums = a bᵀ of [64, 128] and [128, 128]; all of a warp group.
template <typename Multiply>
__device__ __forceinline__ void multiply_half(const uint8_t* a, const uint8_t* b, float (&sums)[kSums]) {
#pragma unroll
  for (int i = 0; i < kSums; ++i) cute::warpgroup_fence_operand(sums[i]);
  cute::warpgroup_arrive();
  const uint64_t left = operand(a), right = operand(b);
#pragma unroll
  for (int i = 0; i < kInstructions; ++i)
    multiply<Multiply>(left + 2 * i, right + 2 * i, sums, i > 0, std::make_index_sequence<kSums>());
  cute::warpgroup_commit_batch();
  cute::warpgroup_wait<0>();
#pragma unroll
  for (int i = 0; i < kSums; ++i) cute::warpgroup_fence_operand(sums[i]);
}

/// Where the tile of a block lies, and of one of its warp groups.
struct BlockTile {
  int row, column;
};
template <int kPair>
__device__ BlockTile block_tile(const Fp8Plan& plan, int tile, int rank) {
  const Fp8TilePlace place = fp8_tile_place(plan, tile);
  return {place.row * kFp8GemmRows, (place.column * kPair + rank) * kFp8GemmColumns};
}

template <typename Out, int kPair>
__device__ void load_tiles(const GemmParams& params, GemmMemory<Out>& memory, int cluster, int rank) {
  constexpr auto kHint = static_cast<uint64_t>(cute::TMA::CacheHintSm90::EVICT_NORMAL);
  Ring<kStages<Out>> ring;
  Fp8Walk walk(params.plan, cluster);
  for (Fp8Work work; walk.next(work);) {
    const BlockTile tile = block_tile<kPair>(params.plan, work.tile, rank);
    for (int block = work.begin; block < work.end; ++block) {
      const int stage = ring.stage, k = block * kTile;
      memory.empty[stage].wait(ring.phase ^ 1);
      memory.full[stage].arrive_and_expect_tx(kStageBytes);
      auto* const full = reinterpret_cast<uint64_t*>(&memory.full[stage]);
      if constexpr (kPair == 2) {
        cute::SM90_TMA_LOAD_MULTICAST_2D::copy(&params.a, full, 3, kHint, memory.a[stage][rank], k,
                                               tile.row + rank * kTile);
      } else {
        for (int group = 0; group < kMultiplyingGroups; ++group)
          cute::SM90_TMA_LOAD_2D::copy(&params.a, full, kHint, memory.a[stage][group], k,
                                       tile.row + group * kTile);
      }
      cute::SM90_TMA_LOAD_2D::copy(&params.b, full, kHint, memory.b[stage], k, tile.column);
      ring.advance();
    }
  }
}

/// The scales of a warp group's tile, a block of K after the other; zeros outside of the product.
struct Scales {
  const float* a;
  const float* b;
  int a_stride;
  bool is_inside;

  __device__ float2 at(int block) const {
    if (!is_inside) return make_float2(0, 0);
    return make_float2(__ldg(a + int64_t{block} * a_stride), __ldg(b + block));
  }
};

__device__ void group_sync(int group) {
  __syncwarp();
  cutlass::arch::NamedBarrier::sync(kWarpGroup, static_cast<uint32_t>(group));
}

__device__ uint32_t load_acquire(const uint32_t* flag) {
  uint32_t value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
  return value;
}
__device__ void store_release(uint32_t* flag, uint32_t value) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" : : "l"(flag), "r"(value) : "memory");
}

/// One warp group's sums: thread t has rows 16 (t / 32) + t % 32 / 4 and 8 below of both halves, and in each
/// eight columns the two at 2 (t % 4): [half][8 columns][row][column].
struct Group {
  float sums[kHalves][kSums];
  int number, thread;

  __device__ __forceinline__ float4* handed_over(const GemmParams& params, int place) const {
    return reinterpret_cast<float4*>(params.sums) +
           (int64_t{place} * kMultiplyingGroups + number) * (kTile * kTile / 4) + thread;
  }

  /// To another block; `place`: of a slot and a block of its cluster.
  __device__ __forceinline__ void hand_over(const GemmParams& params, int place) const {
    float4* const there = handed_over(params, place);
#pragma unroll
    for (int half = 0; half < kHalves; ++half)
#pragma unroll
      for (int i = 0; i < kSums / 4; ++i)
        __stcg(there + (half * (kSums / 4) + i) * kWarpGroup,
               make_float4(sums[half][4 * i], sums[half][4 * i + 1], sums[half][4 * i + 2],
                           sums[half][4 * i + 3]));
    __threadfence();
    group_sync(number);
    if (thread == 0) store_release(params.flags + place * kMultiplyingGroups + number, 1);
  }

  __device__ __forceinline__ void collect(const GemmParams& params, int place) {
    if (thread == 0)
      while (load_acquire(params.flags + place * kMultiplyingGroups + number) == 0) __nanosleep(64);
    group_sync(number);
    const float4* const there = handed_over(params, place);
#pragma unroll
    for (int half = 0; half < kHalves; ++half)
#pragma unroll
      for (int i = 0; i < kSums / 4; ++i) {
        const float4 more = __ldcg(there + (half * (kSums / 4) + i) * kWarpGroup);
        sums[half][4 * i] += more.x;
        sums[half][4 * i + 1] += more.y;
        sums[half][4 * i + 2] += more.z;
        sums[half][4 * i + 3] += more.w;
      }
  }

  /// As they lie: threads of a row share sectors of 32 bytes.
  __device__ __forceinline__ void write(const GemmParams& params, GemmMemory<float>&, int row,
                                        int column) const {
    const int own_row = row + thread / 32 * 16 + thread % 32 / 4, own_column = column + 2 * (thread % 4);
#pragma unroll
    for (int half = 0; half < kHalves; ++half)
#pragma unroll
      for (int below = 0; below < 2; ++below) {
        const int here = own_row + half * kHalfRows + 8 * below;
        if (here >= params.m) continue;
        float* const out = static_cast<float*>(params.result) + int64_t{here} * params.n + own_column;
#pragma unroll
        for (int i = 0; i < kSums / 4; ++i)
          if (own_column + 8 * i < params.n)
            *reinterpret_cast<float2*>(out + 8 * i) =
                make_float2(sums[half][4 * i + 2 * below], sums[half][4 * i + 2 * below + 1]);
      }
  }

  /// By way of shared memory, from where TMA takes them while the next tile is multiplied.
  __device__ __forceinline__ void write(const GemmParams& params, GemmMemory<__nv_bfloat16>& memory, int row,
                                        int column) const {
    if (thread == 0) cute::tma_store_wait<0>();
    group_sync(number);
    const int warp = thread / 32, lane = thread % 32, matrix = lane / 8;
    const int own_row = warp * 16 + matrix % 2 * 8 + lane % 8;
#pragma unroll
    for (int i = 0; i < kTile / 16; ++i) {
      const float2 low = bias(params, column + 16 * i), high = bias(params, column + 16 * i + 8);
      const int eight = 2 * i + matrix / 2;  // of the columns
      uint8_t* const square = memory.out[number][eight / 8];
#pragma unroll
      for (int half = 0; half < kHalves; ++half) {
        const float* const own = sums[half] + 8 * i;
        auto* const there = reinterpret_cast<cute::uint128_t*>(square + (half * kHalfRows + own_row) * 128 +
                                                               (eight % 8 ^ lane % 8) * 16);
        cute::SM90_U32x4_STSM_N::copy(narrowed_pair(own[0], own[1], low), narrowed_pair(own[2], own[3], low),
                                      narrowed_pair(own[4], own[5], high),
                                      narrowed_pair(own[6], own[7], high), *there);
      }
    }
    cute::tma_store_fence();
    group_sync(number);
    if (thread != 0 || row >= params.m) return;
    for (int half = 0; half < 2; ++half)
      if (column + half * kTile / 2 < params.n)
        cute::SM90_TMA_STORE_2D::copy(&params.out, memory.out[number][half], column + half * kTile / 2, row);
    cute::tma_store_arrive();
  }

 private:
  /// Of this thread's two of the eight columns from there on.
  __device__ __forceinline__ float2 bias(const GemmParams& params, int column) const {
    const int own = column + 2 * (thread % 4);
    if (params.bias == nullptr || own >= params.n) return make_float2(0, 0);
    return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(params.bias + own));
  }
  __device__ static uint32_t narrowed_pair(float first, float second, float2 bias) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(first + bias.x, second + bias.y);
    return reinterpret_cast<const uint32_t&>(pair);
  }
};

template <typename Multiply, typename Out, int kPair>
__device__ __forceinline__ void multiply_tiles(const GemmParams& params, GemmMemory<Out>& memory, int cluster,
                                               int rank, int number) {
  Group group;
  group.number = number;
  group.thread = static_cast<int>(threadIdx.x) % kWarpGroup;
  const int lane = group.thread % 32;
  Ring<kStages<Out>> ring;
  Fp8Walk walk(params.plan, cluster);
  for (Fp8Work work; walk.next(work);) {
    const BlockTile tile = block_tile<kPair>(params.plan, work.tile, rank);
    const int row = tile.row + number * kTile;
    const Scales scales = {params.a_scales + row,
                           params.b_scales + int64_t{tile.column / kTile} * params.b_scale_stride, params.m,
                           row < params.m && tile.column < params.n};
#pragma unroll
    for (int half = 0; half < kHalves; ++half)
#pragma unroll
      for (int i = 0; i < kSums; ++i) group.sums[half][i] = 0;
    float2 next = scales.at(work.begin);
    for (int block = work.begin; block < work.end; ++block) {
      const float scale = next.x * next.y;
      if (block + 1 < work.end) next = scales.at(block + 1);
      const int stage = ring.stage;
      memory.full[stage].wait(ring.phase);
#pragma unroll
      for (int half = 0; half < kHalves; ++half) {
        float block_sums[kSums];
        multiply_half<Multiply>(memory.a[stage][number] + half * kHalfRows * kTile, memory.b[stage],
                                block_sums);
        if (half + 1 == kHalves && lane < kPair) memory.empty[stage].arrive(static_cast<uint32_t>(lane));
#pragma unroll
        for (int i = 0; i < kSums; ++i) group.sums[half][i] = fmaf(block_sums[i], scale, group.sums[half][i]);
      }
      ring.advance();
    }
    if (work.slot >= 0) {
      group.hand_over(params, work.slot * kPair + rank);
      continue;
    }
    if (work.collects)
      for_handed_over(params.plan, work.tile, [&](int slot) { group.collect(params, slot * kPair + rank); });
    group.write(params, memory, row, tile.column);
  }
  if (kIsStaged<Out> && group.thread == 0) cute::tma_store_wait<0>();
  __syncwarp();
}

/// All threads of a cluster.
template <int kPair>
__device__ void sync_pair() {
  if constexpr (kPair == 2)
    cute::cluster_sync();
  else
    __syncthreads();
}

template <typename Multiply, typename Out, int kPair>
__global__ void __launch_bounds__(kGemmThreads, 1)
    fp8_gemm_kernel(const __grid_constant__ GemmParams params) {
  extern __shared__ __align__(1024) uint8_t shared[];
  auto& memory = *reinterpret_cast<GemmMemory<Out>*>(shared);
  const int warp = __shfl_sync(0xffffffff, static_cast<int>(threadIdx.x) / 32, 0), group = warp / 4;
  const int rank = static_cast<int>(blockIdx.x) % kPair, cluster = static_cast<int>(blockIdx.x) / kPair;
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kStages<Out>; ++stage) {
      memory.full[stage].init(1);
      memory.empty[stage].init(kPair * kWarps);
    }
    cutlass::arch::fence_barrier_init();
  }
  sync_pair<kPair>();
  if (group == 0) {
    cutlass::arch::warpgroup_reg_dealloc<kLoadingRegisters>();
    if (warp == 0 && cute::elect_one_sync()) load_tiles<Out, kPair>(params, memory, cluster, rank);
    __syncwarp();
  } else {
    cutlass::arch::warpgroup_reg_alloc<kMultiplyingRegisters>();
    multiply_tiles<Multiply, Out, kPair>(params, memory, cluster, rank, group - 1);
  }
  // A block stays until the other has stopped writing to its memory.
  sync_pair<kPair>();
}

using EncodeTiled = decltype(&cuTensorMapEncodeTiled);

/// The driver's function, without linking to the driver; null where it has none.
EncodeTiled find_encode() {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result{};
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result);
  if (error != cudaSuccess || result != cudaDriverEntryPointSuccess) return nullptr;
  return reinterpret_cast<EncodeTiled>(found);
}

struct Matrix {
  CUtensorMapDataType type;
  const void* data;
  int rows, columns, bytes;  ///< `bytes`: of a number
};

/// Pieces of [128 rows, 128 bytes].
cudaError_t map_of(EncodeTiled encode, const Matrix& matrix, CUtensorMap& map) {
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(matrix.columns), static_cast<cuuint64_t>(matrix.rows)};
  const cuuint64_t strides[] = {sizes[0] * static_cast<cuuint64_t>(matrix.bytes)};
  const cuuint32_t box[] = {static_cast<cuuint32_t>(128 / matrix.bytes), kTile}, steps[] = {1, 1};
  const CUresult result = encode(&map, matrix.type, 2, const_cast<void*>(matrix.data), sizes, strides, box,
                                 steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

template <typename Multiply, typename Out, int kPair>
cudaError_t launch(const GemmParams& params, cudaStream_t stream) {
  constexpr auto kernel = fp8_gemm_kernel<Multiply, Out, kPair>;
  constexpr int kBytes = sizeof(GemmMemory<Out>);
  if (auto error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes))
    return error;
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {kPair, 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(params.plan.clusters * kPair));
  config.blockDim = dim3(kGemmThreads);
  config.dynamicSmemBytes = kBytes;
  config.stream = stream;
  config.attrs = &cluster;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, params);
}

template <typename Multiply, typename Out>
cudaError_t launch(const GemmParams& params, int pair, cudaStream_t stream) {
  return pair == 2 ? launch<Multiply, Out, 2>(params, stream) : launch<Multiply, Out, 1>(params, stream);
}

template <typename Multiply>
cudaError_t launch(const GemmParams& params, bool is_narrow, int pair, cudaStream_t stream) {
  return is_narrow ? launch<Multiply, __nv_bfloat16>(params, pair, stream)
                   : launch<Multiply, float>(params, pair, stream);
}

/// Columns of tiles whose operands stay in the second cache while all rows pass by.
constexpr int64_t kBandBytes = int64_t{16} << 20;
/// So many columns of tiles are paired though one may be left over.
constexpr int kManyColumns = 8;

int tiles_of(int size, int tile) {
  return (size + tile - 1) / tile;
}

}  // namespace

Fp8GemmPlan plan_fp8_gemm(const Fp8GemmArgs& args, int multiprocessors, int pair) {
  const int columns = tiles_of(args.n, kFp8GemmColumns);
  if (pair == 0) pair = columns % 2 == 0 || columns > kManyColumns ? 2 : 1;
  const int64_t band = kBandBytes / (int64_t{pair} * kFp8GemmColumns * args.k);
  return {make_fp8_plan(tiles_of(args.m, kFp8GemmRows), tiles_of(columns, pair),
                        static_cast<int>(std::min<int64_t>(band, columns)), tiles_of(args.k, kTile),
                        std::max(1, multiprocessors / pair)),
          pair};
}

cudaError_t launch_fp8_gemm(const Fp8GemmArgs& args, const Fp8GemmPlan& plan, float* sums, uint32_t* flags,
                            cudaStream_t stream) {
  static const EncodeTiled encode = find_encode();
  if (encode == nullptr) return cudaErrorNotSupported;
  GemmParams params{};
  const Matrix a = {CU_TENSOR_MAP_DATA_TYPE_UINT8, args.a, args.m, args.k, 1},
               b = {CU_TENSOR_MAP_DATA_TYPE_UINT8, args.b, args.n, args.k, 1},
               out = {CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, args.out, args.m, args.n, 2};
  if (auto error = map_of(encode, a, params.a)) return error;
  if (auto error = map_of(encode, b, params.b)) return error;
  if (args.is_narrow)
    if (auto error = map_of(encode, out, params.out)) return error;
  params.plan = plan.work;
  params.a_scales = args.a_scales;
  params.b_scales = args.b_scales;
  params.bias = static_cast<const __nv_bfloat16*>(args.bias);
  params.result = args.out;
  params.sums = sums;
  params.flags = flags;
  params.m = args.m;
  params.n = args.n;
  params.b_scale_stride = (plan.work.blocks + 3) / 4 * 4;
  namespace gmma = cute::SM90::GMMA;
  return args.a_format == Fp8Format::kE4M3
             ? launch<gmma::MMA_64x128x32_F32E4M3E4M3_SS_TN<>>(params, args.is_narrow, plan.pair, stream)
             : launch<gmma::MMA_64x128x32_F32E5M2E4M3_SS_TN<>>(params, args.is_narrow, plan.pair, stream);
}

}  // namespace fathom::cuda
