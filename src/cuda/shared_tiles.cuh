// A scheduler for CUTLASS's cooperative kernels whose tiles are those that a count on the device leaves, and
// are divided among blocks as tile_shares.h says.
#pragma once

#include "cuda/counted_tiles.cuh"
#include "cuda/tile_shares.h"

namespace fathom::cuda {

/// Chooses SharedTilesScheduler in CUTLASS's kernels.
template <Counted kCounted>
struct SharedTiles {};

/// Where blocks leave parts of tiles (kPartsBytes): memory as it comes. A flag is a number of 64 bits that
/// nothing else leaves there (as floats NaNs that no operation makes); who has waited for it takes it down.
struct TileParts {
  static constexpr uint64_t kIsThere = 0x7fe1c3a57fb35d19;

  float4* sums = nullptr;  ///< null: nothing is shared
  uint64_t* flags = nullptr;

  TileParts() = default;
  explicit TileParts(void* memory) : sums(static_cast<float4*>(memory)) {
    if (memory != nullptr)
      flags = reinterpret_cast<uint64_t*>(static_cast<float*>(memory) + kMultiprocessors * kPartSums);
  }
};

/// What one warp group leaves in the part `slot`, or adds from there.
template <typename Sums>
class HalfPart {
  static constexpr int kThreads = cutlass::NumThreadsPerWarpGroup;
  static constexpr int kVectors = cute::size(typename Sums::layout_type{}) / 4;
  static_assert(int64_t{4} * kVectors * kThreads * kTileGroups == kPartSums, "parts are large tiles");

 public:
  CUTLASS_DEVICE HalfPart(const TileParts& parts, uint32_t slot, uint32_t group)
      : sums_(parts.sums + (slot * kTileGroups + group) * (kVectors * kThreads) + threadIdx.x % kThreads),
        flag_(parts.flags + slot * kTileGroups + group) {}

  CUTLASS_DEVICE void leave(const Sums& sums) const {
    CUTLASS_PRAGMA_UNROLL
    for (int i = 0; i < kVectors; ++i)
      __stcg(sums_ + i * kThreads,
             make_float4(sums(4 * i), sums(4 * i + 1), sums(4 * i + 2), sums(4 * i + 3)));
    meet();
    if (threadIdx.x % kThreads == 0)
      asm volatile("st.release.gpu.global.u64 [%0], %1;" ::"l"(flag_), "l"(TileParts::kIsThere) : "memory");
  }

  CUTLASS_DEVICE void add_to(Sums& sums) const {
    if (threadIdx.x % kThreads == 0) {
      uint64_t seen = 0;
      do asm volatile("ld.acquire.gpu.global.u64 %0, [%1];" : "=l"(seen) : "l"(flag_) : "memory");
      while (seen != TileParts::kIsThere);
      *flag_ = 0;
    }
    meet();
    constexpr int kAtOnce = 8;
    CUTLASS_PRAGMA_UNROLL
    for (int from = 0; from < kVectors; from += kAtOnce) {
      float4 more[kAtOnce];
      CUTLASS_PRAGMA_UNROLL
      for (int i = 0; i < kAtOnce; ++i) more[i] = __ldcg(sums_ + (from + i) * kThreads);
      CUTLASS_PRAGMA_UNROLL
      for (int i = 0; i < kAtOnce; ++i) {
        sums(4 * (from + i)) += more[i].x;
        sums(4 * (from + i) + 1) += more[i].y;
        sums(4 * (from + i) + 2) += more[i].z;
        sums(4 * (from + i) + 3) += more[i].w;
      }
    }
  }

 private:
  CUTLASS_DEVICE static void meet() {
    cutlass::arch::NamedBarrier::sync(kThreads, cutlass::canonical_warp_group_idx());
  }

  float4* sums_;
  uint64_t* flag_;
};

/// Each role of a block keeps its own copy and reads the count itself, so all see the same pieces; clusters
/// take them whole.
template <Counted kCounted, typename TileShape, typename ClusterShape>
class SharedTilesScheduler : public cutlass::gemm::kernel::detail::PersistentTileSchedulerSm90 {
  using Base = cutlass::gemm::kernel::detail::PersistentTileSchedulerSm90;
  using Tiles = ClusterTiles<TileShape, ClusterShape>;
  static_assert(cute::size<0>(TileShape{}) == kLargeRows && cute::size<1>(TileShape{}) == kLargeColumns &&
                    cute::size<2>(TileShape{}) == kStepDepth && cute::size<0>(ClusterShape{}) == 2 &&
                    cute::size<1>(ClusterShape{}) == 1,
                "as tile_shares.h has them");

 public:
  struct WorkTileInfo : Base::WorkTileInfo {
    TilePiece piece;
  };
  struct Arguments : Base::Arguments {
    RowCount rows;
    TileParts parts;
  };
  struct Params : Base::Params {
    RowCount rows;
    TileParts parts;
    uint32_t m = 0, n = 0, k = 0;
  };

  template <typename Problem>
  static Params to_underlying_arguments(Problem problem, TileShape tile, ClusterShape cluster,
                                        const cutlass::KernelHardwareInfo& hardware, const Arguments& args,
                                        void* workspace = nullptr, uint32_t epilogue_subtile = 1,
                                        uint32_t alignment = 1) {
    Params params;
    static_cast<Base::Params&>(params) = Base::to_underlying_arguments(
        problem, tile, cluster, hardware, args, workspace, epilogue_subtile, alignment);
    params.rows = args.rows;
    params.parts = args.parts;
    params.m = cute::get<0>(problem);
    params.n = cute::get<1>(problem);
    params.k = cute::get<2>(problem);
    return params;
  }

  /// A line of clusters.
  template <typename Problem>
  static dim3 get_grid_shape(const Params& params, const Problem& problem, TileShape tile,
                             ClusterShape cluster, const cutlass::KernelHardwareInfo& hardware,
                             const Arguments& args) {
    if (params.parts.sums != nullptr) return {2, kPairs, 1};
    return Base::get_grid_shape(params, problem, tile, cluster, hardware, args);
  }

  __device__ explicit SharedTilesScheduler(const Params& params) {
#if defined(__CUDA_ARCH__)
    const uint32_t count = params.rows.read();
    const bool counts_rows = kCounted == Counted::kRows;
    tiles_ = Tiles(counts_rows ? count : params.m, params.n);
    const uint32_t reduced = counts_rows ? params.k : max(count, 1);  // of none zeros are written
    const auto shares = share_tiles(tiles_.count(), over(reduced, kStepDepth), params.parts.sums != nullptr);
    pieces_ = PairPieces(shares, Tiles::cluster(), Tiles::clusters());
#endif
  }

  template <typename Cluster>
  __device__ WorkTileInfo initial_work_tile_info(Cluster) {
    return get_current_work();
  }

  __device__ WorkTileInfo get_current_work() const {
    if (pieces_.done()) return {Base::WorkTileInfo::invalid_work_tile(), {}};
    const TilePiece piece = pieces_.piece();
    return {tiles_.place(piece.tile), piece};
  }

  __device__ auto fetch_next_work(const WorkTileInfo&) {
    pieces_.advance();
    return cute::make_tuple(get_current_work(), true);
  }
  template <typename Pipeline, typename State>
  __device__ auto fetch_next_work(const WorkTileInfo& work, Pipeline&, State) {
    return fetch_next_work(work);
  }

  template <typename Problem>
  __device__ static int get_work_k_tile_count(const WorkTileInfo& work, const Problem&, TileShape) {
    return static_cast<int>(work.piece.steps);
  }
  __device__ static uint32_t get_work_k_tile_start(const WorkTileInfo& work) {
    return work.piece.first;
  }

  __device__ static bool compute_epilogue(const WorkTileInfo& work, const Params&) {
    return work.piece.first == 0;
  }

  template <typename Sums>
  CUTLASS_DEVICE static void fixup(const Params& params, const WorkTileInfo& work, Sums& sums, uint32_t,
                                   uint32_t group) {
    const auto half = [&](uint32_t part) {
      return HalfPart<Sums>(params.parts, part * 2 + cute::block_rank_in_cluster(), group);
    };
    if (work.piece.first > 0) return half(work.piece.first_part - 1).leave(sums);
    for (uint32_t part = work.piece.first_part; part < work.piece.last_part; ++part) half(part).add_to(sums);
  }

 private:
  Tiles tiles_;
  PairPieces pieces_;
};

}  // namespace fathom::cuda

namespace cutlass::gemm::kernel::detail {

template <fathom::cuda::Counted kCounted, class TileShape, class ClusterShape, uint32_t kStages>
struct TileSchedulerSelector<fathom::cuda::SharedTiles<kCounted>, arch::Sm90, TileShape, ClusterShape,
                             kStages> {
  using Scheduler = fathom::cuda::SharedTilesScheduler<kCounted, TileShape, ClusterShape>;
};

}  // namespace cutlass::gemm::kernel::detail
