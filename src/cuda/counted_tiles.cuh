// What a count on the device changes in CUTLASS's persistent kernels: which tiles there are (a product with
// counted rows), and how long the reduction is (a gradient of weights).
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include <cutlass/arch/barrier.h>
#include <cutlass/gemm/kernel/tile_scheduler.hpp>

#include "cuda/awaited.cuh"

namespace fathom::cuda {

/// Rows of `capacity` that a kernel takes.
struct RowCount {
  const int32_t* count = nullptr;
  int32_t capacity = 0;

  /// Waits for what writes the count.
  __device__ int32_t read() const {
    if (count == nullptr) return capacity;
    await_predecessors();
    // Volatile, so that it is not read before.
    return min(max(*static_cast<const volatile int32_t*>(count), 0), capacity);
  }
};

/// Chooses CountedRowsScheduler in CUTLASS's kernels.
struct CountedRows {};

/// Gives the blocks of a persistent kernel the tiles of the counted rows, and no others. Each role of a block
/// keeps its own copy and reads the count itself, so all see the same tiles; clusters take them whole. A few
/// tiles of rows go through all columns before the next few are begun, so that what is read again is still in
/// the L2 cache.
template <typename TileShape, typename ClusterShape>
class CountedRowsScheduler : public cutlass::gemm::kernel::detail::PersistentTileSchedulerSm90 {
  using Base = cutlass::gemm::kernel::detail::PersistentTileSchedulerSm90;
  static constexpr uint32_t kTileRows = cute::size<0>(TileShape{});
  static constexpr uint32_t kClusterRows = cute::size<0>(ClusterShape{});
  static constexpr uint32_t kClusterColumns = cute::size<1>(ClusterShape{});
  static constexpr uint32_t kClusterBlocks = kClusterRows * kClusterColumns;
  static constexpr uint32_t kRowsTogether = 16 / kClusterRows;  ///< of clusters

 public:
  using WorkTileInfo = typename Base::WorkTileInfo;
  struct Arguments : Base::Arguments {
    RowCount rows;
  };
  struct Params : Base::Params {
    RowCount rows;
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
    return params;
  }

  __device__ explicit CountedRowsScheduler(const Params& params) {
#if defined(__CUDA_ARCH__)
    const uint32_t rows = params.rows.read();
    row_clusters_ = (rows + kTileRows * kClusterRows - 1) / (kTileRows * kClusterRows);
    column_clusters_ = params.problem_tiles_n_;
    // The grid is a line of clusters (see the raster order that the launcher asks for).
    cluster_ = (blockIdx.x + blockIdx.y * gridDim.x) / kClusterBlocks;
    stride_ = gridDim.x * gridDim.y / kClusterBlocks;
#endif
  }

  template <typename Cluster>
  __device__ WorkTileInfo initial_work_tile_info(Cluster) {
    return get_current_work();
  }

  __device__ WorkTileInfo get_current_work() const {
    if (cluster_ >= row_clusters_ * column_clusters_) return WorkTileInfo::invalid_work_tile();
    const uint32_t group = cluster_ / (kRowsTogether * column_clusters_), first = group * kRowsTogether;
    const uint32_t inside = cluster_ - first * column_clusters_,
                   height = min(kRowsTogether, row_clusters_ - first);
    const uint32_t column = inside / height, row = first + inside % height;
    const dim3 place = cute::block_id_in_cluster();
    return {static_cast<int32_t>(row * kClusterRows + place.x),
            static_cast<int32_t>(column * kClusterColumns + place.y), 0, true};
  }

  __device__ void advance_to_next_work(uint32_t steps = 1) {
    cluster_ += stride_ * steps;
  }

  /// Of this block, when each role of it takes every `steps`th.
  __device__ bool is_last_tile(const WorkTileInfo&, uint32_t steps = 1) const {
    return cluster_ + stride_ * steps >= row_clusters_ * column_clusters_;
  }

  __device__ auto fetch_next_work(WorkTileInfo) {
    advance_to_next_work();
    return cute::make_tuple(get_current_work(), true);
  }
  template <typename Pipeline, typename State>
  __device__ auto fetch_next_work(WorkTileInfo tile, Pipeline&, State) {
    return fetch_next_work(tile);
  }

 private:
  uint32_t row_clusters_ = 0, column_clusters_ = 0;
  uint32_t cluster_ = 0, stride_ = 0;
};

/// A main loop of CUTLASS whose reduction is as long as the count says, and is divided among `splits` batches
/// of the output. A batch takes its tiles last to first: its last may be partly beyond the count, and then
/// what lies there is cleared in shared memory before the first product reads it. All batches take as many
/// tiles; those that are missing are loaded from beyond the matrices, where TMA gives zeros.
template <typename Base>
struct CountedReduction : Base {
  using TileShape = typename Base::TileShape;
  using MainloopPipeline = typename Base::MainloopPipeline;
  using PipelineState = typename Base::PipelineState;
  static constexpr int kTile = cute::size<2>(TileShape{});

  struct Arguments : Base::Arguments {
    RowCount rows;
    int32_t splits = 1;
  };
  struct Params : Base::Params {
    RowCount rows;
    int32_t splits = 1;
  };
  /// What the load warp tells those that multiply: the rows within the count of the first tile in each stage.
  struct TensorStorage : Base::TensorStorage {
    int32_t rows[Base::DispatchPolicy::Stages];
  };

  template <typename Problem>
  static Params to_underlying_arguments(const Problem& problem, const Arguments& args, void* workspace) {
    const auto operands =
        cute::make_shape(cute::get<0>(problem), cute::get<1>(problem), cute::get<2>(problem));
    Params params;
    static_cast<typename Base::Params&>(params) = Base::to_underlying_arguments(operands, args, workspace);
    params.rows = args.rows;
    params.splits = args.splits;
    return params;
  }

  /// The kernel takes a batch's number of tiles from the shape of these tensors: one at least, so that zeros
  /// are written.
  template <typename Problem>
  __device__ auto load_init(const Problem& problem, const Params& params) const {
    const int tiles = tiles_of(tiles_of(params.rows.read(), kTile), params.splits);
    return Base::load_init(
        cute::make_shape(cute::get<0>(problem), cute::get<1>(problem), max(tiles, 1) * kTile, 1), params);
  }

  /// Of a batch: counts down through `tiles`, then stays `beyond`.
  struct TileIterator {
    int first, tiles, beyond;
    int taken = 0;
    __device__ int operator*() const { return taken < tiles ? first - taken : beyond; }
    __device__ TileIterator& operator++() {
      ++taken;
      return *this;
    }
  };

  template <typename Inputs, typename AnyIterator, typename Place>
  __device__ void load(const Params& params, MainloopPipeline pipeline, PipelineState state,
                       const Inputs& inputs, const Place& place, AnyIterator, int tiles, int lane,
                       uint32_t rank, TensorStorage& storage) {
    const int rows = params.rows.read(), begin = cute::get<3>(place) * tiles;
    const int own = min(max(tiles_of(rows, kTile) - begin, 0), tiles), first = begin + own - 1;
    if (lane == 0) {  // that which acquires the stage below, so that its arrival publishes this
      while (pipeline.producer_try_acquire(state) != cutlass::BarrierStatus::WaitDone) {
      }
      storage.rows[state.index()] = own > 0 ? min(rows - first * kTile, kTile) : kTile;
    }
    __syncwarp();
    Base::load(params, pipeline, state, inputs,
               cute::make_coord(cute::get<0>(place), cute::get<1>(place), cute::_, 0),
               TileIterator{first, own, tiles_of(params.rows.capacity, kTile)}, tiles, lane, rank, storage);
  }

  template <typename Accumulators>
  __device__ void mma(MainloopPipeline pipeline, PipelineState state, Accumulators& sums, int tiles,
                      int thread, TensorStorage& storage, const Params& params) {
    pipeline.consumer_wait(state, pipeline.consumer_try_wait(state));
    const int stage = state.index(), rows = storage.rows[stage];
    if (rows < kTile) {
      clear<0>(cute::make_tensor(cute::make_smem_ptr(storage.smem_A.data()), typename Base::SmemLayoutA{}),
               rows, stage);
      clear<1>(cute::make_tensor(cute::make_smem_ptr(storage.smem_B.data()), typename Base::SmemLayoutB{}),
               rows, stage);
      cutlass::arch::fence_view_async_shared();
      // A barrier of each warp group: those that share a tile clear all of it, with the same zeros.
      cutlass::arch::NamedBarrier::sync(cutlass::NumThreadsPerWarpGroup, cutlass::canonical_warp_group_idx());
    }
    Base::mma(pipeline, state, sums, tiles, thread, storage, params);
  }

 private:
  static_assert(cutlass::gemm::detail::is_major<0, typename Base::StrideA>() &&
                    cutlass::gemm::detail::is_major<0, typename Base::StrideB>(),
                "16-byte vectors lie along the dimension that is not reduced");

  __device__ static int tiles_of(int length, int tile) { return (length + tile - 1) / tile; }

  template <int kOperand, typename Tensor>
  __device__ static void clear(Tensor tile, int rows, int stage) {
    constexpr int kWidth = 16 / sizeof(typename Tensor::value_type);
    constexpr int kVectors = cute::size<kOperand>(TileShape{}) / kWidth;
    for (int i = threadIdx.x % cutlass::NumThreadsPerWarpGroup; i < (kTile - rows) * kVectors;
         i += cutlass::NumThreadsPerWarpGroup)
      *reinterpret_cast<uint4*>(&tile(i % kVectors * kWidth, rows + i / kVectors, stage)) = uint4{};
  }
};

}  // namespace fathom::cuda

namespace cutlass::gemm::kernel::detail {

template <class TileShape, class ClusterShape, uint32_t kStages>
struct TileSchedulerSelector<fathom::cuda::CountedRows, arch::Sm90, TileShape, ClusterShape, kStages> {
  using Scheduler = fathom::cuda::CountedRowsScheduler<TileShape, ClusterShape>;
};

}  // namespace cutlass::gemm::kernel::detail
