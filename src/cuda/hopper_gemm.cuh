// Products on Hopper with CUTLASS: TMA loads by one warp, wgmma by two warp groups, blocks that stay and take
// tile after tile. What a count on the device shortens, and what becomes of sums on their way out, are the
// caller's.
#pragma once

#include <cutlass/bfloat16.h>
#include <cutlass/device_kernel.h>
#include <cutlass/half.h>

#include <cutlass/epilogue/collective/collective_builder.hpp>
#include <cutlass/gemm/collective/collective_builder.hpp>
#include <cutlass/gemm/kernel/gemm_universal.hpp>
#include <type_traits>

#include "cuda/counted_tiles.cuh"
#include "cuda/early_launch.h"
#include "cuda/element_type.h"
#include "cuda/tile_choice.h"

namespace fathom::cuda {

using RowMajor = cutlass::layout::RowMajor;
using ColumnMajor = cutlass::layout::ColumnMajor;

/// Shape of a block's tile (rows, columns, reduction), clusters that share their loads, and how the two warp
/// groups work: together on one tile, or in turn, so that one stores while the other multiplies.
template <typename Tile_, typename Cluster_, bool kTogether>
struct GemmShape {
  using Tile = Tile_;
  using Cluster = Cluster_;
  using Kernel = std::conditional_t<kTogether, cutlass::gemm::KernelTmaWarpSpecializedCooperative,
                                    cutlass::gemm::KernelTmaWarpSpecializedPingpong>;
  using Epilogue = std::conditional_t<kTogether, cutlass::epilogue::TmaWarpSpecializedCooperative,
                                      cutlass::epilogue::TmaWarpSpecialized>;
};

/// Both warp groups together on 128 rows by so many columns.
template <int kColumns>
using WideShape = GemmShape<cute::Shape<cute::_128, cute::Int<kColumns>, cute::_64>,
                            cute::Shape<cute::_2, cute::_1, cute::_1>, true>;
/// Its multiplications take half as long as its own loads from the second cache would.
using SmallShape = GemmShape<cute::Shape<cute::_64, cute::_128, cute::_64>,
                             cute::Shape<cute::_2, cute::_1, cute::_1>, false>;
/// A warp group on 128 rows by so many columns, in turn.
template <int kColumns>
using TurnShape = GemmShape<cute::Shape<cute::_128, cute::Int<kColumns>, cute::_64>,
                            cute::Shape<cute::_2, cute::_1, cute::_1>, false>;
using SquareShape = TurnShape<128>;

/// What becomes of a tile's sums on their way out.
template <typename Out>
using PlainEpilogue = cutlass::epilogue::fusion::LinearCombination<Out, float, void, float>;
/// out [m, n] = a bᵀ, of a [m, k] and b [n, k]. With `splits`, parts of k go to an output each: [splits, m,
/// n].
struct GemmArgs {
  const void* a;
  const void* b;
  void* out;
  RowCount rows;
  int m;
  int n;
  int k;
  int splits = 1;
};

/// Of a matrix whose last dimension is contiguous, or whose last but one is.
template <typename Stride>
Stride stride_of(int rows, int columns) {
  Stride stride{};
  if constexpr (std::is_same_v<std::decay_t<decltype(cute::get<0>(stride))>, int64_t>)
    cute::get<0>(stride) = columns;
  else
    cute::get<1>(stride) = rows;
  return stride;
}

/// What an epilogue takes that is told nothing.
struct NothingMore {
  template <typename Arguments>
  void operator()(Arguments& /*arguments*/) const {}
};

/// What the count shortens: m or k.
enum class Counted { kRows, kReduction };

/// `LayoutA`: RowMajor if a is stored as [m, k], ColumnMajor as [k, m]; `LayoutB`: ColumnMajor if b is stored
/// as [n, k], RowMajor as [k, n] (the words are those of BLAS, where b is [k, n]); `LayoutOut`: ColumnMajor
/// if out is stored as [n, m].
template <typename Element, typename Out, typename LayoutA, typename LayoutB, typename Shape,
          Counted kCounted, typename Fusion = PlainEpilogue<Out>, typename LayoutOut = RowMajor>
class Gemm {
  static constexpr int kAlignment = 16 / sizeof(Element), kOutAlignment = 16 / sizeof(Out);
  static constexpr bool kReduction = kCounted == Counted::kReduction;

  using Epilogue = typename cutlass::epilogue::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, typename Shape::Tile, typename Shape::Cluster,
      cutlass::epilogue::collective::EpilogueTileAuto, float, float, void, LayoutOut, kOutAlignment, Out,
      LayoutOut, kOutAlignment, typename Shape::Epilogue, Fusion>::CollectiveOp;
  using MainLoop = typename cutlass::gemm::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Element, LayoutA, kAlignment, Element, LayoutB,
      kAlignment, float, typename Shape::Tile, typename Shape::Cluster,
      cutlass::gemm::collective::StageCountAutoCarveout<static_cast<int>(
          sizeof(typename Epilogue::SharedStorage))>,
      typename Shape::Kernel>::CollectiveOp;
  using Kernel = cutlass::gemm::kernel::GemmUniversal<
      std::conditional_t<kReduction, cute::Shape<int, int, int, int>, cute::Shape<int, int, int>>,
      std::conditional_t<kReduction, CountedReduction<MainLoop>, MainLoop>, Epilogue,
      std::conditional_t<kReduction, cutlass::gemm::PersistentScheduler, CountedRows>>;

  /// A product of all rows that takes its multiprocessors several turns is launched when its predecessors
  /// have ended (docs/performance.md, "Launched early").
  static bool comes_early(const GemmArgs& args, int multiprocessors) {
    constexpr int kRows = cute::size<0>(typename Shape::Tile{}),
                  kColumns = cute::size<1>(typename Shape::Tile{});
    const int64_t tiles = int64_t{(args.m + kRows - 1) / kRows} * ((args.n + kColumns - 1) / kColumns);
    return launches_early() && (args.rows.count != nullptr || tiles <= multiprocessors);
  }

 public:
  /// `tell` gets the arguments of the fusion: biases, activations, what it writes beside.
  template <typename Tell = NothingMore>
  static cudaError_t launch(const GemmArgs& args, cudaStream_t stream, const Tell& tell = {}) {
    int device = 0, multiprocessors = 0;
    if (auto error = cudaGetDevice(&device)) return error;
    if (auto error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device))
      return error;
    typename Kernel::Arguments arguments{};
    arguments.mode = cutlass::gemm::GemmUniversalMode::kGemm;
    arguments.mainloop.ptr_A = static_cast<const Element*>(args.a);
    arguments.mainloop.dA = stride_of<typename Kernel::StrideA>(args.m, args.k);
    arguments.mainloop.ptr_B = static_cast<const Element*>(args.b);
    arguments.mainloop.dB = stride_of<typename Kernel::StrideB>(args.n, args.k);
    arguments.epilogue.thread.alpha = 1.0f;
    arguments.epilogue.thread.beta = 0.0f;
    tell(arguments.epilogue.thread);
    arguments.epilogue.ptr_D = static_cast<Out*>(args.out);
    arguments.epilogue.dD = stride_of<typename Kernel::StrideD>(args.m, args.n);
    arguments.hw_info = {device, multiprocessors};
    // Clusters in one line, as CountedRowsScheduler takes them.
    arguments.scheduler.raster_order =
        cutlass::gemm::kernel::detail::PersistentTileSchedulerSm90::RasterOrderOptions::AlongN;
    if constexpr (kReduction) {
      arguments.problem_shape = {args.m, args.n, args.k, args.splits};
      cute::get<2>(arguments.epilogue.dD) = int64_t{args.m} * args.n;
      arguments.mainloop.rows = args.rows;
      arguments.mainloop.splits = args.splits;
    } else {
      arguments.problem_shape = {args.m, args.n, args.k};
      arguments.scheduler.rows = args.rows;
    }
    const auto params = Kernel::to_underlying_arguments(arguments, nullptr);

    constexpr auto kernel = cutlass::device_kernel<Kernel>;
    if (auto error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                          Kernel::SharedStorageSize))
      return error;
    cudaLaunchAttribute attributes[2] = {{}, early_launch()};
    attributes[0].id = cudaLaunchAttributeClusterDimension;
    attributes[0].val.clusterDim = {static_cast<unsigned>(cute::size<0>(typename Shape::Cluster{})),
                                    static_cast<unsigned>(cute::size<1>(typename Shape::Cluster{})), 1u};
    cudaLaunchConfig_t config{};
    config.gridDim = Kernel::get_grid_shape(params);
    config.blockDim = Kernel::get_block_shape();
    config.dynamicSmemBytes = Kernel::SharedStorageSize;
    config.stream = stream;
    config.attrs = attributes;
    config.numAttrs = comes_early(args, multiprocessors) ? 2 : 1;
    return cudaLaunchKernelEx(&config, kernel, params);
  }
};

/// CUTLASS's name of an element type.
template <typename T>
using CutlassType = std::conditional_t<std::is_same_v<T, __half>, cutlass::half_t, cutlass::bfloat16_t>;

/// Calls `run` with the shape whose tiles are through first: small ones, or wide ones of `kColumns` columns.
template <int... kColumns, typename Run>
cudaError_t with_best_shape(int64_t rows, int64_t columns, int64_t depth, const Run& run) {
  const int best = best_columns(rows, columns, depth, {kColumns...});
  if (best == 0) return run(SmallShape());
  cudaError_t error = cudaErrorInvalidValue;
  (void)((best == kColumns && (error = run(WideShape<kColumns>()), true)) || ...);
  return error;
}

}  // namespace fathom::cuda
