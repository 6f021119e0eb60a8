// half_gemm.h with CUTLASS: the persistent kernels of hopper_gemm.cuh with all rows, whose epilogue adds a
// bias in float32 and rounds once.
#pragma once

#include <limits>

#include "cuda/half_gemm.h"
#include "cuda/hopper_gemm.cuh"
#include "kernels/half_range.h"

namespace fathom::cuda {

/// Sums beyond `largest` become it, with their sign, and are counted.
struct HalfEnds {
  float largest;
  int64_t* saturated;
};

/// An activation as CUTLASS's epilogues take one with arguments. NaN stays.
template <typename T>
struct WithinEnds {
  using Arguments = HalfEnds;
};
template <int kCount>
struct WithinEnds<cutlass::Array<float, kCount>> {
  using Arguments = HalfEnds;
  using Sums = cutlass::Array<float, kCount>;
  __device__ Sums operator()(const Sums& sums, const HalfEnds& ends) const {
    Sums result = sums;
    int beyond = 0;
    CUTLASS_PRAGMA_UNROLL
    for (int i = 0; i < kCount; ++i)
      if (fabsf(sums[i]) > ends.largest) {
        result[i] = copysignf(ends.largest, sums[i]);
        ++beyond;
      }
    if (beyond > 0 && ends.saturated != nullptr)
      atomicAdd(reinterpret_cast<unsigned long long*>(ends.saturated),
                static_cast<unsigned long long>(beyond));
    return result;
  }
};

/// With a bias in float32, or none.
template <typename Out>
using BiasEpilogue = cutlass::epilogue::fusion::LinCombPerColBias<Out, float, float, void>;
template <typename Out>
using EndedBiasEpilogue =
    cutlass::epilogue::fusion::LinCombPerColBiasEltAct<WithinEnds, Out, float, float, void>;

/// `LayoutB` as in Gemm.
template <typename Out, typename LayoutB, typename Shape>
class HalfGemm {
  using Element = cutlass::half_t;
  static constexpr int kAlignment = 16 / sizeof(Element), kOutAlignment = 16 / sizeof(Out);
  static constexpr bool kEnds = std::is_same_v<Out, cutlass::half_t>;

  using Epilogue = typename cutlass::epilogue::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, typename Shape::Tile, typename Shape::Cluster,
      cutlass::epilogue::collective::EpilogueTileAuto, float, float, void, RowMajor, kOutAlignment, Out,
      RowMajor, kOutAlignment, typename Shape::Epilogue,
      std::conditional_t<kEnds, EndedBiasEpilogue<Out>, BiasEpilogue<Out>>>::CollectiveOp;
  using MainLoop = typename cutlass::gemm::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Element, RowMajor, kAlignment, Element, LayoutB,
      kAlignment, float, typename Shape::Tile, typename Shape::Cluster,
      cutlass::gemm::collective::StageCountAutoCarveout<static_cast<int>(
          sizeof(typename Epilogue::SharedStorage))>,
      typename Shape::Kernel>::CollectiveOp;
  using Kernel =
      cutlass::gemm::kernel::GemmUniversal<cute::Shape<int, int, int>, MainLoop, Epilogue, CountedRows>;

  /// Of a matrix whose last dimension is contiguous, or whose last but one is.
  template <typename Stride>
  static Stride stride_of(int rows, int columns) {
    Stride stride{};
    if constexpr (std::is_same_v<std::decay_t<decltype(cute::get<0>(stride))>, int64_t>)
      cute::get<0>(stride) = columns;
    else
      cute::get<1>(stride) = rows;
    return stride;
  }

  static typename Kernel::Arguments arguments_of(const HalfGemmArgs& args,
                                                 const cutlass::KernelHardwareInfo& hardware) {
    const int m = static_cast<int>(args.rows), n = static_cast<int>(args.columns),
              k = static_cast<int>(args.reduced);
    typename Kernel::Arguments arguments{};
    arguments.mode = cutlass::gemm::GemmUniversalMode::kGemm;
    arguments.problem_shape = {m, n, k};
    arguments.mainloop.ptr_A = static_cast<const Element*>(args.a);
    arguments.mainloop.dA = stride_of<typename Kernel::StrideA>(m, k);
    arguments.mainloop.ptr_B = static_cast<const Element*>(args.b);
    arguments.mainloop.dB = stride_of<typename Kernel::StrideB>(n, k);
    arguments.epilogue.thread.alpha = 1.0f;
    arguments.epilogue.thread.beta = 0.0f;
    arguments.epilogue.thread.bias_ptr = args.bias;
    if constexpr (kEnds)
      arguments.epilogue.thread.activation = {
          args.saturates ? kernels::kLargestHalf : std::numeric_limits<float>::infinity(), args.saturated};
    arguments.epilogue.ptr_D = static_cast<Out*>(args.out);
    arguments.epilogue.dD = stride_of<typename Kernel::StrideD>(m, n);
    arguments.hw_info = hardware;
    // Clusters in one line, as CountedRowsScheduler takes them.
    arguments.scheduler.raster_order =
        cutlass::gemm::kernel::detail::PersistentTileSchedulerSm90::RasterOrderOptions::AlongN;
    arguments.scheduler.rows = {nullptr, m};
    return arguments;
  }

 public:
  static cudaError_t launch(const HalfGemmArgs& args, cudaStream_t stream) {
    int device = 0, multiprocessors = 0;
    if (auto error = cudaGetDevice(&device)) return error;
    if (auto error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device))
      return error;
    const auto params =
        Kernel::to_underlying_arguments(arguments_of(args, {device, multiprocessors}), nullptr);
    constexpr auto kernel = cutlass::device_kernel<Kernel>;
    if (auto error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                          Kernel::SharedStorageSize))
      return error;
    cudaLaunchAttribute cluster;
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim = {static_cast<unsigned>(cute::size<0>(typename Shape::Cluster{})),
                              static_cast<unsigned>(cute::size<1>(typename Shape::Cluster{})), 1u};
    cudaLaunchConfig_t config{};
    config.gridDim = Kernel::get_grid_shape(params);
    config.blockDim = Kernel::get_block_shape();
    config.dynamicSmemBytes = Kernel::SharedStorageSize;
    config.stream = stream;
    config.attrs = &cluster;
    config.numAttrs = 1;
    return cudaLaunchKernelEx(&config, kernel, params);
  }
};

template <typename Out>
cudaError_t run_half_gemm(const HalfGemmArgs& args, cudaStream_t stream) {
  const bool large = takes_large_tiles(args.rows, args.columns);
  if (args.is_turned)
    return large ? HalfGemm<Out, ColumnMajor, LargeShape>::launch(args, stream)
                 : HalfGemm<Out, ColumnMajor, SmallShape>::launch(args, stream);
  return large ? HalfGemm<Out, RowMajor, LargeShape>::launch(args, stream)
               : HalfGemm<Out, RowMajor, SmallShape>::launch(args, stream);
}

}  // namespace fathom::cuda
